"""Family-wise corrected p values from the maxima of permutations, and a generalised Pareto tail beyond them.

The maximum of a statistic over all SNPs and voxels is taken under each of P permutations. The share of maxima that
reach an observed value is its p value, corrected for the whole search (Westfall and Young, 1993; Nichols and Holmes,
Human Brain Mapping 15, 2002). It cannot fall below 1 / (P + 1). Knijnenburg, Wessels, Reinders and Shmulevich
(Bioinformatics 25, 2009) continue it with a generalised Pareto distribution (GPD) of the largest maxima,

    p(x) = fraction (1 + shape (x - threshold) / scale)^(-1 / shape)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

EXCEEDANCES, FEWEST = 250, 20
"""Largest maxima that the tail is first fitted to, at most a quarter of all; where the fit is bad, 10 fewer at a time
down to this many (Knijnenburg et al.)."""

PLAIN_COUNT = 10
"""From this many maxima at or beyond an observed value on, the count is better than any fit (there as well)."""

FIT_LEVEL = 0.05
"""The fit is bad where the Anderson-Darling p value is below this."""

_STEP, _SIMULATIONS = 10, 499


@dataclass(frozen=True)
class Correction:
    """The corrected p of one statistic: from its ``maxima`` (P,), and from their ``tail`` where there is one."""

    maxima: np.ndarray
    tail: Tail | None = None

    @classmethod
    def of(cls, maxima: np.ndarray, tail: bool) -> Correction:
        """By the maxima (P + 1,) of the data, which come first, and of P permutations; with their ``tail`` if asked."""
        null = maxima[1:]
        return cls(null, fit_tail(null) if tail and null.size else None)

    def p(self, observed: np.ndarray) -> np.ndarray:
        """Corrected p of ``observed`` (m,)."""
        return corrected_p(observed, self.maxima) if self.tail is None else tail_p(observed, self.tail, self.maxima)

    def continued(self, observed: np.ndarray) -> np.ndarray:
        """Which of ``observed`` (m,) have their p from the tail."""
        if self.tail is None or not self.tail.good:
            return np.zeros(len(observed), dtype=bool)
        return beyond_count(observed, self.maxima)


@dataclass(frozen=True)
class Tail:
    """A GPD above ``threshold``, fitted to the ``exceedances`` maxima that are larger, a ``fraction`` of all.

    ``p_fit`` is the p value of the Anderson-Darling statistic ``anderson_darling``, small for a bad fit; NaN, as all
    figures are, where there are too few different maxima for a fit.
    """

    threshold: float
    shape: float
    scale: float
    fraction: float
    anderson_darling: float
    p_fit: float
    exceedances: int

    @property
    def good(self) -> bool:
        """Whether p values may be taken from it."""
        return self.p_fit >= FIT_LEVEL

    def p(self, x: np.ndarray) -> np.ndarray:
        """Share of maxima at or beyond ``x`` (m,), each at least the threshold."""
        with np.errstate(under="ignore"):
            survival = np.exp(_log_survival(x - self.threshold, np.array(self.shape), np.array(self.scale)))
        return self.fraction * survival

    def density(self, x: np.ndarray) -> np.ndarray:
        """Minus the derivative of `p`."""
        return self.p(x) / (self.scale + self.shape * (x - self.threshold))


def corrected_p(observed: np.ndarray, maxima: np.ndarray) -> np.ndarray:
    """Family-wise corrected p of ``observed`` (m,): (1 + #{maxima >= observed}) / (P + 1); NaN stays NaN.

    ``maxima`` (P,) are those of the permuted data, for a statistic that is larger where it is more extreme.
    """
    observed = np.asarray(observed, dtype=np.float64)
    p = (1 + _reaching(observed, maxima)) / (len(maxima) + 1)
    return np.where(np.isnan(observed), np.nan, p)


def fit_tail(maxima: np.ndarray) -> Tail:
    """Fit the tail of ``maxima`` (P,): to the 250 largest, or to fewer until the fit is good.

    The threshold lies halfway between the smallest maximum that counts as exceedance and the next. Shape and scale come
    from probability-weighted moments (Hosking and Wallis, Technometrics 29, 1987); a negative shape becomes
    0, the exponential tail, because it would give every value beyond some bound the p value 0. The fit's p value is
    that of its Anderson-Darling statistic among 499 samples of the fitted GPD, fitted in the same way.
    """
    descending = np.sort(np.asarray(maxima, dtype=np.float64))[::-1]
    tail = _no_tail()
    if descending.size and np.isinf(descending[0]):  # no GPD has such a tail
        return tail
    for count in range(min(EXCEEDANCES, descending.size // 4), FEWEST - 1, -_STEP):
        threshold = 0.5 * (descending[count - 1] + descending[count])
        excess = descending[descending > threshold] - threshold
        if excess.size < FEWEST:
            break
        tail = _fitted(excess, float(threshold), descending.size)
        if tail.good:
            break
    return tail


def tail_p(observed: np.ndarray, tail: Tail, maxima: np.ndarray) -> np.ndarray:
    """Corrected p of ``observed`` (m,), from the tail where fewer than 10 of the ``maxima`` (P,) reach it.

    Elsewhere, and where the tail is not good, it is `corrected_p`. A larger value never has a larger p.
    """
    observed = np.asarray(observed, dtype=np.float64)
    p = corrected_p(observed, maxima)
    beyond = beyond_count(observed, maxima)
    if not tail.good or not beyond.any():
        return p
    continued = tail.p(np.maximum(observed[beyond], tail.threshold))
    p[beyond] = np.minimum(continued, (1 + PLAIN_COUNT) / (len(maxima) + 1))
    return p


def beyond_count(observed: np.ndarray, maxima: np.ndarray) -> np.ndarray:
    """Which of ``observed`` (m,) fewer than 10 of the ``maxima`` (P,) reach, so that the tail is asked."""
    return (_reaching(observed, maxima) < PLAIN_COUNT) & ~np.isnan(observed)


def _reaching(observed: np.ndarray, maxima: np.ndarray) -> np.ndarray:
    """How many of the maxima are as large as each observed value, or larger."""
    return len(maxima) - np.searchsorted(np.sort(maxima), observed, side="left")


def _no_tail() -> Tail:
    nan = float("nan")
    return Tail(nan, nan, nan, nan, nan, nan, 0)


def _fitted(excess: np.ndarray, threshold: float, maxima: int) -> Tail:
    shape, scale = _moments(excess[None])
    distance = _anderson_darling(excess[None], shape, scale)
    uniform = np.random.Generator(np.random.Philox(key=excess.size)).random((_SIMULATIONS, excess.size))
    simulated = _quantile(uniform, shape[0], scale[0])
    null = _anderson_darling(simulated, *_moments(simulated))
    p_fit = float(corrected_p(distance, null)[0])
    figures = (float(shape[0]), float(scale[0]), excess.size / maxima, float(distance[0]), p_fit)
    return Tail(threshold, *figures, exceedances=excess.size)


def _moments(excess: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shape and scale, each (s,), of s samples (s, n): with a_r = E[x (1 - F(x))^r],

    shape = 2 - a_0 / (a_0 - 2 a_1),   scale = 2 a_0 a_1 / (a_0 - 2 a_1)
    """
    ascending = np.sort(excess, axis=1)
    n = excess.shape[1]
    above = 1.0 - (np.arange(1, n + 1) - 0.35) / n
    a0, a1 = ascending.mean(axis=1), ascending @ above / n
    shape = 2.0 - a0 / (a0 - 2.0 * a1)
    bounded = shape < 0
    return np.where(bounded, 0.0, shape), np.where(bounded, a0, 2.0 * a0 * a1 / (a0 - 2.0 * a1))


def _log_survival(excess: np.ndarray, shape: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """log(1 - F) of the GPD, whose limit for shape 0 is -excess / scale."""
    ratio = excess / scale
    curved = shape > 0
    return np.where(curved, -np.log1p(shape * ratio) / np.where(curved, shape, 1.0), -ratio)


def _quantile(uniform: np.ndarray, shape: float, scale: float) -> np.ndarray:
    exponential = -np.log1p(-uniform)
    return scale * (np.expm1(shape * exponential) / shape if shape > 0 else exponential)


def _anderson_darling(excess: np.ndarray, shape: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """A^2 (s,) of s samples (s, n): -n - 1/n sum_i (2i - 1) (log F(x_i) + log(1 - F(x_(n+1-i))))."""
    n = excess.shape[1]
    log_above = _log_survival(np.sort(excess, axis=1), shape[:, None], scale[:, None])
    with np.errstate(divide="ignore"):
        log_below = np.log(-np.expm1(log_above))
    weight = 2.0 * np.arange(1, n + 1) - 1.0
    return -n - (log_below + log_above[:, ::-1]) @ weight / n
