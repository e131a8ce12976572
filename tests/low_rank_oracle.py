"""Two oracles of the low-rank mixed model: dense, and by singular value decomposition. Slow; for small n.

Nothing of mpgls is imported. Genotypes are n x m counts with NaN where missing, X is n x q with the intercept first.
For each chromosome c of the tested SNPs, Phi_c = G_c G_c'/K_c scaled to mean diagonal 1, where G_c holds the
standardised similarity SNPs that are not on c; V = h2 Phi_c + (1-h2) I; p values from Student's t with n-q-1 degrees of
freedom, s2 profiled anew for each SNP.

``dense`` forms Phi_c and inverts V. ``by_svd`` follows Kadie & Heckerman, "Ludicrous Speed Linear Mixed Models for
Genome-Wide Association Studies" (bioRxiv 154682), and Lippert et al. (Nature Methods 8, 2011): covariates are projected
out of everything, U S V' is the decomposition of the scaled G_c, and all products split into U'x and x - U U'x.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import oracle
from scipy import stats
from scipy.optimize import brentq

H2_GRID = np.linspace(0.0, 1.0 - 1e-6, 41)


class Scan(NamedTuple):
    """h2 of each chromosome of the tested SNPs, and effect, standard error and -log10 p of each SNP, in its order."""

    h2: dict
    beta: np.ndarray
    se: np.ndarray
    log10p: np.ndarray


def imputed(snps):
    """Centred counts, missing ones 0: the mean over the observed samples."""
    x = snps - np.nanmean(snps, axis=0)
    return np.where(np.isnan(x), 0.0, x)


def standardised(snps):
    """``imputed`` divided by the population standard deviation of the observed samples; 0 where all are equal."""
    sd = np.nanstd(snps, axis=0)
    return np.divide(imputed(snps), sd, out=np.zeros(snps.shape), where=sd > 0)


def similarity(G):
    """Phi = GG'/K, mean diagonal 1."""
    return oracle.scaled(G @ G.T / G.shape[1])


def dense(similarity_snps, similarity_chromosomes, snps, chromosomes, y, X, loco=True, h2=None):
    """The scan by dense linear algebra. ``h2`` maps chromosomes to values that are not to be estimated."""

    def fit(G, x, given):
        Phi = similarity(G)
        h2_c = oracle.sharp_h2(Phi, X, y) if given is None else given
        beta, se, t, _ = oracle.scan(h2_c, Phi, X, y, x)
        return h2_c, beta, se, t

    return _scan(fit, similarity_snps, similarity_chromosomes, snps, chromosomes, X, loco, h2)


def by_svd(similarity_snps, similarity_chromosomes, snps, chromosomes, y, X, loco=True, h2=None):
    """The scan by the singular value decomposition of G_c, with the arguments and results of ``dense``."""
    Q = np.linalg.qr(X)[0]
    n, q = X.shape
    y_r = y - Q @ (Q.T @ y)

    def fit(G, x, given):
        G_r = (G - Q @ (Q.T @ G)) * np.sqrt(n / np.sum(G**2))
        U, s, _ = np.linalg.svd(G_r, full_matrices=False)
        kept = s > 1e-8 * s[0]
        U, lam = U[:, kept], s[kept] ** 2
        Uy = U.T @ y_r
        rest = y_r - U @ Uy
        h2_c = find_h2(lam, Uy, rest @ rest, n - q) if given is None else given
        # a'V^-1b = (U'a)'(U'b)/d + (a - UU'a)'(b - UU'b)/(1-h2), d = h2 lam + 1-h2
        d = h2_c * lam + 1.0 - h2_c
        x_r = x - Q @ (Q.T @ x)
        Ux = U.T @ x_r
        x_rest = x_r - U @ Ux
        xVx = np.sum(Ux**2 / d[:, None], axis=0) + np.sum(x_rest**2, axis=0) / (1.0 - h2_c)
        xVy = (Uy / d) @ Ux + rest @ x_rest / (1.0 - h2_c)
        yVy = np.sum(Uy**2 / d) + rest @ rest / (1.0 - h2_c)
        beta = xVy / xVx
        se = np.sqrt((yVy - beta * xVy) / (n - q - 1) / xVx)
        return h2_c, beta, se, beta / se

    return _scan(fit, similarity_snps, similarity_chromosomes, snps, chromosomes, X, loco, h2)


def reml(h2, lam, Uy, rest, dof):
    """REML log-likelihood at h2 in the basis of the decomposition, the variance profiled out, constants included."""
    d = h2 * lam + 1.0 - h2
    s2 = (np.sum(Uy**2 / d) + rest / (1.0 - h2)) / dof
    log_det = np.sum(np.log(d)) + (dof - len(lam)) * np.log(1.0 - h2)
    return -0.5 * (dof * np.log(2 * np.pi * s2) + dof + log_det)


def reml_slope(h2, lam, Uy, rest, dof):
    """d/dh2 of ``reml``."""
    d, e = h2 * lam + 1.0 - h2, 1.0 - h2
    rss = np.sum(Uy**2 / d) + rest / e
    rss_slope = -np.sum(Uy**2 * (lam - 1.0) / d**2) + rest / e**2
    return -0.5 * (dof * rss_slope / rss + np.sum((lam - 1.0) / d) - (dof - len(lam)) / e)


def find_h2(lam, Uy, rest, dof):
    """The REML estimate of h2: the root of ``reml_slope`` around the best of 41 values."""
    values = [reml(h, lam, Uy, rest, dof) for h in H2_GRID]
    k = int(np.argmax(values))
    low, high = H2_GRID[max(k - 1, 0)], H2_GRID[min(k + 1, len(H2_GRID) - 1)]
    if reml_slope(low, lam, Uy, rest, dof) <= 0:
        return float(low)
    if reml_slope(high, lam, Uy, rest, dof) > 0:
        return float(high)
    return float(brentq(reml_slope, low, high, args=(lam, Uy, rest, dof), xtol=1e-14, rtol=1e-14))


def _scan(fit, similarity_snps, similarity_chromosomes, snps, chromosomes, X, loco, h2):
    """``fit`` of every chromosome of the tested SNPs, its own similarity SNPs left out where ``loco``."""
    G, x = standardised(similarity_snps), imputed(snps)
    n, q = X.shape
    found, beta, se, t = {}, *np.empty((3, x.shape[1]))
    for c in dict.fromkeys(chromosomes):
        kept = np.array([other != c or not loco for other in similarity_chromosomes])
        tested = np.array([other == c for other in chromosomes])
        given = None if h2 is None else h2[c]
        found[c], beta[tested], se[tested], t[tested] = fit(G[:, kept], x[:, tested], given)
    log10p = -(stats.t.logsf(np.abs(t), n - q - 1) + np.log(2.0)) / np.log(10.0)
    return Scan(found, beta, se, log10p)
