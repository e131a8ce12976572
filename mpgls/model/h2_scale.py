"""The scale of h2 on which likelihoods are smooth, and where a cubic between two of its points has its maximum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mpgls.errors import NumericalError
from mpgls.model.h2_basis import variance
from mpgls.model.reml_curve import UPPER


def upper_h2(lam: np.ndarray) -> float:
    """The largest h2: 1 - 1e-6, or less where a negative eigenvalue leaves V positive definite only below."""
    return UPPER / (1.0 - min(float(np.min(lam)), 0.0))


def check_given(h2: np.ndarray, lam: np.ndarray) -> None:
    """NumericalError unless V is positive definite at every ``h2`` of a user, for eigenvalues ``lam``; NaN is none."""
    largest = float(np.max(h2, initial=0.0, where=~np.isnan(h2)))
    smallest = float(variance(largest, np.min(lam)))
    if smallest <= 0.0:
        raise NumericalError(
            f"the kinship is not positive semidefinite: at h2 = {largest:.6g}, h2 Phi + (1-h2) I has the eigenvalue "
            f"{smallest:.6g}"
        )


@dataclass(frozen=True)
class H2Scale:
    """The scale on which likelihoods are smooth: log((h2 + a) / (1 - h2)) with a = ``near_zero``; h2 <= ``upper``."""

    near_zero: float
    upper: float

    @classmethod
    def of(cls, lam: np.ndarray) -> H2Scale:
        """Of eigenvalues."""
        return cls(1.0 / (1.0 + float(lam.max())), upper_h2(lam))

    def coordinate(self, h2: np.ndarray) -> np.ndarray:
        """The place of h2."""
        return np.log((h2 + self.near_zero) / (1.0 - h2))

    def h2_at(self, coordinate: np.ndarray) -> np.ndarray:
        """The h2 at a place; both ends are exact."""
        grown = np.exp(coordinate)
        h2 = (grown - self.near_zero) / (1.0 + grown)
        h2[coordinate <= np.log(self.near_zero)] = 0.0
        return np.clip(h2, 0.0, self.upper)

    def stretch(self, h2: np.ndarray) -> np.ndarray:
        """dh2 / dcoordinate."""
        return (h2 + self.near_zero) * (1.0 - h2) / (1.0 + self.near_zero)


def cubic_top(f0: np.ndarray, f1: np.ndarray, g0: np.ndarray, g1: np.ndarray) -> np.ndarray:
    """Where in [0, 1] the cubic with values f0, f1 and derivatives g0, g1 at 0 and 1 has its maximum.

    It is g0 u + b u^2 + a u^3 above f0, and its derivative falls through 0 there where g0 > 0 > g1.
    """
    a, b = g0 + g1 - 2.0 * (f1 - f0), 3.0 * (f1 - f0) - 2.0 * g0 - g1
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.clip(g0 / (np.sqrt(np.maximum(b * b - 3.0 * a * g0, 0.0)) - b), 0.0, 1.0)
