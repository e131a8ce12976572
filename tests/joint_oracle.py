"""Several columns of a SNP, by dense algebra from the formulas with NumPy and SciPy only. Slow; for small n.

Nothing of mpgls is imported. V is n x n, X n x q with the intercept first; genotypes are n x m counts with NaN where
missing. Tests are F with n-q-k degrees of freedom, or chi-square with the variance of the model without a SNP.
"""

from __future__ import annotations

import numpy as np
from scipy import stats


def columns_of(x, E=(), genotypic=False):
    """x, heterozygotes if ``genotypic``, and the products of both with each of E (n,), imputed by the mean first."""
    own = [_imputed(x)]
    if genotypic:
        own.append(_imputed(np.where(np.isnan(x), np.nan, x == 1)))
    return np.column_stack([*own, *(column * e for e in E for column in own)])


def fit(V, X, S, y, tests, test="t", hc3=False):
    """Effects, errors and two-sided p of the columns S (n, k) beside X, and statistic and p of each of ``tests``.

    ``tests`` are lists of columns of S. Statistics are F for ``test`` "t", chi-square for "wald".
    """
    L = np.linalg.cholesky(V)
    Z, y_w = np.linalg.solve(L, np.column_stack([X, S])), np.linalg.solve(L, y)
    n, q, k = len(y), X.shape[1], S.shape[1]
    inverse = np.linalg.inv(Z.T @ Z)
    beta = inverse @ Z.T @ y_w
    e = y_w - Z @ beta
    if hc3:
        leverage = np.einsum("ij,jk,ik->i", Z, inverse, Z)
        C = inverse @ (Z.T * (e / (1 - leverage)) ** 2) @ Z @ inverse
    elif test == "t":
        C = inverse * (e @ e) / (n - q - k)
    else:
        null = y_w - Z[:, :q] @ np.linalg.lstsq(Z[:, :q], y_w, rcond=None)[0]
        C = inverse * (null @ null) / (n - q)
    beta, C = beta[q:], C[q:, q:]
    se = np.sqrt(np.diag(C))
    z = np.abs(beta / se)
    p = 2 * (stats.t.sf(z, n - q - k) if test == "t" else stats.norm.sf(z))
    found = []
    for J in tests:
        chi2 = beta[J] @ np.linalg.solve(C[np.ix_(J, J)], beta[J])
        F = chi2 / len(J)
        found.append((F, stats.f.sf(F, len(J), n - q - k)) if test == "t" else (chi2, stats.chi2.sf(chi2, len(J))))
    return beta, se, p, found


def _imputed(x):
    return np.where(np.isnan(x), np.nanmean(x), x)
