"""Counts of all tests of a trait in bins of x, the share of the residual sum of squares that the SNP explains.

x = (r^2/d) / rss lies in [0, 1], and p is a monotone function of x alone:

    t test:  t^2 = df x / (1 - x),  df = n - p;        Wald test:  z^2 = df x,  df = n - q  (chi-square, 1 df).

So x is binned, which is cheap, and bins become -log10 p afterwards. A bin is an exponent of the float32 of x and the
first five bits of its mantissa: the edges of an octave are 1/32 of it apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mpgls.errors import NumericalError
from mpgls.model.gls import complete_share
from mpgls.model.pvalues import log10_p_chi2_1, log10_p_t

MANTISSA_BITS = 5
SHIFT = 23 - MANTISSA_BITS
"""The float32 bits of x, shifted right by this, count the bins of all floats."""

_BIAS = 127
_SMALLEST = 10
"""Tests with a chi-square below about 2^-10 (p above 0.97) share the first bin."""

_LN10 = np.log(10.0)

_CHUNK = 1 << 18
"""Counts that are worked on together: their sums stay in cache."""


def all_of_it(dtype: np.dtype) -> float:
    """The x from which on a SNP explains a trait completely, as far as products of this type can tell."""
    return 1.0 - complete_share(dtype)


@dataclass(frozen=True)
class Statistic:
    """How p follows from x: ``test`` "t" or "wald" with ``df`` degrees of freedom."""

    test: str
    df: int

    @classmethod
    def of(cls, n: int, q: int, test: str = "t") -> Statistic:
        """For n samples and q columns of X_L beside the SNP. Raises ValueError for another ``test``."""
        if test not in ("t", "wald"):
            raise ValueError(f"test must be 't' or 'wald', not {test!r}")
        df = n - q - 1 if test == "t" else n - q
        if df < 1:
            raise NumericalError(f"{n} samples leave no degree of freedom for {q} covariates and a SNP.")
        return cls(test, df)

    def square(self, x: ArrayLike) -> np.ndarray:
        """t^2 or z^2; infinite at x = 1 for t."""
        x = np.asarray(x, dtype=np.float64)
        if self.test == "wald":
            return self.df * x
        with np.errstate(divide="ignore"):
            return self.df * x / np.maximum(1.0 - x, 0.0)

    def estimates(self, xp: Any, R: Any, d: Any, x: Any, scale: Any) -> tuple[Any, Any]:
        """Effects and their errors of R and d (module tiles), x = R^2/d, and the ``scale`` = sqrt(rss) of the traits.

        ``xp`` is the array module of them, NumPy or CuPy.
        """
        s2 = (1.0 - x if self.test == "t" else 1.0) / self.df  # of a trait whose rss is 1
        return R * scale / d, xp.sqrt(s2 / d) * scale

    def log10_p(self, x: ArrayLike) -> np.ndarray:
        """-log10 p."""
        root = np.sqrt(self.square(x))
        return log10_p_chi2_1(root) if self.test == "wald" else log10_p_t(root, self.df)

    def x_at(self, p: float) -> float:
        """The x whose p value is ``p``: tests with at least this x are its hits. 0 for p >= 1, infinity for p <= 0."""
        if not p > 0:
            return np.inf
        if p >= 1:
            return 0.0
        wanted = -np.log10(p)
        low, high = -100.0, 100.0  # of log(chi-square)
        while True:
            middle = 0.5 * (low + high)
            if middle in (low, high):
                return self._x_of_square(np.exp(high))
            if float(self.log10_p(self._x_of_square(np.exp(middle)))) < wanted:
                low = middle
            else:
                high = middle

    def _x_of_square(self, square: float) -> float:
        return float(square / self.df if self.test == "wald" else square / (self.df + square))


@dataclass(frozen=True)
class Bins:
    """The bins of x for one ``statistic``. Bin 0 is [0, 2^lowest), bin k [edge_k, edge_(k+1)), the last closed at 1."""

    statistic: Statistic

    @property
    def lowest(self) -> int:
        return -_SMALLEST - int(np.ceil(np.log2(self.statistic.df)))

    @property
    def count(self) -> int:
        return 1 + (-self.lowest << MANTISSA_BITS)

    @property
    def base(self) -> int:
        """What to subtract from the shifted bits of x to get its bin; bins below 0 are bin 0."""
        return ((self.lowest + _BIAS) << MANTISSA_BITS) - 1

    def edges(self) -> np.ndarray:
        """(count + 1,) from 0 to 1."""
        bits = (np.arange(1, self.count + 1, dtype=np.int32) + self.base) << SHIFT
        return np.concatenate([[0.0], bits.astype(np.int32).view(np.float32).astype(np.float64)])

    def of(self, x: ArrayLike) -> np.ndarray:
        """The bin of each x (any shape)."""
        bits = np.ascontiguousarray(x, dtype=np.float32).view(np.int32)
        return np.clip((bits >> SHIFT) - self.base, 0, self.count - 1)


def lambda_gc_of_counts(counts: np.ndarray, bins: Bins) -> np.ndarray:
    """Genomic inflation factor of each row of ``counts`` (t, bins.count), NaN without a test.

    The median chi-square over its expectation as in ``pvalues.lambda_gc``, the median of x interpolated in its bin.
    Against the exact median the relative error is about 0.1/sqrt(m) for m tests (1e-3 for 10^4),
    a twentieth of the sampling error of the median itself.
    """
    from scipy.special import ndtri, ndtri_exp

    counts = np.atleast_2d(counts)
    result = np.full(len(counts), np.nan)
    edges, step = bins.edges(), max(1, _CHUNK // counts.shape[1])
    for start in range(0, len(counts), step):
        below = np.cumsum(counts[start : start + step], axis=1, dtype=np.int64)
        rows = np.flatnonzero(below[:, -1])
        half = 0.5 * below[rows, -1]
        k = np.argmax(below[rows] >= half[:, None], axis=1)
        here = counts[start + rows, k]
        inside = (half - (below[rows, k] - here)) / here
        result[start + rows] = edges[k] + inside * (edges[k + 1] - edges[k])
    known = ~np.isnan(result)
    z = ndtri_exp(-bins.statistic.log10_p(result[known]) * _LN10 - np.log(2.0))
    result[known] = np.square(z / ndtri(0.25))
    return result


def qq_points(counts: np.ndarray, bins: Bins) -> tuple[np.ndarray, np.ndarray]:
    """Expected and observed -log10 p in descending order, one point for each bin (count,) with tests.

    A bin stands at its middle; the expected value of the i-th smallest of m p values is -log10((i - 1/2) / m). The
    smallest p value itself is not known here (``Epilogue.best_x`` keeps it).
    """
    filled = np.flatnonzero(counts)[::-1]
    inside = np.asarray(counts, dtype=np.float64)[filled]
    rank = np.cumsum(inside) - 0.5 * inside
    edges = bins.edges()
    middle = 0.5 * (edges[filled] + edges[filled + 1])
    return -np.log10(rank / inside.sum()), bins.statistic.log10_p(middle)
