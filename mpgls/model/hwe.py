"""The exact test of Hardy-Weinberg equilibrium of Wigginton, Cutler and Abecasis (AJHG 76, 887, 2005), as PLINK has it.

Given n people with r copies of the rarer and c = 2n - r of the other allele, the probability of h heterozygotes is

    P(h) = 2^h n! r! c! / (h! ((r-h)/2)! ((c-h)/2)! (2n)!)

and p is the sum of P over all h that are no more probable than the h that was observed. There is no mid-p correction.
"""

from __future__ import annotations

import numpy as np

_SURE = 1e-6
"""Difference of logarithms above what rounding makes of them for 10^7 people."""
_EQUAL = 1e-10
"""Two probabilities whose logarithms differ by no more are the same."""


def hwe_p(two: int, one: int, none: int) -> float:
    """p of the exact test for the numbers of people with two, one and no copy of an allele; 1 without people."""
    r, c = sorted((2 * two + one, 2 * none + one))
    h = np.arange(r % 2, r, 2, dtype=np.float64)
    # log P(h+2) / P(h)
    ratio = np.log(r - h) + np.log(c - h) - np.log(h + 2) - np.log(h + 1)
    log_p = np.concatenate([[0.0], np.cumsum(ratio)])
    shared = np.exp(log_p - log_p.max())
    return float(min(1.0, shared[log_p <= log_p[one // 2] + _EQUAL].sum() / shared.sum()))


def fails_hwe(two: np.ndarray, one: np.ndarray, none: np.ndarray, threshold: float) -> np.ndarray:
    """(B,) bool: whether p of the exact test is below ``threshold``, from counts (B,) as in `hwe_p`.

    P of the observed heterozygotes is a lower bound of p, and times the number of possible h an upper one. Only where
    the threshold lies between them the sum is needed.
    """
    from scipy.special import gammaln

    n, r = two + one + none, 2 * np.minimum(two, none) + one
    log_n = gammaln(2.0 * n + 1)
    log_p = one * np.log(2.0) + gammaln(n + 1.0) + gammaln(r + 1.0) + gammaln(2.0 * n - r + 1) - log_n
    log_p -= gammaln(one + 1.0) + gammaln(two + 1.0) + gammaln(none + 1.0)
    log_threshold = np.log(threshold) if threshold > 0 else -np.inf
    fails = log_p + np.log(r // 2 + 1.0) < log_threshold - _SURE
    for k in np.flatnonzero(~fails & (log_p <= log_threshold + _SURE)):
        fails[k] = hwe_p(int(two[k]), int(one[k]), int(none[k])) < threshold
    return np.asarray(fails)
