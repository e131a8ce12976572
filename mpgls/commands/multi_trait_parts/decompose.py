"""The eigenbasis of a group's kinship: decomposed on the grid, or read from the file of mpgls eigen."""

from __future__ import annotations

import numpy as np

from mpgls.commands.common.inputs import Study
from mpgls.commands.common.session import Session
from mpgls.commands.mixed_model.kinship_on_grid import KinshipOnGrid
from mpgls.commands.multi_trait_parts.trait_groups import TraitGroup, TraitStudy
from mpgls.la import eigen
from mpgls.la.grid import ProcessGrid
from mpgls.la.matrix import GridMatrix
from mpgls.la.teams import Team, TeamOperator, hold_basis
from mpgls.model.spectra import clip_spectrum
from mpgls.stream.eigen_file import EigenFile
from mpgls.stream.kinship_grid import load_columns


class GroupBasis:
    """Phi = Z diag(lam) Z' of one group, and its covariates in that basis.

    ``lam`` (n,) ascending, negative rounding set to 0; ``Z_grid`` n x n [MC,MR]; ``X_L_rot`` (n, q) = Z'X_L on every
    rank, with ``pcs`` leading eigenvectors as further covariates.
    """

    def __init__(self, lam: np.ndarray, Z_grid: GridMatrix, X_L: np.ndarray, pcs: int) -> None:
        self.lam, self.Z_grid = clip_spectrum(lam), Z_grid
        leading = np.zeros((lam.size, pcs))
        leading[lam.size - 1 - np.arange(pcs), np.arange(pcs)] = 1.0  # Z'z_k is a unit vector
        self.X_L_rot = np.asfortranarray(np.hstack([eigen.multiply(Z_grid, X_L, transposed=True), leading]))
        self.log_det_xtx = float(np.linalg.slogdet(self.X_L_rot.T @ self.X_L_rot)[1])

    def hold(self, team: Team, width: int, dtype: type) -> TeamOperator:
        """Z on every team, for blocks of ``width`` SNPs a rank. Collective."""
        return hold_basis(self.Z_grid, team, width, dtype)

    def close(self) -> None:
        """Forget the basis."""
        del self.Z_grid


class Decomposer:
    """Hands out the bases of ``uses`` groups, the kinship loaded once. Creating it and taking are collective."""

    def __init__(
        self,
        solver: str,
        slepc_options: str,
        study: Study,
        traits: TraitStudy,
        uses: int,
        eigen_file: EigenFile | None,
        grid: ProcessGrid,
        block: int,
        session: Session,
        centered: bool = False,
    ) -> None:
        self.solver, self.slepc_options, self.file = solver, slepc_options, eigen_file
        self.grid, self.block, self.session = grid, block, session
        self.facts: list[dict[str, object]] = []
        if eigen_file is None:
            assert study.kinship is not None
            position = np.full(study.fileset.bed.n, -1, dtype=np.int64)
            for group in traits.groups:
                position[group.rows] = group.kinship_index
            samples = np.flatnonzero(position >= 0)
            self.phi = KinshipOnGrid(study.kinship, samples, position[samples], uses, grid, block, session, centered)

    def take(self, group: TraitGroup, label: str, pcs: int) -> GroupBasis:
        """The basis of one group. Collective. Raises NumericalError when the decomposition fails its check."""
        if self.file is not None:
            with self.session.timings.phase("load eigenvectors") as loading:
                Z_grid = GridMatrix.square(self.grid, group.n, self.block)
                loading.nbytes += load_columns(Z_grid, self.file.columns, group.n)
            self.session.log.info(f"{label}: n = {group.n:,}; eigenvectors from {self.file.path}")
            return GroupBasis(self.file.lam, Z_grid, group.X_L, pcs)
        Phi_grid = self.phi.take(group.rows, label, to_destroy=True)
        with self.session.timings.phase("eigendecomposition", flop=9.0 * group.n**3 / self.grid.size):
            pairs = eigen.eigh(Phi_grid, self.solver, self.slepc_options)
        self.session.log.info(
            f"{label}: {pairs.how}; eigenvalues {pairs.lam[0]:.4g} to {pairs.lam[-1]:.6g}; scaled residual "
            f"{pairs.residual:.2g}, orthogonality {pairs.orthogonality:.2g}"
        )
        self.facts.append({"n": group.n, "solver": pairs.how, "residual": pairs.residual})
        return GroupBasis(pairs.lam, pairs.Z_grid, group.X_L, pcs)
