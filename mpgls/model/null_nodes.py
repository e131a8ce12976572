"""Covariates and traits at nodes of h2, and what is left of a SNP and a trait there once the covariates are fitted.

With Q an orthonormal basis of Z'X_L, R R' = Q'V^-1 Q at a node, and P the projection that removes the covariates,

    d     = x~'P x~ = S_BR - |R^-1 S_BL|^2,          S_BL = Q'V^-1 x~
    r     = x~'P y~ = b_B - (R^-1 S_BL)'(R^-1 b_T),  b_T  = Q'V^-1 y~
    rss_0 = y~'P y~ = yy - |R^-1 b_T|^2.

These are sums of f(mu, h2) of `h2_basis` over the eigenvalues mu of U'Phi U, U a basis of the complement of Q. So is
tr(PD), D = diag(lam - 1). Hence what holds between the nodes for x~'V^-1 x~ holds for them, and a search over h2 costs
the same with one covariate and with a thousand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mpgls.model.h2_nodes import H2Nodes, node_products
from mpgls.model.spectra import orthonormal


@dataclass(frozen=True, eq=False)
class DesignAtNodes:
    """The covariates at each of r nodes, as ``Q`` (n, q); ``inverse_root`` (r, q, q) is R^-1.

    ``trace`` (r,) is tr(PD); ``log_det`` is log|V| + log|Q'V^-1 Q| by the `coordinate` of h2.
    """

    nodes: H2Nodes
    Q: np.ndarray
    inverse_root: np.ndarray
    trace: np.ndarray
    log_det: np.polynomial.Chebyshev

    @classmethod
    def of(cls, nodes: H2Nodes, X_L: np.ndarray) -> DesignAtNodes:
        """From X_L (n, q) in the eigenbasis. Raises NumericalError where its columns are linearly dependent."""
        Q = orthonormal(X_L)
        S_TL = np.stack([(Q * w[:, None]).T @ Q for w in nodes.weights(slice(None)).T])
        inverse_root = np.linalg.inv(np.linalg.cholesky(S_TL))
        slope = np.tensordot(nodes.between.coefficients(nodes.h2)[1].T, S_TL, axes=1)  # dS_TL/dh2
        of_Q = np.einsum("kij,kij->k", inverse_root, inverse_root @ slope)  # tr(S_TL^-1 dS_TL/dh2)

        def slope_of_log_det(coordinate: np.ndarray) -> np.ndarray:
            h2 = nodes.scale.h2_at(coordinate)
            return of_Q @ nodes.between.coefficients(h2)[0] * nodes.scale.stretch(h2)

        of_V = nodes.log_det
        table = np.polynomial.Chebyshev.interpolate(slope_of_log_det, of_V.degree(), domain=of_V.domain)
        log_det = of_V + table.integ(lbnd=of_V.domain[0])  # Q'V^-1 Q is I at h2 = 0
        return cls(nodes, Q, inverse_root, nodes.trace + of_Q, log_det)

    @property
    def n(self) -> int:
        """Samples."""
        return len(self.Q)

    @property
    def q(self) -> int:
        """Covariates, with the intercept."""
        return self.Q.shape[1]

    def residuals(self, Y: np.ndarray) -> np.ndarray:
        """What ordinary least squares leaves of Y (n, t): P y~ is the same of it."""
        for _ in range(2):  # the second time takes away what rounding left
            Y = Y - self.Q @ (self.Q.T @ Y)
        return Y

    def squares(self, S_BL: np.ndarray, S_BR: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """R^-1 S_BL (r, q, k) and d (r, k), from S_BL (r, q, k) and S_BR (r, k) of k columns."""
        whitened = self.inverse_root @ S_BL
        return whitened, S_BR - np.einsum("rqk,rqk->rk", whitened, whitened)


@dataclass(frozen=True, eq=False)
class TraitsAtNodes:
    """t traits at each node: ``half`` (r, q, t) = R^-1 b_T and ``rss`` (r, t) = rss_0.

    The traits were divided by ``unit`` (t,), which log-likelihoods are free of.
    """

    design: DesignAtNodes
    half: np.ndarray
    rss: np.ndarray
    unit: np.ndarray

    @classmethod
    def of(cls, design: DesignAtNodes, E: np.ndarray, unit: np.ndarray) -> TraitsAtNodes:
        """From residuals E (n, t) on the covariates, of least squares weighted in any way."""
        q, nodes = design.q, design.nodes
        sums = node_products(design.Q, nodes.weights(slice(None)), E).reshape(q + 1, nodes.h2.size, E.shape[1])
        return cls(design, *design.squares(sums[:q].swapaxes(0, 1), sums[q]), unit)
