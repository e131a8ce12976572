"""The model without a SNP: V = h2 Phi + (1-h2) I on the grid, REML over h2 by distributed Cholesky.

One evaluation at an h2 ([Elem] Algorithm 3, lines 1-4, on the process grid):

    L L' = V,   F~ = L^-1 [X_L | y],   U = L^-T F~,   log|V| = 2 sum log diag(L)

gives the REML log-likelihood and, from F~'F~ and U'U, the derivative of everything but log|V|.
"""

from __future__ import annotations

import numpy as np

from mpgls.errors import NumericalError
from mpgls.la import scalapack
from mpgls.la.few_columns import columns_gram, columns_on_grid, whole_columns
from mpgls.la.matrix import GridMatrix
from mpgls.la.teams import Team, TeamOperator, hold_factor
from mpgls.model import reml
from mpgls.model.gls import NullSums
from mpgls.mpi import StopSignal, agree
from mpgls.run.clock import Clock
from mpgls.run.log import Log


class Covariance:
    """V(h2) = h2 Phi + (1-h2) I and its Cholesky factor, in one work buffer beside Phi.

    ``Phi_grid`` n x n [MC,MR], mean diagonal 1; ``F_rep`` = [X_L | y] (n, q+1), the same on every rank; ``tolerance``
    of h2. After ``factorise`` (and after ``maximise``) ``L_grid`` is the float64 factor at ``h2``.
    """

    def __init__(
        self, Phi_grid: GridMatrix, F_rep: np.ndarray, timings: Clock, tolerance: float = reml.TOLERANCE
    ) -> None:
        self.Phi_grid, self.F_rep, self.timings, self.tolerance = Phi_grid, F_rep, timings, tolerance
        self.n, self.columns = F_rep.shape
        self.h2: float | None = None
        self._work = np.empty(Phi_grid.local.size, dtype=np.float64)
        X_L = F_rep[:, :-1]
        self._log_det_xtx = float(np.linalg.slogdet(X_L.T @ X_L)[1])

    @property
    def L_grid(self) -> GridMatrix:
        """The float64 factor, in the lower triangle."""
        return self._buffer(np.float64)

    def _buffer(self, dtype: type) -> GridMatrix:
        shape = self.Phi_grid.local.shape
        flat: np.ndarray = self._work.view(dtype)[: shape[0] * shape[1]]
        return GridMatrix(self.Phi_grid.grid, self.Phi_grid.layout, dtype, flat.reshape(shape[::-1]).T)

    def factorise(self, h2: float, dtype: type = np.float64) -> GridMatrix:
        """L L' = h2 Phi + (1-h2) I. Collective. Raises NotPositiveDefinite on every rank."""
        L_grid = self._buffer(dtype)
        name = "REML, double" if dtype == np.float64 else "REML, single"
        with self.timings.phase(name, flop=self.n**3 / 3 / self.Phi_grid.grid.size):
            self.h2 = None
            np.multiply(self.Phi_grid.local, h2, out=L_grid.local, casting="same_kind")
            L_grid.local[self.Phi_grid.diagonal_positions] += 1.0 - h2
            scalapack.potrf(L_grid)
            self.h2 = h2 if dtype == np.float64 else None
        return L_grid

    def sums(self, L_grid: GridMatrix) -> tuple[NullSums, np.ndarray]:
        """The whitened sums from a factor, and U'U. Collective."""
        F_grid = columns_on_grid(L_grid, self.F_rep)
        scalapack.trsm(L_grid, F_grid)  # F~ = L^-1 F
        whitened = columns_gram(F_grid)
        scalapack.trsm(L_grid, F_grid, transposed=True)  # U = L^-T F~
        diagonal = L_grid.local[L_grid.diagonal_positions].astype(np.float64)
        log_det = 2.0 * L_grid.grid.comm.allreduce(float(np.log(diagonal).sum()))
        S_TL, b_T, yy = whitened[:-1, :-1], whitened[:-1, -1], float(whitened[-1, -1])
        return NullSums(S_TL, b_T, yy, log_det, self.n, self._log_det_xtx), columns_gram(F_grid)

    def evaluate(self, h2: float, dtype: type) -> reml.RemlPoint:
        """The REML log-likelihood at ``h2`` in the given precision; FAILED where V is not positive definite."""
        if h2 == 0.0:
            return self._without_kinship()
        try:
            sums, inverse_gram = self.sums(self.factorise(h2, dtype))
        except scalapack.NotPositiveDefinite:
            return reml.FAILED
        whitened_gram = np.block([[sums.S_TL, sums.b_T[:, None]], [sums.b_T[None, :], np.array([[sums.yy]])]])
        return reml.reml_point(sums, reml.slope_gram(h2, whitened_gram, inverse_gram))

    def _without_kinship(self) -> reml.RemlPoint:
        """h2 = 0: V = I needs no factor, and U'(Phi - I)U = F'Phi F - F'F one product with Phi."""
        F, Phi = self.F_rep, self.Phi_grid
        partial = F[Phi.row_indices].T @ (Phi.local @ F[Phi.col_indices])
        F_Phi_F = np.empty_like(partial)
        Phi.grid.comm.Allreduce(partial, F_Phi_F)
        gram = F.T @ F
        sums = NullSums(gram[:-1, :-1], gram[:-1, -1], float(gram[-1, -1]), 0.0, self.n, self._log_det_xtx)
        return reml.reml_point(sums, F_Phi_F - gram)

    def maximise(self, log: Log, stop: StopSignal) -> reml.RemlResult:
        """REML over h2: a coarse search in float32, the finish in float64; leaves the factor at the optimum.

        Raises Stopped, on all ranks, when a signal asked for it between two evaluations.
        """

        def speaking(name: str, dtype: type):  # type: ignore[no-untyped-def]
            def evaluate(h2: float) -> reml.RemlPoint:
                agree(self.Phi_grid.grid.comm, stop.problem())
                point = self.evaluate(h2, dtype)
                log.info(f"  REML {name}: h2 {h2:.8f}  log-likelihood {point.log_likelihood:.6f}")
                return point

            return evaluate

        result = reml.maximise_reml(
            speaking("single", np.float32), speaking("double", np.float64), n=self.n, tolerance=self.tolerance
        )
        self.factorise_at(result.h2)
        return result

    def factorise_at(self, h2: float) -> NullSums:
        """The float64 factor and sums at the final h2, computed only if the factor at hand is another one.

        Raises NumericalError when the kinship is not positive semidefinite there.
        """
        try:
            if self.h2 != h2:
                self.factorise(h2)
        except scalapack.NotPositiveDefinite as error:
            raise NumericalError(
                f"the kinship is not positive semidefinite: at h2 = {h2:.6g}, h2 Phi + (1-h2) I has no Cholesky "
                f"factor ({error})"
            ) from None
        return self.sums(self.L_grid)[0]

    def whiten(self, C_rep: np.ndarray) -> np.ndarray:
        """C~ = L^-1 C for a few columns C (n, k), float64, all of it on every rank. Collective."""
        C_grid = columns_on_grid(self.L_grid, C_rep)
        scalapack.trsm(self.L_grid, C_grid)
        return whole_columns(C_grid)

    def hold(self, team: Team, width: int, dtype: type) -> TeamOperator:
        """X~ = L^-1 X on every team, for blocks of ``width`` SNPs a rank. Collective."""
        return hold_factor(self.L_grid, team, width, dtype)
