"""Genotypes from their files: the one place that knows how they are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mpgls.mpi import together
from mpgls.stream.reader import BlockReader, RowFiles, RowRuns
from mpgls.study.genotype_files import GenotypeFiles, Genotypes
from mpgls.study.packed_bits import in_order
from mpgls.study.plink import BedFile

if TYPE_CHECKING:
    from mpi4py import MPI


def read_snps(
    genotypes: Genotypes, blocks: Sequence[np.ndarray], comm: MPI.Comm
) -> BlockReader | Iterator[tuple[int, np.ndarray]]:
    """A reader of ``blocks`` of SNPs by their numbers, ascending; they may differ from rank to rank.

    It gives (k, uint8 (SNPs, snp_bytes)) of each block k. Opening is collective over ``comm`` (all ranks raise
    StorageError if one cannot); reading is not.
    """
    whole = genotypes if isinstance(genotypes, GenotypeFiles) else GenotypeFiles.of([genotypes], [None])
    paths = tuple(file.path for file in whole.files)
    with together(comm):
        rows = RowFiles(paths, BedFile.HEADER, whole.snp_bytes, whole.edges[:-1])
        reader = BlockReader(rows, [RowRuns.of(block) for block in blocks])
    return reader if all(order is None for order in whole.orders) else _ordered(reader, blocks, whole)


def _ordered(
    reader: BlockReader, blocks: Sequence[np.ndarray], whole: GenotypeFiles
) -> Iterator[tuple[int, np.ndarray]]:
    """The blocks of ``reader`` with the samples of every file in the order of the first."""
    for k, packed in reader:
        edges = np.searchsorted(blocks[k], whole.edges)
        for order, first, last in zip(whole.orders, edges[:-1], edges[1:], strict=True):
            if order is not None and first < last:
                packed[first:last] = in_order(packed[first:last], order)
        yield k, packed
