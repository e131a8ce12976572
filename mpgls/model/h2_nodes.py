"""Nodes that cover the whole range of h2, and the sums over samples of SNPs at each of them.

At a node h_k, V is diagonal in the basis of the eigenvectors, with 1/v = 1 / (h_k lam + 1 - h_k). So the sums of all
SNPs at all nodes are matrix products, and `h2_basis.Interpolation` gives them anywhere else.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mpgls.model.h2_basis import Interpolation, variance
from mpgls.model.h2_scale import H2Scale
from mpgls.model.products import ROWS

TOLERANCE = 1e-12
"""Relative error of a sum between the nodes."""
NODES = 80
"""About as many as a kinship needs; what a plan counts with."""
_CANDIDATES = 2001
_LOG_DET_DEGREE = 200
_WEIGHTED = 1 << 20
"""Elements of the weighted columns of a step, at most about."""


@dataclass(frozen=True, eq=False)
class H2Nodes:
    """Nodes of h2 over its whole range for eigenvalues ``lam`` (n,), and how a sum at any h2 follows from them.

    ``between`` has the nodes, ascending from 0 to the upper end; ``trace`` (r,) is tr(V^-1 D) at each, ``log_det``
    log|V| by the `coordinate` of h2.
    """

    scale: H2Scale
    lam: np.ndarray
    between: Interpolation
    trace: np.ndarray
    log_det: np.polynomial.Chebyshev

    @classmethod
    def of(cls, lam: np.ndarray, identified: bool = True) -> H2Nodes:
        """h2 from 0 to `upper_h2`, or 0 alone where it is not ``identified``."""
        scale = H2Scale.of(lam)
        low, high = scale.coordinate(np.array([0.0, scale.upper])).tolist()
        h2 = scale.h2_at(np.linspace(low, high, _CANDIDATES)) if identified else np.zeros(1)
        between = Interpolation.over(h2, float(lam.min()), float(lam.max()), TOLERANCE)

        def log_det(coordinate: np.ndarray) -> np.ndarray:
            return np.array([np.log(variance(one, lam)).sum() for one in scale.h2_at(coordinate)])

        table = np.polynomial.Chebyshev.interpolate(log_det, _LOG_DET_DEGREE, domain=[low, high])
        return cls(scale, lam, between, (lam - 1.0) @ (1.0 / variance(between.nodes, lam[:, None])), table)

    @property
    def h2(self) -> np.ndarray:
        """The nodes (r,)."""
        return self.between.nodes

    @property
    def is_range(self) -> bool:
        """Whether there is more than h2 = 0."""
        return self.h2.size > 1

    def weights(self, rows: slice | np.ndarray) -> np.ndarray:
        """1 / v (len(rows), r)."""
        return 1.0 / variance(self.h2, self.lam[rows, None])


def node_products(F: np.ndarray, W: np.ndarray, X: np.ndarray) -> np.ndarray:
    """Sums over the rows at hand, ((k+1) r, B) float64: of F with X (n, B) at each node, then of X with itself.

    ``F`` (n, k) and ``W`` (n, r) = 1/v at these rows; X of any precision. All three are in the eigenbasis.
    """
    columns, r = F.shape[1], W.shape[1]
    total = np.zeros(((columns + 1) * r, X.shape[1]))
    step = min(ROWS, max(32, _WEIGHTED // (columns * r)))
    for start in range(0, len(F), step):
        rows = slice(start, start + step)
        X_part = np.asarray(X[rows], dtype=np.float64)
        weighted = (F[rows, :, None] * W[rows, None, :]).reshape(len(X_part), -1)
        total[: columns * r] += weighted.T @ X_part
        total[columns * r :] += W[rows].T @ np.square(X_part)
    return total
