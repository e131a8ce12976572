"""Teams: groups of ranks that each hold a whole triangular factor, so that blocks of columns can be dealt to teams.

A factor answers three questions of a streamed solve: which rows go into which panel (``row_panels``), X~ = L^-1 X for
the columns in the panels (``solve``), and the sum over all rows of partial products (``sum_over_rows``). In a team of
one these are no communication at all; in a team of R ranks they are one Alltoallv, one p?trsm and one
Reduce_scatter.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from mpgls.errors import MemoryPlanError, agree
from mpgls.la import scalapack
from mpgls.la.grid import ProcessGrid
from mpgls.la.layout import BlockCyclic, GridLayout
from mpgls.la.matrix import GridMatrix
from mpgls.la.redistribute import PanelsToGrid

if TYPE_CHECKING:
    from mpi4py import MPI


class TeamFactor(Protocol):
    """A lower triangular factor L (n x n) held by one team, ready to solve blocks of ``width`` columns a rank."""

    rows: np.ndarray
    """Row indices of this rank's rows of X~."""
    row_panels: list[np.ndarray]
    """Row indices of each panel; together every row once."""
    panels: list[np.ndarray]
    """What the caller fills before ``solve``: (len(row_panels[k]), width), Fortran order."""

    def solve(self) -> np.ndarray:
        """X~ = L^-1 X for the columns in the panels: this rank's rows of X~, (n_local, width * p_r), Fortran order."""

    def sum_over_rows(self, partial: np.ndarray) -> np.ndarray:
        """(k, width * p_r) partial sums over this rank's rows to (k, width) full sums for this rank's own columns."""

    def close(self) -> None:
        """Free communicators and shared memory. Collective over the team (the node, for teams of one)."""


class SharedFactor:
    """The factor of teams of one rank: L whole, once a node, in memory that the node's ranks share."""

    def __init__(self, L_grid: GridMatrix, node_comm: MPI.Comm, width: int, dtype: type) -> None:
        n = L_grid.shape[0]
        self.rows = np.arange(n, dtype=np.int64)
        self.row_panels = [self.rows]
        self.panels: list[np.ndarray] = [np.zeros((n, width), dtype=dtype, order="F")]
        self._node_comm = node_comm
        self._window, self._L = _shared_array(node_comm, n, np.dtype(dtype))
        _copy_to_nodes(L_grid, self._L, node_comm)

    def solve(self) -> np.ndarray:
        """X~ = L^-1 X by the local BLAS, in place."""
        from scipy.linalg import blas

        X = self.panels[0]
        trsm = blas.dtrsm if X.dtype == np.float64 else blas.strsm
        return trsm(1.0, self._L, X, lower=1, overwrite_b=1)

    def sum_over_rows(self, partial: np.ndarray) -> np.ndarray:
        """All rows are here already."""
        return partial

    def close(self) -> None:
        """Free the node's window. Collective over the node."""
        del self._L
        if self._window is not None:
            self._window.Free()


class GridFactor:
    """The factor of a team of several ranks: L in [MC,MR] distribution on the team's own grid."""

    def __init__(
        self, L_grid: GridMatrix, team_comm: MPI.Comm, teams: int, index: int, width: int, dtype: type
    ) -> None:
        n, block = L_grid.shape[0], L_grid.layout.rows.block
        self.grid = ProcessGrid(team_comm)
        self._L_grid = _copy_to_teams(L_grid, self.grid, teams, index, dtype)
        p_r, p_c = self.grid.shape
        rows = BlockCyclic(n, block, p_r)
        self.row_panels = [rows.indices(r) for r in range(p_r)]
        self.rows = self.row_panels[self.grid.row]
        self._plan = PanelsToGrid(self.grid, rows, width, dtype)
        self.panels = self._plan.panels
        layout = GridLayout(rows, BlockCyclic(width * p_r * p_c, width * p_r, p_c))
        self._X_grid = GridMatrix(self.grid, layout, dtype, local=self._plan.X_grid)

    def solve(self) -> np.ndarray:
        """X_grid = X_cols by one Alltoallv; X~ = L^-1 X by p?trsm."""
        self._plan.run()
        scalapack.trsm(self._L_grid, self._X_grid)
        return self._X_grid.local

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


@dataclass(frozen=True)
class Team:
    """One of ``count`` teams: its position among them and its ranks' communicator."""

    index: int
    count: int
    comm: MPI.Comm


def split_teams(comm: MPI.Comm, size: int) -> Team:
    """Split the ranks into teams of ``size`` consecutive ranks; ranks left over enlarge the teams. Collective."""
    count = max(1, comm.size // size)
    index = comm.rank * count // comm.size
    return Team(index, count, comm.Split(index, comm.rank))


def hold_factor(L_grid: GridMatrix, team: Team, width: int, dtype: type) -> TeamFactor:
    """Give every team its own copy of the factor, ready for blocks of ``width`` columns a rank. Collective."""
    world = L_grid.grid.comm
    if team.count < world.size:
        return GridFactor(L_grid, team.comm, team.count, team.index, width, dtype)
    from mpi4py import MPI

    node_comm = world.Split_type(MPI.COMM_TYPE_SHARED, world.rank)
    return SharedFactor(L_grid, node_comm, width, dtype)


def _shared_array(node_comm: MPI.Comm, n: int, dtype: np.dtype) -> tuple[MPI.Win | None, np.ndarray]:
    """An n x n Fortran-ordered array, one for all ranks of ``node_comm``; private memory where the rank is alone."""
    if node_comm.size == 1:
        return None, np.zeros((n, n), dtype=dtype, order="F")
    from mpi4py import MPI

    nbytes = n * n * dtype.itemsize
    agree(node_comm, _shared_memory_problem(nbytes) if node_comm.rank == 0 else None)
    window = MPI.Win.Allocate_shared(nbytes if node_comm.rank == 0 else 0, dtype.itemsize, comm=node_comm)  # type: ignore[arg-type]
    memory, _ = window.Shared_query(0)
    whole: np.ndarray = np.frombuffer(memory, dtype=dtype, count=n * n)  # type: ignore[call-overload]
    return window, whole.reshape(n, n).T


def _shared_memory_problem(nbytes: int) -> MemoryPlanError | None:
    """Shared windows are files in /dev/shm on Linux: writing past its end would kill the rank with SIGBUS."""
    if not os.path.isdir("/dev/shm"):
        return None
    status = os.statvfs("/dev/shm")
    free = status.f_bavail * status.f_frsize
    if nbytes <= free:
        return None
    return MemoryPlanError(
        f"the shared factor needs {nbytes / 2**30:.1f} GiB of /dev/shm, which has {free / 2**30:.1f} GiB free: "
        "enlarge it, use --precision mixed, or use --team-size 2 or more"
    )


def _copy_to_nodes(L_grid: GridMatrix, L: np.ndarray, node_comm: MPI.Comm) -> None:
    """Every node's copy of L: each rank writes its own block, then one rank a node exchanges what its node holds."""
    world = L_grid.grid.comm
    _write_blocks(L, L_grid.layout, L_grid.grid.row, L_grid.grid.col, L_grid.local)
    node_comm.Barrier()
    leader_of = world.allgather(node_comm.bcast(world.rank, root=0))
    leaders = world.Split(color=0 if node_comm.rank == 0 else 1, key=world.rank)
    if node_comm.rank == 0 and leaders.size > 1:
        nodes = sorted(set(leader_of))
        for rank, leader in enumerate(leader_of):
            _share_rank_block(leaders, nodes.index(leader), L_grid, rank, L)
    leaders.Free()
    node_comm.Barrier()


def _share_rank_block(leaders: MPI.Comm, root: int, L_grid: GridMatrix, rank: int, L: np.ndarray) -> None:
    """Broadcast the block of ``rank`` from its node's copy of L to the others', one block column at a time."""
    row, col = divmod(rank, L_grid.grid.shape[1])
    rows = L_grid.layout.rows.indices(row)
    for start, stop, _ in _runs(L_grid.layout.cols, col):
        piece = np.empty((stop - start, rows.size), dtype=L.dtype)
        if leaders.rank == root:
            np.take(L.T[start:stop], rows, axis=1, out=piece)
        leaders.Bcast(piece, root=root)
        L.T[start:stop, rows] = piece


def _runs(cyclic: BlockCyclic, part: int) -> Iterator[tuple[int, int, int]]:
    """(global start, global stop, local start) of each block of ``part``."""
    for k, start in enumerate(range(part * cyclic.block, cyclic.n, cyclic.parts * cyclic.block)):
        yield start, min(start + cyclic.block, cyclic.n), k * cyclic.block


def _write_blocks(whole: np.ndarray, layout: GridLayout, row: int, col: int, local: np.ndarray) -> None:
    """Put a process's local block into its places in the whole matrix, lower triangle only."""
    for j0, j1, lj in _runs(layout.cols, col):
        for i0, i1, li in _runs(layout.rows, row):
            if i1 > j0:
                whole[i0:i1, j0:j1] = local[li : li + i1 - i0, lj : lj + j1 - j0]


def _copy_to_teams(L_grid: GridMatrix, team: ProcessGrid, teams: int, index: int, dtype: type) -> GridMatrix:
    """L on every team's grid: one p?gemr2d a team, in which all ranks of the world take part."""
    n, block = L_grid.shape[0], L_grid.layout.rows.block
    source = L_grid
    if L_grid.dtype != np.dtype(dtype):
        source = GridMatrix(L_grid.grid, L_grid.layout, dtype, np.asfortranarray(L_grid.local, dtype=dtype))
    target = GridMatrix.square(team, n, block, dtype)
    for t in range(teams):
        mine = target if t == index else None
        scalapack.copy_between_grids((n, n), source.dtype, source, mine, L_grid.grid.context)
    return target
