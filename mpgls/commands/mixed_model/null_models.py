"""Where a trait's model of covariance comes from: the kinship on the grid, or a given eigendecomposition."""

from __future__ import annotations

import dataclasses

import numpy as np

from mpgls.commands.common.inputs import Study
from mpgls.commands.common.session import Session
from mpgls.commands.mixed_model.kinship_on_grid import KinshipOnGrid
from mpgls.commands.mixed_model.null_model import Covariance
from mpgls.commands.mixed_model.spectral_null import SpectralCovariance, in_eigen_order
from mpgls.errors import UsageError
from mpgls.la.eigen import leading_eigenpairs
from mpgls.la.grid import ProcessGrid
from mpgls.la.matrix import GridMatrix
from mpgls.model.gls import degrees_of_freedom
from mpgls.stream.eigen_file import EigenFile
from mpgls.stream.kinship_grid import load_columns
from mpgls.study.align import Cohort


class NullModels:
    """Hands out the covariance of each trait, and its samples in the order that the covariance has. Collective.

    Models are taken ``uses`` times; ``pcs`` leading eigenvectors become covariates; ``centered``: see `KinshipOnGrid`.
    """

    def __init__(
        self,
        study: Study,
        eigen_file: EigenFile | None,
        uses: int,
        grid: ProcessGrid,
        block: int,
        session: Session,
        pcs: int = 0,
        centered: bool = False,
    ) -> None:
        self.study, self.file, self.pcs = study, eigen_file, pcs
        self.grid, self.block, self.session = grid, block, session
        if eigen_file is None:
            assert study.kinship is not None
            index = study.kinship_index()
            self.phi = KinshipOnGrid(study.kinship, study.samples, index, uses, grid, block, session, centered)

    def take(self, trait: str, label: str) -> tuple[Covariance | SpectralCovariance, Cohort]:
        """The covariance and the cohort of ``trait``, with the leading eigenvectors among its covariates if asked.

        ``label`` is what the log calls the model.
        """
        cohort = self.study.cohorts[trait]
        if self.file is not None:
            return self._spectral(in_eigen_order(cohort, self.file, trait))
        Phi_grid = self.phi.take(cohort.rows, label)
        if self.pcs:
            with self.session.timings.phase("principal components"):
                _, Z_rep = leading_eigenpairs(Phi_grid, self.pcs)
            cohort = with_components(cohort, Z_rep)
        return Covariance(Phi_grid, np.column_stack([cohort.X_L, cohort.y]), self.session.timings), cohort

    def _spectral(self, cohort: Cohort) -> tuple[SpectralCovariance, Cohort]:
        assert self.file is not None
        with self.session.timings.phase("load eigenvectors") as loading:
            Z_grid = GridMatrix.square(self.grid, self.file.n, self.block)
            loading.nbytes += load_columns(Z_grid, self.file.columns, self.file.n)
        if self.pcs:
            cohort = with_components(cohort, self.file.columns(self.file.n - self.pcs, self.file.n)[::-1].T)
        return SpectralCovariance(self.file.lam, Z_grid, np.column_stack([cohort.X_L, cohort.y])), cohort


def check_components(pcs: int, cohort: Cohort, what: str) -> None:
    """UsageError where ``pcs`` components beside the covariates leave ``what`` no degree of freedom for a SNP."""
    n, q = cohort.X_L.shape
    if degrees_of_freedom(n, q + pcs) < 1:
        raise UsageError(f"--pcs {pcs}: {what} has {n:,} samples, too few for {q + pcs} columns without a SNP")


def with_components(cohort: Cohort, Z_rep: np.ndarray) -> Cohort:
    """The cohort with eigenvectors (n, k) as further covariates PC1 .. PCk."""
    names = tuple(f"PC{k + 1}" for k in range(Z_rep.shape[1]))
    X_L = np.asfortranarray(np.column_stack([cohort.X_L, Z_rep]))
    return dataclasses.replace(cohort, X_L=X_L, covariate_names=cohort.covariate_names + names)
