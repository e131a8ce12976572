"""The low-rank model without a SNP: REML over h2 with K x K Cholesky factorisations (model/woodbury.py)."""

from __future__ import annotations

import numpy as np

from mpgls.commands.low_rank_parts.gram import AGAIN
from mpgls.errors import NumericalError
from mpgls.la import scalapack
from mpgls.la.few_columns import columns_gram, columns_on_grid, whole_columns
from mpgls.la.matrix import GridMatrix
from mpgls.model import reml
from mpgls.model.gls import NullSums
from mpgls.model.woodbury import inverse_gram, kernel_weight, null_sums
from mpgls.mpi import StopSignal, agree
from mpgls.run.clock import Clock

TOLERANCE = 2e-9
"""Of h2: a factorisation of K x K is cheap, and p values are then good to 1e-8."""


class LowRankCovariance:
    """V(h2) = h2 G G'/s + (1-h2) I through L L' = I + w G'G, in one work buffer beside G'G.

    ``GG_grid`` = G'G (K, K) [MC,MR]; ``n`` samples. ``use`` chooses the SNPs of G: those that are left out keep a row
    and a column of the identity, so that no other matrix has to be made for each chromosome.
    """

    def __init__(self, GG_grid: GridMatrix, n: int, timings: Clock) -> None:
        self.GG_grid, self.n, self.timings = GG_grid, n, timings
        self.K, self.s = GG_grid.shape[0], 1.0
        self._work = np.empty(GG_grid.local.size, dtype=np.float64)
        self._no_rows = self._no_cols = np.empty(0, dtype=np.int64)

    def use(self, kept: np.ndarray, s: float) -> None:
        """G are the SNPs ``kept`` (K,) bool, and G G'/s has mean diagonal 1."""
        self.s = s
        self._no_rows, self._no_cols = (
            np.flatnonzero(~kept[indices]) for indices in (self.GG_grid.row_indices, self.GG_grid.col_indices)
        )

    def factorise(self, h2: float, dtype: type = np.float64) -> GridMatrix:
        """L L' = I + w G'G, in the lower triangle. Collective. Raises NotPositiveDefinite on every rank."""
        shape = self.GG_grid.local.shape
        flat: np.ndarray = self._work.view(dtype)[: shape[0] * shape[1]]
        L_grid = GridMatrix(self.GG_grid.grid, self.GG_grid.layout, dtype, flat.reshape(shape[::-1]).T)
        name = "REML, double" if dtype == np.float64 else "REML, single"
        with self.timings.phase(name, flop=self.K**3 / 3 / self.GG_grid.grid.size):
            np.multiply(self.GG_grid.local, kernel_weight(h2, self.s), out=L_grid.local, casting="same_kind")
            L_grid.local[self._no_rows] = 0.0
            L_grid.local[:, self._no_cols] = 0.0
            L_grid.local[self.GG_grid.diagonal_positions] += 1.0
            scalapack.potrf(L_grid)
        return L_grid

    def factorise_at(self, h2: float) -> GridMatrix:
        """The float64 factor at the final h2. Raises NumericalError where there is none."""
        try:
            return self.factorise(h2)
        except scalapack.NotPositiveDefinite as error:
            raise NumericalError(f"at h2 = {h2:.6g} the low-rank covariance has no Cholesky factor ({error})") from None


class LowRankNull:
    """REML of one trait beside a `LowRankCovariance`.

    ``FF_rep`` = F'F (q+1, q+1) and ``C_rep`` = G'F (K, q+1) for F = [X_L | y], the same on every rank of the
    grid; rows of SNPs that are left out are zero.
    """

    def __init__(self, covariance: LowRankCovariance, FF_rep: np.ndarray, C_rep: np.ndarray) -> None:
        self.covariance, self.FF_rep, self.C_rep = covariance, FF_rep, C_rep
        self._log_det_xtx = float(np.linalg.slogdet(FF_rep[:-1, :-1])[1])

    def whiten(self, L_grid: GridMatrix, h2: float, H_rep: np.ndarray) -> np.ndarray:
        """H~ = sqrt(w) L^-1 H of a few columns H (K, k), such as ``C_rep``; whole on every rank. Collective."""
        H_grid = columns_on_grid(L_grid, np.sqrt(kernel_weight(h2, self.covariance.s)) * H_rep)
        scalapack.trsm(L_grid, H_grid)
        return whole_columns(H_grid)

    def sums(self, L_grid: GridMatrix, h2: float) -> tuple[NullSums, np.ndarray]:
        """The whitened sums, and F'V^-2F. Collective."""
        with self.covariance.timings.phase("REML, sums"):
            F_grid = columns_on_grid(L_grid, np.sqrt(kernel_weight(h2, self.covariance.s)) * self.C_rep)
            scalapack.trsm(L_grid, F_grid)  # F~ = sqrt(w) L^-1 G'F
            through_G = columns_gram(F_grid)
            scalapack.trsm(L_grid, F_grid, transposed=True)  # U = L^-T F~
            diagonal = L_grid.local[L_grid.diagonal_positions].astype(np.float64)
            log_det = 2.0 * L_grid.grid.comm.allreduce(float(np.log(diagonal).sum()))
        sums = null_sums(h2, self.covariance.n, self.FF_rep, through_G, log_det, self._log_det_xtx)
        return sums, inverse_gram(h2, self.FF_rep, through_G, columns_gram(F_grid))

    def evaluate(self, h2: float, dtype: type) -> reml.RemlPoint:
        """The REML log-likelihood and its slope at ``h2``; FAILED where there is no factor in this precision."""
        if h2 == 0.0:  # V = I; F'(Phi - I)F = C'C/s - F'F
            none = np.zeros_like(self.FF_rep)
            sums = null_sums(0.0, self.covariance.n, self.FF_rep, none, 0.0, self._log_det_xtx)
            return reml.reml_point(sums, self.C_rep.T @ self.C_rep / self.covariance.s - self.FF_rep)
        try:
            sums, F_V2_F = self.sums(self.covariance.factorise(h2, dtype), h2)
        except scalapack.NotPositiveDefinite:
            return reml.FAILED
        gram = np.block([[sums.S_TL, sums.b_T[:, None]], [sums.b_T[None, :], np.array([[sums.yy]])]])
        return reml.reml_point(sums, reml.slope_gram(h2, gram, F_V2_F))

    def maximise(self, stop: StopSignal) -> reml.RemlResult:
        """REML over h2: a coarse search in float32, the finish in float64. Collective over the grid.

        Raises Stopped, on all ranks of the grid, when a signal asked for it between two evaluations.
        """

        def evaluate(dtype: type):  # type: ignore[no-untyped-def]
            def at(h2: float) -> reml.RemlPoint:
                agree(self.covariance.GG_grid.grid.comm, stop.problem(AGAIN))
                return self.evaluate(h2, dtype)

            return at

        return reml.maximise_reml(evaluate(np.float32), evaluate(np.float64), n=self.covariance.n, tolerance=TOLERANCE)
