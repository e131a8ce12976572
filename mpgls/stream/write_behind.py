"""Writing while the next block is computed: a thread a file, and one write on its way."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mpgls.stream.files import writing


class WriteBehind:
    """Runs what writes to one file on a thread of its own, in order; the caller goes on computing.

    Every write is contiguous and of one rank, so MPI-IO would not be faster than ``pwrite``; and Open MPI 4.1 crashes
    while it handles the failure of ``MPI_File_iwrite_at``, where here a full disk becomes a StorageError. It is raised
    by the next call. Close it in the end.
    """

    def __init__(self, path: Path, flags: int) -> None:
        self.path = path
        with writing(path):
            self.descriptor = os.open(path, flags, 0o666)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"write {path.name}")
        self._on_its_way: Future[Any] | None = None

    def submit(self, write: Callable[..., Any], *arguments: Any) -> None:
        """Have ``write`` run soon, when the one before is done. Raises StorageError when that one failed."""
        self.wait()
        self._on_its_way = self._thread.submit(write, *arguments)

    def wait(self) -> None:
        """Until all is written. Raises StorageError."""
        pending, self._on_its_way = self._on_its_way, None
        if pending is not None:
            with writing(self.path):
                pending.result()

    def close(self) -> None:
        """Wait, and close the file. Raises StorageError."""
        try:
            self.wait()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close the file, whatever becomes of what is on its way."""
        self._on_its_way = None
        self._thread.shutdown(cancel_futures=True)
        if self.descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self.descriptor)
        self.descriptor = -1
