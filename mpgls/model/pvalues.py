"""P values in log space, and the genomic inflation factor.

Every function returns minus log10 of the two-sided p value, so results far below 1e-308 keep all their digits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

_LN10 = np.log(10.0)
_SMALL_DF = 30.0
"""Below this many degrees of freedom the power series is slow and SciPy's incomplete beta function is exact."""

_TAIL = 3.0
"""|t| from which the continued fraction is used; below it 1 - p is a short power series."""

_FRACTION_TERMS = ((3.6, 60), (5.0, 44), (8.0, 26), (14.0, 15), (30.0, 9), (np.inf, 5))
"""(upper end of |t|, terms of the continued fraction that reach rounding level from the range's lower end on)."""


def log10_p_chi2_1(z: ArrayLike) -> np.ndarray:
    """-log10 of the two-sided normal p value of ``z`` (chi-square of ``z**2`` with 1 degree of freedom).

    p = erfc(|z|/sqrt 2) = exp(-z^2/2) erfcx(|z|/sqrt 2). Any shape; NaN stays NaN; infinity gives infinity.
    """
    from scipy.special import erfcx

    z = np.abs(np.asarray(z, dtype=np.float64))
    log_p = np.log(erfcx(np.minimum(z, 1e150) * np.sqrt(0.5))) - 0.5 * np.square(np.minimum(z, 1e150))
    return np.where(np.isinf(z), np.inf, np.maximum(-log_p / _LN10, 0.0))


def log10_p_t(t: ArrayLike, df: float) -> np.ndarray:
    """-log10 of the two-sided p value of Student's ``t`` with ``df`` degrees of freedom (one number, > 0).

    With a = df/2, x = df/(df + t^2): p = I_x(a, 1/2), the regularised incomplete beta function. Its common factor
    x^a (1-x)^(1/2) / B(a, 1/2) is formed in logarithms; what remains is a power series for 1 - p (|t| < 3) or the
    continued fraction of DiDonato and Morris, ACM TOMS 18 (1992), eq. 9. Any shape; NaN stays NaN, infinity gives
    infinity, other |t| count as at most 1e150 sqrt(df). Raises ValueError for df <= 0.
    """
    if not df > 0:
        raise ValueError(f"degrees of freedom must be positive, not {df}")
    t = np.abs(np.asarray(t, dtype=np.float64))
    flat = t.reshape(-1)
    result = np.full(flat.shape, np.nan)
    result[np.isinf(flat)] = np.inf
    finite = np.isfinite(flat)
    centre = finite & (flat < _TAIL)
    result[centre] = _centre(flat[centre], df)
    lower = _TAIL
    for upper, terms in _FRACTION_TERMS:
        part = finite & (flat >= lower) & (flat < upper)
        if part.any():
            result[part] = -_log_tail(flat[part], df, terms) / _LN10
        lower = upper
    return np.maximum(result, 0.0).reshape(t.shape)


def p_from_log10(neg_log10_p: ArrayLike) -> np.ndarray:
    """The p value itself; 0 where it is below the smallest float64."""
    with np.errstate(under="ignore"):
        return np.power(10.0, -np.asarray(neg_log10_p, dtype=np.float64))


def lambda_gc(neg_log10_p: ArrayLike) -> float:
    """Genomic inflation factor: median chi-square (1 df) of the p values over its expectation; NaN is left out.

    Devlin and Roeder, Biometrics 55 (1999). Returns NaN without a single p value.
    """
    from scipy.special import ndtri, ndtri_exp

    values = np.asarray(neg_log10_p, dtype=np.float64)
    values = values[~np.isnan(values)]
    if values.size == 0:
        return float("nan")
    z = ndtri_exp(-np.median(values) * _LN10 - np.log(2.0))
    return float(np.square(z / ndtri(0.25)))


def _centre(t: np.ndarray, df: float) -> np.ndarray:
    """-log10 p for |t| < 3."""
    if df < _SMALL_DF:
        from scipy.special import betainc

        return -np.log1p(-betainc(0.5, 0.5 * df, np.square(t) / (df + np.square(t)))) / _LN10
    a = 0.5 * df
    y = np.square(t) / (df + np.square(t))  # 1 - x
    # 1 - p = I_y(1/2, a) = 2 y^(1/2) x^a / B(a, 1/2) * sum_k (a + 1/2)_k / (3/2)_k y^k, all terms positive
    term, total, k = np.ones_like(y), np.ones_like(y), 0
    while term.size and term.max() > 1e-17:
        term *= y * ((a + 0.5 + k) / (1.5 + k))
        total += term
        k += 1
    factor = 2.0 * np.sqrt(y) * np.exp(-a * np.log1p(np.square(t) / df) - log_beta_half(a))
    return -np.log1p(-factor * total) / _LN10


def _log_tail(t: np.ndarray, df: float, terms: int) -> np.ndarray:
    """Natural log p for |t| >= 3, by ``terms`` terms of the continued fraction, evaluated from the back."""
    a, b = 0.5 * df, 0.5
    ratio = np.minimum(t / np.sqrt(df), 1e150)
    x = 1.0 / (1.0 + np.square(ratio))
    one_minus_x = np.square(ratio) * x
    gap = a * one_minus_x - b * x  # a - (a + b) x, without cancellation
    rest = np.zeros_like(x)
    for k in range(terms, 0, -1):
        alpha = (a + k - 1) * (a + b + k - 1) * k * (b - k) / (a + 2 * k - 1) ** 2 * np.square(x)
        rest = alpha / (_beta_coefficient(k, a, b, x, one_minus_x, gap) + rest)
    fraction = _beta_coefficient(0, a, b, x, one_minus_x, gap) + rest
    return 0.5 * np.log(one_minus_x) - a * np.log1p(np.square(ratio)) - log_beta_half(a) - np.log(fraction)


def _beta_coefficient(
    k: int, a: float, b: float, x: np.ndarray, one_minus_x: np.ndarray, gap: np.ndarray
) -> np.ndarray:
    """beta_(k+1) of DiDonato and Morris, eq. 9."""
    first = k + k * (b - k) / (a + 2 * k - 1) * x if k else 0.0
    return first + (a + k) / (a + 2 * k + 1) * (gap + 1.0 + k * (1.0 + one_minus_x))


def log_beta_half(a: float) -> float:
    """log B(a, 1/2), right to rounding also for large a (the difference of two log-gammas would cancel)."""
    log_ratio = 0.0  # log Gamma(a + 1/2) - log Gamma(a), raised to a >= 20 by the recurrence
    while a < 20.0:
        log_ratio -= np.log1p(0.5 / a)
        a += 1.0
    u = 1.0 / (a * a)
    series = -1.0 / 8 + u * (1.0 / 192 + u * (-1.0 / 640 + u * (17.0 / 14336 - u * 31.0 / 18432)))
    return float(0.5 * np.log(np.pi) - (log_ratio + 0.5 * np.log(a) + series / a))
