"""V(h2) in an eigenbasis: REML needs no factorisation, and X~ = D^-1/2 Z'X.

With Phi = Z diag(lam) Z', V(h2) = Z D Z' for D = diag(h2 lam + 1 - h2), so the columns of Z D^-1/2 whiten as L^-1 does:
the scan is that of a Cholesky factor with this basis in its place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mpgls.engine.covariance import log_det_gram
from mpgls.errors import InputError
from mpgls.la.eigen import multiply
from mpgls.la.hold import hold_basis
from mpgls.la.layout import Block
from mpgls.la.matrix import GridMatrix
from mpgls.la.redistribute import GridToBlocks, one_by_one
from mpgls.la.teams import Team, TeamOperator
from mpgls.model.gls import NullSums
from mpgls.model.h2_scale import check_given
from mpgls.model.reml import RemlResult
from mpgls.model.spectra import TraitFlag, clip_spectrum, maximise_spectral_reml
from mpgls.run.world import World
from mpgls.stream.eigen_file import EigenFile
from mpgls.study.align import Cohort


class SpectralCovariance:
    """V(h2) for eigenvalues ``lam`` (n,) and eigenvectors ``Z_grid`` n x n [MC,MR]."""

    def __init__(self, lam: np.ndarray, Z_grid: GridMatrix) -> None:
        self.lam, self.Z_grid, self.n = clip_spectrum(lam), Z_grid, lam.size

    def design(self, F_rep: np.ndarray) -> np.ndarray:
        """Z'F. Collective."""
        return multiply(self.Z_grid, F_rep, transposed=True)

    def maximise(self, F_rep: np.ndarray, world: World) -> RemlResult:
        """REML over h2, on every rank alike; no factorisation. ``F_rep`` = Z'[X_L | y]."""
        found = maximise_spectral_reml(self.lam, F_rep[:, :-1], F_rep[:, -1:], log_det_gram(F_rep[:, :-1]))
        h2, h2_se, log_likelihood = (field[0].item() for field in (found.h2, found.h2_se, found.log_likelihood))
        identified = not found.flags[0] & TraitFlag.UNIDENTIFIED
        return RemlResult(h2, h2_se, log_likelihood, 0, 0, bool(found.at_boundary[0]), identified)

    def at(self, h2: float) -> SpectralFactor:
        """D^-1/2 Z' at one h2. Raises NumericalError where V is not positive definite."""
        check_given(np.array(h2), self.lam)
        return SpectralFactor(self.Z_grid, 1.0 / np.sqrt(h2 * self.lam + 1.0 - h2))

    def hold(self, team: Team, width: int, dtype: type) -> TeamOperator:
        """X~ = Z'X on every team, which serves every h2. Collective."""
        return hold_basis(self.Z_grid, team, width, dtype)


@dataclass(frozen=True, eq=False)
class SpectralFactor:
    """D^-1/2 Z': ``root_weights`` (n,) the diagonal of D^-1/2."""

    Z_grid: GridMatrix
    root_weights: np.ndarray
    triangle = False

    def sums(self, F_rep: np.ndarray) -> NullSums:
        """The whitened sums of Z'[X_L | y]."""
        F = self.columns(F_rep)
        log_det = -2.0 * float(np.log(self.root_weights).sum())
        return NullSums.of_gram(F.T @ F, log_det, len(F), log_det_gram(F_rep[:, :-1]))

    def columns(self, C_rep: np.ndarray) -> np.ndarray:
        """C~ = D^-1/2 Z'C of Z'C."""
        return C_rep * self.root_weights[:, None]

    def adjoint(self, C_tilde_rep: np.ndarray) -> np.ndarray:
        """Z D^-1/2 C~, in the order of the eigenvectors' samples. Collective."""
        return multiply(self.Z_grid, C_tilde_rep * self.root_weights[:, None])

    def hold(self, team: Team, width: int, dtype: type) -> TeamOperator:
        """X~ = (Z D^-1/2)'X on every team. Collective."""
        return hold_basis(self._scaled_grid(), team, width, dtype)

    def row_blocks(self, wanted: Sequence[Sequence[Block]]) -> Iterator[np.ndarray]:
        """Blocks of (Z D^-1/2)'. Collective."""
        return one_by_one(GridToBlocks(self._scaled_grid(), wanted, transposed=True).run(np.float64))

    def _scaled_grid(self) -> GridMatrix:
        """Z D^-1/2."""
        Z_grid = self.Z_grid
        scaled_grid = GridMatrix(Z_grid.grid, Z_grid.layout, Z_grid.dtype.type)
        np.multiply(Z_grid.local, self.root_weights[Z_grid.col_indices], out=scaled_grid.local)
        return scaled_grid

    def flop_of_hold(self, team: Team) -> float:
        """None but those of the scaling."""
        return 0.0


def in_eigen_order(cohort: Cohort, eigen_file: EigenFile, trait: str) -> Cohort:
    """The cohort with its samples in the order of the eigenvectors.

    Raises InputError when the eigendecomposition is of other samples than the trait's.
    """
    if cohort.rows.size != eigen_file.n:
        raise InputError(
            f"{eigen_file.path} is the eigendecomposition of {eigen_file.n:,} samples, but {trait} is analysed over "
            f"{cohort.rows.size:,} of them: make it with mpgls eigen --keep, or give --grm instead"
        )
    return cohort.ordered(np.argsort(cohort.kinship_index))
