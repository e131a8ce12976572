"""The operator of a team of several ranks by rows of W that stay where they are: X~ = W X with W = L^-1, or Z'.

The columns X of the whole team lie once on each of its nodes, in shared memory, and every rank multiplies its own rows
of W by all of them: no rank waits for another inside a product. Of a triangle only blocks below the diagonal are kept
and multiplied. What columns are made of (packed bytes, say) travels instead of the columns, and only between nodes: on
each node the ranks share the making of the columns that come from elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mpgls.la import scalapack
from mpgls.la.layout import Block, FoldedRows, blocks_of_triangle
from mpgls.la.matrix import GridMatrix
from mpgls.la.redistribute import GridToBlocks
from mpgls.la.shared import SharedArray, split_node
from mpgls.la.teams import Closing, Made, Team, sum_over_team

if TYPE_CHECKING:
    from mpi4py import MPI

SMALLEST = 128
"""Rows of a block on the diagonal of a triangle, at most; its upper half are zeros, which are multiplied as well."""


class RowOperator(Closing):
    """X~ = W X for ``A_grid`` = W n x n [MC,MR], or W' if it is ``transposed``; of a ``lower`` W the rest is not read.

    Making it is collective over the grid, which has the ranks of all teams. MemoryPlanError without room on a node.
    """

    def __init__(
        self,
        A_grid: GridMatrix,
        team: Team,
        width: int,
        dtype: type,
        lower: bool = False,
        transposed: bool = False,
    ) -> None:
        n, R = A_grid.shape[0], team.comm.size
        places = A_grid.grid.comm.allgather((R, team.comm.rank))
        wanted = [_blocks(FoldedRows(n, size).intervals(rank), n, lower) for size, rank in places]
        self._blocks = wanted[A_grid.grid.comm.rank]
        self._W_team = GridToBlocks(A_grid, wanted, transposed).run(dtype)
        for block, W in zip(self._blocks, self._W_team, strict=True):
            if lower and block.rows == block.cols:
                W[...] = np.tril(W)
        top, bottom = FoldedRows(n, R).intervals(team.comm.rank)
        self.rows = np.array([*top, *bottom], dtype=np.int64)
        self.row_panels = [np.arange(n)]
        self.columns, self._width = width * R, width
        self.dtype: np.dtype = np.dtype(dtype)
        self._comm, self._node_comm = team.comm.Dup(), split_node(team.comm)
        self._send_to, self._receive_from = messages(_node_of_ranks(team.comm, self._node_comm), team.comm.rank)
        self._X_node = SharedArray(self._node_comm, (n, self.columns), dtype, "block of columns")
        self._X_tilde: np.ndarray = np.empty((self.rows.size, self.columns), dtype=dtype, order="F")

    def exchange(self, sources: np.ndarray) -> Iterator[Made]:
        """Own columns first, while sources from other nodes arrive."""
        from mpi4py import MPI

        comm, (B, k) = self._comm, sources.shape
        arriving = [np.empty((self._width, k), dtype=sources.dtype) for _ in self._receive_from]
        receiving = [
            comm.Irecv([into, MPI.BYTE], source=rank) for into, rank in zip(arriving, self._receive_from, strict=True)
        ]
        sending = [comm.Isend([sources, MPI.BYTE], dest=rank) for rank in self._send_to]
        self._X_node.fence()  # nobody multiplies the last columns any more
        yield sources, [self._columns_of(comm.rank, B)]
        for into, rank, request in zip(arriving, self._receive_from, receiving, strict=True):
            status = MPI.Status()
            request.Wait(status)
            theirs = status.Get_count(MPI.BYTE) // (k * sources.itemsize)
            yield into[:theirs], [self._columns_of(rank, theirs)]
        MPI.Request.Waitall(sending)

    def _columns_of(self, rank: int, count: int) -> np.ndarray:
        """Where the columns of a rank of the team lie on this node."""
        return self._X_node.array[:, rank * self._width : rank * self._width + count]

    def apply(self, used: int | None = None) -> np.ndarray:
        """X~ = W X, this rank's rows of the whole team's columns."""
        self._X_node.fence()
        X, X_tilde = self._X_node.array, self._X_tilde
        X_tilde[...] = 0.0
        for (rows, cols), W in zip(self._blocks, self._W_team, strict=True):
            first = np.searchsorted(self.rows, rows.start)
            scalapack.add_product(X_tilde[first : first + len(rows)], W, X[cols.start : cols.stop])
        return X_tilde

    def sum_over_rows(self, partial: np.ndarray) -> np.ndarray:
        """Sum over the team; each rank receives the sums of the columns that it brought."""
        return sum_over_team(partial, self._comm)

    def close(self) -> None:
        """Free shared memory and communicators. Collective over the team."""
        self._X_node.close()
        self._node_comm.Free()
        self._comm.Free()


def _blocks(intervals: Sequence[range], n: int, lower: bool) -> list[Block]:
    """Of these rows of W, an n x n matrix."""
    if lower:
        return [block for rows in intervals for block in blocks_of_triangle(rows, SMALLEST)]
    return [Block(rows, range(n)) for rows in intervals if rows]


def messages(node_of: Sequence[int], rank: int) -> tuple[list[int], list[int]]:
    """The ranks that ``rank`` sends its sources to, and those that it makes columns for.

    ``node_of`` is the node of each rank of a team. The sources of every rank reach every other node once; the ranks of
    a node take what comes from elsewhere in turn.
    """
    send_to, receive_from = [], []
    for node in sorted(set(node_of)):
        here = [r for r, k in enumerate(node_of) if k == node]
        elsewhere = [r for r, k in enumerate(node_of) if k != node]
        for k, source in enumerate(elsewhere):
            maker = here[k % len(here)]
            if source == rank:
                send_to.append(maker)
            if maker == rank:
                receive_from.append(source)
    return send_to, receive_from


def _node_of_ranks(comm: MPI.Comm, node_comm: MPI.Comm) -> list[int]:
    """Of each rank of ``comm`` the first rank of its node."""
    return comm.allgather(node_comm.bcast(comm.rank, root=0))
