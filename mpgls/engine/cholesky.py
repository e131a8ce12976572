"""V(h2) = h2 Phi + (1-h2) I on the process grid by Cholesky factorisation ([Elem] Algorithm 3, lines 1-4).

One point of the REML likelihood is

    L L' = V,   F~ = L^-1 [X_L | y],   U = L^-T F~,   log|V| = 2 sum log diag(L)

and F~'F~, U'U and U'V^-1U give two derivatives of everything but log|V|.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mpgls.engine.covariance import log_det_gram
from mpgls.engine.reml_search import maximise_reml
from mpgls.errors import NumericalError
from mpgls.la import scalapack
from mpgls.la.eigen import multiply, sum_of_squares
from mpgls.la.few_columns import columns_gram, columns_on_grid, whole_columns
from mpgls.la.hold import blocks_of_inverse, factor_flop, hold_factor
from mpgls.la.layout import Block
from mpgls.la.matrix import GridMatrix
from mpgls.la.teams import Team, TeamOperator
from mpgls.model import reml
from mpgls.model.gls import NullSums
from mpgls.model.reml_start import StartSums
from mpgls.run.world import World


class CholeskyCovariance:
    """V(h2) for ``Phi_grid`` n x n [MC,MR] of mean diagonal 1; ``tolerance`` of h2 in REML.

    Factors are made in one work buffer beside Phi, so a factor is gone when the next one is made.
    """

    def __init__(self, Phi_grid: GridMatrix, world: World, tolerance: float = reml.TOLERANCE) -> None:
        self.Phi_grid, self.world, self.tolerance = Phi_grid, world, tolerance
        self.n = Phi_grid.shape[0]
        self._work = np.empty(Phi_grid.local.size, dtype=np.float64)
        self._in_work: float | None = None  # the h2 whose float64 factor is in the buffer

    def design(self, F_rep: np.ndarray) -> np.ndarray:
        """The columns as they are."""
        return F_rep

    def maximise(self, F_rep: np.ndarray, world: World) -> reml.RemlResult:
        """REML over h2. Collective."""
        return maximise_reml(self, F_rep, world)

    def at(self, h2: float) -> CholeskyFactor:
        """L L' = V(h2) in float64. Collective.

        Raises NumericalError when the kinship is not positive semidefinite there.
        """
        try:
            return self._factorise(h2, np.float64)
        except scalapack.NotPositiveDefinite as error:
            raise NumericalError(
                f"the kinship is not positive semidefinite: at h2 = {h2:.6g}, h2 Phi + (1-h2) I has no Cholesky "
                f"factor ({error})"
            ) from None

    def start(self, F_rep: np.ndarray) -> StartSums:
        """The sums at h2 = 0: one product with Phi. Collective."""
        Phi_grid, n = self.Phi_grid, self.n
        with self.world.phase("REML, sums"):
            Phi_F_rep = multiply(Phi_grid, F_rep)
            grams = (F_rep.T @ F_rep, F_rep.T @ Phi_F_rep, Phi_F_rep.T @ Phi_F_rep)
            return StartSums(n, *grams, sum_of_squares(Phi_grid), log_det_gram(F_rep[:, :-1]))

    def point(self, h2: float, F: np.ndarray, dtype: type) -> reml.RemlPoint:
        """The REML log-likelihood and its derivatives; FAILED where V is not positive definite. Collective."""
        try:
            L = self._factorise(h2, dtype)
        except scalapack.NotPositiveDefinite:
            return reml.FAILED
        with self.world.phase("REML, sums"):
            sums, *powers = L.sums_and_powers(F)
        return reml.reml_point(sums, *reml.derivative_grams(h2, sums.gram, *powers))

    def _factorise(self, h2: float, dtype: type) -> CholeskyFactor:
        """Raises NotPositiveDefinite on every rank."""
        Phi_grid, shape = self.Phi_grid, self.Phi_grid.local.shape
        flat: np.ndarray = self._work.view(dtype)[: shape[0] * shape[1]]
        L_grid = GridMatrix(Phi_grid.grid, Phi_grid.layout, dtype, flat.reshape(shape[::-1]).T)
        if self._in_work == h2 and dtype == np.float64:  # REML ended with it
            return CholeskyFactor(L_grid)
        name = "REML, double" if dtype == np.float64 else "REML, single"
        with self.world.phase(name, flop=self.n**3 / 3 / Phi_grid.grid.size):
            self._in_work = None
            np.multiply(Phi_grid.local, h2, out=L_grid.local, casting="same_kind")
            L_grid.local[Phi_grid.diagonal_positions] += 1.0 - h2
            scalapack.potrf(L_grid)
            self._in_work = h2 if dtype == np.float64 else None
        return CholeskyFactor(L_grid)


@dataclass(frozen=True, eq=False)
class CholeskyFactor:
    """L of V(h2) = L L', in the lower triangle of ``L_grid`` [MC,MR]."""

    L_grid: GridMatrix
    triangle = True

    def sums(self, F_rep: np.ndarray) -> NullSums:
        """The whitened sums of F = [X_L | y]. Collective."""
        return self.sums_and_powers(F_rep)[0]

    def sums_and_powers(self, F_rep: np.ndarray) -> tuple[NullSums, np.ndarray, np.ndarray]:
        """The whitened sums, F'V^-2F and F'V^-3F. Collective."""
        L_grid = self.L_grid
        F_grid = columns_on_grid(L_grid, F_rep)
        scalapack.trsm(L_grid, F_grid)  # F~ = L^-1 F
        whitened = columns_gram(F_grid)
        scalapack.trsm(L_grid, F_grid, transposed=True)  # U = L^-T F~ = V^-1 F
        twice = columns_gram(F_grid)
        scalapack.trsm(L_grid, F_grid)  # L^-1 U
        diagonal = L_grid.local[L_grid.diagonal_positions].astype(np.float64)
        log_det = 2.0 * L_grid.grid.comm.allreduce(float(np.log(diagonal).sum()))
        sums = NullSums.of_gram(whitened, log_det, L_grid.shape[0], log_det_gram(F_rep[:, :-1]))
        return sums, twice, columns_gram(F_grid)

    def columns(self, C_rep: np.ndarray) -> np.ndarray:
        """C~ = L^-1 C, all of it on every rank. Collective."""
        C_grid = columns_on_grid(self.L_grid, C_rep)
        scalapack.trsm(self.L_grid, C_grid)
        return whole_columns(C_grid)

    def adjoint(self, C_tilde_rep: np.ndarray) -> np.ndarray:
        """L^-T C~, all of it on every rank. Collective."""
        C_grid = columns_on_grid(self.L_grid, C_tilde_rep)
        scalapack.trsm(self.L_grid, C_grid, transposed=True)
        return whole_columns(C_grid)

    def hold(self, team: Team, width: int, dtype: type) -> TeamOperator:
        """X~ = L^-1 X on every team. Collective."""
        return hold_factor(self.L_grid, team, width, dtype)

    def row_blocks(self, wanted: Sequence[Sequence[Block]]) -> list[np.ndarray]:
        """Blocks of L^-1. Collective."""
        return blocks_of_inverse(self.L_grid, wanted)

    def flop_of_hold(self, team: Team) -> float:
        """Floating-point operations of a rank in `hold`."""
        return factor_flop(self.L_grid.shape[0], team, self.L_grid.grid.size)
