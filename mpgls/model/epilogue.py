"""What is kept of a tile of SNPs and traits: histograms, best SNPs, and the pairs beyond a threshold.

With R and d of module tiles, x = R^2/d is the share of a trait's residual sum of squares that the SNP explains, and p a
monotone function of x (module histograms).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from mpgls.model.histograms import SHIFT, Bins, Statistic, all_of_it
from mpgls.model.tiles import Tile
from mpgls.model.work import Work

_STRIP = 1 << 15
"""Tests in a strip of the epilogue: its few arrays stay in cache."""


@dataclass(frozen=True)
class Hits:
    """Tests with p at or below the threshold, all (k,): position of trait and SNP, beta, se, x, and -log10 p.

    ``ratio`` are further fields of pairs that have a variance ratio of their own, see `model.snp_ratio`.
    """

    trait: np.ndarray
    snp: np.ndarray
    beta: np.ndarray
    se: np.ndarray
    x: np.ndarray
    log10_p: np.ndarray
    ratio: Mapping[str, np.ndarray] = field(default_factory=dict)

    def some(self, pairs: np.ndarray) -> Hits:
        """Those that ``pairs`` (k,) bool names."""
        trait, snp, beta, se, x, log10_p = (
            one[pairs] for one in (self.trait, self.snp, self.beta, self.se, self.x, self.log10_p)
        )
        return Hits(trait, snp, beta, se, x, log10_p, {name: one[pairs] for name, one in self.ratio.items()})


class Epilogue:
    """What is kept of every tile, in one pass over strips of traits that fit in cache.

    ``rss`` (t,) of the panel (NaN: trait without tests), n samples, q columns of X_L, ``test`` "t" or "wald".
    Accumulators, all over SNPs with note 0: ``counts`` (t, bins.count) uint32 of x = R^2/d (None without
    ``histogram``), ``best_x`` (t,) float64 and ``best_snp`` (t,) int64 of the largest x (-1 before any; of equal ones
    the SNP that comes first; x is 1 for all that explain a trait completely), ``tests``: SNPs counted so far.
    ``absorb`` joins those of another rank. With ``refit_p``, at least ``p_threshold``, the pairs with p at most that
    are the hits handed over, and ``settle`` counts them once they are fitted anew.
    """

    def __init__(
        self,
        rss: np.ndarray,
        n: int,
        q: int,
        test: str = "t",
        p_threshold: float = 5e-8,
        histogram: bool = True,
        work: Work | None = None,
        refit_p: float | None = None,
    ) -> None:
        self._work = work or Work()  # may be shared with panels and epilogues that are used in turn
        self.statistic = Statistic.of(n, q, test)
        self.bins = Bins(self.statistic)
        self.threshold = self.statistic.x_at(p_threshold)
        self.refit_threshold = None if refit_p is None else self.statistic.x_at(refit_p)
        self.rss = np.asarray(rss, dtype=np.float64)
        self.untested = np.isnan(self.rss)
        self.scale = np.sqrt(self.rss)
        t = self.rss.size
        self.best_x, self.best_snp = np.full(t, -1.0), np.full(t, -1, dtype=np.int64)
        self.counts = np.zeros((t, self.bins.count), dtype=np.uint32) if histogram else None
        self.tests = 0
        self._hits: list[tuple[np.ndarray, ...]] = []

    def add(
        self,
        tile: Tile,
        snps: np.ndarray,
        beta_out: np.ndarray | None = None,
        se_out: np.ndarray | None = None,
    ) -> None:
        """Take in a tile of the SNPs ``snps`` (mb,), their positions in the study.

        ``beta_out`` and ``se_out`` (t, mb), float32 or float64 and of any strides, receive the dense estimates, NaN
        where there are none.
        """
        R, d, note = tile
        t, mb = R.shape
        snps, bad = np.asarray(snps), np.flatnonzero(note)
        step = max(1, _STRIP // max(mb, 1))
        self._strip = self._work.array("strip", (step, mb), R.dtype)
        self._bits = self._strip if R.dtype == np.float32 else self._work.array("bits", (step, mb), np.float32)
        self.tests += mb - bad.size
        if mb == 0 or (mb == bad.size and beta_out is None and se_out is None):
            return
        for start in range(0, t, step):
            part = slice(start, min(start + step, t))
            x = self._strip[: part.stop - start]
            if beta_out is not None or se_out is not None:
                self._write_dense(tile, part, x, bad, beta_out, se_out)
            np.multiply(R[part], R[part], out=x)
            x /= d[part]
            if bad.size:
                x[:, bad] = -1.0  # before every test, and in the first bin
            left_out = np.full(len(x), bad.size)
            if self.refit_threshold is not None:
                left_out += self._put_off(tile, x, part, snps, self.refit_threshold)
            largest = self._keep_best(x, part, snps)
            if self.refit_threshold is None and np.any(largest >= self.threshold):
                self._keep_hits(tile, x, part, snps, (largest >= self.threshold, self.threshold))
            if self.counts is not None:
                self._count(x, part, float(largest.max()), left_out)

    def keep_hits(self, trait: np.ndarray, snp: np.ndarray, R: np.ndarray, d: np.ndarray, dtype: np.dtype) -> None:
        """Hits of which somebody found out, all (k,): ``R`` and ``d`` of tiles of ``dtype``, float64."""
        share = R * R / d
        share[share >= all_of_it(dtype)] = 1.0
        beta, se = self.statistic.estimates(np, R, d, share, self.scale[trait])
        self._hits.append((trait, snp.astype(np.int64), beta, se, share))

    def take_hits(self) -> Hits:
        """The hits since the last call, by tile, trait and SNP; they are handed over and forgotten here."""
        kinds = (np.int64, np.int64, *(np.float64,) * 3)
        columns = zip(*self._hits, strict=True) if self._hits else [()] * len(kinds)
        trait, snp, beta, se, x = (np.concatenate([np.empty(0, k), *c]) for c, k in zip(columns, kinds, strict=True))
        self._hits = []
        return Hits(trait, snp, beta, se, x, self.statistic.log10_p(x))  # p values of all at once

    def settle(self, trait: np.ndarray, snp: np.ndarray, x: np.ndarray) -> None:
        """Count pairs (k,) that were handed over to be fitted anew, with the x of their own ratio."""
        if self.counts is not None:
            np.add.at(self.counts, (trait, self.bins.of(x)), 1)
        order = np.lexsort((snp, -x, trait))
        traits, first = np.unique(trait[order], return_index=True)
        best_x, best_snp = np.full_like(self.best_x, -1.0), self.best_snp.copy()
        best_x[traits], best_snp[traits] = x[order[first]], snp[order[first]]
        self.absorb(best_x, best_snp, None, 0)

    def absorb(self, best_x: np.ndarray, best_snp: np.ndarray, counts: np.ndarray | None, tests: int) -> None:
        """Join the accumulators of another rank, which saw other SNPs."""
        better = (best_x > self.best_x) | ((best_x == self.best_x) & (best_snp < self.best_snp))
        self.best_x[better], self.best_snp[better] = best_x[better], best_snp[better]
        if self.counts is not None and counts is not None:
            self.counts += counts
        self.tests += tests

    def best_log10_p(self) -> np.ndarray:
        """-log10 p of the best SNP of each trait (t,); NaN without a test."""
        return self.statistic.log10_p(np.where(self.best_snp >= 0, np.clip(self.best_x, 0.0, 1.0), np.nan))

    def _keep_best(self, x: np.ndarray, part: slice, snps: np.ndarray) -> np.ndarray:
        """The largest x of every trait of the strip."""
        for _ in range(2):  # once more for the first SNP that leaves nothing, not that of luckiest rounding
            where = np.argmax(x, axis=1)
            largest = x[np.arange(len(x)), where].astype(np.float64)
            if largest.max(initial=0.0) < all_of_it(x.dtype):
                break
            x[x >= all_of_it(x.dtype)] = 1.0
        snp = snps[where]
        known, at = self.best_x[part], self.best_snp[part]
        better = (largest > known) | ((largest == known) & (snp < at))
        better &= (largest >= 0) & ~self.untested[part]
        known[better], at[better] = largest[better], snp[better]
        return largest

    def _put_off(self, tile: Tile, x: np.ndarray, part: slice, snps: np.ndarray, threshold: float) -> np.ndarray:
        """Hand over the pairs beyond the threshold and leave them out of x; how many each trait has."""
        beyond = (x.max(axis=1) >= threshold) & ~self.untested[part]
        count = np.zeros(len(x), dtype=np.int64)
        if beyond.any():
            row, column = self._keep_hits(tile, x, part, snps, (beyond, threshold))
            x[row, column] = -1.0
            np.add.at(count, row, 1)
        return count

    def _keep_hits(
        self, tile: Tile, x: np.ndarray, part: slice, snps: np.ndarray, beyond: tuple[np.ndarray, float]
    ) -> tuple[np.ndarray, np.ndarray]:
        """The pairs of x at least the threshold among the rows ``beyond`` it: their rows and columns."""
        rows = np.flatnonzero(beyond[0] & ~self.untested[part])
        row, column = np.nonzero(x[rows] >= beyond[1])
        trait = rows[row] + part.start
        R, d = (values[trait, column].astype(np.float64) for values in tile[:2])
        self.keep_hits(trait, snps[column], R, d, tile.R.dtype)
        return rows[row], column

    def _write_dense(
        self,
        tile: Tile,
        part: slice,
        work: np.ndarray,
        bad: np.ndarray,
        beta_out: np.ndarray | None,
        se_out: np.ndarray | None,
    ) -> None:
        """beta = R scale / d and se = scale sqrt(s2/rss / d); an untested trait has a NaN scale."""
        R, d = tile.R[part], tile.d[part]
        scale = self.scale[part, None].astype(work.dtype)
        if beta_out is not None:
            np.divide(R, d, out=work)
            np.multiply(work, scale, out=beta_out[part], casting="same_kind")
            beta_out[part, bad] = np.nan
        if se_out is not None:
            if self.statistic.test == "t":
                np.divide(R, d, out=work)
                work *= R
                np.copyto(work, 1.0, where=work >= all_of_it(work.dtype))
                np.subtract(1.0, work, out=work)
                work /= d
            else:
                np.divide(1.0, d, out=work)
            np.sqrt(work, out=work)
            scale /= work.dtype.type(np.sqrt(self.statistic.df))
            np.multiply(work, scale, out=se_out[part], casting="same_kind")
            se_out[part, bad] = np.nan

    def _count(self, x: np.ndarray, part: slice, largest: float, left_out: np.ndarray) -> None:
        """One bincount of the strip: rows of as many bins as its largest x needs; x of those ``left_out`` is -1."""
        assert self.counts is not None
        bits = x
        if x.dtype != np.float32:
            bits = self._bits[: len(x)]
            np.copyto(bits, x, casting="same_kind")
        base, width = self.bins.base, int(self.bins.of([largest])[0]) + 1
        codes = bits.view(np.int32)
        np.right_shift(codes, SHIFT, out=codes)
        np.maximum(codes, base, out=codes)  # below the first bin; none is above the largest's
        if largest >= 1.0:  # but 1 itself, which belongs to the last bin
            np.minimum(codes, base + width - 1, out=codes)
        flat = self._work.array("codes", codes.shape, np.intp)
        np.add(codes, np.arange(-base, len(x) * width - base, width, dtype=np.intp)[:, None], out=flat)
        found = np.bincount(flat.ravel(), minlength=len(x) * width).reshape(len(x), width)
        found[:, 0] -= left_out
        found[self.untested[part]] = 0
        np.add(self.counts[part, :width], found, out=self.counts[part, :width], casting="unsafe")
