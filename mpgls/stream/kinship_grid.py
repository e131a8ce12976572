"""A kinship between its file and the process grid, in slabs of whole rows that never exceed a small buffer."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mpgls.errors import InputError, agree
from mpgls.la import scalapack
from mpgls.la.layout import Slabs
from mpgls.la.matrix import GridMatrix
from mpgls.la.redistribute import ColumnsToGrid, GridToColumns, slab_width
from mpgls.study.grm import Kinship


def load_kinship(Phi_grid: GridMatrix, kinship: Kinship, index: np.ndarray) -> int:
    """Fill ``Phi_grid`` (n x n, [MC,MR], zeros) with rows and columns ``index`` of the file. Collective.

    Every rank reads slabs of rows; a row of a symmetric matrix is a column, so the slabs go out as [*,VR] columns. Of
    a lower-triangular file each pair arrives once, on either side of the diagonal, and is mirrored at the end.
    Returns the bytes that this rank read. Raises what ``kinship.rows`` raises, on all ranks.
    """
    comm = Phi_grid.grid.comm
    target = np.full(kinship.n, -1, dtype=np.int64)
    target[index] = np.arange(index.size)
    slabs = Slabs(kinship.n, slab_width(kinship.n), comm.size)
    plan = ColumnsToGrid(slabs, Phi_grid, target)
    nbytes = 0
    for round_ in range(slabs.rounds):
        rows = slabs.columns(round_, comm.rank)
        Phi_cols, error = np.zeros((index.size, len(rows)), order="F"), None
        try:
            if (target[rows.start : rows.stop] >= 0).any():
                block = kinship.rows(rows.start, rows.stop)
                np.take(block, index, axis=1, out=Phi_cols.T)
                nbytes += block.nbytes
        except Exception as caught:
            error = caught
        agree(comm, error)
        plan.run(round_, Phi_cols, Phi_grid)
    if kinship.packed_lower:
        mirror(Phi_grid)
    return nbytes


def mirror(A_grid: GridMatrix) -> None:
    """A := A + A' - diag(A): makes a matrix that holds every pair once symmetric. Needs a second copy. Collective."""
    copy = GridMatrix(A_grid.grid, A_grid.layout, A_grid.dtype.type, A_grid.local.copy(order="F"))
    scalapack.add_transpose(copy, A_grid)
    A_grid.local[A_grid.diagonal_positions] *= 0.5


def keep_lower(A_grid: GridMatrix) -> None:
    """Zero everything above the diagonal."""
    for local, col in enumerate(A_grid.col_indices):
        A_grid.local[: np.searchsorted(A_grid.row_indices, col), local] = 0.0


def save_kinship(
    K_grid: GridMatrix, path: str | Path, place: Callable[[int], int], convert: Callable[[np.ndarray, int], np.ndarray]
) -> int:
    """Write the rows of a symmetric ``K_grid`` into an existing file. Collective; returns this rank's bytes.

    Row i goes to byte ``place(i)`` as ``convert(row, i)``, so one loop serves square and packed formats.
    Raises StorageError on all ranks.
    """
    comm = K_grid.grid.comm
    slabs = Slabs(K_grid.shape[0], slab_width(K_grid.shape[0]), comm.size)
    plan = GridToColumns(K_grid, slabs)
    nbytes = 0
    for round_ in range(slabs.rounds):
        K_cols = plan.run(round_, K_grid)
        error = None
        try:
            nbytes += _write_rows(K_cols, slabs.columns(round_, comm.rank), path, place, convert)
        except OSError as caught:
            error = caught
        agree(comm, error)
    return nbytes


def _write_rows(
    K_cols: np.ndarray,
    rows: range,
    path: str | Path,
    place: Callable[[int], int],
    convert: Callable[[np.ndarray, int], np.ndarray],
) -> int:
    if not len(rows):
        return 0
    pieces = [convert(K_cols[:, k], i).tobytes() for k, i in enumerate(rows)]
    with open(path, "r+b", buffering=0) as file:
        data, offset = b"".join(pieces), place(rows.start)
        view = memoryview(data)
        while view:
            written = os.pwrite(file.fileno(), view, offset)
            view, offset = view[written:], offset + written
    return len(data)


def trace(A_grid: GridMatrix) -> float:
    """The sum of the diagonal, on every rank. Collective."""
    return float(A_grid.grid.comm.allreduce(float(A_grid.local[A_grid.diagonal_positions].sum())))


def scale_to_unit_diagonal(A_grid: GridMatrix) -> float:
    """Divide A by its mean diagonal, which is returned. Collective. Raises InputError if it is not positive."""
    mean = trace(A_grid) / A_grid.shape[0]
    if not mean > 0:
        raise InputError(f"the kinship's mean diagonal over the analysed samples is {mean:.6g}, not positive")
    A_grid.local /= mean
    return mean
