"""The bytes of an HDF5 file that is written: HDF5 never hears that a write failed.

HDF5 1.10 crashes when it gives back what it held of a file of which a write has failed. So HDF5 goes on in vain, and
the error is raised when it has closed the file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from typing import Any

PAGE = 1 << 16
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextlib.contextmanager
def hdf5_bytes(path: str, mode: str) -> Iterator[Any]:
    """The bytes of the file at ``path``, for h5py's driver "fileobj": a new one ("w"), or one that is changed ("r+").

    What was changed gets its room at the end, before the first byte of the file is touched. Raises OSError.
    """
    file = os.open(path, os.O_RDWR | (os.O_CREAT if mode == "w" else 0), 0o666)
    try:
        _lock(file)
        if mode == "w":
            os.ftruncate(file, 0)
        held = NewBytes(file) if mode == "w" else ChangedBytes(file)
        yield held
        held.finish()
    finally:
        os.close(file)


def _lock(file: int) -> None:
    """As HDF5 locks a file itself."""
    if os.environ.get("HDF5_USE_FILE_LOCKING", "").upper() in ("FALSE", "0"):
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise OSError(error.errno, "unable to lock file") from None


class NewBytes:
    """An empty file, open as ``file``; what is written goes there at once."""

    def __init__(self, file: int) -> None:
        self.file, self.size = file, os.fstat(file).st_size
        self._at = 0
        self._error: OSError | None = None

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Where the next read or write begins; counted from the end with SEEK_END."""
        self._at = offset + (self.size if whence == os.SEEK_END else 0)
        return self._at

    def tell(self) -> int:
        """Where the next read or write begins."""
        return self._at

    def read(self, count: int) -> bytes:
        """``count`` bytes, zeros where there are none."""
        found = bytearray(count)
        self.readinto(memoryview(found))
        return bytes(found)

    def readinto(self, into: memoryview) -> int:
        """Fill ``into``, with zeros where there are no bytes."""
        view = memoryview(into).cast("B")
        self._read(view, self._at)
        self._at += len(view)
        return len(view)

    def write(self, data: memoryview) -> int:
        """All of ``data``; an error is kept for `finish`."""
        view = memoryview(data).cast("B")
        if self._error is None:
            try:
                self._write(view, self._at)
            except OSError as error:
                self._error = error
        self._at += len(view)
        self.size = max(self.size, self._at)
        return len(view)

    def truncate(self, size: int) -> int:
        """Make the file so long."""
        self.size = size
        return size

    def flush(self) -> None:
        """Nothing is held back that HDF5 could ask for."""

    def finish(self) -> None:
        """Raise the first error, or give the file its length. Raises OSError."""
        if self._error is not None:
            raise self._error
        os.ftruncate(self.file, self.size)

    def _read(self, view: memoryview, offset: int) -> None:
        while view:
            got = os.preadv(self.file, [view], offset)
            if not got:
                view[:] = bytes(len(view))
                return
            view, offset = view[got:], offset + got

    def _write(self, view: memoryview, offset: int) -> None:
        while view:
            done = os.pwrite(self.file, view, offset)
            view, offset = view[done:], offset + done


class ChangedBytes(NewBytes):
    """A file that is changed: the pages that were written are held until the end."""

    def __init__(self, file: int) -> None:
        super().__init__(file)
        self._pages: dict[int, bytearray] = {}

    def finish(self) -> None:
        """Take the room, then write. Raises OSError; where there is no room, the file is what it was."""
        try:
            os.posix_fallocate(self.file, 0, self.size)
        except OSError as error:
            if error.errno in NO_ROOM:
                raise
        for number, page in sorted(self._pages.items()):
            start = number * PAGE
            super()._write(memoryview(page)[: max(0, self.size - start)], start)
        os.ftruncate(self.file, self.size)

    def _read(self, view: memoryview, offset: int) -> None:
        super()._read(view, offset)
        for number, start, stop in _pages(offset, len(view)):
            if number in self._pages:
                first = number * PAGE + start - offset
                view[first : first + stop - start] = self._pages[number][start:stop]

    def _write(self, view: memoryview, offset: int) -> None:
        for number, start, stop in _pages(offset, len(view)):
            if number not in self._pages:
                self._pages[number] = bytearray(PAGE)
                super()._read(memoryview(self._pages[number]), number * PAGE)
            first = number * PAGE + start - offset
            self._pages[number][start:stop] = view[first : first + stop - start]


def _pages(offset: int, count: int) -> Iterator[tuple[int, int, int]]:
    """The pages of ``count`` bytes at ``offset``: number, and from where to where within the page."""
    for number in range(offset // PAGE, -(-(offset + count) // PAGE)):
        start, stop = max(0, offset - number * PAGE), min(PAGE, offset + count - number * PAGE)
        yield number, start, stop
