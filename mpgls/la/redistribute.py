"""Redistribution plans: made once from layouts, run many times on data. Assignment is communication.

``ColumnsToGrid`` and ``GridToColumns`` move a matrix whose order matters between [*,VR] slabs and [MC,MR].
``PanelsToGrid`` moves blocks of columns whose order does not matter, with one Alltoallv inside each process column:
whatever columns its ranks bring become that process column's columns of the block ([Elem] 2.3.1).
"""

from __future__ import annotations

import numpy as np

from mpgls.la.grid import ProcessGrid
from mpgls.la.layout import BlockCyclic, Slabs
from mpgls.la.matrix import GridMatrix


def _displacements(counts: np.ndarray) -> np.ndarray:
    return np.concatenate(([0], np.cumsum(counts)[:-1]))


class ColumnsToGrid:
    """Plan: whole columns in slabs, [*,VR], to a grid matrix, [MC,MR].

    ``target`` maps a source column to its column of the grid matrix, or to -1 to leave it out; the rows of a slab are
    in the grid matrix's order already.
    """

    def __init__(self, slabs: Slabs, A_grid: GridMatrix, target: np.ndarray | None = None) -> None:
        self.slabs, self.grid = slabs, A_grid.grid
        self.layout = A_grid.layout
        self.target = np.arange(slabs.n) if target is None else target
        p_r, p_c = self.grid.shape
        self.rows = [self.layout.rows.indices(r) for r in range(p_r)]
        self.p_c = p_c

    def _kept(self, round_: int, rank: int) -> tuple[np.ndarray, np.ndarray]:
        """Positions within the slab, and grid columns, of the columns that are kept."""
        columns = self.slabs.columns(round_, rank)
        target = self.target[columns.start : columns.stop]
        position = np.flatnonzero(target >= 0)
        return position, target[position]

    def run(self, round_: int, X_cols: np.ndarray, A_grid: GridMatrix) -> None:
        """Send this rank's slab ``X_cols`` (n x width, Fortran order) of ``round_``. Collective over the grid."""
        comm, cols = self.grid.comm, self.layout.cols
        position, target = self._kept(round_, comm.rank)
        owner = cols.owner(target)
        pieces, counts = [], np.zeros((len(self.rows), self.p_c), dtype=np.int64)
        for r, rows in enumerate(self.rows):
            for c in range(self.p_c):
                piece = X_cols.T[np.ix_(position[owner == c], rows)]
                pieces.append(piece.ravel())
                counts[r, c] = piece.size
        arriving = [self._kept(round_, s)[1] for s in range(comm.size)]
        arriving = [t[cols.owner(t) == self.grid.col] for t in arriving]
        n_local = A_grid.local.shape[0]
        received = np.array([t.size * n_local for t in arriving])
        send, receive = np.concatenate(pieces), np.empty(received.sum(), dtype=X_cols.dtype)
        comm.Alltoallv(
            [send, (counts.ravel(), _displacements(counts.ravel()))], [receive, (received, _displacements(received))]
        )
        local_columns = cols.local(np.concatenate(arriving))
        A_grid.local[:, local_columns] = receive.reshape(local_columns.size, n_local).T


class GridToColumns:
    """Plan: a grid matrix, [MC,MR], to whole columns in slabs, [*,VR]; the inverse of ``ColumnsToGrid``."""

    def __init__(self, A_grid: GridMatrix, slabs: Slabs) -> None:
        self.slabs, self.grid, self.layout = slabs, A_grid.grid, A_grid.layout
        p_r, p_c = self.grid.shape
        self.rows = [self.layout.rows.indices(r) for r in range(p_r)]
        self.p_c = p_c

    def run(self, round_: int, A_grid: GridMatrix) -> np.ndarray:
        """This rank's slab (n x width, Fortran order) of ``round_``. Collective over the grid."""
        comm, cols = self.grid.comm, self.layout.cols
        pieces, counts = [], []
        for rank in range(comm.size):
            columns = np.asarray(self.slabs.columns(round_, rank), dtype=np.int64)
            mine = columns[cols.owner(columns) == self.grid.col]
            piece = A_grid.local.T[cols.local(mine)]
            pieces.append(piece.ravel())
            counts.append(piece.size)
        wanted = np.asarray(self.slabs.columns(round_, comm.rank), dtype=np.int64)
        owner = cols.owner(wanted)
        received = np.array([rows.size * np.count_nonzero(owner == c) for rows in self.rows for c in range(self.p_c)])
        receive = np.empty(received.sum(), dtype=A_grid.dtype)
        comm.Alltoallv(
            [np.concatenate(pieces), (np.array(counts), _displacements(np.array(counts)))],
            [receive, (received, _displacements(received))],
        )
        X_cols = np.empty((A_grid.shape[0], wanted.size), dtype=A_grid.dtype, order="F")
        parts = iter(np.split(receive, np.cumsum(received)[:-1]))
        for rows in self.rows:
            for c in range(self.p_c):
                mine = np.flatnonzero(owner == c)
                X_cols.T[np.ix_(mine, rows)] = next(parts).reshape(mine.size, rows.size)
        return X_cols


class PanelsToGrid:
    """Plan: columns of the ranks of one process column to their [MC,MR] block, by one Alltoallv.

    Every rank brings ``width`` whole columns, already cut into one panel per process row (``panels``: views of one send
    buffer, each Fortran-ordered, rows in the order of that process row). What arrives is this process's rows of all
    p_r * width columns, contiguous and in Fortran order: nothing is packed on either side.
    """

    def __init__(self, grid: ProcessGrid, rows: BlockCyclic, width: int, dtype: type) -> None:
        self.comm = grid.column_comm
        counts = np.array([rows.count(r) * width for r in range(grid.shape[0])])
        n_local = rows.count(grid.row)
        self._send: np.ndarray = np.zeros(counts.sum(), dtype=dtype)
        self.panels = [
            piece.reshape(width, piece.size // width).T for piece in np.split(self._send, np.cumsum(counts)[:-1])
        ]  # each (rows of process row r) x width
        self.X_grid: np.ndarray = np.zeros((n_local, width * grid.shape[0]), dtype=dtype, order="F")
        received = np.full(grid.shape[0], n_local * width)
        self._send_spec = [self._send, (counts, _displacements(counts))]
        self._receive_spec = [self.X_grid.T.ravel(), (received, _displacements(received))]

    def run(self) -> np.ndarray:
        """Send the panels; returns the local block (n_local x p_r*width), valid until the next run."""
        self.comm.Alltoallv(self._send_spec, self._receive_spec)
        return self.X_grid


def submatrix(A_grid: GridMatrix, index: np.ndarray, block: int) -> GridMatrix:
    """A_grid[index, index] in square blocks on the same grid, through slabs of whole columns. Collective."""
    part_grid = GridMatrix.square(A_grid.grid, index.size, block, A_grid.dtype.type)
    target = np.full(A_grid.shape[1], -1, dtype=np.int64)
    target[index] = np.arange(index.size)
    slabs = Slabs(A_grid.shape[1], slab_width(A_grid.shape[0]), A_grid.grid.size)
    to_columns, to_grid = GridToColumns(A_grid, slabs), ColumnsToGrid(slabs, part_grid, target)
    for round_ in range(slabs.rounds):
        X_cols = to_columns.run(round_, A_grid)
        to_grid.run(round_, np.asfortranarray(X_cols[index]), part_grid)
    return part_grid


def slab_width(n: int, nbytes: int = 2**25) -> int:
    """Columns of n float64 that fit a buffer of ``nbytes``, at least one."""
    return max(1, nbytes // (8 * max(1, n)))
