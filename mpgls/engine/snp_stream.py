"""Blocks of SNPs as a stream: read ahead while the last block is worked on, and timed, in one place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mpgls.run.world import World
from mpgls.stream.packed import read_snps
from mpgls.study.plink import BedFile


class PackedBlock(NamedTuple):
    """The packed genotypes (B, snp_bytes) of block ``k`` of this rank, valid until the next block."""

    k: int
    packed: np.ndarray


class SnpStream:
    """This rank's ``blocks`` of .bim rows, in order; ranks may have different ones, and different numbers of them.

    Making it is collective (all ranks raise StorageError if one cannot open the file), iterating is not.
    """

    def __init__(self, bed: BedFile, blocks: Sequence[np.ndarray], world: World) -> None:
        self.blocks, self.world = blocks, world
        self.snps = sum(map(len, blocks))
        self._reader = read_snps(bed, blocks, world.comm)

    def __iter__(self) -> Iterator[PackedBlock]:
        reader = iter(self._reader)
        while True:
            with self.world.phase("read (waiting)") as reading:
                step = next(reader, None)
                if step is None:
                    return
                reading.nbytes += step[1].size
            yield PackedBlock(*step)
