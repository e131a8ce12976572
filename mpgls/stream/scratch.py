"""A rank's scratch file: blocks of one size written once and read back in order, both double-buffered.

The checksum of each block stays in memory, so a disk that gives back something else is noticed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mpgls.errors import StorageError
from mpgls.stream.files import write_at
from mpgls.stream.reader import BlockReader, RowFiles, RowRuns
from mpgls.stream.write_behind import WriteBehind
from mpgls.study.checksums import checksum


class ScratchFile:
    """Fortran-ordered blocks of ``shape`` and ``dtype`` in the file ``path``, which belongs to this rank alone.

    Raises StorageError when the file cannot be made, written or read, or has not what was written.
    """

    def __init__(self, path: str | Path, shape: tuple[int, int], dtype: np.dtype | type) -> None:
        self.path, self.shape, self.dtype = Path(path), shape, np.dtype(dtype)
        self.blocks = 0
        self._sums: dict[int, int] = {}
        self._behind = WriteBehind(self.path, os.O_WRONLY | os.O_CREAT)

    @property
    def block_bytes(self) -> int:
        """Bytes of a block."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    def write(self, block: np.ndarray) -> None:
        """Start to write the next block; returns without waiting for it."""
        data = np.array(block, dtype=self.dtype, order="F").reshape(-1, order="F")
        self._behind.submit(self._keep, self.blocks, data)
        self.blocks += 1

    def _keep(self, k: int, data: np.ndarray) -> None:
        """Block ``k``, in the thread that writes."""
        self._sums[k] = checksum(data)
        write_at(self._behind.descriptor, data.data, k * self.block_bytes)

    def finish_writing(self) -> None:
        """Wait for the last blocks."""
        self._behind.close()

    def read(self) -> Iterator[np.ndarray]:
        """All blocks, in order, each valid until the next."""
        one = [RowRuns.of(np.array([k])) for k in range(self.blocks)]
        for k, (_, data) in enumerate(BlockReader(RowFiles((self.path,), 0, self.block_bytes), one)):
            if checksum(data) != self._sums[k]:
                raise StorageError(
                    f"{self.path} is damaged: its block {k} is not what was written; run the same command with "
                    "--resume, and --scratch on another disk"
                )
            yield data.view(self.dtype).reshape(self.shape, order="F")

    def remove(self) -> None:
        """Delete the file."""
        self._behind.abandon()
        with contextlib.suppress(OSError):
            os.unlink(self.path)
