"""V(h2) = h2 G G'/s + (1-h2) I for n x K similarity SNPs G, with K x K matrices only (model/woodbury.py).

L L' = I + w G'G,   w = h2 / ((1-h2) s),   F~ = sqrt(w) L^-1 G'F
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mpgls.device.card import Card
from mpgls.engine.factor import Factor, Factors
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
from mpgls.model.woodbury import inverse_power, kernel_weight, null_sums
from mpgls.run.world import World


class LowRankDesign(NamedTuple):
    """A few columns F = [X_L | y] (n, q+1) as this model sees them, the same on every rank.

    ``FF_rep`` = F'F (q+1, q+1); ``GF_rep`` = G'F (K, q+1), whose rows of SNPs that are left out are zero.
    """

    FF_rep: np.ndarray
    GF_rep: np.ndarray


@dataclass(frozen=True, eq=False)
class SimilarityGram:
    """G'G (K, K) of ``n`` samples, and what makes its ``factors``."""

    factors: Factors
    K: int
    n: int

    @classmethod
    def of(cls, GG_grid: GridMatrix, n: int, world: World, card: Card | None, stays: bool) -> SimilarityGram:
        """Of G'G [MC,MR], whose factors are made on the ``card`` of rank 0 where there is one; there G'G ``stays``."""
        return cls(factors_of(GG_grid, world, card, stays), GG_grid.shape[0], n)

    def covariance(self, kept: np.ndarray, s: float, world: World) -> LowRankCovariance:
        """V of the similarity SNPs ``kept`` (K,) bool, where G G'/s has mean diagonal 1."""
        return LowRankCovariance(self, kept, s, world)


class LowRankCovariance:
    """V(h2) of some of the similarity SNPs; a `covariance.PointwiseCovariance`.

    SNPs that are left out keep a row and a column of the identity, so that no other matrix is made for a chromosome. A
    factor is gone when the next one is made.
    """

    tolerance = reml.TOLERANCE

    def __init__(self, gram: SimilarityGram, kept: np.ndarray, s: float, world: World) -> None:
        self.gram, self.kept, self.s, self.world, self.n = gram, kept, s, world, gram.n

    def maximise(self, F: LowRankDesign, world: World) -> reml.RemlResult:
        """REML over h2. Collective over the grid."""
        return maximise_reml(self, F, world)

    def at(self, h2: float) -> LowRankFactor:
        """L L' = I + w G'G in float64. Collective. Raises NumericalError where there is none."""
        try:
            return self._factorise(h2, np.float64)
        except scalapack.NotPositiveDefinite as error:
            raise NumericalError(f"at h2 = {h2:.6g} the low-rank covariance has no Cholesky factor ({error})") from None

    def start(self, F: LowRankDesign) -> StartSums:
        """The sums at h2 = 0, of Phi = G G'/s: F'Phi F = C'C/s, F'Phi^2 F = C'(G'G)C/s^2 for C = G'F. Collective."""
        C_rep = F.GF_rep
        with self.world.phase("REML, sums"):
            GG_C_rep, square = self.gram.factors.product(C_rep, self.kept)
        grams = (F.FF_rep, C_rep.T @ C_rep / self.s, C_rep.T @ GG_C_rep / self.s**2)
        return StartSums(self.n, *grams, square / self.s**2, log_det_of(F))

    def point(self, h2: float, F: LowRankDesign, dtype: type) -> reml.RemlPoint:
        """The REML log-likelihood and its derivatives; FAILED without a factor in this precision. Collective."""
        try:
            sums, *powers = self._factorise(h2, dtype).sums_and_powers(F)
        except scalapack.NotPositiveDefinite:
            return reml.FAILED
        return reml.reml_point(sums, *reml.derivative_grams(h2, sums.gram, *powers))

    def _factorise(self, h2: float, dtype: type) -> LowRankFactor:
        """Raises NotPositiveDefinite on every rank."""
        w, name = kernel_weight(h2, self.s), "REML, double" if dtype == np.float64 else "REML, single"
        with self.world.phase(name, flop=self.gram.K**3 / 3 / self.world.size):
            L = self.gram.factors.factor(w, 1.0, dtype, self.kept)
        return LowRankFactor(L, h2, w, self.n, self.world)


@dataclass(frozen=True, eq=False)
class LowRankFactor:
    """``L`` (K, K) of I + w G'G at one h2."""

    L: Factor
    h2: float
    w: float
    n: int
    world: World

    def sums(self, F: LowRankDesign) -> NullSums:
        """The whitened sums. Collective."""
        return self.sums_and_powers(F)[0]

    def sums_and_powers(self, F: LowRankDesign) -> tuple[NullSums, np.ndarray, np.ndarray]:
        """The whitened sums, F'V^-2F and F'V^-3F. Collective."""
        with self.world.phase("REML, sums"):
            log_det, *through = self.L.powers(np.sqrt(self.w) * F.GF_rep)  # of F~ = sqrt(w) L^-1 G'F
        sums = null_sums(self.h2, self.n, F.FF_rep, through[0], log_det, log_det_of(F))
        return sums, inverse_power(self.h2, F.FF_rep, *through[:2]), inverse_power(self.h2, F.FF_rep, *through)

    def columns(self, GC_rep: np.ndarray) -> np.ndarray:
        """sqrt(w) L^-1 G'C of a few columns G'C (K, k); whole on every rank. Collective."""
        return self.L.solve(np.sqrt(self.w) * GC_rep)

    def adjoint(self, C_tilde_rep: np.ndarray) -> np.ndarray:
        """L^-T C~ of a few columns (K, k); whole on every rank. Collective."""
        return self.L.solve(C_tilde_rep, transposed=True)

    def hold(self, team: Team, width: int, dtype: type) -> TeamOperator:
        """H -> L^-1 H on every team. Collective."""
        return self.L.hold(team, width, dtype)

    def row_blocks(self, wanted: Sequence[Sequence[Block]]) -> Iterator[np.ndarray]:
        """Of the blocks of L^-1 that each rank wants, this rank's, one after the other, as `factor.Factor` gives them.

        Collective.
        """
        return self.L.row_blocks(wanted)

    def flop_of_hold(self, team: Team) -> float:
        """Floating-point operations of a rank in `hold`."""
        return self.L.flop_of_hold(team)


def log_det_of(F: LowRankDesign) -> float:
    """log|X_L'X_L|."""
    return float(np.linalg.slogdet(F.FF_rep[:-1, :-1])[1])
