"""How far a run is, in lines of JSON for programs that watch it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import BinaryIO

from mpgls.errors import StorageError

ENDING = ".progress.jsonl"
"""What follows the prefix."""
INTERVAL = 1.0
"""Seconds between two lines of a phase, at least."""


class ProgressFile:
    """A file to which lines are added, each a JSON object with the ``phase``; for one rank.

    A run goes on without it where there is no room. Making it raises StorageError.
    """

    def __init__(self, path: str | Path, append: bool) -> None:
        try:
            self._file: BinaryIO = open(path, "ab" if append else "wb", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise StorageError(f"cannot write the progress {path}: {error.strerror}") from None
        self.path, self._start, self._last = str(path), time.perf_counter(), float("-inf")
        self._phase = ""

    def at(self, phase: str, done: int, total: int, unit: str, left: float) -> None:
        """``done`` of ``total`` units of a phase, with ``left`` seconds to go, when it is time to say so."""
        now = time.perf_counter()
        if phase == self._phase and done < total and now - self._last < INTERVAL:
            return
        self._last, self._phase = now, phase
        self.say(phase, done=done, total=total, unit=unit, seconds_left=round(left, 3))

    def say(self, phase: str, **facts: object) -> None:
        """A line with the seconds since the start. Raises OSError."""
        line = {"phase": phase, **facts, "seconds": round(time.perf_counter() - self._start, 3)}
        self._file.write(json.dumps(line).encode() + b"\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()
