"""One array for all ranks of a node, in a shared-memory window of MPI."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from mpgls.errors import MemoryPlanError
from mpgls.mpi import agree

if TYPE_CHECKING:
    from mpi4py import MPI

PIECE = 1 << 24
"""Numbers of a message between nodes."""


def split_node(world: MPI.Comm) -> MPI.Comm:
    """The ranks of ``world`` on this rank's node. Collective."""
    from mpi4py import MPI

    return world.Split_type(MPI.COMM_TYPE_SHARED, world.rank)


class SharedArray:
    """An array of zeros that every rank of ``node_comm`` reads and writes; private where the rank is alone.

    ``array`` has ``shape`` and ``dtype`` in Fortran order. Creating and closing it are collective over the node, and
    so is whatever orders one rank's writes before another's reads: ``fence``. ``what`` names it in messages.
    Raises MemoryPlanError, on all ranks of the node, when the node's shared memory has no room for it.
    """

    def __init__(self, node_comm: MPI.Comm, shape: tuple[int, ...], dtype: type, what: str = "array") -> None:
        self.comm = node_comm
        self._window: MPI.Win | None = None
        if node_comm.size == 1:
            self.array: np.ndarray = np.zeros(shape, dtype=dtype, order="F")
            return
        from mpi4py import MPI

        item, count = np.dtype(dtype).itemsize, int(np.prod(shape, dtype=np.int64))
        agree(node_comm, _shared_memory_problem(count * item, what) if node_comm.rank == 0 else None)
        mine = count * item if node_comm.rank == 0 else 0
        self._window = MPI.Win.Allocate_shared(mine, item, comm=node_comm)  # type: ignore[arg-type]
        memory, _ = self._window.Shared_query(0)
        whole: np.ndarray = np.frombuffer(memory, dtype=dtype, count=count)  # type: ignore[call-overload]
        self.array = whole.reshape(shape[::-1]).T

    def fill(self, comm: MPI.Comm, values: np.ndarray | None) -> None:
        """Copy ``values`` of rank 0 of ``comm`` into the array of each node. Collective over ``comm``."""
        leaders = comm.Split(0 if self.comm.rank == 0 else 1, comm.rank)
        if self.comm.rank == 0:
            flat = self.array.T.reshape(-1)
            if values is not None and comm.rank == 0:
                self.array[...] = values
            for start in range(0, flat.size, PIECE):
                leaders.Bcast(flat[start : start + PIECE], root=0)
        leaders.Free()
        self.fence()

    def fence(self) -> None:
        """What any rank wrote before is what every rank reads after. Collective over the node."""
        self.comm.Barrier()

    def close(self) -> None:
        """Give the memory back. Collective over the node; nobody may use ``array`` afterwards."""
        del self.array
        if self._window is not None:
            self._window.Free()


def _shared_memory_problem(nbytes: int, what: str) -> MemoryPlanError | None:
    """Shared windows are files in /dev/shm on Linux: writing past its end would kill the rank with SIGBUS."""
    if not os.path.isdir("/dev/shm"):
        return None
    status = os.statvfs("/dev/shm")
    free = status.f_bavail * status.f_frsize
    if nbytes <= free:
        return None
    return MemoryPlanError(
        f"the shared {what} needs {nbytes / 2**30:.1f} GiB of /dev/shm, which has {free / 2**30:.1f} GiB free: "
        "enlarge it, or use --precision mixed"
    )
