"""Writing units at known places of a file while the next are computed, with checksums that say which are done."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mpgls.stream.files import write_at, writing
from mpgls.stream.write_behind import WriteBehind
from mpgls.study.checksums import row_checksums

CHECKPOINT_SECONDS = 15.0
"""How often results are synced and counted as done by default: what is lost at most when a run is killed."""


class UnitWriter:
    """Writes units into the file at ``path``, which exists already, and then their checksums.

    A unit is done when its checksums are in the file. They are written only after its bytes were synced, so a killed
    run never finds a checksum without its data. Syncing is done every ``checkpoint_seconds``, 0 for after every unit,
    and in ``close``. Raises StorageError when the file cannot be written.
    """

    def __init__(self, path: str | Path, checkpoint_seconds: float = CHECKPOINT_SECONDS) -> None:
        self.path, self.checkpoint_seconds = Path(path), checkpoint_seconds
        self._behind = WriteBehind(self.path, os.O_RDWR)
        self._unmarked: list[tuple[int, np.ndarray]] = []
        self._last_checkpoint = time.perf_counter()

    def write(self, parts: Sequence[tuple[int, np.ndarray]], sums_offset: int) -> None:
        """Start to write a unit; returns without waiting for it.

        Each of its ``parts`` is a byte of the file and the array (rows, ...) that begins there; the checksum of each
        row over all parts goes to ``sums_offset``, as `study.checksums.SUM_DTYPE`.
        """
        copies = [(offset, np.array(values, order="C")) for offset, values in parts]
        self._behind.submit(self._write, copies, sums_offset)
        if time.perf_counter() - self._last_checkpoint > self.checkpoint_seconds:
            self.checkpoint()

    def _write(self, parts: Sequence[tuple[int, np.ndarray]], sums_offset: int) -> None:
        for offset, values in parts:
            write_at(self._behind.descriptor, values.data, offset)
        self._unmarked.append((sums_offset, row_checksums(*(values for _, values in parts))))

    def checkpoint(self) -> None:
        """Wait, sync, and count everything written so far as done."""
        self._behind.wait()
        if self._unmarked:
            with writing(self.path):
                os.fsync(self._behind.descriptor)
                for offset, sums in self._unmarked:
                    write_at(self._behind.descriptor, sums.data, offset)
            self._unmarked.clear()
        self._last_checkpoint = time.perf_counter()

    def close(self) -> None:
        """Checkpoint and close."""
        try:
            self.checkpoint()
            with writing(self.path):
                os.fsync(self._behind.descriptor)
        finally:
            self._behind.abandon()
