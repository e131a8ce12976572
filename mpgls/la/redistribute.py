"""Redistribution plans: made once from layouts, run many times on data. Assignment is communication.

``ColumnsToGrid`` and ``GridToColumns`` move a matrix whose order matters between [*,VR] slabs and [MC,MR].
``PanelsToGrid`` moves blocks of columns whose order does not matter, with one Alltoallv inside each process column:
whatever columns its ranks bring become that process column's columns of the block ([Elem] 2.3.1). ``GridToBlocks``
gives every rank the blocks of a matrix that it wants.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mpgls.la.grid import ProcessGrid
from mpgls.la.layout import Block, BlockCyclic, Slabs
from mpgls.la.matrix import GridMatrix

DEALT_BYTES = 1 << 23
"""What a rank sends in a round of dealing rows, about."""


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
        if comm.size == 1:
            A_grid.local[:, target] = X_cols[:, position]
            return
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
        """This rank's slab (n x width, Fortran order) of ``round_``: a view on a grid of one rank. Collective."""
        comm, cols = self.grid.comm, self.layout.cols
        if comm.size == 1:
            own = self.slabs.columns(round_, 0)
            return A_grid.local[:, own.start : own.stop]
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


class Piece(NamedTuple):
    """What one rank has of a ``block`` that another wants: its local ``rows`` and ``columns``."""

    block: int
    rows: slice
    columns: slice


class GridToBlocks:
    """Plan: a grid matrix A, [MC,MR], or A' if ``transposed``, to the blocks of it that each rank wants: ``wanted``."""

    def __init__(self, A_grid: GridMatrix, wanted: Sequence[Sequence[Block]], transposed: bool = False) -> None:
        self.A_grid, self.wanted, self.transposed = A_grid, wanted, transposed
        (p_r, p_c), layout = A_grid.grid.shape, A_grid.layout
        rows, cols = [layout.rows.indices(r) for r in range(p_r)], [layout.cols.indices(c) for c in range(p_c)]
        both = [(rows[rank // p_c], cols[rank % p_c]) for rank in range(p_r * p_c)]
        self._held = [(c, r) for r, c in both] if transposed else both

    def _pieces(self, source: int, target: int, columns: range) -> Iterator[Piece]:
        """What ``source`` has of the blocks that ``target`` wants, in some columns of the whole."""
        rows, cols = self._held[source]
        for k, block in enumerate(self.wanted[target]):
            mine = slice(*np.searchsorted(rows, (block.rows.start, block.rows.stop)).tolist())
            start, stop = max(columns.start, block.cols.start), min(columns.stop, block.cols.stop)
            here = slice(*np.searchsorted(cols, (start, stop)).tolist())
            if mine.start < mine.stop and here.start < here.stop:
                yield Piece(k, mine, here)

    def run(self, dtype: type) -> list[np.ndarray]:
        """This rank's blocks, Fortran order, rounded to ``dtype``. Collective over the grid."""
        comm, n = self.A_grid.grid.comm, self.A_grid.shape[1]
        if comm.size == 1:  # nothing travels
            A = self.A_grid.local.T if self.transposed else self.A_grid.local
            here = [A[rows.start : rows.stop, cols.start : cols.stop] for rows, cols in self.wanted[0]]
            return [np.array(block, dtype=dtype, order="F") for block in here]
        blocks: list[np.ndarray] = [
            np.empty((len(rows), len(cols)), dtype=dtype, order="F") for rows, cols in self.wanted[comm.rank]
        ]
        numbers = sum(len(rows) * len(cols) for of_rank in self.wanted for rows, cols in of_rank)
        width = max(1, comm.size * slab_width(-(-numbers // n), DEALT_BYTES))
        for start in range(0, n, width):
            self._run_round(range(start, min(n, start + width)), blocks, dtype)
        return blocks

    def _run_round(self, columns: range, blocks: list[np.ndarray], dtype: type) -> None:
        comm = self.A_grid.grid.comm
        local = self.A_grid.local.T if self.transposed else self.A_grid.local
        ranks, me = range(comm.size), comm.rank
        pieces = [[local[one.rows, one.columns].T.ravel() for one in self._pieces(me, t, columns)] for t in ranks]
        sent = np.array([sum(piece.size for piece in of_rank) for of_rank in pieces])
        send = np.concatenate([np.empty(0, dtype=dtype), *(piece for of_rank in pieces for piece in of_rank)])
        arriving = [(s, one) for s in ranks for one in self._pieces(s, me, columns)]
        sizes = [(one.rows.stop - one.rows.start) * (one.columns.stop - one.columns.start) for _, one in arriving]
        received = np.array([sum(size for (s, _), size in zip(arriving, sizes, strict=True) if s == t) for t in ranks])
        receive: np.ndarray = np.empty(received.sum(), dtype=dtype)
        comm.Alltoallv(
            [send.astype(dtype, copy=False), (sent, _displacements(sent))],
            [receive, (received, _displacements(received))],
        )
        for (s, one), piece in zip(arriving, np.split(receive, np.cumsum(sizes)[:-1]), strict=False):
            (rows, cols), block = self._held[s], self.wanted[me][one.block]
            at = np.ix_(cols[one.columns] - block.cols.start, rows[one.rows] - block.rows.start)
            blocks[one.block].T[at] = piece.reshape(at[0].size, at[1].size)


def one_by_one(blocks: list[np.ndarray]) -> Iterator[np.ndarray]:
    """The blocks in turn; each is given back when the next is asked for."""
    while blocks:
        yield blocks.pop(0)


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
