"""Packed genotypes from their file: the one place that knows how they are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mpgls.mpi import together
from mpgls.stream.reader import BlockReader, RowRuns
from mpgls.study.plink import BedFile

if TYPE_CHECKING:
    from mpi4py import MPI


def read_snps(bed: BedFile, blocks: Sequence[np.ndarray], comm: MPI.Comm) -> BlockReader:
    """A reader of the packed genotypes of ``blocks`` of .bim rows, which may differ from rank to rank.

    Opening is collective over ``comm`` (all ranks raise StorageError if one cannot); reading is not.
    """
    with together(comm):
        reader = BlockReader(bed.path, bed.HEADER, bed.snp_bytes, [RowRuns.of(block) for block in blocks])
    return reader
