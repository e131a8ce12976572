"""Double-buffered asynchronous reading: the bytes of block k+1 are on their way while block k is worked on."""

from __future__ import annotations

import contextlib
import os
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, NoReturn

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


class Span(NamedTuple):
    """``size`` bytes at ``position`` of a file."""

    file: int
    position: int
    size: int


@dataclass(frozen=True)
class RowFiles:
    """Rows of ``row_bytes`` in one file, or in several that follow one another, each after a header.

    ``first`` is the number of each file's first row. The last file may have any number of rows.
    """

    paths: tuple[Path, ...]
    header: int
    row_bytes: int
    first: tuple[int, ...] = (0,)

    def file_of(self, row: int) -> int:
        """The file that has a row."""
        return bisect_right(self.first, row) - 1

    def touched(self, blocks: Sequence[RowRuns]) -> list[int]:
        """The files that have rows of ``blocks``; a single file always counts."""
        found = {0} if len(self.paths) == 1 else set[int]()
        for block in blocks:
            if block.runs:
                last, count = block.runs[-1]
                found.update(range(self.file_of(block.runs[0][0]), self.file_of(last + count - 1) + 1))
        return sorted(found)

    def spans(self, block: RowRuns) -> Iterator[Span]:
        """Where the rows of a block lie, in order, at most LARGEST_READ bytes each."""
        for first, count in block.runs:
            while count:
                file = self.file_of(first)
                rows = count if file + 1 == len(self.first) else min(count, self.first[file + 1] - first)
                position, left = self.header + (first - self.first[file]) * self.row_bytes, rows * self.row_bytes
                while left:
                    size = min(left, LARGEST_READ)
                    yield Span(file, position, size)
                    position, left = position + size, left - size
                first, count = first + rows, count - rows


class BlockReader:
    """Streams blocks of fixed-length rows of files through two buffers with ``MPI.File.Iread_at``.

    Every rank opens for itself (COMM_SELF) the files that it needs, so ranks may read different numbers of blocks.

    Parameters: ``rows``, the files; ``blocks``, what to read, in order.
    Iterating yields (k, rows) with rows uint8 (wanted rows, row_bytes), valid until the next step.
    Raises StorageError naming the file when it cannot be opened or is shorter than expected.
    """

    def __init__(self, rows: RowFiles, blocks: Sequence[RowRuns]) -> None:
        from mpi4py import MPI

        self.rows, self.blocks = rows, blocks
        largest = max((block.rows for block in blocks), default=0) * rows.row_bytes
        self._buffers = [np.empty(largest, dtype=np.uint8) for _ in range(2)]
        self._open, self._ahead = True, deque[tuple[MPI.Request, Span]]()
        self._files: dict[int, MPI.File] = {}
        # Nobody uses shared file pointers. Open MPI's files for them, in a folder that runs without mpirun share on a
        # node, vanish with the first of these runs that ends.
        os.environ.setdefault("OMPI_MCA_sharedfp", "^sm,lockedfile")
        for k in rows.touched(blocks):
            try:
                self._files[k] = MPI.File.Open(MPI.COMM_SELF, mpi_name(rows.paths[k]), MPI.MODE_RDONLY)
            except MPI.Exception as error:
                self.close()
                raise StorageError(f"cannot read {rows.paths[k]}: {error.Get_error_string()}") from None
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
            spans = list(self.rows.spans(self.blocks[k]))
            self._check_sizes(k, spans)
            buffer, at = self._buffers[k % 2], 0
            for span in spans:
                request = self._files[span.file].Iread_at(span.position, buffer[at : at + span.size])
                self._ahead.append((request, span))
                at += span.size

    def _check_sizes(self, k: int, spans: Sequence[Span]) -> None:
        """Block k must lie within the files as they are now: Open MPI never completes a read beyond the end."""
        ends = {span.file: span.position + span.size for span in spans}  # of each file the last one stays
        for file, end in ends.items():
            if self._files[file].Get_size() < end:
                self._too_short(k, file)

    def _too_short(self, k: int, file: int) -> NoReturn:
        raise StorageError(f"{self.rows.paths[file]} ended early in block {k}: it was changed while it was read")

    def _finish(self, k: int) -> None:
        """Wait for block k and check that every byte arrived."""
        from mpi4py import MPI

        while self._ahead:
            request, span = self._ahead.popleft()
            status = MPI.Status()
            try:
                request.Wait(status)
            except MPI.Exception as error:
                path = self.rows.paths[span.file]
                raise StorageError(f"cannot read {path}: {error.Get_error_string()}") from None
            if status.Get_count(MPI.BYTE) != span.size:
                self._too_short(k, span.file)
            self.bytes_read += span.size

    def _rows(self, k: int) -> np.ndarray:
        block = self.blocks[k]
        row_bytes = self.rows.row_bytes
        rows = self._buffers[k % 2][: block.rows * row_bytes].reshape(block.rows, row_bytes)
        return rows if block.pick is None else rows[block.pick]

    def close(self) -> None:
        """Close the files; the end of the last block does it too, and so does a loop that is left early.

        What is on its way arrives first: its memory would be given to others before.
        """
        from mpi4py import MPI

        if not self._open or MPI.Is_finalized():
            return
        self._open = False
        while self._ahead:
            with contextlib.suppress(MPI.Exception):
                self._ahead.popleft()[0].Wait()
        for file in self._files.values():
            file.Close()
