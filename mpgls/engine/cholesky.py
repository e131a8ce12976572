"""V(h2) = h2 Phi + (1-h2) I by Cholesky factorisation ([Elem] Algorithm 3, lines 1-4), on the grid or on a card.

One point of the REML likelihood is

    L L' = V,   F~ = L^-1 [X_L | y],   U = L^-T F~,   log|V| = 2 sum log diag(L)

and F~'F~, U'U and U'V^-1U give two derivatives of everything but log|V|.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mpgls.device.card import Card
from mpgls.engine.covariance import log_det_gram
from mpgls.engine.factor import Factor
from mpgls.engine.factor_on_card import factors_of
from mpgls.engine.reml_search import maximise_reml
from mpgls.errors import NumericalError
from mpgls.la import scalapack
from mpgls.la.layout import Block
from mpgls.la.matrix import GridMatrix
from mpgls.la.teams import Team, TeamOperator
from mpgls.model import reml
from mpgls.model.gls import NullSums
from mpgls.model.reml_start import StartSums
from mpgls.run.world import World


class CholeskyCovariance:
    """V(h2) for ``Phi_grid`` n x n [MC,MR] of mean diagonal 1; ``tolerance`` of h2 in REML.

    Factors are made beside Phi, on the ``card`` of rank 0 where there is one; each is gone when the next one is made.
    """

    def __init__(
        self, Phi_grid: GridMatrix, world: World, tolerance: float = reml.TOLERANCE, card: Card | None = None
    ) -> None:
        self.world, self.tolerance, self.n = world, tolerance, Phi_grid.shape[0]
        self._factors = factors_of(Phi_grid, world, card)

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
        with self.world.phase("REML, sums"):
            Phi_F_rep, square = self._factors.product(F_rep)
            grams = (F_rep.T @ F_rep, F_rep.T @ Phi_F_rep, Phi_F_rep.T @ Phi_F_rep)
            return StartSums(self.n, *grams, square, log_det_gram(F_rep[:, :-1]))

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
        name = "REML, double" if dtype == np.float64 else "REML, single"
        with self.world.phase(name, flop=self.n**3 / 3 / self.world.size):
            return CholeskyFactor(self._factors.factor(h2, 1.0 - h2, dtype), self.n)


@dataclass(frozen=True, eq=False)
class CholeskyFactor:
    """``L`` (n, n) of V(h2) = L L'."""

    L: Factor
    n: int
    triangle = True

    def sums(self, F_rep: np.ndarray) -> NullSums:
        """The whitened sums of F = [X_L | y]. Collective."""
        return self.sums_and_powers(F_rep)[0]

    def sums_and_powers(self, F_rep: np.ndarray) -> tuple[NullSums, np.ndarray, np.ndarray]:
        """The whitened sums, F'V^-2F and F'V^-3F. Collective."""
        log_det, whitened, twice, thrice = self.L.powers(F_rep)
        sums = NullSums.of_gram(whitened, log_det, self.n, log_det_gram(F_rep[:, :-1]))
        return sums, twice, thrice

    def columns(self, C_rep: np.ndarray) -> np.ndarray:
        """C~ = L^-1 C, all of it on every rank. Collective."""
        return self.L.solve(C_rep)

    def adjoint(self, C_tilde_rep: np.ndarray) -> np.ndarray:
        """L^-T C~, all of it on every rank. Collective."""
        return self.L.solve(C_tilde_rep, transposed=True)

    def hold(self, team: Team, width: int, dtype: type) -> TeamOperator:
        """X~ = L^-1 X on every team. Collective."""
        return self.L.hold(team, width, dtype)

    def row_blocks(self, wanted: Sequence[Sequence[Block]]) -> Iterator[np.ndarray]:
        """Blocks of L^-1. Collective."""
        return self.L.row_blocks(wanted)

    def flop_of_hold(self, team: Team) -> float:
        """Floating-point operations of a rank in `hold`."""
        return self.L.flop_of_hold(team)
