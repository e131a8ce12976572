"""Deviations from means that lose nothing of what the numbers hold, whatever their size and offset."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

_RANGE: dict[type, tuple[float, float]] = {np.float64: (2.0**-500, 2.0**500), np.float32: (2.0**-60, 2.0**60)}
"""From the smallest to the largest value of a trait: sums of its squares and effects of SNPs are numbers of a type."""


def deviations(A: np.ndarray, axis: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """D with A = size (mean + D) along ``axis``; ``size`` and ``mean`` keep that axis with length 1.

    ``size`` is the power of two at or below the largest |A|, so that dividing by it rounds nothing, squares neither
    overflow nor vanish, and A - mean is exact where the mean is large beside what is left of it.
    """
    largest = np.abs(A).max(axis=axis, initial=0.0, keepdims=True)
    size = np.where(largest > 0, np.ldexp(1.0, np.frexp(largest)[1] - 1), 1.0)
    D = A / size
    mean = D.mean(axis=axis, keepdims=True)
    D -= mean
    again = D.mean(axis=axis, keepdims=True)  # the mean of what rounding left
    D -= again
    return D, size, mean + again


def in_range(low: ArrayLike, high: ArrayLike, dtype: type = np.float64) -> np.ndarray:
    """Whether the squares of traits from ``low`` to ``high`` (t,), and effects on them in ``dtype``, are numbers."""
    with np.errstate(over="ignore"):
        span = np.subtract(high, low)
    smallest, largest = _RANGE[dtype]
    return np.asarray((smallest <= span) & (span <= largest))
