"""Phi = Z diag(lam) Z' on the process grid, decomposed here or read from a file, and the traits in this basis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mpgls.engine.kinship_grid import load_columns, save_columns
from mpgls.la import eigen
from mpgls.la.eigen import Eigenpairs
from mpgls.la.matrix import GridMatrix
from mpgls.la.teams import Team, TeamOperator, hold_basis
from mpgls.model.spectra import clip_spectrum, maximise_spectral_reml
from mpgls.stream.eigen_file import create_eigen_file
from mpgls.stream.files import replaced_by_all

if TYPE_CHECKING:
    from mpgls.la.grid import ProcessGrid
    from mpgls.run.world import World
    from mpgls.stream.eigen_file import EigenFile
    from mpgls.study.tables import SampleId
    from mpgls.study.trait_groups import TraitGroup
    from mpgls.study.trait_matrix import TraitMatrix


class Eigenbasis:
    """The eigenbasis of Phi over n samples, and their covariates in it.

    ``lam`` (n,) ascending, negative rounding set to 0; ``Z_grid`` n x n [MC,MR]; ``X_L_tilde_rep`` (n, q) = Z'X_L on
    every rank, with ``pcs`` leading eigenvectors as further covariates. Creating it is collective.
    """

    def __init__(self, lam: np.ndarray, Z_grid: GridMatrix, X_L_rep: np.ndarray, pcs: int = 0) -> None:
        self.lam, self.Z_grid = clip_spectrum(lam), Z_grid
        leading = np.zeros((lam.size, pcs))
        leading[lam.size - 1 - np.arange(pcs), np.arange(pcs)] = 1.0  # Z'z_k is a unit vector
        self.X_L_tilde_rep = np.asfortranarray(np.hstack([self.rotate(X_L_rep), leading]))
        self.log_det_xtx = float(np.linalg.slogdet(self.X_L_tilde_rep.T @ self.X_L_tilde_rep)[1])

    @property
    def n(self) -> int:
        """Samples."""
        return self.lam.size

    def rotate(self, C_rep: np.ndarray) -> np.ndarray:
        """C~ = Z'C of replicated columns (n, k), on every rank. Collective."""
        return eigen.multiply(self.Z_grid, C_rep, transposed=True)

    def hold(self, team: Team, width: int, dtype: type) -> TeamOperator:
        """Z on every team, for blocks of ``width`` SNPs a rank. Collective."""
        return hold_basis(self.Z_grid, team, width, dtype)


def decompose(Phi_grid: GridMatrix, solver: str, slepc_options: str, world: World, label: str) -> Eigenpairs:
    """All eigenpairs of Phi, which is overwritten. Collective.

    Raises NumericalError when the decomposition fails its check, UsageError for a ``solver`` that cannot be had.
    """
    n = Phi_grid.shape[0]
    with world.phase("eigendecomposition", flop=9.0 * n**3 / world.size):
        pairs = eigen.eigh(Phi_grid, solver, slepc_options)
    world.log.info(
        f"{label}: {pairs.how}; eigenvalues {pairs.lam[0]:.6g} to {pairs.lam[-1]:.6g}; scaled residual "
        f"{pairs.residual:.2g}, orthogonality {pairs.orthogonality:.2g} (both below {eigen.THRESHOLD:g})"
    )
    return pairs


def leading_pairs(Phi_grid: GridMatrix, k: int, slepc_options: str, world: World) -> tuple[np.ndarray, np.ndarray]:
    """The k largest eigenvalues (k,), descending, and their eigenvectors (n, k) on every rank. Collective.

    Raises NumericalError when fewer converge, UsageError without slepc4py.
    """
    with world.phase("eigendecomposition"):
        lam, Z_rep = eigen.leading_eigenpairs(Phi_grid, k, slepc_options)
    world.log.info(f"{k} leading eigenvalues: {', '.join(f'{value:.6g}' for value in lam)}")
    return lam, Z_rep


def save_pairs(
    path: Path, pairs: Eigenpairs, ids: Sequence[SampleId], attributes: Mapping[str, Any], world: World
) -> None:
    """All pairs into the file ``path``, which gets its name when it is complete. Collective.

    ``ids`` (n,) are the samples. Raises StorageError on all ranks.
    """
    n, about = len(ids), {"solver": pairs.how, **attributes}
    with world.phase("write", nbytes=8.0 * n * n / world.size), replaced_by_all(world.comm, path) as partial:
        offset = world.on_root(lambda: create_eigen_file(partial, pairs.lam, ids, about))
        save_columns(pairs.Z_grid, partial, lambda i: offset + 8 * n * i, lambda column, i: column.astype("<f8"))


def load_vectors(file: EigenFile, grid: ProcessGrid, block: int, world: World, label: str) -> GridMatrix:
    """Z of an eigendecomposition on disk, n x n [MC,MR] in square blocks. Collective. Raises StorageError."""
    with world.phase("load eigenvectors") as loading:
        Z_grid = GridMatrix.square(grid, file.n, block)
        loading.nbytes += load_columns(Z_grid, file.columns, file.n)  # Z_grid = Z_cols
    world.log.info(f"{label}: n = {file.n:,}; eigenvectors from {file.path}")
    return Z_grid


def rotate_traits(
    basis: Eigenbasis, matrix: TraitMatrix, group: TraitGroup, first: int, stop: int, world: World
) -> np.ndarray:
    """Y~ = Z'Y of the traits first..stop of a group: (n, stop-first) on every rank, Fortran order. Collective.

    Rank 0 reads them. Raises InputError or StorageError, on all ranks, for what is wrong with their file.
    """
    with world.phase("rotate traits", flop=2.0 * group.n**2 * (stop - first) / world.size):
        Y_rep = np.empty((stop - first, group.n)).T

        def read() -> None:
            Y_rep[...] = group.read(matrix, first, stop)

        world.on_root(read)
        world.comm.Bcast(Y_rep.T, root=0)
        return np.asfortranarray(basis.rotate(Y_rep))


@dataclass(frozen=True)
class TraitNulls:
    """h2, its standard error and REML log-likelihood (NaN where given), and whether it is at a boundary, each (t,)."""

    h2: np.ndarray
    h2_se: np.ndarray
    log_likelihood: np.ndarray
    at_boundary: np.ndarray


def maximise_reml_of_traits(basis: Eigenbasis, Y_tilde_rep: np.ndarray, known: np.ndarray, world: World) -> TraitNulls:
    """h2 of every trait of Y~ (n, t): as ``known`` (t,), or where that is NaN by REML; dealt to ranks. Collective."""
    h2, (h2_se, log_likelihood) = known.copy(), np.full((2, known.size), np.nan)
    boundary = np.zeros(known.size, dtype=bool)
    unknown = np.flatnonzero(np.isnan(known))
    mine = np.array_split(unknown, world.size)[world.rank]
    with world.phase("REML"):
        found = maximise_spectral_reml(basis.lam, basis.X_L_tilde_rep, Y_tilde_rep[:, mine], basis.log_det_xtx)
        of_rank = (mine, found.h2, found.h2_se, found.log_likelihood, found.at_boundary)
        for theirs, h2_r, se_r, likelihood_r, boundary_r in world.comm.allgather(of_rank):
            h2[theirs], h2_se[theirs], boundary[theirs] = h2_r, se_r, boundary_r
            log_likelihood[theirs] = likelihood_r
    # a trait that the covariates explain has no h2: its row is flagged, any value will do in the tiles
    return TraitNulls(np.nan_to_num(h2), h2_se, log_likelihood, boundary)
