"""Double-buffered asynchronous writing of fixed-size blocks at known file offsets, with checkpoints."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mpgls.errors import StorageError
from mpgls.stream.files import mpi_name

if TYPE_CHECKING:
    from mpi4py import MPI

CHECKPOINT_SECONDS = 15.0
"""How often results are synced and marked as done by default: what is lost at most when a run is killed."""


class BlockWriter:
    """Writes blocks with ``MPI.File.Iwrite_at`` into a file that exists already, and marks them done in a byte map.

    A block is marked only after its bytes were synced, so a killed run never finds a mark without its data. Syncing is
    done every ``checkpoint_seconds`` and in ``close``.

    Parameters: ``path``; ``done_offset``, where the byte of block 0 in the done-map lies; ``block_bytes`` at most;
    ``checkpoint_seconds`` between two checkpoints, 0 for one after every block.
    """

    def __init__(
        self, path: str | Path, done_offset: int, block_bytes: int, checkpoint_seconds: float = CHECKPOINT_SECONDS
    ) -> None:
        from mpi4py import MPI

        self.path, self.done_offset = Path(path), done_offset
        self.checkpoint_seconds = checkpoint_seconds
        self._buffers = [np.empty(block_bytes, dtype=np.uint8) for _ in range(2)]
        self._pending: list[MPI.Request | None] = [None, None]
        self._turn = 0
        self._unmarked: list[int] = []
        self._last_checkpoint = time.perf_counter()
        self.bytes_written = 0
        try:
            self._descriptor = os.open(path, os.O_RDWR)
            self._file = MPI.File.Open(MPI.COMM_SELF, mpi_name(path), MPI.MODE_WRONLY)
        except OSError as error:
            raise StorageError(f"cannot write {path}: {error.strerror}") from None
        except MPI.Exception as error:
            raise StorageError(f"cannot write {path}: {error.Get_error_string()}") from None

    def write(self, block: int | None, offset: int, records: np.ndarray) -> None:
        """Start to write ``records`` at byte ``offset`` as the result of ``block``; returns without waiting for it.

        None instead of a block: more of it follows, and only the last part marks it.
        """
        self._wait(self._turn)
        data = records.view(np.uint8).ravel()
        buffer = self._buffers[self._turn][: data.size]
        buffer[...] = data
        self._pending[self._turn] = self._file.Iwrite_at(offset, buffer)
        self._turn = 1 - self._turn
        self.bytes_written += data.size
        if block is None:
            return
        self._unmarked.append(block)
        if time.perf_counter() - self._last_checkpoint > self.checkpoint_seconds:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Wait, sync, and mark everything written so far as done."""
        for turn in (0, 1):
            self._wait(turn)
        if self._unmarked:
            self._sync()
            one = np.ones(1, dtype=np.uint8)
            for block in self._unmarked:
                self._guard(self._file.Write_at, self.done_offset + block, one)
            self._unmarked.clear()
        self._last_checkpoint = time.perf_counter()

    def _sync(self) -> None:
        """To the disk. MPI_File_sync would do, but Open MPI's refuses while any file has a request in flight."""
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise StorageError(f"cannot write {self.path}: {error.strerror}") from None

    def _wait(self, turn: int) -> None:
        request = self._pending[turn]
        if request is not None:
            self._guard(request.Wait)
            self._pending[turn] = None

    def _guard(self, action, *arguments: object) -> None:  # type: ignore[no-untyped-def]
        from mpi4py import MPI

        try:
            action(*arguments)
        except MPI.Exception as error:
            raise StorageError(f"cannot write {self.path}: {error.Get_error_string()}") from None

    def close(self) -> None:
        """Checkpoint and close."""
        self.checkpoint()
        self._sync()
        self._file.Close()
        os.close(self._descriptor)
