"""The operator of teams of one rank: A whole, once a node, in memory that the node's ranks share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from mpgls.la.layout import BlockCyclic, GridLayout
from mpgls.la.matrix import GridMatrix
from mpgls.la.shared import SharedArray
from mpgls.la.teams import Closing, Made

if TYPE_CHECKING:
    from mpi4py import MPI


class _SharedOperator(Closing):
    """The operator of teams of one rank: A whole, once a node, in memory that the node's ranks share."""

    def __init__(self, A_grid: GridMatrix, node_comm: MPI.Comm, width: int, dtype: type, lower: bool) -> None:
        n = A_grid.shape[0]
        self.rows = np.arange(n, dtype=np.int64)
        self.row_panels = [self.rows]
        self.columns = width
        self.dtype: np.dtype = np.dtype(dtype)
        self._X: np.ndarray = np.zeros((n, width), dtype=dtype, order="F")
        self._node_comm = node_comm.Dup()
        self._A_node = SharedArray(self._node_comm, (n, n), dtype, "factor")
        self._A = self._A_node.array
        _copy_to_nodes(A_grid, self._A, node_comm, lower)

    def exchange(self, sources: np.ndarray) -> Iterator[Made]:
        """Every rank makes its own columns."""
        yield sources, [self._X[:, : len(sources)]]

    def sum_over_rows(self, partial: np.ndarray) -> np.ndarray:
        """All rows are here already."""
        return partial

    def close(self) -> None:
        """Free the node's window and communicator. Collective over the node."""
        del self._A
        self._A_node.close()
        self._node_comm.Free()


class SharedFactor(_SharedOperator):
    """X~ = L^-1 X with the local BLAS."""

    def __init__(self, L_grid: GridMatrix, node_comm: MPI.Comm, width: int, dtype: type) -> None:
        super().__init__(L_grid, node_comm, width, dtype, lower=True)

    def apply(self, used: int | None = None) -> np.ndarray:
        """X~ = L^-1 X, in place."""
        from scipy.linalg import blas

        X = self._X[:, :used]
        trsm = blas.dtrsm if X.dtype == np.float64 else blas.strsm
        return trsm(1.0, self._A, X, lower=1, overwrite_b=1)


class SharedBasis(_SharedOperator):
    """X~ = Z'X with the local BLAS."""

    def __init__(self, Z_grid: GridMatrix, node_comm: MPI.Comm, width: int, dtype: type) -> None:
        super().__init__(Z_grid, node_comm, width, dtype, lower=False)
        self._X_tilde = np.empty_like(self._X)

    def apply(self, used: int | None = None) -> np.ndarray:
        """X~ = Z'X."""
        return np.matmul(self._A.T, self._X[:, :used], out=self._X_tilde[:, :used])


def _copy_to_nodes(A_grid: GridMatrix, A: np.ndarray, node_comm: MPI.Comm, lower: bool) -> None:
    """Every node's copy of A: each rank writes its own block, then one rank a node exchanges what its node holds."""
    world = A_grid.grid.comm
    _write_blocks(A, A_grid.layout, A_grid.grid.row, A_grid.grid.col, A_grid.local, lower)
    node_comm.Barrier()
    leader_of = world.allgather(node_comm.bcast(world.rank, root=0))
    leaders = world.Split(color=0 if node_comm.rank == 0 else 1, key=world.rank)
    if node_comm.rank == 0 and leaders.size > 1:
        nodes = sorted(set(leader_of))
        for rank, leader in enumerate(leader_of):
            _share_rank_block(leaders, nodes.index(leader), A_grid, rank, A)
    leaders.Free()
    node_comm.Barrier()


def _share_rank_block(leaders: MPI.Comm, root: int, A_grid: GridMatrix, rank: int, A: np.ndarray) -> None:
    """Broadcast the block of ``rank`` from its node's copy of A to the others', one block column at a time."""
    row, col = divmod(rank, A_grid.grid.shape[1])
    rows = A_grid.layout.rows.indices(row)
    for start, stop, _ in _runs(A_grid.layout.cols, col):
        piece = np.empty((stop - start, rows.size), dtype=A.dtype)
        if leaders.rank == root:
            np.take(A.T[start:stop], rows, axis=1, out=piece)
        leaders.Bcast(piece, root=root)
        A.T[start:stop, rows] = piece


def _runs(cyclic: BlockCyclic, part: int) -> Iterator[tuple[int, int, int]]:
    """(global start, global stop, local start) of each block of ``part``."""
    for k, start in enumerate(range(part * cyclic.block, cyclic.n, cyclic.parts * cyclic.block)):
        yield start, min(start + cyclic.block, cyclic.n), k * cyclic.block


def _write_blocks(whole: np.ndarray, layout: GridLayout, row: int, col: int, local: np.ndarray, lower: bool) -> None:
    """Put a process's local block into its places in the whole matrix, or in its lower triangle only."""
    for j0, j1, lj in _runs(layout.cols, col):
        for i0, i1, li in _runs(layout.rows, row):
            if i1 > j0 or not lower:
                whole[i0:i1, j0:j1] = local[li : li + i1 - i0, lj : lj + j1 - j0]
