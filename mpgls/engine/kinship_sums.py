"""Sums of outer products of SNPs on the process grid: what a kinship is made of.

    S_c = sum_k w_k x_k x_k'     over the SNPs k of chromosome c; x_k is centred by its mean 2 p_k, 0 where missing

    centered        w = 1                       K = sum_c S_c / m          (GEMMA -gk 1)
    standardized    w = 1 / variance of x       K = sum_c S_c / m          (GEMMA -gk 2: missing genotypes at the mean)
    gcta            w = 1 / (2 p (1 - p))       K_ij = sum_c S_c,ij / N_ij over the SNPs that both i and j have
                                                (Yang et al., Nature Genetics 42, 2010, equation 3)

Each rank decodes the rows ([MC,*]) and the columns ([MR,*]) of its own part of S_c from the packed block that all ranks
have, and adds one local matrix product: nothing but packed genotypes travels.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mpgls.engine.genotype_blocks import GenotypeBlocks
from mpgls.engine.kinship_grid import keep_lower, mirror
from mpgls.errors import InputError
from mpgls.la.matrix import GridMatrix
from mpgls.run.clock import Clock
from mpgls.run.world import World
from mpgls.study.chromosomes import Chromosomes
from mpgls.study.genotypes import Decoder, SnpStats
from mpgls.study.tables import SampleId, show_sample

METHODS = ("centered", "standardized", "gcta")
STRIPS = 16
"""Column strips of the local product; above the diagonal a strip is cut off, which saves almost half."""


def chromosome_sums(
    S_grid: GridMatrix,
    genotypes: GenotypeBlocks,
    chromosomes: Chromosomes,
    method: str,
    world: World,
    N_grid: GridMatrix | None = None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Fill ``S_grid`` (n x n, [MC,MR]) with S_c, both triangles, for one chromosome after the other.

    Yields c and the positions of the SNPs that were used: those that pass the filters and vary. At the end ``N_grid``,
    zeros at first, holds the SNPs that each pair of people has. Collective, and so is every step. Raises StorageError,
    or Stopped after a signal, on all ranks.
    """
    products = OuterProducts(S_grid, genotypes, method, world.clock)
    pairs = PairCounts(N_grid, genotypes, world.clock) if N_grid is not None else None
    cut = [genotypes.cut(chromosomes.positions(c)) for c in range(len(chromosomes.labels))]
    stream = genotypes.on_every_rank([snps for blocks in cut for snps in blocks], world)
    progress, done = world.progress("kinship", genotypes.index.size, "SNPs"), 0
    for c, blocks in enumerate(cut):
        S_grid.local[...] = 0.0
        used = [np.empty(0, dtype=np.int64)]
        for snps in blocks:
            packed = next(stream)
            stats, usable = products.add(packed)
            if pairs is not None:
                pairs.add(packed, stats, usable)
            used.append(snps[usable])
            done += snps.size
            progress.at(done)
        with world.phase("mirror"):
            keep_lower(S_grid)
            mirror(S_grid)
            if N_grid is not None and c == len(cut) - 1:
                keep_lower(N_grid)
                mirror(N_grid)
        yield c, np.concatenate(used)


def divide_by_counts(K_grid: GridMatrix, N_grid: GridMatrix, ids: list[SampleId], world: World) -> None:
    """K_ij /= N_ij. Collective. Raises InputError, on all ranks, for two people who have no SNP in common."""
    with world.together():
        apart = np.argwhere(N_grid.local == 0)
        if apart.size:
            i, j = N_grid.row_indices[apart[0, 0]], N_grid.col_indices[apart[0, 1]]
            raise InputError(
                f"samples {show_sample(ids[i])} and {show_sample(ids[j])} have no SNP in common that is not missing: "
                "leave one of them out, or use --mind"
            )
        K_grid.local /= N_grid.local


class _BothSides:
    """Decodes the people of this rank's rows and columns of an n x n matrix, and adds products of them to it."""

    def __init__(self, A_grid: GridMatrix, genotypes: GenotypeBlocks, dtype: type) -> None:
        self.A_grid, self.genotypes = A_grid, genotypes
        sides = A_grid.row_indices, A_grid.col_indices
        # the same people twice: as the rows and as the columns of this rank's part
        self.decode_mc, self.decode_mr = (
            Decoder(genotypes.bed.n, [genotypes.rows[side]], dtype).decode for side in sides
        )
        self.X_mc: np.ndarray = np.empty((sides[0].size, genotypes.width), dtype=dtype, order="F")
        self.X_mr: np.ndarray = np.empty((sides[1].size, genotypes.width), dtype=dtype, order="F")
        self.strips = list(lower_strips(A_grid))
        self.flop = sum(2.0 * (sides[0].size - first) * (strip.stop - strip.start) for first, strip in self.strips)

    def add_product(self, X_mc: np.ndarray, X_mr: np.ndarray) -> None:
        """A += X X': the lower triangle, and of the rest what lies in the same strips."""
        for first, strip in self.strips:
            self.A_grid.local[first:, strip] += X_mc[first:] @ X_mr[strip].T


class OuterProducts(_BothSides):
    """S += sum_k w_k x_k x_k' for blocks of packed SNPs."""

    def __init__(self, S_grid: GridMatrix, genotypes: GenotypeBlocks, method: str, clock: Clock) -> None:
        super().__init__(S_grid, genotypes, np.float64)
        self.method, self.clock = method, clock
        self._everyone = Decoder(genotypes.bed.n, [genotypes.rows], np.float64)

    def add(self, packed: np.ndarray) -> tuple[SnpStats, np.ndarray]:
        """Add the SNPs ``packed`` (B, snp_bytes) that are usable; returns their counts, and which are, (B,) bool."""
        B = packed.shape[0]
        X_mc, X_mr = self.X_mc[:, :B], self.X_mr[:, :B]
        with self.clock.phase("decode", nbytes=packed.size):
            stats = self._everyone.stats(packed)
            usable = self.genotypes.usable(stats)
            weight = usable.astype(np.float64)
            np.divide(weight, _variance(stats, self.method), out=weight, where=usable)
            self.decode_mc(packed, [X_mc], stats)
            self.decode_mr(packed, [X_mr], stats)
            X_mc *= weight
        with self.clock.phase("product", flop=self.flop * B):
            self.add_product(X_mc, X_mr)
        return stats, usable


def _variance(stats: SnpStats, method: str) -> np.ndarray | float:
    """What a method divides each SNP's product by: 1, the variance, or that of Hardy and Weinberg."""
    if method == "centered":
        return 1.0
    return stats.variance if method == "standardized" else stats.mean * (1.0 - stats.mean / 2.0)


class PairCounts(_BothSides):
    """N += the SNPs that both people of a pair have, for blocks of packed SNPs."""

    def __init__(self, N_grid: GridMatrix, genotypes: GenotypeBlocks, clock: Clock) -> None:
        super().__init__(N_grid, genotypes, np.float32)  # sums of a block's zeros and ones are exact
        self.clock = clock

    def add(self, packed: np.ndarray, stats: SnpStats, usable: np.ndarray) -> None:
        """Count the ``usable`` SNPs of ``packed``; a product is needed only for those with missing genotypes."""
        complete = usable & (stats.n_obs == stats.n)
        gaps = np.flatnonzero(usable & ~complete)
        self.A_grid.local += float(complete.sum())
        if gaps.size:
            O_mc, O_mr = self.X_mc[:, : gaps.size], self.X_mr[:, : gaps.size]
            with self.clock.phase("decode", nbytes=gaps.size * packed.shape[1]):
                # x + 1 of a genotype, 0 where there is none
                shift = np.full(gaps.size, -1.0)
                self.decode_mc(packed[gaps], [O_mc], shift=shift)
                self.decode_mr(packed[gaps], [O_mr], shift=shift)
                np.minimum(O_mc, 1.0, out=O_mc)
                np.minimum(O_mr, 1.0, out=O_mr)
            with self.clock.phase("count pairs", flop=self.flop * gaps.size):
                self.add_product(O_mc, O_mr)


def lower_strips(A_grid: GridMatrix) -> Iterator[tuple[int, slice]]:
    """Strips of local columns with the first local row on or below the diagonal of the strip's first column."""
    width = max(1, -(-A_grid.col_indices.size // STRIPS))
    for start in range(0, A_grid.col_indices.size, width):
        strip = slice(start, min(start + width, A_grid.col_indices.size))
        yield int(np.searchsorted(A_grid.row_indices, A_grid.col_indices[start])), strip
