"""A dense oracle of the voxelwise GWAS, straight from the formulas with NumPy and SciPy only. Nothing of mpgls is used.

X is n x m, Y n x v, Z n x r with the intercept.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage, stats

STRUCTURES = {6: 1, 18: 2, 26: 3}


def unit_residuals(A, Z):
    R = A - Z @ np.linalg.lstsq(Z, A, rcond=None)[0]
    length = np.linalg.norm(R, axis=0)
    return R / np.where(length > 0, length, 1.0)


def permuted(R, order):
    """P R: sample k takes the place of sample order[k]."""
    moved = np.empty_like(R)
    moved[order] = R
    return moved


def t_scores(X, Y, Z, order=None):
    """t (m, v) of Freedman and Lane's model Y* = X beta + Z gamma, Y* the permuted residuals, by full regressions."""
    n, r = Z.shape
    R_X, R_Y = unit_residuals(X, Z), unit_residuals(Y, Z)
    Y_star = R_Y if order is None else permuted(R_Y, order)
    Y_star = Y_star - Z @ np.linalg.lstsq(Z, Y_star, rcond=None)[0]
    rss_0 = np.sum(Y_star**2, axis=0)
    beta = R_X.T @ Y_star
    return beta * np.sqrt((n - r - 1) / (rss_0 - beta**2))


def log10_p(t, df):
    return -np.log10(2.0) - stats.t.logsf(np.abs(t), df) / np.log(10.0)


def statistics(t, df, p_threshold, coordinates, shape, connectivity, step):
    """The six decision statistics of each SNP (m,), from maps of t (m, v), by scipy.ndimage.label."""
    structure = ndimage.generate_binary_structure(3, STRUCTURES[connectivity])
    t_0 = stats.t.isf(p_threshold / 2, df)
    rows = []
    for of_snp in t:
        height, weight = np.zeros(shape), np.zeros(shape)
        kept = np.abs(of_snp) >= t_0
        at = tuple(coordinates[kept].T)
        height[at], weight[at] = np.abs(of_snp[kept]), log10_p(of_snp[kept], df)
        label, count = ndimage.label(height > 0, structure)
        sizes = np.bincount(label.ravel())[1:]
        masses = ndimage.sum(weight, label, np.arange(1, count + 1)) if count else np.zeros(0)
        rows.append(
            (weight.max(), kept.sum(), weight.sum(), sizes.max(initial=0), np.max(masses, initial=0.0),
             tfce(height, structure, t_0, step))
        )  # fmt: skip
    names = ("log10p", "volume", "sum_log10p", "cluster_volume", "cluster_mass", "tfce")
    return dict(zip(names, np.array(rows).T, strict=True))


def tfce(height, structure, start, step):
    """The largest score: sum over h = start + step, ... of extent(h)^0.5 h^2 step."""
    score, k = np.zeros(height.shape), 1
    while (height >= start + k * step).any():
        h = start + k * step
        label, _ = ndimage.label(height >= h, structure)
        extent = np.bincount(label.ravel())[label]
        score += np.where(label > 0, np.sqrt(extent) * h**2 * step, 0.0)
        k += 1
    return score.max()
