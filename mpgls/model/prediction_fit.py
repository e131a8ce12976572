"""How well predicted values fit what was measured."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class PredictionFit(NamedTuple):
    """``n`` people; Pearson's ``r``, NaN where the prediction is the same for everybody; ``r2``."""

    n: int
    r: float
    r2: float


def fit_of(y: np.ndarray, predicted: np.ndarray) -> PredictionFit:
    """Of measured ``y`` (n,) and ``predicted`` (n,), both about their means.

    R2 = 1 - |y - g|^2 / |y|^2 is the share of the variance that the prediction explains as it is, without a slope: it
    is at most r^2, and negative where the mean would do better.
    """
    y, g = y - y.mean(), predicted - predicted.mean()
    yy, gg = float(y @ y), float(g @ g)
    r = float(y @ g) / np.sqrt(yy * gg) if gg > 0 else np.nan
    return PredictionFit(y.size, float(r), 1.0 - float((y - g) @ (y - g)) / yy)
