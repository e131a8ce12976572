"""What covariates leave of targets, and which targets they leave nothing of."""

from __future__ import annotations

import numpy as np

COLLINEAR = 1e-10
"""Standard deviation beside the covariates, relative to the target's own, below which nothing is left to predict."""


def unit_residuals(Y: np.ndarray, C: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What covariates C (n, q), with the intercept, leave of Y (n, t): over its standard deviation, and that (t,).

    ``Y`` is overwritten.
    """
    size = _centre(Y)
    Y -= _fitted(Y, C)
    scale = np.sqrt(np.square(Y).mean(axis=0))
    return Y / scale, scale * size


def explained(Y: np.ndarray, C: np.ndarray) -> np.ndarray:
    """(t,) bool: which targets Y (n, t) the covariates C (n, q), with the intercept, explain entirely."""
    Y = Y.copy()
    _centre(Y)
    left = Y - _fitted(Y, C)
    return np.linalg.norm(left, axis=0) <= COLLINEAR * np.linalg.norm(Y, axis=0)


def _centre(Y: np.ndarray) -> np.ndarray:
    """Overwrite Y (n, t) by deviations from its means, of size 1; returns their sizes (t,), powers of two.

    Squares of numbers beyond 1e154 would overflow, those of 1e-170 vanish; a power of two rounds nothing.
    """
    Y -= Y.mean(axis=0)
    largest = np.abs(Y).max(axis=0, initial=0.0)
    size = np.where(largest > 0, np.ldexp(1.0, np.frexp(largest)[1] - 1), 1.0)
    Y /= size
    return size


def _fitted(Y: np.ndarray, C: np.ndarray) -> np.ndarray:
    Q = np.linalg.qr(C)[0]
    return Q @ (Q.T @ Y)
