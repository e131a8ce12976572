"""V(h2) = h2 G G'/s + (1-h2) I for n x K similarity SNPs G, with K x K matrices only (model/woodbury.py).

L L' = I + w G'G,   w = h2 / ((1-h2) s),   F~ = sqrt(w) L^-1 G'F
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mpgls.engine.reml_search import maximise_reml
from mpgls.errors import NumericalError
from mpgls.la import scalapack
from mpgls.la.few_columns import columns_gram, columns_on_grid, whole_columns
from mpgls.la.matrix import GridMatrix
from mpgls.la.teams import Team, TeamOperator, hold_factor
from mpgls.model import reml
from mpgls.model.gls import NullSums
from mpgls.model.woodbury import inverse_gram, kernel_weight, null_sums
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

    def point(self, h2: float, F: LowRankDesign, dtype: type) -> reml.RemlPoint:
        """The REML log-likelihood and its slope; FAILED where there is no factor in this precision. Collective."""
        if h2 == 0.0:  # V = I; F'(Phi - I)F = C'C/s - F'F
            log_det = log_det_of(F)
            sums = null_sums(0.0, self.n, F.FF_rep, np.zeros_like(F.FF_rep), 0.0, log_det)
            return reml.reml_point(sums, F.GF_rep.T @ F.GF_rep / self.s - F.FF_rep)
        try:
            sums, F_V2_F = self._factorise(h2, dtype).sums_and_inverse(F)
        except scalapack.NotPositiveDefinite:
            return reml.FAILED
        return reml.reml_point(sums, reml.slope_gram(h2, sums.gram, F_V2_F))

    def _factorise(self, h2: float, dtype: type) -> LowRankFactor:
        """Raises NotPositiveDefinite on every rank."""
        GG_grid, shape, K = self.gram.GG_grid, self.gram.GG_grid.local.shape, self.gram.GG_grid.shape[0]
        flat: np.ndarray = self.gram.work.view(dtype)[: shape[0] * shape[1]]
        L_grid = GridMatrix(GG_grid.grid, GG_grid.layout, dtype, flat.reshape(shape[::-1]).T)
        name = "REML, double" if dtype == np.float64 else "REML, single"
        with self.world.phase(name, flop=K**3 / 3 / GG_grid.grid.size):
            np.multiply(GG_grid.local, kernel_weight(h2, self.s), out=L_grid.local, casting="same_kind")
            L_grid.local[self._no_rows] = 0.0
            L_grid.local[:, self._no_cols] = 0.0
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
        return self.sums_and_inverse(F)[0]

    def sums_and_inverse(self, F: LowRankDesign) -> tuple[NullSums, np.ndarray]:
        """The whitened sums, and F'V^-2F. Collective."""
        L_grid = self.L_grid
        with self.world.phase("REML, sums"):
            F_grid = columns_on_grid(L_grid, np.sqrt(self.w) * F.GF_rep)
            scalapack.trsm(L_grid, F_grid)  # F~ = sqrt(w) L^-1 G'F
            through_G = columns_gram(F_grid)
            scalapack.trsm(L_grid, F_grid, transposed=True)  # U = L^-T F~
            diagonal = L_grid.local[L_grid.diagonal_positions].astype(np.float64)
            log_det = 2.0 * L_grid.grid.comm.allreduce(float(np.log(diagonal).sum()))
        sums = null_sums(self.h2, self.n, F.FF_rep, through_G, log_det, log_det_of(F))
        return sums, inverse_gram(self.h2, F.FF_rep, through_G, columns_gram(F_grid))

    def columns(self, GC_rep: np.ndarray) -> np.ndarray:
        """sqrt(w) L^-1 G'C of a few columns G'C (K, k); whole on every rank. Collective."""
        C_grid = columns_on_grid(self.L_grid, np.sqrt(self.w) * GC_rep)
        scalapack.trsm(self.L_grid, C_grid)
        return whole_columns(C_grid)

    def hold(self, team: Team, width: int, dtype: type) -> TeamOperator:
        """H -> L^-1 H on every team. Collective."""
        return hold_factor(self.L_grid, team, width, dtype)


def log_det_of(F: LowRankDesign) -> float:
    """log|X_L'X_L|."""
    return float(np.linalg.slogdet(F.FF_rep[:-1, :-1])[1])
