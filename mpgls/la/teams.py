"""Teams: groups of ranks that each hold a whole n x n operator, so that blocks of columns can be dealt to teams.

An operator is X~ = L^-1 X (a triangular factor) or X~ = Z'X (a basis). It answers three questions of a stream of
columns: which rows go into which panel (``row_panels``), X~ for the columns in the panels (``apply``), and the sum over
all rows of partial products (``sum_over_rows``). In a team of one these are no communication at all; in a team of R
ranks they are one Alltoallv, one ScaLAPACK call and one Reduce_scatter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mpgls.la import scalapack
from mpgls.la.grid import ProcessGrid
from mpgls.la.layout import BlockCyclic, GridLayout
from mpgls.la.matrix import GridMatrix
from mpgls.la.redistribute import PanelsToGrid
from mpgls.la.shared import SharedArray, split_node
from mpgls.la.triangular import ColumnSolve

if TYPE_CHECKING:
    from mpi4py import MPI


class TeamOperator(Protocol):
    """An n x n operator held by one team, ready for blocks of ``width`` columns a rank."""

    rows: np.ndarray
    """Row indices of this rank's rows of X~."""
    row_panels: list[np.ndarray]
    """Row indices of each panel; together every row once."""
    panels: list[np.ndarray]
    """What the caller fills before ``apply``: (len(row_panels[k]), width), Fortran order."""

    def apply(self, used: int | None = None) -> np.ndarray:
        """X~ for the columns in the panels: this rank's rows, (n_local, width * p_r), Fortran order.

        ``used``: only the first so many columns of a rank count; a team of one then returns no others.
        """

    def sum_over_rows(self, partial: np.ndarray) -> np.ndarray:
        """(k, width * p_r) partial sums over this rank's rows to (k, width) full sums for this rank's own columns."""

    def close(self) -> None:
        """Free communicators and shared memory. Collective over the team (the node, for teams of one)."""

    def __enter__(self) -> TeamOperator:
        """The operator itself, to be closed at the end of the body if that ends well."""

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Close, unless the body failed: the others may not come."""


class _Closing:
    """Closes at the end of a ``with`` block that ends well; after a failure of one rank the others do not come."""

    def __enter__(self) -> Any:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self.close()

    def close(self) -> None:
        """Collective."""
        raise NotImplementedError


class _SharedOperator(_Closing):
    """The operator of teams of one rank: A whole, once a node, in memory that the node's ranks share."""

    def __init__(self, A_grid: GridMatrix, node_comm: MPI.Comm, width: int, dtype: type, lower: bool) -> None:
        n = A_grid.shape[0]
        self.rows = np.arange(n, dtype=np.int64)
        self.row_panels = [self.rows]
        self.panels: list[np.ndarray] = [np.zeros((n, width), dtype=dtype, order="F")]
        self._node_comm = node_comm.Dup()
        self._A_node = SharedArray(self._node_comm, (n, n), dtype, "factor")
        self._A = self._A_node.array
        _copy_to_nodes(A_grid, self._A, node_comm, lower)

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

        X = self.panels[0][:, :used]
        trsm = blas.dtrsm if X.dtype == np.float64 else blas.strsm
        return trsm(1.0, self._A, X, lower=1, overwrite_b=1)


class SharedBasis(_SharedOperator):
    """X~ = Z'X with the local BLAS."""

    def __init__(self, Z_grid: GridMatrix, node_comm: MPI.Comm, width: int, dtype: type) -> None:
        super().__init__(Z_grid, node_comm, width, dtype, lower=False)
        self._X_tilde = np.empty_like(self.panels[0])

    def apply(self, used: int | None = None) -> np.ndarray:
        """X~ = Z'X."""
        return np.matmul(self._A.T, self.panels[0][:, :used], out=self._X_tilde[:, :used])


class _GridOperator(_Closing):
    """The operator of a team of R ranks: A in [MC,MR] distribution on the team's own R x 1 grid.

    With one process column a single Alltoallv brings the whole block of columns, and A never travels.
    """

    def __init__(self, A_grid: GridMatrix, team: Team, width: int, dtype: type) -> None:
        n, block = A_grid.shape[0], A_grid.layout.rows.block
        self.grid = ProcessGrid(team.comm, (team.comm.size, 1))
        self._A_grid = _copy_to_teams(A_grid, self.grid, team, dtype)
        p_r, p_c = self.grid.shape
        rows = BlockCyclic(n, block, p_r)
        self.row_panels = [rows.indices(r) for r in range(p_r)]
        self.rows = self.row_panels[self.grid.row]
        self._plan = PanelsToGrid(self.grid, rows, width, dtype)
        self.panels = self._plan.panels
        self._layout = GridLayout(rows, BlockCyclic(width * p_r * p_c, width * p_r, p_c))
        self._X_grid = GridMatrix(self.grid, self._layout, dtype, local=self._plan.X_grid)

    def sum_over_rows(self, partial: np.ndarray) -> np.ndarray:
        """Sum over the process column; each rank receives the sums of the columns that it brought."""
        k, p_r = partial.shape[0], self.grid.shape[0]
        by_rank = np.ascontiguousarray(partial.reshape(k, p_r, -1).swapaxes(0, 1))
        mine = np.empty(by_rank.shape[1:], dtype=by_rank.dtype)
        self.grid.column_comm.Reduce_scatter_block(by_rank, mine)
        return mine

    def close(self) -> None:
        """Free the team's grid. Collective over the team."""
        self.grid.close()


class GridFactor(_GridOperator):
    """X~ = L^-1 X on the team's grid."""

    def __init__(self, L_grid: GridMatrix, team: Team, width: int, dtype: type) -> None:
        super().__init__(L_grid, team, width, dtype)
        self._solve = ColumnSolve(self._A_grid, self._X_grid)

    def apply(self, used: int | None = None) -> np.ndarray:
        """X_grid = X_cols by one Alltoallv; X~ = L^-1 X, in place."""
        self._plan.run()
        self._solve.run()
        return self._X_grid.local


class GridBasis(_GridOperator):
    """X~ = Z'X on the team's grid."""

    def __init__(self, Z_grid: GridMatrix, team: Team, width: int, dtype: type) -> None:
        super().__init__(Z_grid, team, width, dtype)
        self._X_tilde_grid = GridMatrix(self.grid, self._layout, dtype)

    def apply(self, used: int | None = None) -> np.ndarray:
        """X_grid = X_cols by one Alltoallv; X~ = Z'X by p?gemm."""
        self._plan.run()
        scalapack.gemm(self._A_grid, self._X_grid, self._X_tilde_grid, trans_a=True)
        return self._X_tilde_grid.local


@dataclass(frozen=True)
class Team:
    """One of ``count`` teams: its position among them and its ranks' communicator."""

    index: int
    count: int
    comm: MPI.Comm

    def __enter__(self) -> Team:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Free the communicator, unless the body failed: the others may not come."""
        if kind is None:
            self.comm.Free()

    def any(self, here: bool) -> bool:
        """Whether it is so on any rank of the team. Collective over the team."""
        return here if self.comm.size == 1 else bool(self.comm.allreduce(here))


def split_teams(comm: MPI.Comm, size: int) -> Team:
    """Split the ranks into teams of ``size`` consecutive ranks; ranks left over enlarge the teams. Collective."""
    count = max(1, comm.size // size)
    index = comm.rank * count // comm.size
    return Team(index, count, comm.Split(index, comm.rank))


def hold_factor(L_grid: GridMatrix, team: Team, width: int, dtype: type) -> TeamOperator:
    """Give every team its own copy of the factor L, for blocks of ``width`` columns a rank. Collective."""
    if team.count < L_grid.grid.size:
        return GridFactor(L_grid, team, width, dtype)
    node = split_node(L_grid.grid.comm)
    factor = SharedFactor(L_grid, node, width, dtype)
    node.Free()
    return factor


def hold_basis(Z_grid: GridMatrix, team: Team, width: int, dtype: type) -> TeamOperator:
    """Give every team its own copy of the basis Z, for blocks of ``width`` columns a rank. Collective."""
    if team.count < Z_grid.grid.size:
        return GridBasis(Z_grid, team, width, dtype)
    node = split_node(Z_grid.grid.comm)
    basis = SharedBasis(Z_grid, node, width, dtype)
    node.Free()
    return basis


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


def _copy_to_teams(A_grid: GridMatrix, grid: ProcessGrid, team: Team, dtype: type) -> GridMatrix:
    """A on every team's grid: one p?gemr2d a team, in which all ranks of the world take part."""
    n, block = A_grid.shape[0], A_grid.layout.rows.block
    source_grid = A_grid
    if A_grid.dtype != np.dtype(dtype):
        source_grid = GridMatrix(A_grid.grid, A_grid.layout, dtype, np.asfortranarray(A_grid.local, dtype=dtype))
    target_grid = GridMatrix.square(grid, n, block, dtype)
    for t in range(team.count):
        mine = target_grid if t == team.index else None
        scalapack.copy_between_grids((n, n), source_grid.dtype, source_grid, mine, A_grid.grid.context)
    return target_grid
