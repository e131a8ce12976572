"""Blocks of SNPs that every rank needs: each is read once, by one rank, and travels packed (2 bits a genotype)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mpgls.run.world import World
from mpgls.stream.packed import read_snps
from mpgls.stream.reader import BlockReader
from mpgls.study.filters import SnpFilter, passes
from mpgls.study.genotypes import SnpStats
from mpgls.study.plink import BedFile


@dataclass(frozen=True, eq=False)
class GenotypeBlocks:
    """The .bim rows ``index`` (m,), ascending, over the people ``rows`` (n,) of the .fam, in blocks of ``width`` SNPs.

    ``filters`` are --maf and --geno, which the counts over these people decide. The same on every rank.
    """

    bed: BedFile
    rows: np.ndarray
    index: np.ndarray
    filters: SnpFilter
    width: int

    def cut(self, positions: np.ndarray | None = None) -> list[np.ndarray]:
        """Blocks of the ``positions`` among the m SNPs, or of all of them."""
        wanted = np.arange(self.index.size) if positions is None else positions
        return [wanted[start : start + self.width] for start in range(0, wanted.size, self.width)]

    def usable(self, stats: SnpStats) -> np.ndarray:
        """(B,) bool: which SNPs of a block pass the filters and vary."""
        return passes(stats, self.filters) & ~stats.monomorphic

    def dealt(self, blocks: Sequence[np.ndarray], world: World) -> BlockReader:
        """A reader of the packed genotypes of ``blocks`` of positions, which may differ from rank to rank.

        Opening is collective, reading is not. Raises StorageError on all ranks.
        """
        return read_snps(self.bed, [self.index[block] for block in blocks], world.comm)

    def on_every_rank(self, blocks: Sequence[np.ndarray], world: World) -> Iterator[np.ndarray]:
        """The packed genotypes (B, snp_bytes) of ``blocks`` of positions, one by one, on every rank.

        Collective, and so is every step. Raises StorageError, or Stopped after a signal, on all ranks. What is yielded
        is overwritten by the next step.
        """
        comm = world.comm
        stream = iter(self.dealt(blocks[comm.rank :: comm.size], world))
        buffer = np.empty((max(map(len, blocks), default=0), self.bed.snp_bytes), dtype=np.uint8)
        for k, block in enumerate(blocks):
            packed = buffer[: block.size]
            with world.phase("read and share", nbytes=packed.size / comm.size):
                with world.together(stop=True):
                    if k % comm.size == comm.rank:
                        packed[...] = next(stream)[1]
                comm.Bcast(packed, root=k % comm.size)
            yield packed
