"""What covariates leave of targets, and which targets they leave nothing of."""

from __future__ import annotations

import numpy as np

from mpgls.model.deviations import deviations

COLLINEAR = 1e-10
"""Standard deviation beside the covariates, relative to the target's own, below which nothing is left to predict."""


def unit_residuals(Y: np.ndarray, C: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What covariates C (n, q), with the intercept, leave of Y (n, t): over its standard deviation, and that (t,)."""
    D, size, _ = deviations(Y)
    D -= _fitted(D, C)
    scale = np.sqrt(np.square(D).mean(axis=0))
    return D / scale, scale * size[0]


def explained(Y: np.ndarray, C: np.ndarray) -> np.ndarray:
    """(t,) bool: which targets Y (n, t) the covariates C (n, q), with the intercept, explain entirely."""
    D = deviations(Y)[0]
    left = D - _fitted(D, C)
    return np.linalg.norm(left, axis=0) <= COLLINEAR * np.linalg.norm(D, axis=0)


def _fitted(Y: np.ndarray, C: np.ndarray) -> np.ndarray:
    Q = np.linalg.qr(C)[0]
    return Q @ (Q.T @ Y)
