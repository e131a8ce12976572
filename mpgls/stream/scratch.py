"""A rank's scratch file: blocks of one size written once and read back in order, both double-buffered."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mpgls.errors import StorageError
from mpgls.stream.files import mpi_name
from mpgls.stream.reader import BlockReader, RowRuns

if TYPE_CHECKING:
    from mpi4py import MPI


class ScratchFile:
    """Fortran-ordered blocks of ``shape`` and ``dtype`` in the file ``path``, which belongs to this rank alone.

    Raises StorageError when the file cannot be made, written or read.
    """

    def __init__(self, path: str | Path, shape: tuple[int, int], dtype: np.dtype | type) -> None:
        from mpi4py import MPI

        self.path, self.shape, self.dtype = Path(path), shape, np.dtype(dtype)
        self.blocks = 0
        self._buffers = [np.empty(shape[0] * shape[1], dtype=self.dtype) for _ in range(2)]
        self._pending: list[MPI.Request | None] = [None, None]
        try:
            self._file = MPI.File.Open(MPI.COMM_SELF, mpi_name(path), MPI.MODE_WRONLY | MPI.MODE_CREATE)
        except MPI.Exception as error:
            raise StorageError(f"cannot write {path}: {error.Get_error_string()}") from None

    @property
    def block_bytes(self) -> int:
        """Bytes of a block."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    def write(self, block: np.ndarray) -> None:
        """Start to write the next block; returns without waiting for it."""
        turn = self.blocks % 2
        self._wait(turn)
        self._buffers[turn][...] = block.reshape(-1, order="F")
        self._pending[turn] = self._file.Iwrite_at(self.blocks * self.block_bytes, self._buffers[turn])
        self.blocks += 1

    def finish_writing(self) -> None:
        """Wait for the last blocks and give the buffers back."""
        for turn in (0, 1):
            self._wait(turn)
        self._buffers = []
        self._file.Close()

    def _wait(self, turn: int) -> None:
        from mpi4py import MPI

        request = self._pending[turn]
        if request is None:
            return
        try:
            request.Wait()
        except MPI.Exception as error:
            raise StorageError(f"cannot write {self.path}: {error.Get_error_string()}") from None
        self._pending[turn] = None

    def read(self) -> Iterator[np.ndarray]:
        """All blocks, in order, each valid until the next."""
        one = [RowRuns.of(np.array([k])) for k in range(self.blocks)]
        for _, data in BlockReader(self.path, 0, self.block_bytes, one):
            yield data.view(self.dtype).reshape(self.shape, order="F")

    def remove(self) -> None:
        """Delete the file, once the blocks on their way have arrived."""
        with contextlib.suppress(StorageError):
            for turn in (0, 1):
                self._wait(turn)
        with contextlib.suppress(OSError):
            os.unlink(self.path)
