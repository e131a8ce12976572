"""Sums of outer products of SNPs on the process grid: what a kinship is made of.

    S_c = sum_k w_k x_k x_k'     over the SNPs k of chromosome c; x_k is centred by its mean 2 p_k, 0 where missing

    centered        w = 1                       K = sum_c S_c / m          (GEMMA -gk 1)
    standardized    w = 1 / variance of x       K = sum_c S_c / m          (GEMMA -gk 2: missing genotypes at the mean)
    gcta            w = 1 / (2 p (1 - p))       K_ij = sum_c S_c,ij / N_ij over the SNPs that both i and j have
                                                (Yang et al., Nature Genetics 42, 2010, equation 3)

Where w = 1, SNPs that nobody lacks are added as whole numbers in float32, which is exact and takes half the time; all
others are added in float64.

Each rank decodes the rows ([MC,*]) and the columns ([MR,*]) of its own part of S_c from the packed block that all ranks
have, and adds one local matrix product: nothing but packed genotypes travels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from mpgls.engine.genotype_blocks import GenotypeBlocks
from mpgls.engine.kinship_grid import mirror_lower
from mpgls.errors import InputError
from mpgls.la.matrix import GridMatrix
from mpgls.run.clock import Clock
from mpgls.run.world import World
from mpgls.study.chromosomes import Chromosomes
from mpgls.study.count_filters import Dropped
from mpgls.study.genotypes import TWO_COPIES, Decoder, split_rows
from mpgls.study.snp_stats import SnpStats
from mpgls.study.tables import SampleId, show_sample

METHODS = ("centered", "standardized", "gcta")
MOST = 2**24 // 4
"""SNPs of a block whose products of -2, ..., 2 float32 adds up exactly."""
FEW = 64
STRIPS = 16
"""Column strips of the local product; above the diagonal a strip is cut off, which saves almost half."""


class SnpProducts(Protocol):
    """What adds SNPs up in ``S_grid``: `OuterProducts`, or its like on GPUs."""

    S_grid: GridMatrix
    dropped: Dropped

    def add(self, packed: np.ndarray) -> tuple[SnpStats, np.ndarray]:
        """Add the SNPs ``packed`` (B, snp_bytes) that are usable; returns their counts, and which are, (B,) bool."""

    def finish(self) -> None:
        """S has all of its SNPs."""


class SnpPairs(Protocol):
    """What counts the SNPs of each pair of people in ``A_grid``: `PairCounts`, or its like on GPUs."""

    A_grid: GridMatrix

    def add(self, packed: np.ndarray, stats: SnpStats, usable: np.ndarray) -> None:
        """Count the ``usable`` SNPs of ``packed``."""

    def finish(self) -> None:
        """N has all of its SNPs."""


def chromosome_sums(
    products: SnpProducts,
    pairs: SnpPairs | None,
    genotypes: GenotypeBlocks,
    chromosomes: Chromosomes,
    wanted: Sequence[int],
    world: World,
) -> Iterator[tuple[int, np.ndarray]]:
    """Fill S_grid (n x n, [MC,MR]) of ``products`` with S_c, both triangles, for one of the ``wanted`` after the other.

    Yields c and the positions of the SNPs that were used: those that pass the filters and vary. At the end the matrix
    of ``pairs``, zeros at first, holds the SNPs that each pair of people has. Collective, and so is every step. Raises
    StorageError, or Stopped after a signal, on all ranks.
    """
    S_grid = products.S_grid
    cut = {c: genotypes.cut(chromosomes.positions(c)) for c in wanted}
    stream = genotypes.on_every_rank([snps for blocks in cut.values() for snps in blocks], world)
    progress, done = world.progress("kinship", sum(len(snps) for one in cut.values() for snps in one), "SNPs"), 0
    for c, blocks in cut.items():
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
        products.finish()
        with world.phase("mirror"):
            mirror_lower(S_grid)
            if pairs is not None and c == wanted[-1]:
                pairs.finish()
                mirror_lower(pairs.A_grid)
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
    """Decodes the people of this rank's rows and columns of an n x n matrix, and adds products of them to it.

    ``memory`` are columns of the same shapes in float64 whose memory is used.
    """

    def __init__(
        self, A_grid: GridMatrix, genotypes: GenotypeBlocks, dtype: type, memory: Sequence[np.ndarray] = ()
    ) -> None:
        self.A_grid, self.genotypes = A_grid, genotypes
        sides = A_grid.row_indices, A_grid.col_indices
        # the same people twice: as the rows and as the columns of this rank's part
        self.decode_mc, self.decode_mr = (
            Decoder(genotypes.bed.n, [genotypes.rows[side]], dtype, genotypes.bed.males).decode for side in sides
        )
        shapes = [(side.size, genotypes.width) for side in sides]
        flat: list[np.ndarray] = [X.reshape(-1, order="F").view(dtype) for X in memory] or [
            np.empty(r * B, dtype=dtype) for r, B in shapes
        ]
        self.X_mc, self.X_mr = (one[: r * B].reshape(B, r).T for one, (r, B) in zip(flat, shapes, strict=True))
        self.strips = list(lower_strips(A_grid))
        self.flop = sum(2.0 * (sides[0].size - first) * (strip.stop - strip.start) for first, strip in self.strips)
        self._product: np.ndarray = np.empty(
            max((s.stop - s.start for _, s in self.strips), default=0) * sides[0].size, dtype
        )

    def decode(self, packed: np.ndarray, chosen: np.ndarray, shift: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The ``chosen`` SNPs of ``packed`` less ``shift``, 0 where missing, on both sides."""
        X_mc, X_mr = self.X_mc[:, : chosen.size], self.X_mr[:, : chosen.size]
        packed = packed if chosen.size == len(packed) else packed[chosen]
        self.decode_mc(packed, [X_mc], shift=shift)
        self.decode_mr(packed, [X_mr], shift=shift)
        return X_mc, X_mr

    def add_product(self, X_mc: np.ndarray, X_mr: np.ndarray) -> None:
        """A += X X': the lower triangle, and of the rest what lies in the same strips."""
        for first, strip in self.strips:
            shape = strip.stop - strip.start, X_mc.shape[0] - first
            # transposed: then rows of the product lie as the columns of A do
            product = self._product[: shape[0] * shape[1]].reshape(shape)
            np.matmul(X_mr[strip], X_mc[first:].T, out=product)
            self.A_grid.local.T[strip, first:] += product


class WholeProducts(_BothSides):
    """S += sum_k x_k x_k' for SNPs that nobody lacks, by products of whole numbers that float32 holds exactly.

    With a_k = x_k - c_k, c_k the whole number next to the mean, s_k = sum_i a_ik and C = sum_k s_k^2,

        sum_k (x_k - mean)(x_k - mean)' = sum_k a_k a_k' - (R 1' + 1 R') / n + C / n^2,    R = sum_k s_k a_k

    Everything on the right is a whole number before it is divided, so S has the same bits in whatever order, and on
    whatever number of ranks, the sums were formed.
    """

    def __init__(self, S_grid: GridMatrix, genotypes: GenotypeBlocks, memory: Sequence[np.ndarray]) -> None:
        super().__init__(S_grid, genotypes, np.float32, memory)
        self._begin()

    def _begin(self) -> None:
        self.R_mc, self.R_mr, self.C = np.zeros(self.X_mc.shape[0]), np.zeros(self.X_mr.shape[0]), 0

    def decode_whole(self, packed: np.ndarray, stats: SnpStats, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """a of the ``chosen`` SNPs of ``packed`` on both sides, to be added; their means are noted."""
        c = np.rint(stats.mean[chosen])
        A_mc, A_mr = self.decode(packed, chosen, c)
        s = stats.a1_sum[chosen] - stats.n * c
        self.C += int((s.astype(np.int64) ** 2).sum())
        for start in range(0, s.size, FEW):  # a few in float64 at a time
            few = slice(start, start + FEW)
            self.R_mc += A_mc[:, few].astype(np.float64) @ s[few]
            self.R_mr += A_mr[:, few].astype(np.float64) @ s[few]
        return A_mc, A_mr

    def subtract_means(self) -> None:
        """S, which had sums of a_k a_k', becomes that of x_k about their means; the next sums begin."""
        n = self.genotypes.rows.size
        for first, strip in self.strips if self.C else ():  # C = 0: all s_k are 0, or there is no such SNP
            S = self.A_grid.local.T[strip, first:]
            S -= (self.R_mr[strip, None] + self.R_mc[first:]) / n
            S += self.C / n**2
        self._begin()


class OuterProducts(_BothSides):
    """S += sum_k w_k x_k x_k' for blocks of packed SNPs; where w = 1, whole numbers are added where there are such."""

    def __init__(self, S_grid: GridMatrix, genotypes: GenotypeBlocks, method: str, clock: Clock) -> None:
        super().__init__(S_grid, genotypes, np.float64)
        self.S_grid, self.method, self.clock = S_grid, method, clock
        self.dropped = Dropped()
        self._everyone = Decoder(genotypes.bed.n, [genotypes.rows], np.float64, genotypes.bed.males)
        self._whole = WholeProducts(S_grid, genotypes, [self.X_mc, self.X_mr]) if method == "centered" else None

    def add(self, packed: np.ndarray) -> tuple[SnpStats, np.ndarray]:
        """Add the SNPs ``packed`` (B, snp_bytes) that are usable; returns their counts, and which are, (B,) bool."""
        with self.clock.phase("decode", nbytes=packed.size):
            stats = self._everyone.stats(packed)
            usable = self.genotypes.usable(stats, self.dropped)
        left = usable.copy()
        if self._whole is not None and len(packed) <= MOST:
            whole = np.flatnonzero(usable & (stats.n_obs == stats.n) & _are_whole(packed, self.genotypes.bed.n))
            left[whole] = False
            if whole.size:
                with self.clock.phase("decode"):
                    A_mc, A_mr = self._whole.decode_whole(packed, stats, whole)
                with self.clock.phase("product", flop=self.flop * whole.size):
                    self._whole.add_product(A_mc, A_mr)
        if left.any():
            self._add_weighted(packed, stats, np.flatnonzero(left))
        return stats, usable

    def _add_weighted(self, packed: np.ndarray, stats: SnpStats, chosen: np.ndarray) -> None:
        """The ``chosen`` SNPs of ``packed``, in float64."""
        with self.clock.phase("decode"):
            X_mc, X_mr = self.decode(packed, chosen, stats.mean[chosen])
            if self.method != "centered":
                X_mc /= variance_of(stats, self.method)[chosen]
        with self.clock.phase("product in double", flop=self.flop * chosen.size):
            self.add_product(X_mc, X_mr)

    def finish(self) -> None:
        """S has all of its SNPs."""
        if self._whole is not None:
            with self.clock.phase("product"):
                self._whole.subtract_means()


def _are_whole(packed: np.ndarray, n_file: int) -> np.ndarray:
    """(B,) bool: which SNPs have whole numbers of copies in all people; of dosages where all have two copies."""
    rows, kinds = split_rows(packed, n_file)
    if rows.dtype == np.uint8:
        return np.ones(len(rows), dtype=bool)
    two = np.ones(len(rows), dtype=bool) if kinds is None else kinds == TWO_COPIES
    return two & np.array([bool((np.rint(row) == row).all()) for row in rows], dtype=bool)


def variance_of(stats: SnpStats, method: str) -> np.ndarray:
    """What a method divides each SNP's product by: its variance, or that of Hardy and Weinberg."""
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
            with self.clock.phase("decode", nbytes=gaps.size * packed.shape[1]):
                # x + 1 of a genotype, 0 where there is none
                O_mc, O_mr = self.decode(packed, gaps, np.full(gaps.size, -1.0))
                np.minimum(O_mc, 1.0, out=O_mc)
                np.minimum(O_mr, 1.0, out=O_mr)
            with self.clock.phase("count pairs", flop=self.flop * gaps.size):
                self.add_product(O_mc, O_mr)

    def finish(self) -> None:
        """N has all of its SNPs: they were added in place."""


def lower_strips(A_grid: GridMatrix) -> Iterator[tuple[int, slice]]:
    """Strips of local columns with the first local row on or below the diagonal of the strip's first column."""
    width = max(1, -(-A_grid.col_indices.size // STRIPS))
    for start in range(0, A_grid.col_indices.size, width):
        strip = slice(start, min(start + width, A_grid.col_indices.size))
        yield int(np.searchsorted(A_grid.row_indices, A_grid.col_indices[start])), strip
