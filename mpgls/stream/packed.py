"""Genotypes from their files: the one place that knows how they are read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mpgls.mpi import together
from mpgls.stream.ahead import AheadReader
from mpgls.stream.reader import BlockReader, RowFiles, RowRuns
from mpgls.study.genotype_files import GenotypeFiles, Genotypes
from mpgls.study.packed_bits import in_order
from mpgls.study.plink import BedFile
from mpgls.study.ploidy import SexedGenotypes

if TYPE_CHECKING:
    from mpi4py import MPI


def read_snps(
    genotypes: Genotypes, blocks: Sequence[np.ndarray], comm: MPI.Comm
) -> BlockReader | AheadReader | Iterator[tuple[int, np.ndarray]]:
    """A reader of ``blocks`` of SNPs by their numbers, ascending; they may differ from rank to rank.

    It gives (k, uint8 (SNPs, snp_bytes)) of each block k. Opening is collective over ``comm`` (all ranks raise
    StorageError if one cannot); reading is not.
    """
    if isinstance(genotypes, SexedGenotypes):
        return _sexed(genotypes, blocks, read_snps(genotypes.plain, blocks, comm))
    whole = genotypes if isinstance(genotypes, GenotypeFiles) else GenotypeFiles.of([genotypes], [None])
    reader: BlockReader | AheadReader
    with together(comm):
        if all(isinstance(file, BedFile) for file in whole.files):
            paths = tuple(file.path for file in whole.files)
            rows = RowFiles(paths, BedFile.HEADER, whole.snp_bytes, whole.edges[:-1])
            reader = BlockReader(rows, [RowRuns.of(block) for block in blocks])
        else:
            reader = AheadReader(whole, blocks)
    return reader if all(order is None for order in whole.orders) else _ordered(reader, blocks, whole)


def _ordered(
    reader: BlockReader | AheadReader, blocks: Sequence[np.ndarray], whole: GenotypeFiles
) -> Iterator[tuple[int, np.ndarray]]:
    """The blocks of ``reader`` with the samples of every file in the order of the first."""
    for k, rows in reader:
        for file, part in whole.split(blocks[k]):
            order = whole.orders[file]
            if order is not None and whole.dosages:
                rows[part] = rows[part].view(np.float32)[:, order].view(np.uint8)
            elif order is not None:
                rows[part] = in_order(rows[part], order)
        yield k, rows


def _sexed(
    genotypes: SexedGenotypes, blocks: Sequence[np.ndarray], reader: Iterable[tuple[int, np.ndarray]]
) -> Iterator[tuple[int, np.ndarray]]:
    """The blocks of ``reader`` as sex has them."""
    for k, rows in reader:
        yield k, genotypes.recode(rows, blocks[k])
