"""Rows of equal length at a fixed place of a file, with checksums that are compared while the rows are read."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from mpgls.errors import InputError, StorageError
from mpgls.study.checksums import SUM_DTYPE, segment_checksums

STEP_BYTES = 1 << 20
"""What is read before it is compared: it is still in the cache then."""

Rows = range | np.ndarray
Name = Callable[[int, int, int], str]
"""What messages call the numbers first..stop of a row."""


@dataclass(frozen=True)
class CheckedRows:
    """``count`` rows of ``width`` numbers from byte ``offset`` of the file on. Picklable.

    Each ``segment`` numbers of a row have a checksum. ``sums`` is the byte at which these begin, SUM_DTYPE (segments of
    a row, count); None in a file that was made without. Whoever reads a part of a segment reads all of it.
    """

    path: str
    offset: int
    count: int
    width: int
    segment: int
    sums: int | None
    dtype: str = "<f8"

    @property
    def notes(self) -> tuple[str, ...]:
        """What the log says of a file without checksums."""
        return () if self.sums is not None else ("made without checksums, so damage to it would not be noticed",)

    def write(self, start: int, rows: np.ndarray) -> None:
        """Write rows (k, width) from number ``start`` on, and their checksums. Raises OSError."""
        self.mark(start, self.put(start, rows))

    def put(self, start: int, rows: np.ndarray) -> np.ndarray:
        """Write the rows without their checksums (segments, k), which are returned for `mark`. Raises OSError."""
        data = np.ascontiguousarray(rows, dtype=self.dtype)
        with open(self.path, "r+b") as file:
            file.seek(self.offset + start * self.width * data.itemsize)
            file.write(data.data)
        return segment_checksums(data, self.segment)

    def mark(self, start: int, sums: np.ndarray) -> None:
        """Keep the checksums (segments, k) of the rows from ``start`` on. Raises OSError."""
        assert self.sums is not None
        with open(self.path, "r+b") as file:
            for s, one in enumerate(np.ascontiguousarray(sums)):
                file.seek(self.sums + (s * self.count + start) * SUM_DTYPE.itemsize)
                file.write(one.data)

    def read(self, start: int, stop: int, name: Name) -> np.ndarray:
        """Rows start..stop as (stop - start, width). Raises what `read_into` raises."""
        rows = np.empty((stop - start, self.width), dtype=self.dtype)
        self.read_into(rows, range(start, stop), 0, name)
        return rows

    def read_into(self, out: np.ndarray, rows: Rows, first: int, name: Name) -> None:
        """Fill ``out`` (k, w) with the numbers from ``first`` on of these ``rows``.

        Raises StorageError when the file cannot be read or ends early; InputError for a segment that does not have its
        checksum, which ``name`` names.
        """
        begin = first // self.segment * self.segment
        end = min(self.width, -(-(first + out.shape[1]) // self.segment) * self.segment)
        step = max(1, STEP_BYTES // max(1, (end - begin) * np.dtype(self.dtype).itemsize))
        try:
            with open(self.path, "rb", buffering=0) as file:
                if isinstance(rows, range):
                    self._announce(file, rows)
                for at in range(0, len(rows), step):
                    here, target = rows[at : at + step], out[at : at + step]
                    direct = target.dtype == self.dtype and target.shape[1] == end - begin and target.flags.c_contiguous
                    data = target if direct else np.empty((len(here), end - begin), dtype=self.dtype)
                    self._read(file, here, begin, data)
                    if self.sums is not None:
                        self._compare(self._sums(file, here, begin, end), data, here, begin, name)
                    if not direct:
                        target[...] = data[:, first - begin : first - begin + target.shape[1]]
        except OSError as error:
            raise StorageError(f"cannot read {self.path}: {error.strerror or error}") from error

    def _announce(self, file: BinaryIO, rows: range) -> None:
        """Let the kernel read ahead of what is compared."""
        row_bytes = self.width * np.dtype(self.dtype).itemsize
        os.posix_fadvise(
            file.fileno(), self.offset + rows.start * row_bytes, len(rows) * row_bytes, os.POSIX_FADV_WILLNEED
        )

    def _sums(self, file: BinaryIO, rows: Rows, begin: int, end: int) -> np.ndarray:
        """The checksums (segments, k) of these ``rows`` from number ``begin`` to ``end``."""
        assert self.sums is not None
        low, high = int(np.min(rows)), int(np.max(rows)) + 1
        found = np.empty((-(-end // self.segment) - begin // self.segment, high - low), dtype=SUM_DTYPE)
        for s, of_segment in enumerate(found, begin // self.segment):
            _fill(file, self.path, self.sums + (s * self.count + low) * SUM_DTYPE.itemsize, of_segment)
        return found if isinstance(rows, range) else found[:, np.asarray(rows) - low]

    def _read(self, file: BinaryIO, rows: Rows, begin: int, data: np.ndarray) -> None:
        row_bytes = self.width * data.itemsize
        if data.shape[1] == self.width and isinstance(rows, range):
            _fill(file, self.path, self.offset + rows.start * row_bytes, data)
            return
        for row, target in zip(rows, data, strict=True):
            _fill(file, self.path, self.offset + row * row_bytes + begin * data.itemsize, target)

    def _compare(self, sums: np.ndarray, data: np.ndarray, rows: Rows, begin: int, name: Name) -> None:
        damaged = np.argwhere(segment_checksums(data, self.segment) != sums)
        if damaged.size:
            s, k = damaged[0]
            first = begin + int(s) * self.segment
            what = name(int(rows[k]), first, min(first + self.segment, self.width))
            raise InputError(f"{self.path} is damaged: {what} is not what was written; make the file again")


def _fill(file: BinaryIO, path: str, offset: int, out: np.ndarray) -> None:
    """Fill the contiguous array ``out`` from byte ``offset``; the kernel may give it in pieces."""
    file.seek(offset)
    view = out.reshape(-1).view(np.uint8).data
    while view:
        got = file.readinto(view)  # type: ignore[attr-defined]
        if not got:
            raise StorageError(f"{path} ended early: it was changed while it was read")
        view = view[got:]
