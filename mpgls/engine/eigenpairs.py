"""The eigenpairs of a kinship on the process grid: computed, saved, and loaded again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mpgls.engine.kinship_grid import load_columns, save_rows
from mpgls.la import eigen
from mpgls.la.eigen import Eigenpairs
from mpgls.la.grid import ProcessGrid
from mpgls.la.matrix import GridMatrix
from mpgls.run.world import World
from mpgls.stream.eigen_file import EigenFile, create_eigen_file
from mpgls.stream.files import replaced_by_all
from mpgls.study.tables import SampleId


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


def leading_units(n: int, k: int) -> np.ndarray:
    """Z'z of the ``k`` leading eigenvectors z, the largest first: unit vectors (n, k), for eigenvalues ascending."""
    units = np.zeros((n, k))
    units[n - 1 - np.arange(k), np.arange(k)] = 1.0
    return units


def leading_pairs(Phi_grid: GridMatrix, k: int, slepc_options: str, world: World) -> tuple[np.ndarray, np.ndarray]:
    """The k largest eigenvalues (k,), descending, and their eigenvectors (n, k) on every rank. Collective.

    Raises NumericalError when fewer converge, UsageError without slepc4py.
    """
    basis = 2.0 * Phi_grid.shape[0] ** 2 * (2 * k + 15) / world.size  # products with Phi between two restarts, at most
    with world.phase("eigendecomposition", flop=basis):
        lam, Z_rep = eigen.leading_eigenpairs(Phi_grid, k, slepc_options, world.clock.step)
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
        save_rows(pairs.Z_grid, world.on_root(lambda: create_eigen_file(partial, pairs.lam, ids, about)))


def load_vectors(file: EigenFile, grid: ProcessGrid, block: int, world: World) -> GridMatrix:
    """Z of an eigendecomposition on disk, n x n [MC,MR] in square blocks. Collective.

    Raises what `EigenFile.columns` raises, on all ranks.
    """
    with world.phase("load eigenvectors") as loading:
        Z_grid = GridMatrix.square(grid, file.n, block)
        loading.nbytes += load_columns(Z_grid, file.columns, file.n)  # Z_grid = Z_cols
    return Z_grid
