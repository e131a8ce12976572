"""A kinship, or any matrix of columns, between its file and the process grid, in slabs of bounded size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from mpgls.errors import InputError
from mpgls.la import scalapack
from mpgls.la.eigen import multiply
from mpgls.la.layout import Slabs
from mpgls.la.matrix import GridMatrix
from mpgls.la.redistribute import ColumnsToGrid, GridToColumns, slab_width
from mpgls.mpi import together
from mpgls.run.plan import GRID_BLOCK
from mpgls.stream.files import writing
from mpgls.study.checked_rows import CheckedRows
from mpgls.study.grm import Kinship
from mpgls.study.tables import show_sample

SYMMETRY = 1e-5
"""Difference of a row from its column that is taken for rounding, relative to the largest row."""


def load_kinship(Phi_grid: GridMatrix, kinship: Kinship, index: np.ndarray) -> int:
    """Fill ``Phi_grid`` (n x n, [MC,MR], zeros) with rows and columns ``index`` of the file. Collective.

    A row of a symmetric matrix is a column, so rows of the file go out as [*,VR] columns. Of a lower-triangular file
    each pair arrives once, on either side of the diagonal, and is mirrored at the end. Returns the bytes that this rank
    read. Raises what ``kinship.rows`` raises, and InputError for a matrix that is not symmetric, on all ranks.
    """
    target = np.full(kinship.n, -1, dtype=np.int64)
    target[index] = np.arange(index.size)
    nbytes = load_columns(Phi_grid, kinship.rows, kinship.n, target, index)
    if kinship.packed_lower:
        mirror(Phi_grid)
    else:
        _check_symmetry(Phi_grid, kinship, index)
    return nbytes


def _check_symmetry(Phi_grid: GridMatrix, kinship: Kinship, index: np.ndarray) -> None:
    """Phi v = Phi'v for a random v, to rounding in float32; InputError on all ranks otherwise. Collective."""
    v = np.random.default_rng(7).standard_normal((index.size, 1))
    images, mirrored = multiply(Phi_grid, v), multiply(Phi_grid, v, transposed=True)
    with together(Phi_grid.grid.comm):
        refuse_asymmetry(images, mirrored, kinship, index)


def refuse_asymmetry(images: np.ndarray, mirrored: np.ndarray, kinship: Kinship, index: np.ndarray) -> None:
    """InputError where Phi v and Phi'v (n, 1), of a random v, differ by more than rounding in float32."""
    apart = np.abs(images - mirrored)[:, 0]
    if apart.max() > SYMMETRY * np.abs(images).max():
        sample = show_sample(kinship.ids[index[apart.argmax()]])
        raise InputError(f"{kinship.path} is not symmetric: the row and the column of sample {sample} differ")


def load_columns(
    A_grid: GridMatrix,
    read: Callable[[int, int], np.ndarray],
    count: int,
    target: np.ndarray | None = None,
    index: np.ndarray | None = None,
) -> int:
    """Fill ``A_grid`` from a file that stores each column contiguously. Collective; returns this rank's bytes.

    ``read(start, stop)`` gives columns of the file as the rows of a (stop-start, length) array; there are ``count``.
    Column j becomes column ``target[j]`` of the matrix (-1: not wanted); ``index`` picks its rows, in their order.
    """
    comm = A_grid.grid.comm
    wanted = np.arange(count) if target is None else target
    slabs = Slabs(count, slab_width(count), comm.size)
    plan = ColumnsToGrid(slabs, A_grid, wanted)
    nbytes = 0
    for round_ in range(slabs.rounds):
        columns = slabs.columns(round_, comm.rank)
        A_cols = np.zeros((A_grid.shape[0], len(columns)), order="F")
        with together(comm):
            if (wanted[columns.start : columns.stop] >= 0).any():
                block = read(columns.start, columns.stop)
                if index is None:
                    A_cols.T[...] = block
                else:
                    np.take(block, index, axis=1, out=A_cols.T, mode="clip")
                nbytes += block.nbytes
        plan.run(round_, A_cols, A_grid)
    return nbytes


def mirror(A_grid: GridMatrix) -> None:
    """A := A + A' - diag(A): makes a matrix that holds every pair once symmetric. Needs a second copy. Collective."""
    copy_grid = GridMatrix(A_grid.grid, A_grid.layout, A_grid.dtype.type, A_grid.local.copy(order="F"))
    scalapack.add_transpose(copy_grid, A_grid)
    A_grid.local[A_grid.diagonal_positions] *= 0.5


def keep_lower(A_grid: GridMatrix) -> None:
    """Zero everything above the diagonal."""
    for local, col in enumerate(A_grid.col_indices):
        A_grid.local[: np.searchsorted(A_grid.row_indices, col), local] = 0.0


def mirror_lower(A_grid: GridMatrix) -> None:
    """What is above the diagonal becomes the mirror image of what is below. Collective."""
    if A_grid.grid.size > 1:
        keep_lower(A_grid)
        mirror(A_grid)
        return
    A, n = A_grid.local, A_grid.shape[0]
    for start in range(0, n, GRID_BLOCK):
        stop = min(start + GRID_BLOCK, n)
        A[start:stop, stop:] = A[stop:, start:stop].T
        corner = np.tril(A[start:stop, start:stop])
        A[start:stop, start:stop] = corner + np.tril(corner, -1).T


def save_columns(A_grid: GridMatrix, path: str | Path, write: Callable[[int, np.ndarray], None]) -> None:
    """Write the columns of ``A_grid`` (for a symmetric matrix, its rows) into an existing file. Collective.

    ``write(start, columns)`` puts columns from ``start`` on, the rows of a (k, length) array, in their place; it may
    raise OSError. Raises StorageError, which names ``path``, on all ranks.
    """
    comm, (n, count) = A_grid.grid.comm, A_grid.shape
    slabs = Slabs(count, slab_width(n), comm.size)
    plan = GridToColumns(A_grid, slabs)
    for round_ in range(slabs.rounds):
        A_cols = plan.run(round_, A_grid)
        with together(comm), writing(path):
            columns = slabs.columns(round_, comm.rank)
            if columns:
                write(columns.start, A_cols.T)


def save_rows(A_grid: GridMatrix, rows: CheckedRows) -> None:
    """`save_columns` to the checked rows of a file. Collective. Raises StorageError on all ranks."""
    save_columns(A_grid, rows.path, rows.write)


def trace(A_grid: GridMatrix) -> float:
    """The sum of the diagonal, on every rank. Collective."""
    return float(A_grid.grid.comm.allreduce(float(A_grid.local[A_grid.diagonal_positions].sum())))


def center(A_grid: GridMatrix) -> None:
    """A := C A C with C = I - 11'/n, which takes the mean of every row and column away. Collective.

    With an intercept in the model the scan is the same; h2 then refers to the kinship within the sample (GEMMA).
    """
    n = A_grid.shape[0]
    mean = multiply(A_grid, np.ones((n, 1)))[:, 0] / n
    A_grid.local -= mean[A_grid.row_indices, None]
    A_grid.local -= mean[A_grid.col_indices] - mean.mean()


def scale_to_unit_diagonal(A_grid: GridMatrix, path: str) -> float:
    """Divide A, of the file ``path``, by its mean diagonal, which is returned. Collective.

    Raises InputError if it is not positive.
    """
    mean = trace(A_grid) / A_grid.shape[0]
    refuse_mean_diagonal(mean, path)
    A_grid.local /= mean
    return mean


def refuse_mean_diagonal(mean: float, path: str) -> None:
    """InputError for a mean diagonal that no kinship can be divided by."""
    if not mean > 0:
        raise InputError(f"{path}: the kinship's mean diagonal over the analysed samples is {mean:.6g}, not positive")
