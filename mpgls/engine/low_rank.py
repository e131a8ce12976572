"""V(h2) = h2 G G'/s + (1-h2) I for n x K similarity SNPs G, with K x K matrices only (model/woodbury.py).

L L' = I + w G'G,   w = h2 / ((1-h2) s),   F~ = sqrt(w) L^-1 G'F
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

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
    """G'G (K, K) [MC,MR] of ``n`` samples, and a work buffer as large beside it, in which factors take turns."""

    GG_grid: GridMatrix
    n: int
    work: np.ndarray

    @classmethod
    def of(cls, GG_grid: GridMatrix, n: int) -> SimilarityGram:
        """With a buffer of its own."""
        return cls(GG_grid, n, np.empty(GG_grid.local.size, dtype=np.float64))

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
        self.gram, self.s, self.world, self.n = gram, s, world, gram.n
        GG_grid = gram.GG_grid
        self._no_rows, self._no_cols = (
            np.flatnonzero(~kept[indices]) for indices in (GG_grid.row_indices, GG_grid.col_indices)
        )

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
        GG_grid, C_rep = self.gram.GG_grid, F.GF_rep
        kept_grid = GridMatrix(GG_grid.grid, GG_grid.layout, local=self._of_kept(np.float64))
        GG_C_rep = multiply(kept_grid, C_rep)
        square = sum_of_squares(kept_grid)
        grams = (F.FF_rep, C_rep.T @ C_rep / self.s, C_rep.T @ GG_C_rep / self.s**2)
        return StartSums(self.n, *grams, square / self.s**2, log_det_of(F))

    def _of_kept(self, dtype: type, factor: float = 1.0) -> np.ndarray:
        """``factor`` times G'G of the SNPs that are kept, this rank's block, in the work buffer."""
        local = self.gram.GG_grid.local
        flat: np.ndarray = self.gram.work.view(dtype)[: local.size]
        kept = flat.reshape(local.shape[::-1]).T
        np.multiply(local, factor, out=kept, casting="same_kind")
        kept[self._no_rows] = 0.0
        kept[:, self._no_cols] = 0.0
        return kept

    def point(self, h2: float, F: LowRankDesign, dtype: type) -> reml.RemlPoint:
        """The REML log-likelihood and its derivatives; FAILED without a factor in this precision. Collective."""
        try:
            sums, *powers = self._factorise(h2, dtype).sums_and_powers(F)
        except scalapack.NotPositiveDefinite:
            return reml.FAILED
        return reml.reml_point(sums, *reml.derivative_grams(h2, sums.gram, *powers))

    def _factorise(self, h2: float, dtype: type) -> LowRankFactor:
        """Raises NotPositiveDefinite on every rank."""
        GG_grid, K = self.gram.GG_grid, self.gram.GG_grid.shape[0]
        name = "REML, double" if dtype == np.float64 else "REML, single"
        with self.world.phase(name, flop=K**3 / 3 / GG_grid.grid.size):
            local = self._of_kept(dtype, kernel_weight(h2, self.s))
            L_grid = GridMatrix(GG_grid.grid, GG_grid.layout, dtype, local)
            L_grid.local[GG_grid.diagonal_positions] += 1.0
            scalapack.potrf(L_grid)
        return LowRankFactor(L_grid, h2, kernel_weight(h2, self.s), self.n, self.world)


@dataclass(frozen=True, eq=False)
class LowRankFactor:
    """L (K, K) of I + w G'G at one h2, in the lower triangle of ``L_grid``."""

    L_grid: GridMatrix
    h2: float
    w: float
    n: int
    world: World

    def sums(self, F: LowRankDesign) -> NullSums:
        """The whitened sums. Collective."""
        return self.sums_and_powers(F)[0]

    def sums_and_powers(self, F: LowRankDesign) -> tuple[NullSums, np.ndarray, np.ndarray]:
        """The whitened sums, F'V^-2F and F'V^-3F. Collective."""
        L_grid = self.L_grid
        with self.world.phase("REML, sums"):
            F_grid = columns_on_grid(L_grid, np.sqrt(self.w) * F.GF_rep)
            scalapack.trsm(L_grid, F_grid)  # F~ = sqrt(w) L^-1 G'F
            through_G = columns_gram(F_grid)
            scalapack.trsm(L_grid, F_grid, transposed=True)  # U = L^-T F~
            twice = columns_gram(F_grid)
            scalapack.trsm(L_grid, F_grid)  # L^-1 U
            diagonal = L_grid.local[L_grid.diagonal_positions].astype(np.float64)
            log_det = 2.0 * L_grid.grid.comm.allreduce(float(np.log(diagonal).sum()))
        sums = null_sums(self.h2, self.n, F.FF_rep, through_G, log_det, log_det_of(F))
        through = (through_G, twice, columns_gram(F_grid))
        return sums, inverse_power(self.h2, F.FF_rep, *through[:2]), inverse_power(self.h2, F.FF_rep, *through)

    def columns(self, GC_rep: np.ndarray) -> np.ndarray:
        """sqrt(w) L^-1 G'C of a few columns G'C (K, k); whole on every rank. Collective."""
        C_grid = columns_on_grid(self.L_grid, np.sqrt(self.w) * GC_rep)
        scalapack.trsm(self.L_grid, C_grid)
        return whole_columns(C_grid)

    def adjoint(self, C_tilde_rep: np.ndarray) -> np.ndarray:
        """L^-T C~ of a few columns (K, k); whole on every rank. Collective."""
        C_grid = columns_on_grid(self.L_grid, C_tilde_rep)
        scalapack.trsm(self.L_grid, C_grid, transposed=True)
        return whole_columns(C_grid)

    def hold(self, team: Team, width: int, dtype: type) -> TeamOperator:
        """H -> L^-1 H on every team. Collective."""
        return hold_factor(self.L_grid, team, width, dtype)

    def row_blocks(self, wanted: Sequence[Sequence[Block]]) -> list[np.ndarray]:
        """Of the blocks of L^-1 that each rank wants, this rank's, float64; zero above the diagonal. Collective."""
        return blocks_of_inverse(self.L_grid, wanted)

    def flop_of_hold(self, team: Team) -> float:
        """Floating-point operations of a rank in `hold`."""
        return factor_flop(self.L_grid.shape[0], team, self.L_grid.grid.size)


def log_det_of(F: LowRankDesign) -> float:
    """log|X_L'X_L|."""
    return float(np.linalg.slogdet(F.FF_rep[:-1, :-1])[1])
