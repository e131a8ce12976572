"""The REML likelihood at h2 = 0, where V = I needs no factor, and whether the kinship tells anything about h2 at all.

With U an orthonormal basis of what X_L leaves, l depends on h2 through the eigenvalues of U'VU = h2 U'Phi U + (1-h2) I.
Where those of U'Phi U are all equal, V is a multiple of I there, s2 takes the multiple up, and l is flat: h2 is not
identified, and generalised least squares is ordinary least squares at every h2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mpgls.model.gls import NullSums
from mpgls.model.reml import RemlResult, reml_point
from mpgls.model.reml_curve import RemlPoint

FLAT = 1e-6
"""Largest |U'(Phi - mean)U|_F, as a share of |Phi|_F, that the rounding of a float32 file can make: its spread."""


@dataclass(frozen=True)
class StartSums:
    """Sums over the n samples for F = [X_L | y] (n, q+1).

    ``plain`` = F'F, ``once`` = F'Phi F, ``twice`` = F'Phi^2 F, each (q+1, q+1); ``square`` = |Phi|_F^2. The mean
    diagonal of Phi is 1. ``log_det_xtx`` = log|X_L'X_L|.
    """

    n: int
    plain: np.ndarray
    once: np.ndarray
    twice: np.ndarray
    square: float
    log_det_xtx: float

    def point(self) -> RemlPoint:
        """The evaluation at h2 = 0. Raises NumericalError as ``gls.profile_reml`` does."""
        sums = NullSums.of_gram(self.plain, 0.0, self.n, self.log_det_xtx)
        found = reml_point(sums, self.once - self.plain, self.twice - 2.0 * self.once + self.plain)
        log_det_curvature = self.n - self.square  # -|Phi - I|_F^2
        return RemlPoint(found.log_likelihood, 0.0, found.slope, found.curvature, log_det_curvature)

    def is_flat(self) -> bool:
        """Whether l is the same at every h2."""
        X = np.s_[:-1, :-1]
        return is_flat(self.plain[X], self.once[X], self.twice[X], float(self.n), self.square, self.n)

    def unidentified(self) -> RemlResult:
        """What REML says where l is flat: no h2, and the likelihood of ordinary least squares."""
        return RemlResult(np.nan, np.nan, self.point().log_likelihood, 0, 0, at_boundary=False, identified=False)


def is_flat(plain: np.ndarray, once: np.ndarray, twice: np.ndarray, trace: float, square: float, n: int) -> bool:
    """Whether the eigenvalues of U'Phi U are all equal, to rounding in float32 of the elements of Phi.

    ``plain`` = X_L'X_L, ``once`` = X_L'Phi X_L, ``twice`` = X_L'Phi^2 X_L (q, q); ``trace`` of Phi, ``square`` =
    |Phi|_F^2. With A = (X_L'X_L)^-1 X_L'Phi X_L,

        tr U'Phi U = tr Phi - tr A,    |U'Phi U|_F^2 = |Phi|_F^2 - 2 tr (X_L'X_L)^-1 X_L'Phi^2 X_L + tr A^2

    and the sum of the squared differences of the n-q eigenvalues from their mean is |U'Phi U|_F^2 - (tr U'Phi U)^2 /
    (n-q).
    """
    A, B = np.linalg.solve(plain, once), np.linalg.solve(plain, twice)
    left = square - 2.0 * np.trace(B) + np.trace(A @ A)
    return bool(left - (trace - np.trace(A)) ** 2 / (n - len(A)) <= FLAT**2 * square)
