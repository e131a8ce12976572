"""The model without a SNP from an eigendecomposition: REML needs no factorisation, and X~ = D^-1/2 Z'X.

With Phi = Z diag(lam) Z', V(h2) = Z D Z' for D = diag(h2 lam + 1 - h2), so the columns of Z D^-1/2 whiten as L^-1 does:
the scan is that of a Cholesky factor with this basis in its place.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from mpgls.errors import InputError
from mpgls.la.eigen import multiply
from mpgls.la.matrix import GridMatrix
from mpgls.la.teams import Team, TeamOperator, hold_basis
from mpgls.model.gls import NullSums
from mpgls.model.reml import RemlResult
from mpgls.model.spectra import clip_spectrum, maximise_spectral_reml
from mpgls.mpi import StopSignal
from mpgls.run.log import Log
from mpgls.stream.eigen_file import EigenFile
from mpgls.study.align import Cohort


class SpectralCovariance:
    """V(h2) in the eigenbasis; the same questions as `null_model.Covariance` answers.

    ``lam`` (n,); ``Z_grid`` n x n [MC,MR]; ``F_rep`` = [X_L | y] (n, q+1).
    """

    def __init__(self, lam: np.ndarray, Z_grid: GridMatrix, F_rep: np.ndarray) -> None:
        self.lam, self.Z_grid = clip_spectrum(lam), Z_grid
        self.F_rep, self.n = F_rep, lam.size
        self.F_rot = multiply(Z_grid, F_rep, transposed=True)  # Z'[X_L | y]
        X_L = F_rep[:, :-1]
        self._log_det_xtx = float(np.linalg.slogdet(X_L.T @ X_L)[1])
        self.h2 = 0.0

    def maximise(self, log: Log, stop: StopSignal) -> RemlResult:
        """REML over h2, on every rank alike; no factorisation."""
        found = maximise_spectral_reml(self.lam, self.F_rot[:, :-1], self.F_rot[:, -1:], self._log_det_xtx)
        h2, h2_se, log_likelihood = (field[0].item() for field in (found.h2, found.h2_se, found.log_likelihood))
        return RemlResult(h2, h2_se, log_likelihood, 0, 0, bool(found.at_boundary[0]))

    def factorise_at(self, h2: float) -> NullSums:
        """D at the final h2, and its sums."""
        self.h2 = h2
        F = self.F_rot * self._root_weights()[:, None]
        gram = F.T @ F
        log_det = -2.0 * float(np.log(self._root_weights()).sum())
        return NullSums(gram[:-1, :-1], gram[:-1, -1], float(gram[-1, -1]), log_det, self.n, self._log_det_xtx)

    def _root_weights(self) -> np.ndarray:
        """D^-1/2 (n,)."""
        return 1.0 / np.sqrt(self.h2 * self.lam + 1.0 - self.h2)

    def whiten(self, C_rep: np.ndarray) -> np.ndarray:
        """C~ = D^-1/2 Z'C for a few columns C (n, k), on every rank. Collective; call it before ``hold``."""
        return multiply(self.Z_grid, C_rep, transposed=True) * self._root_weights()[:, None]

    def hold(self, team: Team, width: int, dtype: type) -> TeamOperator:
        """X~ = (Z D^-1/2)'X on every team, for blocks of ``width`` SNPs a rank. Collective."""
        scaled = GridMatrix(self.Z_grid.grid, self.Z_grid.layout, self.Z_grid.dtype.type)
        np.multiply(self.Z_grid.local, self._root_weights()[self.Z_grid.col_indices], out=scaled.local)
        return hold_basis(scaled, team, width, dtype)


def in_eigen_order(cohort: Cohort, eigen_file: EigenFile, trait: str) -> Cohort:
    """The cohort with its samples in the order of the eigenvectors.

    Raises InputError when the eigendecomposition is of other samples than the trait's.
    """
    if cohort.rows.size != eigen_file.n:
        raise InputError(
            f"{eigen_file.path} is the eigendecomposition of {eigen_file.n:,} samples, but {trait} is analysed over "
            f"{cohort.rows.size:,} of them: make it with mpgls eigen --keep, or give --grm instead"
        )
    order = np.argsort(cohort.kinship_index)
    return dataclasses.replace(
        cohort,
        rows=cohort.rows[order],
        ids=[cohort.ids[k] for k in order],
        y=cohort.y[order],
        X_L=np.asfortranarray(cohort.X_L[order]),
        kinship_index=cohort.kinship_index[order],
    )
