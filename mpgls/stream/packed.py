"""Packed genotypes from their file: the one place that knows how they are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mpgls.mpi import together
from mpgls.stream.reader import BlockReader, RowRuns
from mpgls.study.plink import BedFile
from mpgls.study.ploidy import SexedBed

if TYPE_CHECKING:
    from mpi4py import MPI


def read_snps(
    bed: BedFile, blocks: Sequence[np.ndarray], comm: MPI.Comm
) -> BlockReader | Iterator[tuple[int, np.ndarray]]:
    """A reader of the packed genotypes of ``blocks`` of .bim rows, which may differ from rank to rank.

    Opening is collective over ``comm`` (all ranks raise StorageError if one cannot); reading is not.
    """
    if isinstance(bed, SexedBed):
        return _sexed(bed, blocks, read_snps(bed.plain, blocks, comm))
    with together(comm):
        reader = BlockReader(bed.path, bed.HEADER, bed.snp_bytes, [RowRuns.of(block) for block in blocks])
    return reader


def _sexed(
    bed: SexedBed, blocks: Sequence[np.ndarray], reader: Iterable[tuple[int, np.ndarray]]
) -> Iterator[tuple[int, np.ndarray]]:
    """The blocks of ``reader`` as sex has them."""
    for k, packed in reader:
        yield k, bed.recode(packed, blocks[k])
