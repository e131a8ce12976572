"""What a run says to its user: the log of rank 0, progress of streamed phases, durations in words."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, TextIO

from mpgls.errors import StorageError
from mpgls.run.progress_file import ProgressFile


class Log:
    """Line-based log of rank 0: to stdout and, when a path is given, to a file. Other ranks are silent.

    Its lines have the seconds since ``began``, by default since the log was opened, as ``time.perf_counter`` counts.
    A run that logs to a file goes on when nobody reads its standard output any more, or when there is no room for the
    file: its results have theirs.
    """

    def __init__(
        self, rank: int, path: str | Path | None = None, append: bool = False, began: float | None = None
    ) -> None:
        self._speaks = rank == 0
        self._file: BinaryIO | None = None
        self._progress: ProgressFile | None = None
        self._heard = self._kept = True
        self.began = time.perf_counter() if began is None else began
        if self._speaks and path is not None:
            try:
                self._file = open(path, "ab" if append else "wb", buffering=0)  # noqa: SIM115
            except OSError as error:
                raise StorageError(f"cannot write the log {path}: {error.strerror}") from None

    @classmethod
    def silent(cls) -> Log:
        """A log that says nothing, on any rank."""
        return cls(rank=-1)

    def info(self, message: str = "") -> None:
        """One line (or a block of lines) with the seconds since the start."""
        if not self._speaks:
            return
        self.repeat(self.stamped(message))

    def stamped(self, message: str) -> list[str]:
        """The lines of a message as they stand in the log."""
        stamp = f"{time.perf_counter() - self.began:9.2f}  "
        return [(stamp + line).rstrip() for line in message.split("\n")]

    def repeat(self, lines: Sequence[str]) -> None:
        """Lines that were stamped when they were said, here or on another rank."""
        for line in lines if self._speaks else ():
            self._to_file(line)
            self._to_stdout(line)

    def _to_file(self, text: str) -> None:
        """A line of the file; where it has no room now, it may have for the next one."""
        if self._file is None:
            return
        try:
            # a path may have letters that are not in UTF-8
            self._file.write(f"{text}\n".encode("utf-8", "backslashreplace"))
        except OSError as error:
            if self._kept:
                self._kept = False
                self.warn(f"cannot write the log {self._file.name}: {error.strerror}; the run goes on without it")

    def _to_stdout(self, text: str) -> None:
        if self._heard:
            try:
                stdout(text)
            except StorageError as error:
                self._heard = False
                self.warn(f"{error}; this log goes on without it")

    def warn(self, message: str) -> None:
        """A line that asks for attention."""
        self.info(f"WARNING: {message}")

    def watch(self, progress: ProgressFile) -> None:
        """Say to this file as well how far phases are; it is closed with the log."""
        self._progress = progress

    def progress(self, say: Callable[[ProgressFile], None]) -> None:
        """Let the file of progress have a line, if there is one and there is room for it."""
        if self._progress is None:
            return
        try:
            say(self._progress)
        except OSError as error:
            self.warn(f"cannot write the progress {self._progress.path}: {error.strerror}; the run goes on without it")
            self._progress = None

    def seconds(self) -> float:
        """Seconds since the log began."""
        return time.perf_counter() - self.began

    def close(self) -> None:
        """Close the log file, and that of progress."""
        if self._progress is not None:
            self._progress.close()
            self._progress = None
        if self._file is not None:
            self._file.close()
            self._file = None


class HeldLog(Log):
    """Keeps its lines, stamped, for a log that repeats them: of ranks that work apart from rank 0."""

    def __init__(self, rank: int, began: float) -> None:
        super().__init__(rank, began=began)
        self._lines: list[str] = []

    def info(self, message: str = "") -> None:
        """One line (or a block of lines) with the seconds since the start."""
        self._lines += self.stamped(message)

    def take(self) -> list[str]:
        """The lines that were not taken before."""
        lines, self._lines = self._lines, []
        return lines


class Progress:
    """Progress of a streamed phase: at most one line every ``interval`` seconds, with rate and time left."""

    def __init__(self, log: Log, label: str, total: int, unit: str, interval: float = 10.0) -> None:
        self._log, self._label, self._total, self._unit = log, label, total, unit
        self._interval = interval
        self._start = self._last = time.perf_counter()

    def at(self, done: int) -> None:
        """Say how far the phase is, when it is time to."""
        now = time.perf_counter()
        if done <= 0:
            return
        rate = done / max(now - self._start, 1e-9)
        left = (self._total - done) / rate
        self._log.progress(lambda file: file.at(self._label, done, self._total, self._unit, left))
        if now - self._last < self._interval:
            return
        self._last = now
        shown = f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
        self._log.info(
            f"{self._label}: {done:,} of {self._total:,} {self._unit} ({done / self._total:.0%}), "
            f"{shown} {self._unit}/s, {duration(left)} left"
        )


def duration(seconds: float) -> str:
    """Seconds as a person writes them: ``12 s``, ``3 min 20 s``, ``5 h 07 min``."""
    seconds = max(0, round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def stdout(text: str, end: str = "\n") -> None:
    """Print to standard output, at once. Raises StorageError where it is full; a reader that has gone is no error."""
    try:
        _print(text, sys.stdout, end)
    except BrokenPipeError:
        pass  # as of: mpgls plan ... | head -1
    except (OSError, ValueError) as error:  # ValueError: it was closed
        reason = error.strerror if isinstance(error, OSError) else error
        raise StorageError(f"cannot write to standard output: {reason}") from None


def stderr(message: str) -> None:
    """One line to standard error, at once, if anything can be written there."""
    with contextlib.suppress(OSError, ValueError):
        _print(message, sys.stderr)


def _print(text: str, stream: TextIO | None, end: str = "\n") -> None:
    """Letters that the stream's encoding lacks are printed as escapes."""
    if stream is None:  # closed when Python started
        return
    try:
        print(text, file=stream, end=end, flush=True)
    except UnicodeEncodeError as error:
        plain = text.encode(error.encoding, "backslashreplace").decode(error.encoding)
        print(plain, file=stream, end=end, flush=True)
