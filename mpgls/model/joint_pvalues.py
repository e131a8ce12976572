"""P values of tests of several effects at once, in log space: chi-square and F of any degrees of freedom.

Both are a start that is known in closed form, at 1 or 2 degrees of freedom, and positive terms for each further two
(Abramowitz and Stegun, 26.4.6 and 26.5.16): nothing cancels, and each term has its logarithm. Functions return minus
log10 of the upper tail.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from mpgls.model.pvalues import log10_p_chi2_1, log10_p_t, log_beta_half

_LN10 = math.log(10.0)


def log10_p_chi2(chi2: ArrayLike, df: int) -> np.ndarray:
    """-log10 p of ``chi2`` >= 0 of any shape with ``df`` >= 1 degrees of freedom; NaN stays NaN."""
    y = 0.5 * np.asarray(chi2, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_y = np.log(y)
        if df % 2:
            log_p, b = -_LN10 * log10_p_chi2_1(np.sqrt(2.0 * y)), 0.5
        else:
            log_p, b = -y, 1.0
        log_term = b * log_y - y - math.lgamma(b + 1.0)  # Q(b+1, y) - Q(b, y)
        return _with_terms(log_p, log_term, (log_y - math.log(b + j) for j in range(1, (df + 1) // 2)), np.isinf(y))


def log10_p_f(F: ArrayLike, df: int, df_residual: float) -> np.ndarray:
    """-log10 p of ``F`` >= 0 of any shape with ``df`` >= 1 and ``df_residual`` > 0 degrees of freedom; NaN stays NaN.

    p = I_x(a, b) for a = df_residual/2, b = df/2, x = df_residual / (df_residual + df F).
    """
    F = np.asarray(F, dtype=np.float64)
    a, ratio = 0.5 * df_residual, np.minimum(df * F / df_residual, 1e300)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_x = -np.log1p(ratio)
        log_rest = np.log(ratio) + log_x  # log (1-x), without cancellation
        if df % 2:
            log_p, b = -_LN10 * log10_p_t(np.sqrt(df * F), df_residual), 0.5
            log_term = a * log_x + 0.5 * log_rest + math.log(2.0) - log_beta_half(a)
        else:
            log_p, b = a * log_x, 1.0
            log_term = a * log_x + log_rest + math.log(a)  # I_x(a, b+1) - I_x(a, b)
        ratios = (log_rest + math.log((a + b + j - 1.0) / (b + j)) for j in range(1, (df + 1) // 2))
        return _with_terms(log_p, log_term, ratios, np.isinf(F))


def _with_terms(
    log_p: np.ndarray, log_term: np.ndarray, log_ratios: Iterable[np.ndarray], certain: np.ndarray
) -> np.ndarray:
    """-log10 of the start p and its terms; each ``log_ratios`` leads from a term to the next, the last one to none."""
    for log_ratio in log_ratios:
        log_p = np.logaddexp(log_p, log_term)
        log_term = log_term + log_ratio
    return np.where(certain, np.inf, np.maximum(-log_p / _LN10, 0.0))
