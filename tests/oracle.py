"""A dense mixed-model oracle, written from the formulas with NumPy and SciPy only. Slow; for small n.

Nothing of mpgls is imported. V = h2 Phi + (1-h2) I; X is n x q, its first column the intercept.
"""

from __future__ import annotations

import numpy as np
from scipy import stats
from scipy.optimize import minimize_scalar


def covariance(h2, Phi):
    return h2 * Phi + (1.0 - h2) * np.eye(len(Phi))


def scaled(Phi):
    """Phi with mean diagonal 1."""
    return Phi / np.mean(np.diag(Phi))


def gls(X, y, V):
    """beta, X'V^-1X and the residual sum of squares, by a dense inverse."""
    return _gls(X, y, np.linalg.inv(V))


def _gls(X, y, Vi):
    XtViX = X.T @ Vi @ X
    beta = np.linalg.solve(XtViX, X.T @ Vi @ y)
    e = y - X @ beta
    return beta, XtViX, e @ Vi @ e


def reml(h2, Phi, X, y):
    """REML log-likelihood at h2, the variance profiled out, constants included."""
    n, q = X.shape
    V = covariance(h2, Phi)
    _, XtViX, rss = gls(X, y, V)
    s2 = rss / (n - q)
    log_det = np.linalg.slogdet(V)[1] + np.linalg.slogdet(XtViX)[1] - np.linalg.slogdet(X.T @ X)[1]
    return -0.5 * ((n - q) * np.log(2 * np.pi * s2) + (n - q) + log_det)


def find_h2(Phi, X, y, points=41):
    """The REML estimate of h2: a look at ``points`` values, then golden section and parabolas around the best.

    Comparing likelihoods finds a flat top to about 1e-7 only; ``sharp_h2`` goes further.
    """
    h2 = np.linspace(0.0, 1.0 - 1e-6, points)
    k = int(np.argmax([reml(h, Phi, X, y) for h in h2]))
    bounds = (h2[max(k - 1, 0)], h2[min(k + 1, points - 1)])
    found = minimize_scalar(lambda h: -reml(h, Phi, X, y), bounds=bounds, method="bounded", options={"xatol": 1e-10})
    return float(found.x)


def reml_slope(h2, Phi, X, y):
    """d/dh2 of ``reml`` = -1/2 [tr(P D) - (n-q) y'P D P y / y'P y], D = Phi - I, P the REML projection."""
    n, q = X.shape
    Vi = np.linalg.inv(covariance(h2, Phi))
    P = Vi - Vi @ X @ np.linalg.solve(X.T @ Vi @ X, X.T @ Vi)
    D = Phi - np.eye(n)
    Py = P @ y
    return -0.5 * (np.sum(P * D) - (n - q) * (Py @ D @ Py) / (y @ Py))


def sharp_h2(Phi, X, y, points=41):
    """The REML estimate of h2 to rounding: bisection of ``reml_slope`` around the best of ``points`` values."""
    h2 = np.linspace(0.0, 1.0 - 1e-6, points)
    k = int(np.argmax([reml(h, Phi, X, y) for h in h2]))
    low, high = h2[max(k - 1, 0)], h2[min(k + 1, points - 1)]
    if reml_slope(low, Phi, X, y) <= 0:
        return float(low)
    if reml_slope(high, Phi, X, y) > 0:
        return float(high)
    while high - low > 1e-13:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if reml_slope(middle, Phi, X, y) > 0 else (low, middle)
    return float(0.5 * (low + high))


def scan(h2, Phi, X, y, snps, test="t"):
    """beta, se, statistic and two-sided p of each column of ``snps``, from full normal equations of [X | x]."""
    n, q = X.shape
    Vi = np.linalg.inv(covariance(h2, Phi))
    null_s2 = _gls(X, y, Vi)[2] / (n - q)
    rows = []
    for x in snps.T:
        design = np.column_stack([X, x])
        beta, XtViX, rss = _gls(design, y, Vi)
        s2 = rss / (n - q - 1) if test == "t" else null_s2
        rows.append((beta[-1], np.sqrt(s2 * np.linalg.inv(XtViX)[-1, -1])))
    beta, se = np.array(rows).T
    size = np.abs(beta / se)
    p = 2.0 * (stats.t.sf(size, n - q - 1) if test == "t" else stats.norm.sf(size))
    return np.array([beta, se, beta / se, p])


def reml_information(h2, Phi, X, y):
    """-d2/dh2^2 of ``reml`` = 1/2 [(n-q) (2 y'PDPDPy/rss - (y'PDPy/rss)^2) - tr(PDPD)], rss = y'Py."""
    n, q = X.shape
    Vi = np.linalg.inv(covariance(h2, Phi))
    P = Vi - Vi @ X @ np.linalg.solve(X.T @ Vi @ X, X.T @ Vi)
    D = Phi - np.eye(n)
    Py, PD = P @ y, P @ D
    rss = y @ Py
    first, second = Py @ D @ Py / rss, Py @ D @ P @ D @ Py / rss
    return 0.5 * ((n - q) * (2.0 * second - first**2) - np.sum(PD * PD.T))


def h2_se(h2, Phi, X, y):
    """Standard error of h2, None where there is none: at the upper end, and where ``reml`` is not concave."""
    information = reml_information(h2, Phi, X, y)
    return None if h2 > 1.0 - 1.5e-6 or information <= 0 else float(information**-0.5)
