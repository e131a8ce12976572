"""Writing while the next block is computed: a thread a file, and at most two writes on their way."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mpgls.stream.files import writing

ON_THEIR_WAY = 2


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
        self._pending: deque[Future[Any]] = deque()

    def submit(self, write: Callable[..., Any], *arguments: Any) -> None:
        """Have ``write`` run soon; waits while two are on their way. Raises StorageError when an earlier one failed."""
        while len(self._pending) >= ON_THEIR_WAY:
            self._wait_for_one()
        self._pending.append(self._thread.submit(write, *arguments))

    def wait(self) -> None:
        """Until all is written. Raises StorageError."""
        while self._pending:
            self._wait_for_one()

    def _wait_for_one(self) -> None:
        with writing(self.path):
            self._pending.popleft().result()

    def close(self) -> None:
        """Wait, and close the file. Raises StorageError."""
        try:
            self.wait()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close the file, whatever becomes of what is on its way."""
        self._pending.clear()
        self._thread.shutdown(cancel_futures=True)
        if self.descriptor >= 0:
            with contextlib.suppress(OSError):
                os.close(self.descriptor)
        self.descriptor = -1
