"""The sums that a kinship is made of, on the cards of the ranks: each has its rank's part of the process grid.

SNPs that nobody lacks are added as whole numbers where the method weighs all alike, as on ranks
(`mpgls.engine.kinship_sums`) and with the same bits. Others are weighted columns in seven int8 parts.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mpgls.device.card import COPIES, PRODUCTS, Card
from mpgls.device.decoder import DeviceDecoder
from mpgls.device.outer import EXACT, OuterSums
from mpgls.device.parts import Columns
from mpgls.device.products import COPIES as MOST_COPIES
from mpgls.device.products import aligned
from mpgls.engine.device_counts import CardCounter
from mpgls.engine.genotype_blocks import GenotypeBlocks
from mpgls.engine.kinship_sums import OuterProducts, PairCounts, SnpPairs, SnpProducts, variance_of
from mpgls.la.matrix import GridMatrix
from mpgls.run.clock import Clock
from mpgls.study.count_filters import Dropped
from mpgls.study.genotypes import split_rows
from mpgls.study.snp_stats import SnpStats


def products_and_pairs(
    S_grid: GridMatrix,
    N_grid: GridMatrix | None,
    genotypes: GenotypeBlocks,
    method: str,
    card: Card | None,
    clock: Clock,
) -> tuple[SnpProducts, SnpPairs | None]:
    """What adds SNPs up in ``S_grid``, and counts them in ``N_grid``: on ranks, or on their ``card``."""
    if card is None:
        pairs = PairCounts(N_grid, genotypes, clock) if N_grid is not None else None
        return OuterProducts(S_grid, genotypes, method, clock), pairs
    products = OuterProductsOnCard(S_grid, genotypes, method, card, clock)
    return products, PairCountsOnCard(N_grid, products) if N_grid is not None else None


class _Chosen(NamedTuple):
    """Some SNPs of a block on the card: packed, c, and d = mean - c, with zeros up to whole memory accesses."""

    packed: Any
    c: Any
    d: Any


class _Side:
    """The people of this rank's rows, or columns: decoded with a row a person, and zeros up to whole accesses."""

    def __init__(self, card: Card, genotypes: GenotypeBlocks, people: np.ndarray) -> None:
        self.card, self.decoder = card, DeviceDecoder(card, genotypes.bed.n, genotypes.rows[people], EXACT)

    def shifted(self, snps: _Chosen) -> Columns:
        """x - c, 0 where missing: parts (people, k)."""
        decode = self.decoder.dosages if snps.packed.dtype == np.float32 else self.decoder.genotypes
        return self._by_people(decode(snps.packed, snps.c))

    def missing(self, packed: Any) -> Columns:
        """1 where missing (people, k)."""
        return self._by_people(self.decoder.missing(packed))

    def _by_people(self, X: Columns) -> Columns:
        return Columns([self.card.xp.ascontiguousarray(part.T) for part in X.parts], X.counts)


class OuterProductsOnCard:
    """S += sum_k w_k x_k x_k' for blocks of packed SNPs; ``finish`` brings S to the grid. As `OuterProducts`."""

    def __init__(self, S_grid: GridMatrix, genotypes: GenotypeBlocks, method: str, card: Card, clock: Clock) -> None:
        self.S_grid, self.genotypes, self.method, self.card, self.clock = S_grid, genotypes, method, card, clock
        self.dropped = Dropped()
        self.rows, self.cols = (_Side(card, genotypes, at) for at in (S_grid.row_indices, S_grid.col_indices))
        self.sums = OuterSums(card, S_grid.row_indices, S_grid.col_indices)
        self._counter = CardCounter(card, genotypes.bed, genotypes.rows)
        self.block = card.xp.zeros(*self._counter.shape(genotypes.width))
        self._on_host = card.host_array(*self._counter.shape(genotypes.width))
        self.done: Any = None
        """The end of what reads ``block``."""
        self._begin()
        card.settle()

    def _begin(self) -> None:
        xp = self.card.xp
        self._R_mc, self._R_mr, self._C = xp.zeros(self.rows.decoder.n), xp.zeros(self.cols.decoder.n), 0

    def add(self, packed: np.ndarray) -> tuple[SnpStats, np.ndarray]:
        """Add the SNPs ``packed`` (B, snp_bytes) that are usable; returns their counts, and which are, (B,) bool."""
        card = self.card
        with self.clock.phase("decode", nbytes=packed.size), card.lane(COPIES):
            if self.done is not None:
                card.wait(self.done)
            self._on_host.view(np.uint8)[: len(packed)] = packed
            card.copy_in(self._on_host, self.block)
            stats = self._counter.stats(packed, self.block[: len(packed)])
            copied = card.mark()
        usable = self.genotypes.usable(stats, self.dropped)
        counts = split_rows(packed, self.genotypes.bed.n)[0].dtype == np.uint8
        alike = usable & (stats.n_obs == stats.n) & (self.method == "centered") & counts
        with card.lane(PRODUCTS):
            card.follow(copied)
            if alike.any():
                self._add_whole(stats, np.flatnonzero(alike))
            if (usable & ~alike).any():
                self._add_weighted(stats, np.flatnonzero(usable & ~alike))
            self.done = card.mark()
        return stats, usable

    def choose(self, chosen: np.ndarray, mean: np.ndarray) -> _Chosen:
        """Some SNPs of the block, to be decoded; those beyond, up to whole memory accesses, are `_blank`."""
        xp, c = self.card.xp, np.rint(mean)
        short = aligned(chosen.size) - chosen.size
        at = xp.asarray(np.concatenate([chosen, np.repeat(chosen[:1], short)]))
        return _Chosen(self.block[at], *(xp.asarray(np.pad(one, (0, short))) for one in (c, mean - c)))

    def _add_whole(self, stats: SnpStats, chosen: np.ndarray) -> None:
        """a = x - c of SNPs that nobody lacks."""
        snps, k = self.choose(chosen, stats.mean[chosen]), chosen.size
        with self.clock.phase("product", flop=self.sums.flop * k):
            A, B = (_blank(side.shifted(snps), k).parts[0] for side in (self.rows, self.cols))
            self.sums.add_whole(A, B, MOST_COPIES)
            s = stats.a1_sum[chosen] - stats.n * np.rint(stats.mean[chosen])
            self._C += int((s.astype(np.int64) ** 2).sum())
            on_card = self.card.xp.asarray(np.pad(s, (0, A.shape[1] - k)))
            self._R_mc += self.sums.times(A, on_card)[: self._R_mc.size]
            self._R_mr += self.sums.times(B, on_card)[: self._R_mr.size]

    def _add_weighted(self, stats: SnpStats, chosen: np.ndarray) -> None:
        """x - mean of the other SNPs, by their weights."""
        xp, snps, k = self.card.xp, self.choose(chosen, stats.mean[chosen]), chosen.size
        gaps = np.flatnonzero(stats.n_obs[chosen] < stats.n)
        with self.clock.phase("product of parts", flop=self.sums.flop * k):
            left, X = (_blank(side.shifted(snps), k) for side in (self.rows, self.cols))
            L = EXACT.join(left) - snps.d
            at, missing = xp.asarray(gaps), None
            if gaps.size:
                of_gaps = self.choose(chosen[gaps], stats.mean[chosen[gaps]]).packed
                L[:, at] += self.rows.missing(of_gaps).parts[0][:, : gaps.size] * snps.d[at]
                missing = _blank(self.cols.missing(of_gaps), gaps.size)
            if self.method != "centered":
                L[:, :k] /= xp.asarray(variance_of(stats, self.method)[chosen])
            L[:, k:] = 0.0
            self.sums.add_weighted(L, X, snps.d, missing, at)

    def finish(self) -> None:
        """S has all of its SNPs."""
        with self.clock.phase("product"), self.card.lane(PRODUCTS):
            n, S = self.genotypes.rows.size, self.S_grid.local
            R_mc, R_mr = self.card.to_host(self._R_mc), self.card.to_host(self._R_mr)
            self.sums.give(S)
            S.T[...] -= (R_mr[:, None] + R_mc) / n
            S += self._C / n**2
            self._begin()


class PairCountsOnCard:
    """N += the SNPs that both people of a pair have, of the block that ``products`` was given last."""

    def __init__(self, N_grid: GridMatrix, products: OuterProductsOnCard) -> None:
        self.A_grid, self.products, self._complete = N_grid, products, 0
        self.sums = OuterSums(products.card, N_grid.row_indices, N_grid.col_indices)

    def add(self, packed: np.ndarray, stats: SnpStats, usable: np.ndarray) -> None:
        """Count the ``usable`` SNPs of ``packed``; a product is needed only for those with missing genotypes."""
        products = self.products
        gaps = np.flatnonzero(usable & (stats.n_obs < stats.n))
        self._complete += int((usable & (stats.n_obs == stats.n)).sum())
        if gaps.size:
            with products.clock.phase("count pairs", flop=self.sums.flop * gaps.size), products.card.lane(PRODUCTS):
                of_gaps = products.choose(gaps, stats.mean[gaps]).packed
                O = [1 - side.missing(of_gaps).parts[0] for side in (products.rows, products.cols)]
                O[0][:, gaps.size :] = 0
                self.sums.add_whole(O[0], O[1], 1)
                products.done = products.card.mark()

    def finish(self) -> None:
        """N has all of its SNPs."""
        with self.products.card.lane(PRODUCTS):
            self.sums.give(self.A_grid.local)
        self.A_grid.local += float(self._complete)


def _blank(X: Columns, k: int) -> Columns:
    """Columns of people with zeros after the first ``k`` numbers."""
    for part in X.parts:
        part[:, k:] = 0
    return X
