"""Many traits against a block of SNPs at the price of one matrix product.

Everything is in the eigenbasis of Phi, w_kj = 1/(h2_j lam_k + 1 - h2_j). With e~_j the residual of trait j after the
covariates (generalised least squares at its h2) and P(h2) the projection that removes them,

    r_ij = x~_i'(w_j o e~_j)                       one product for all traits and SNPs
    d_ij = x~_i'P(h2_j)x~_i = sum_k D_ik B_kj      D at the r nodes of module h2_basis: two small products
    D_ik = (x~_i o x~_i)'w_k - |S_k^-1/2 X_L~'(w_k o x~_i)|^2,    S_k = X_L~'(w_k o X_L~)

and beta = r/d, the explained sum of squares u = r^2/d. ``R`` below holds r/sqrt(rss_j), so that x = R^2/d is the share
of the residual sum of squares that the SNP explains: p is a monotone function of x (module histograms). What is kept
of a tile is in module epilogue.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mpgls.errors import NumericalError
from mpgls.model.gls import COLLINEAR_TOLERANCE, Note, degrees_of_freedom
from mpgls.model.h2_basis import TOLERANCE, H2Basis, h2_basis, variance
from mpgls.model.products import ROWS
from mpgls.model.spectra import NO_VARIANCE, clip_spectrum, orthonormal
from mpgls.model.work import Work

_CHUNK = 1 << 20
"""Elements of a block of traits while the panel is made."""


class Partial(NamedTuple):
    """Sums over the samples at hand, additive over ranks: R (t, mb) and the node sums ((1+q) r, mb), float64."""

    R: np.ndarray
    nodes: np.ndarray


class Tile(NamedTuple):
    """R = r/sqrt(rss) and d (t, mb) in the panel's precision, and note (mb,) uint8 with values of gls.Note."""

    R: np.ndarray
    d: np.ndarray
    note: np.ndarray


class TraitPanel:
    """All that the SNPs need to know of t traits.

    ``lam`` (n,), ``X_L_tilde`` (n, q), ``Y_tilde`` (n, t), ``h2`` (t,): h2 NaN, values that are not finite or no
    residual variance make a trait that is not ``testable``; its rss and beta_L are NaN. ``dtype`` float64 or float32 is
    that of the products over samples, ``tolerance`` the relative error allowed to d (by default that of the precision).

    Attributes: n, q, t, dtype; testable (t,) bool; rss (t,) = e~'(w o e~); beta_L (q, t); WE (n, t) =
    w o e~ / sqrt(rss) and A (n, (1+q) r), both ``dtype`` in Fortran order; basis (H2Basis), B (t, r) ``dtype``.
    Raises NumericalError when no degree of freedom is left or the covariates are linearly dependent.
    """

    def __init__(
        self,
        lam: np.ndarray,
        X_L_tilde: np.ndarray,
        Y_tilde: np.ndarray,
        h2: np.ndarray,
        dtype: np.dtype | type = np.float64,
        tolerance: float | None = None,
    ) -> None:
        self.dtype = np.dtype(dtype)
        self.precision = "double" if self.dtype == np.float64 else "mixed"
        self.lam = clip_spectrum(lam)
        self.n, self.q = X_L_tilde.shape
        self.t = Y_tilde.shape[1]
        if self.n <= self.q:
            raise NumericalError(f"{self.n} samples leave no degree of freedom for {self.q} covariates.")
        self.h2 = np.array(h2, dtype=np.float64)
        Q = orthonormal(X_L_tilde)
        to_X_L = Q.T @ np.asarray(X_L_tilde, dtype=np.float64)  # X_L = Q to_X_L
        self.beta_L = np.linalg.solve(to_X_L, self._fit(Q, Y_tilde))
        self.basis = self._basis(TOLERANCE[self.precision] if tolerance is None else tolerance)
        self.B = np.ascontiguousarray(self.basis.B.T, dtype=self.dtype)
        self.A = self._node_columns(Q)

    def fitted(self, nulls: np.ndarray) -> np.ndarray:
        """The null models (t,) of `null_record.NULL_DTYPE` with what the fits at their h2 say: s2 and df.

        All numbers of a trait that is not testable are NaN.
        """
        made = nulls.copy()
        made["s2"], made["df"] = self.rss / (self.n - self.q), degrees_of_freedom(self.n, self.q)
        for name in ("h2", "h2_se", "log_likelihood"):
            made[name][~self.testable] = np.nan
        return made

    def local(self, rows: slice | np.ndarray = slice(None), work: Work | None = None) -> LocalPanel:
        """The panel for the samples ``rows`` only; all rows share memory with this one.

        Panels that are used in turn can share their ``work`` arrays.
        """
        if np.array_equal(np.arange(self.n)[rows], np.arange(self.n)):
            return LocalPanel(self.WE, self.A, len(self.basis.nodes), work)
        WE, A = np.asfortranarray(self.WE[rows]), np.asfortranarray(self.A[rows])
        return LocalPanel(WE, A, len(self.basis.nodes), work)

    def forget_rows(self) -> None:
        """Drop WE and A: ``finish`` does without them, and a local panel has its own rows."""
        del self.WE, self.A

    def finish(
        self, partial: Partial, x_norm_sq: np.ndarray, traits: slice = slice(None), out: np.ndarray | None = None
    ) -> Tile:
        """The tile of the sums over all samples; ``x_norm_sq`` (mb,) squared norms of the SNPs (0: monomorphic).

        ``traits`` names those of ``partial.R`` when it holds a part of them; ``out`` receives d. A SNP is collinear
        with the covariates when they take all but a share of ``gls.COLLINEAR_TOLERANCE`` of its weighted sum of squares
        at one of the nodes. Untestable SNPs have d of about 1, and R without a meaning.
        """
        D, note = self.at_nodes(partial.nodes, np.asarray(x_norm_sq))
        return Tile(partial.R, np.matmul(self.B[traits], D.astype(self.dtype, copy=False), out=out), note)

    def at_nodes(self, nodes: Any, x_norm_sq: Any, xp: Any = np) -> tuple[Any, Any]:
        """D (r, mb), the Schur complements at the nodes of h2, and note (mb,), of all samples' node sums.

        ``nodes`` and ``x_norm_sq`` as in `finish`, arrays of the module ``xp``.
        """
        r, ok, collinear, monomorphic = len(self.basis.nodes), int(Note.OK), int(Note.COLLINEAR), int(Note.MONOMORPHIC)
        squares, covariates = nodes[:r], nodes[r:].reshape(r, self.q, -1)
        D = squares - (covariates * covariates).sum(axis=1)
        apart = (COLLINEAR_TOLERANCE[self.precision] * squares < D).all(axis=0)
        note = xp.where(x_norm_sq > 0, xp.where(apart, ok, collinear), monomorphic).astype(np.uint8)
        return xp.where(note != ok, 1.0, D), note  # the columns of B add up to 1

    def _fit(self, Q: np.ndarray, Y_tilde: np.ndarray) -> np.ndarray:
        """Make rss, testable and WE; returns the effects (q, t) of the basis Q of the covariates."""
        self.rss = np.full(self.t, np.nan)
        effects = np.full((self.q, self.t), np.nan)
        self.WE = np.zeros((self.n, self.t), dtype=self.dtype, order="F")
        rows, columns = np.triu_indices(self.q)
        pairs = Q[:, rows] * Q[:, columns]
        step = max(1, _CHUNK // self.n)
        for start in range(0, self.t, step):
            part = slice(start, start + step)
            h2, Y = self.h2[part], np.array(Y_tilde[:, part].T, dtype=np.float64, order="C")  # a trait is a row
            total = np.einsum("ij,ij->i", Y, Y)
            usable = np.isfinite(total) & np.isfinite(h2)
            Y[~usable] = 0.0
            W = 1.0 / variance(np.where(usable, h2, 0.0)[:, None], self.lam)
            S = np.empty((len(Y), self.q, self.q))
            S[:, rows, columns] = S[:, columns, rows] = W @ pairs
            beta = Y @ Q
            Y -= beta @ Q.T
            usable &= np.einsum("ij,ij->i", Y, Y) > NO_VARIANCE * total
            for _ in range(2):  # the second time takes away what rounding left
                change = np.linalg.solve(S, ((W * Y) @ Q)[:, :, None])[:, :, 0]
                beta += change
                Y -= change @ Q.T
            W *= Y
            rss = np.einsum("ij,ij->i", W, Y)
            usable &= rss > 0
            W[usable] /= np.sqrt(rss[usable])[:, None]
            W[~usable] = 0.0
            self.WE[:, part] = W.T
            self.rss[part] = np.where(usable, rss, np.nan)
            effects[:, part] = np.where(usable, beta.T, np.nan)
        self.testable = np.isfinite(self.rss)
        return effects

    def _basis(self, tolerance: float) -> H2Basis:
        known = self.h2[self.testable]
        basis = h2_basis(known if known.size else np.zeros(1), self.lam.min(), self.lam.max(), tolerance)
        B = np.zeros((len(basis.nodes), self.t))
        B[0] = 1.0  # any node will do for a trait that is not tested
        B[:, self.testable] = basis.B if known.size else 0.0
        return H2Basis(basis.nodes, B, basis.error)

    def _node_columns(self, Q: np.ndarray) -> np.ndarray:
        """Columns w_k for x o x, then w_k o (Q R_k^-T) for x with R_k R_k' = Q'(w_k o Q), node by node."""
        r = len(self.basis.nodes)
        A = np.empty((self.n, (1 + self.q) * r), dtype=self.dtype, order="F")
        for k, h2 in enumerate(self.basis.nodes):
            w = 1.0 / variance(h2, self.lam)
            root = np.linalg.cholesky(Q.T @ (w[:, None] * Q))
            A[:, k] = w
            A[:, r + k * self.q : r + (k + 1) * self.q] = w[:, None] * np.linalg.solve(root, Q.T).T
        return A


class LocalPanel:
    """The rows of a TraitPanel on one rank, with the work arrays of its products.

    A result is valid until the next call of any panel that shares the work arrays.
    """

    def __init__(self, WE: np.ndarray, A: np.ndarray, nodes: int, work: Work | None = None) -> None:
        self.WE, self.A, self.nodes = WE, A, nodes
        self._work = work or Work()

    def partial_products(self, X: np.ndarray) -> Partial:
        """R and the node sums of the SNPs ``X`` (n_loc, mb) over these rows, X in the panel's precision, Fortran order.

        The node sums are added up in float64, whatever the precision, over blocks of rows.
        """
        self._prepare(X.shape[1])
        np.matmul(self.WE.T, X, out=self._R)
        r, sums = self.nodes, self._sums
        sums[:] = 0.0
        for start in range(0, X.shape[0], ROWS):
            X_part, A_part = X[start : start + ROWS], self.A[start : start + ROWS]
            squares = np.multiply(X_part, X_part, out=self._squares[: len(X_part)])
            np.matmul(A_part[:, :r].T, squares, out=self._block[:r])
            np.matmul(A_part[:, r:].T, X_part, out=self._block[r:])
            sums += self._block
        return Partial(self._R, sums)

    def _prepare(self, mb: int) -> None:
        array, dtype = self._work.array, self.WE.dtype
        self._R = array("R", (self.WE.shape[1], mb), dtype)
        self._sums = array("sums", (self.A.shape[1], mb), np.float64)
        self._block = array("block", (self.A.shape[1], mb), dtype)
        self._squares = array("squares", (min(ROWS, len(self.WE)), mb), dtype, "F")
