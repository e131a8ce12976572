"""Teams: groups of ranks that each hold a whole n x n operator, so that blocks of columns can be dealt to teams.

An operator is X~ = L^-1 X (a triangular factor) or X~ = Z'X (a basis). It answers four questions of a stream of
columns: which rank makes which columns (``exchange``), which rows go into which panel (``row_panels``), X~ for the
columns in the panels (``apply``), and the sum over all rows of partial products (``sum_over_rows``). In a team of one
there is no communication at all. `mpgls.la.hold` chooses how an operator is held.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from mpi4py import MPI

Made = tuple[np.ndarray, list[np.ndarray]]
"""What columns are made of, a row each (B, any), and the panels that they go to, (len(row_panels[k]), B) each."""


class TeamOperator(Protocol):
    """An n x n operator held by one team, ready for blocks of ``width`` columns a rank."""

    rows: np.ndarray
    """Row indices of this rank's rows of X~."""
    row_panels: list[np.ndarray]
    """Row indices of each panel; together every row once."""
    columns: int
    """Columns of X~: ``width`` of each rank of the team."""
    dtype: np.dtype
    """Of the columns."""

    def exchange(self, sources: np.ndarray) -> Iterator[Made]:
        """What this rank has to make columns of, and the panels for them; its own ``sources`` come first.

        ``sources`` (B, any) has a row for each of this rank's columns, B <= width: numbers or bytes, the same on all
        ranks of the team but for B. Collective over the team, to be iterated to its end before ``apply``.
        """

    def apply(self, used: int | None = None) -> np.ndarray:
        """X~ for the columns in the panels: this rank's rows, (n_local, columns), Fortran order.

        ``used``: only the first so many columns of a rank count; a team of one then returns no others.
        """

    def sum_over_rows(self, partial: np.ndarray) -> np.ndarray:
        """(k, columns) partial sums over this rank's rows to (k, width) full sums for this rank's own columns."""

    def close(self) -> None:
        """Free communicators and shared memory. Collective over the team (the node, for teams of one)."""

    def __enter__(self) -> TeamOperator:
        """The operator itself, to be closed at the end of the body if that ends well."""

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Close, unless the body failed: the others may not come."""


class Closing:
    """Closes at the end of a ``with`` block that ends well; after a failure of one rank the others do not come."""

    def __enter__(self) -> Any:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self.close()

    def close(self) -> None:
        """Collective."""
        raise NotImplementedError


@dataclass(frozen=True)
class Team:
    """One of ``count`` teams: its position among them and its ranks' communicator.

    ``solver`` says how several ranks hold an operator: "inverse", each its rows of L^-1 or Z', or "grid".
    """

    index: int
    count: int
    comm: MPI.Comm
    solver: str = "inverse"

    def __enter__(self) -> Team:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Free the communicator, unless the body failed: the others may not come."""
        if kind is None:
            self.comm.Free()

    def any(self, here: bool) -> bool:
        """Whether it is so on any rank of the team. Collective over the team."""
        return here if self.comm.size == 1 else bool(self.comm.allreduce(here))


def split_teams(comm: MPI.Comm, size: int, solver: str = "inverse") -> Team:
    """Split the ranks into teams of ``size`` consecutive ranks; ranks left over enlarge the teams. Collective."""
    count = max(1, comm.size // size)
    index = comm.rank * count // comm.size
    return Team(index, count, comm.Split(index, comm.rank), solver)


def sum_over_team(partial: np.ndarray, comm: MPI.Comm) -> np.ndarray:
    """(k, R * width) partial sums of each of R ranks to (k, width) sums of the columns that this rank brought."""
    k, R = partial.shape[0], comm.size
    by_rank = np.ascontiguousarray(partial.reshape(k, R, -1).swapaxes(0, 1))
    mine = np.empty(by_rank.shape[1:], dtype=by_rank.dtype)
    comm.Reduce_scatter_block(by_rank, mine)
    return mine


def sum_for_each(partial: Sequence[np.ndarray], comm: MPI.Comm) -> np.ndarray:
    """The sum over the ranks of what they have for this one: ``partial[r]`` (k_r,) float64 is for rank r."""
    if comm.size == 1:
        return partial[0]
    counts = [one.size for one in partial]
    mine = np.empty(counts[comm.rank])
    comm.Reduce_scatter(np.concatenate(partial), mine, counts)
    return mine
