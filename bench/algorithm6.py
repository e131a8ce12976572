"""The inner loop of multi-trait analysis as published, the baseline of bench/multi_trait.py.

Peise, Fabregat-Traver, Bientinesi, "Algorithms for large-scale whole genome association analysis", Algorithm 6:
for every trait the rotated data are scaled by its diagonal covariance, and for every SNP the p x p normal equations
are formed and solved.
"""

from __future__ import annotations

import numpy as np


def algorithm6(
    lam: np.ndarray, X_L_tilde: np.ndarray, Y_tilde: np.ndarray, X_tilde: np.ndarray, h2: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """beta and se (t, mb) of every SNP X_tilde (n, mb) for every trait Y_tilde (n, t), one trait after the other.

    lam (n,), X_L_tilde (n, q), h2 (t,). s2 is estimated with each SNP (n - p degrees of freedom), as in the t test.
    """
    n, q = X_L_tilde.shape
    mb, t = X_tilde.shape[1], Y_tilde.shape[1]
    beta, se = np.empty((t, mb)), np.empty((t, mb))
    S, b = np.empty((mb, q + 1, q + 1)), np.empty((mb, q + 1, 1))
    for j in range(t):
        root_w = 1.0 / np.sqrt(h2[j] * lam + (1.0 - h2[j]))
        y = root_w * Y_tilde[:, j]
        X_L = root_w[:, None] * X_L_tilde
        S[:, :q, :q] = X_L.T @ X_L
        b[:, :q, 0] = X_L.T @ y
        X = root_w[:, None] * X_tilde
        S[:, q, :q] = X.T @ X_L
        S[:, :q, q] = S[:, q, :q]
        S[:, q, q] = np.einsum("ij,ij->j", X, X)
        b[:, q, 0] = X.T @ y
        inverse = np.linalg.inv(S)
        solved = (inverse @ b)[:, :, 0]
        rss = y @ y - np.einsum("ij,ij->i", solved, b[:, :, 0])
        beta[j] = solved[:, q]
        se[j] = np.sqrt(rss / (n - q - 1) * inverse[:, q, q])
    return beta, se
