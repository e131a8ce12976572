"""A file that all ranks write at once, each its part of a round behind those of the ranks before it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mpgls.mpi import together
from mpgls.stream.files import replaced_by_all, write_at, writing

if TYPE_CHECKING:
    from mpi4py import MPI


class SharedFile:
    """The open ``file`` of every rank; ``size`` bytes have their place. Its methods are collective.

    They raise StorageError, naming ``path``, on all ranks.
    """

    def __init__(self, comm: MPI.Comm, path: Path, file: int) -> None:
        self.comm, self.path, self.file, self.size = comm, path, file, 0

    def add(self, data: bytes) -> int:
        """Write this rank's part of a round; returns the byte at which it begins."""
        sizes = self.comm.allgather(len(data))
        begin = self.size + sum(sizes[: self.comm.rank])
        with together(self.comm), writing(self.path):
            write_at(self.file, data, begin)
        self.size += sum(sizes)
        return begin

    def add_once(self, data: bytes) -> None:
        """Write a part that rank 0 has."""
        self.add(data if self.comm.rank == 0 else b"")


@contextlib.contextmanager
def shared_file(comm: MPI.Comm, path: Path) -> Iterator[SharedFile]:
    """A file that gets its name ``path`` when the body is done, and is synced by then. Collective.

    What the body raises, it must raise on all ranks; then nothing is left of the file. Raises StorageError likewise.
    """
    with replaced_by_all(comm, path) as partial, contextlib.ExitStack() as stack:
        with together(comm), writing(path):
            file = os.open(partial, os.O_WRONLY)
            stack.callback(os.close, file)
        yield SharedFile(comm, path, file)
