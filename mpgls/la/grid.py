"""A process grid: one communicator, one BLACS context, and the communicator of each process column."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from mpgls.la import scalapack
from mpgls.la.layout import grid_shape

if TYPE_CHECKING:
    from mpi4py import MPI


class ProcessGrid:
    """p_r x p_c processes in row-major order over a duplicate of ``comm``.

    The grid owns its communicators and its BLACS context and gives them back in ``close`` (or at the end of a ``with``
    block), never in a destructor: closing is collective. Creating it is collective over ``comm``.

    Attributes: ``shape`` (p_r, p_c); ``row``, ``col`` of this process; ``comm`` all processes of the grid;
    ``column_comm`` the processes of this process column, ordered by process row.
    """

    def __init__(self, comm: MPI.Comm, shape: tuple[int, int] | None = None) -> None:
        self.shape = shape or grid_shape(comm.size)
        p_r, p_c = self.shape
        if p_r * p_c != comm.size:
            raise ValueError(f"a {p_r} x {p_c} grid needs {p_r * p_c} ranks, the communicator has {comm.size}")
        self.comm = comm.Dup()
        self.row, self.col = divmod(comm.rank, p_c)
        self.column_comm = self.comm.Split(color=self.col, key=self.row)
        self.context = scalapack.grid_init(self.comm.py2f(), p_r, p_c)
        self._open = True

    @property
    def size(self) -> int:
        """Number of processes."""
        return self.shape[0] * self.shape[1]

    def close(self) -> None:
        """Free the context and the communicators. Collective; a second call does nothing."""
        if self._open:
            self._open = False
            scalapack.grid_exit(self.context)
            self.column_comm.Free()
            self.comm.Free()

    def __enter__(self) -> ProcessGrid:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # after a failure of this rank alone the others do not come here: freeing would wait for them
        if error is None:
            self.close()
