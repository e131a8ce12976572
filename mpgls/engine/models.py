"""Where a trait's model of covariance comes from: the kinship on the grid, or a given eigendecomposition."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from mpgls.device.card import Card
from mpgls.engine.cholesky import CholeskyCovariance
from mpgls.engine.covariance import Covariance
from mpgls.engine.eigenpairs import decompose, leading_pairs, leading_units
from mpgls.engine.kinship_grid import load_columns
from mpgls.engine.kinship_on_grid import KinshipOnGrid
from mpgls.engine.spectral import SpectralCovariance, in_eigen_order
from mpgls.errors import UsageError
from mpgls.la.eigen import multiply
from mpgls.la.grid import ProcessGrid
from mpgls.la.matrix import GridMatrix
from mpgls.model.gls import degrees_of_freedom
from mpgls.run.inputs import Study
from mpgls.run.world import World
from mpgls.stream.eigen_file import EigenFile
from mpgls.study.align import Cohort

C = TypeVar("C", bound=Covariance, covariant=True)


class Models(Protocol[C]):
    """Hands out the covariance of each trait, and its samples in the order that the covariance has."""

    @property
    def source(self) -> str:
        """The file of the kinship."""

    def take(self, trait: str, label: str) -> tuple[C, Cohort]:
        """The covariance and the cohort of ``trait``; ``label`` is what the log calls the model. Collective."""


@dataclass(frozen=True)
class KinshipModels:
    """Models of a kinship; ``pcs`` leading eigenvectors become covariates. Factors are made on ``card``, if any."""

    study: Study
    kinship: KinshipOnGrid
    pcs: int
    world: World
    card: Card | None = None

    @property
    def source(self) -> str:
        """The file of the kinship."""
        return self.kinship.path

    def take(self, trait: str, label: str) -> tuple[Covariance, Cohort]:
        """V = h2 Phi + (1-h2) I over the samples of the trait. Collective."""
        cohort = self.study.cohorts[trait]
        Phi_grid = self.kinship.take(cohort.rows, label)
        if self.pcs:
            _, Z_rep = leading_pairs(Phi_grid, self.pcs, "", self.world)
            cohort = with_components(cohort, Z_rep)
        return CholeskyCovariance(Phi_grid, self.world, card=self.card), cohort


class DecomposedModels(KinshipModels):
    """`KinshipModels` whose kinship is decomposed for each trait."""

    def take(self, trait: str, label: str) -> tuple[SpectralCovariance, Cohort]:
        """V in the eigenbasis of the samples of the trait. Collective."""
        cohort = self.study.cohorts[trait]
        pairs = decompose(self.kinship.take(cohort.rows, label, to_destroy=True), "auto", "", self.world, label)
        if self.pcs:
            cohort = with_components(cohort, multiply(pairs.Z_grid, leading_units(pairs.lam.size, self.pcs)))
        return SpectralCovariance(pairs.lam, pairs.Z_grid), cohort


@dataclass(frozen=True)
class EigenModels:
    """Models of an eigendecomposition, on ``grid`` in blocks of ``block``; ``pcs`` as in `KinshipModels`."""

    study: Study
    file: EigenFile
    grid: ProcessGrid
    block: int
    pcs: int
    world: World

    @property
    def source(self) -> str:
        """The file of the eigendecomposition."""
        return str(self.file.path)

    def take(self, trait: str, label: str) -> tuple[SpectralCovariance, Cohort]:
        """V in the eigenbasis. Collective. Raises InputError for a trait of other samples."""
        cohort = in_eigen_order(self.study.cohorts[trait], self.file, trait)
        with self.world.phase("load eigenvectors") as loading:
            Z_grid = GridMatrix.square(self.grid, self.file.n, self.block)
            loading.nbytes += load_columns(Z_grid, self.file.columns, self.file.n)
        if self.pcs:
            cohort = with_components(cohort, self.file.columns(self.file.n - self.pcs, self.file.n)[::-1].T)
        return SpectralCovariance(self.file.lam, Z_grid), cohort


def check_components(pcs: int, cohort: Cohort, what: str) -> None:
    """UsageError where ``pcs`` components beside the covariates leave ``what`` no degree of freedom for a SNP."""
    n, q = cohort.X_L.shape
    if degrees_of_freedom(n, q + pcs) < 1:
        raise UsageError(f"--pcs {pcs}: {what} has {n:,} samples, too few for {q + pcs} columns without a SNP")


def with_components(cohort: Cohort, Z_rep: np.ndarray) -> Cohort:
    """The cohort with eigenvectors (n, k) as further covariates PC1 .. PCk."""
    names = tuple(f"PC{k + 1}" for k in range(Z_rep.shape[1]))
    return dataclasses.replace(cohort, design=cohort.design.with_columns(Z_rep, names))
