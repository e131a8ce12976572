"""Double-buffered asynchronous reading: the bytes of block k+1 are on their way while block k is worked on."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from mpgls.errors import StorageError
from mpgls.stream.files import mpi_name

LARGEST_READ = 2**30 - 1
GAP = 8
"""Unwanted rows that are read along rather than starting another request."""


@dataclass(frozen=True)
class RowRuns:
    """Which fixed-length rows of a file to read: ``runs`` of (first row, rows), and where the wanted ones arrive.

    ``pick`` are the positions of the wanted rows among all rows read; None when every row read is wanted.
    """

    runs: tuple[tuple[int, int], ...]
    pick: np.ndarray | None

    @property
    def rows(self) -> int:
        """Rows that are read, wanted or not."""
        return sum(count for _, count in self.runs)

    @classmethod
    def of(cls, index: np.ndarray, gap: int = GAP) -> RowRuns:
        """Runs that cover the ascending row numbers ``index``, joined over gaps of at most ``gap`` unwanted rows."""
        if index.size == 0:
            return cls((), None)
        breaks = np.flatnonzero(np.diff(index) > gap + 1) + 1
        starts, stops = index[np.r_[0, breaks]], index[np.r_[breaks - 1, index.size - 1]] + 1
        lengths = stops - starts
        if lengths.sum() == index.size:
            pick = None
        else:
            run_of = np.repeat(np.arange(starts.size), np.diff(np.r_[0, breaks, index.size]))
            pick = index - starts[run_of] + np.r_[0, np.cumsum(lengths)[:-1]][run_of]
        return cls(tuple(zip(starts.tolist(), lengths.tolist(), strict=True)), pick)


class BlockReader:
    """Streams blocks of fixed-length rows of one file through two buffers with ``MPI.File.Iread_at``.

    Every rank opens the file for itself (COMM_SELF), so ranks may read different numbers of blocks.

    Parameters: ``path``; ``header`` bytes before row 0; ``row_bytes``; ``blocks``, what to read, in order.
    Iterating yields (k, rows) with rows uint8 (wanted rows, row_bytes), valid until the next step.
    Raises StorageError naming the file when it cannot be opened or is shorter than expected.
    """

    def __init__(self, path: str | Path, header: int, row_bytes: int, blocks: Sequence[RowRuns]) -> None:
        from mpi4py import MPI

        self.path, self.header, self.row_bytes, self.blocks = Path(path), header, row_bytes, blocks
        largest = max((block.rows for block in blocks), default=0) * row_bytes
        self._buffers = [np.empty(largest, dtype=np.uint8) for _ in range(2)]
        try:
            # Nobody uses shared file pointers. Open MPI's files for them, in a folder that runs without mpirun share
            # on a node, vanish with the first of these runs that ends.
            os.environ.setdefault("OMPI_MCA_sharedfp", "^sm,lockedfile")
            self._file = MPI.File.Open(MPI.COMM_SELF, mpi_name(path), MPI.MODE_RDONLY)
        except MPI.Exception as error:
            raise StorageError(f"cannot read {path}: {error.Get_error_string()}") from None
        self._open, self._ahead = True, deque[tuple[MPI.Request, int]]()
        self.bytes_read = 0

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        try:
            self._start(0)
            for k in range(len(self.blocks)):
                self._finish(k)
                self._start(k + 1)
                yield k, self._rows(k)
        finally:
            self.close()

    def _start(self, k: int) -> None:
        """Begin to read block k."""
        if k < len(self.blocks):
            self._check_size(k)
            buffer, at = self._buffers[k % 2], 0
            for first, count in self.blocks[k].runs:
                position, left = self.header + first * self.row_bytes, count * self.row_bytes
                while left:
                    size = min(left, LARGEST_READ)
                    self._ahead.append((self._file.Iread_at(position, buffer[at : at + size]), size))
                    position, at, left = position + size, at + size, left - size

    def _check_size(self, k: int) -> None:
        """Block k must lie within the file as it is now: Open MPI never completes a read beyond the end."""
        first, count = self.blocks[k].runs[-1] if self.blocks[k].runs else (0, 0)
        if count and self._file.Get_size() < self.header + (first + count) * self.row_bytes:
            self._too_short(k)

    def _too_short(self, k: int) -> NoReturn:
        raise StorageError(f"{self.path} ended early in block {k}: it was changed while it was read")

    def _finish(self, k: int) -> None:
        """Wait for block k and check that every byte arrived."""
        from mpi4py import MPI

        while self._ahead:
            request, size = self._ahead.popleft()
            status = MPI.Status()
            try:
                request.Wait(status)
            except MPI.Exception as error:
                raise StorageError(f"cannot read {self.path}: {error.Get_error_string()}") from None
            if status.Get_count(MPI.BYTE) != size:
                self._too_short(k)
            self.bytes_read += size

    def _rows(self, k: int) -> np.ndarray:
        block = self.blocks[k]
        rows = self._buffers[k % 2][: block.rows * self.row_bytes].reshape(block.rows, self.row_bytes)
        return rows if block.pick is None else rows[block.pick]

    def close(self) -> None:
        """Close the file; the end of the last block does it too, and so does a loop that is left early.

        What is on its way arrives first: its memory would be given to others before.
        """
        from mpi4py import MPI

        if not self._open or MPI.Is_finalized():
            return
        self._open = False
        while self._ahead:
            with contextlib.suppress(MPI.Exception):
                self._ahead.popleft()[0].Wait()
        self._file.Close()
