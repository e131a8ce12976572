"""Blocks of SNPs as a stream: dealt to ranks or shared by all, read ahead while the last is worked on, and timed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mpgls.run.world import World
from mpgls.stream.packed import read_snps
from mpgls.study.genotype_files import Genotypes


class PackedBlock(NamedTuple):
    """The packed genotypes (B, snp_bytes) of block ``k`` of this rank, valid until the next block."""

    k: int
    packed: np.ndarray


class SnpStream:
    """This rank's ``blocks`` of .bim rows, in order; ranks may have different ones, and different numbers of them.

    Making it is collective (all ranks raise StorageError if one cannot open the file), iterating is not. The time of
    waiting for a block is part of ``phase``.
    """

    def __init__(
        self, bed: Genotypes, blocks: Sequence[np.ndarray], world: World, phase: str = "read (waiting)"
    ) -> None:
        self.world, self.phase = world, phase
        self.snps = sum(map(len, blocks))
        self._reader = read_snps(bed, blocks, world.comm)

    def __iter__(self) -> Iterator[PackedBlock]:
        reader = iter(self._reader)
        while True:
            with self.world.phase(self.phase) as reading:
                step = next(reader, None)
                if step is None:
                    return
                reading.nbytes += step[1].size
            yield PackedBlock(*step)


def on_every_rank(bed: Genotypes, blocks: Sequence[np.ndarray], world: World) -> Iterator[np.ndarray]:
    """The packed genotypes (B, snp_bytes) of the same ``blocks`` of .bim rows on every rank, one block after the other.

    Each is read once, by one rank, and travels packed, 2 bits a genotype. Collective, and so is every step. Raises
    StorageError, or Stopped after a signal, on all ranks. What is yielded is overwritten by the next step.
    """
    comm = world.comm
    stream = iter(read_snps(bed, blocks[comm.rank :: comm.size], comm))
    buffer = np.empty((max(map(len, blocks), default=0), bed.snp_bytes), dtype=np.uint8)
    for k, block in enumerate(blocks):
        packed = buffer[: len(block)]
        with world.phase("read and share", nbytes=packed.size / comm.size):
            with world.together(stop=True):
                if k % comm.size == comm.rank:
                    packed[...] = next(stream)[1]
            comm.Bcast(packed, root=k % comm.size)
        yield packed


def read_few(bed: Genotypes, rows: np.ndarray, world: World) -> np.ndarray:
    """The packed genotypes (B, snp_bytes) of a few .bim rows, ascending, on every rank. Collective."""
    return next(on_every_rank(bed, [rows], world))


def read_alone(bed: Genotypes, rows: np.ndarray) -> np.ndarray:
    """The genotypes (B, snp_bytes) of a few .bim rows, ascending, on this rank alone. Raises StorageError."""
    from mpi4py import MPI

    ((_, packed),) = read_snps(bed, [rows], MPI.COMM_SELF)
    return packed
