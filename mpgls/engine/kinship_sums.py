"""Sums of outer products of SNPs on the process grid: what a kinship is made of.

    S_c = sum_k x_k x_k'       over the SNPs k of chromosome c;  x_k a SNP, centred by its mean ("centered"), and
                               divided by its standard deviation ("standardized")

Each rank decodes the rows ([MC,*]) and the columns ([MR,*]) of its own part of S_c from the packed block that all ranks
have, and adds one local matrix product: nothing but packed genotypes travels.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mpgls.engine.genotype_blocks import GenotypeBlocks
from mpgls.la.matrix import GridMatrix
from mpgls.run.clock import Clock
from mpgls.run.world import World
from mpgls.engine.kinship_grid import keep_lower, mirror, save_columns
from mpgls.study.chromosomes import Chromosomes
from mpgls.study.genotypes import Decoder

STRIPS = 16
"""Column strips of the local product; above the diagonal a strip is cut off, which saves almost half."""


def chromosome_sums(
    S_grid: GridMatrix, genotypes: GenotypeBlocks, chromosomes: Chromosomes, standardized: bool, world: World
) -> Iterator[tuple[int, np.ndarray]]:
    """Fill ``S_grid`` (n x n, [MC,MR]) with S_c, both triangles, for one chromosome after the other.

    Yields c and the positions of the SNPs that were used: those that pass the filters and vary. Collective, and so is
    every step. Raises StorageError, or Stopped after a signal, on all ranks.
    """
    products = OuterProducts(S_grid, genotypes, standardized, world.clock)
    cut = [genotypes.cut(chromosomes.positions(c)) for c in range(len(chromosomes.labels))]
    stream = genotypes.on_every_rank([snps for blocks in cut for snps in blocks], world)
    progress, done = world.progress("kinship", genotypes.index.size, "SNPs"), 0
    for c, blocks in enumerate(cut):
        S_grid.local[...] = 0.0
        used = [np.empty(0, dtype=np.int64)]
        for snps in blocks:
            used.append(snps[products.add(next(stream))])
            done += snps.size
            progress.at(done)
        keep_lower(S_grid)
        mirror(S_grid)
        yield c, np.concatenate(used)


class OuterProducts:
    """S += X X' for blocks of packed SNPs: the lower triangle, and of the rest what lies in the same strips."""

    def __init__(self, S_grid: GridMatrix, genotypes: GenotypeBlocks, standardized: bool, clock: Clock) -> None:
        self.S_grid, self.genotypes, self.standardized, self.clock = S_grid, genotypes, standardized, clock
        n_file, rows = genotypes.bed.n, genotypes.rows
        sides = S_grid.row_indices, S_grid.col_indices
        # the same people twice: as the rows and as the columns of this rank's part of S
        self._decode_mc, self._decode_mr = (Decoder(n_file, [rows[side]], np.float64).decode for side in sides)
        self._everyone = Decoder(n_file, [rows], np.float64)
        self._X_mc, self._X_mr = (np.empty((side.size, genotypes.width), order="F") for side in sides)
        self._strips = list(lower_strips(S_grid))
        self._flop = sum(2.0 * (sides[0].size - first) * (strip.stop - strip.start) for first, strip in self._strips)

    def add(self, packed: np.ndarray) -> np.ndarray:
        """Add the SNPs ``packed`` (B, snp_bytes) that pass the filters and vary; returns which, (B,) bool."""
        B = packed.shape[0]
        X_mc, X_mr = self._X_mc[:, :B], self._X_mr[:, :B]
        with self.clock.phase("decode", nbytes=packed.size):
            stats = self._everyone.stats(packed)
            usable = self.genotypes.usable(stats)
            scale = usable.astype(np.float64)
            if self.standardized:
                np.divide(scale, stats.variance, out=scale, where=usable)
            self._decode_mc(packed, [X_mc], stats)
            self._decode_mr(packed, [X_mr], stats)
            X_mc *= scale
        with self.clock.phase("product", flop=self._flop * B):
            for first, strip in self._strips:
                self.S_grid.local[first:, strip] += X_mc[first:] @ X_mr[strip].T
        return usable


def lower_strips(S_grid: GridMatrix) -> Iterator[tuple[int, slice]]:
    """Strips of local columns with the first local row on or below the diagonal of the strip's first column."""
    width = max(1, -(-S_grid.col_indices.size // STRIPS))
    for start in range(0, S_grid.col_indices.size, width):
        strip = slice(start, min(start + width, S_grid.col_indices.size))
        yield int(np.searchsorted(S_grid.row_indices, S_grid.col_indices[start])), strip


def save_square(A_grid: GridMatrix, path: str, offset: int) -> None:
    """Write a symmetric matrix, all n x n float64, at byte ``offset`` of an existing file. Collective."""
    n = A_grid.shape[0]
    save_columns(A_grid, path, lambda i: offset + 8 * n * i, lambda row, i: row.astype("<f8"))
