"""Running ``mpgls`` as a program again and again, on ranks that are started once for all the tests of a process.

A start of ``mpirun``, Python and MPI takes longer than most commands of a test. A command ends here as a program does:
with its exit code, the same on every rank, and with what all ranks wrote. ``unit/test_resident.py`` holds it against
the program. One that ends its process, as MPI_Abort does, ends the ranks; the next one starts others.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from launch import LIMIT, Ended, environment, under_mpirun

RANKS = Path(__file__).with_name("resident_ranks.py")
_kept: dict[int, Resident] = {}


def mpgls(ranks: int, arguments: str | Sequence[str], folder: Path, script: str | None = None) -> Ended:
    """Run ``mpgls`` with these arguments (a string is split at blanks), or a ``script`` that calls it."""
    words = arguments.split() if isinstance(arguments, str) else list(arguments)
    if ranks not in _kept:
        _kept[ranks] = Resident(ranks)
    try:
        return _kept[ranks].run(words, folder, script)
    finally:
        if _kept[ranks].process.poll() is not None:
            _kept.pop(ranks).close()


def must_succeed(ranks: int, arguments: str | Sequence[str], folder: Path, script: str | None = None) -> Ended:
    """`mpgls`, which must end with exit code 0."""
    ended = mpgls(ranks, arguments, folder, script)
    assert ended.code == 0, ended.err
    return ended


class Resident:
    """So many ranks, which wait for tasks; 0 is one without mpirun."""

    def __init__(self, ranks: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mpgls-resident-"))
        names = [f"ask.{rank}" for rank in range(max(ranks, 1))]
        for name in [*names, "done"]:
            os.mkfifo(self.folder / name)
        # Read and write: to open either end alone would wait for the ranks.
        self.asks = [os.open(self.folder / name, os.O_RDWR) for name in names]
        self.done = os.open(self.folder / "done", os.O_RDWR)
        with open(self.folder / "launcher", "w", encoding="utf-8") as said:
            command = under_mpirun(ranks, [sys.executable, str(RANKS), str(self.folder)])
            self.process = subprocess.Popen(
                command, env=environment(), stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT
            )
        assert self._code(time.monotonic() + LIMIT) == 0, self._read("launcher")  # all are ready

    def run(self, arguments: list[str], folder: Path, script: str | None) -> Ended:
        """One task, on every rank. Raises subprocess.TimeoutExpired when it hangs."""
        start = time.monotonic()
        task = json.dumps({"folder": str(folder), "script": script, "arguments": arguments})
        for ask in self.asks:
            os.write(ask, f"{task}\n".encode())
        code = self._code(start + LIMIT)
        out, err = ("".join(self._read(f"{name}.{k}") for k in range(len(self.asks))) for name in ("out", "err"))
        if self.process.poll() is not None:
            err += self._read("launcher")
        return Ended(code, out, err, time.monotonic() - start)

    def _code(self, end: float) -> int:
        """The exit code of all ranks, or of the launcher if they are gone."""
        codes: dict[str, str] = {}
        while len(codes) < len(self.asks):
            if select.select([self.done], [], [], 0.05)[0]:
                said = os.read(self.done, 4096).decode()  # whole lines: each was written at once
                codes |= dict(line.split() for line in said.splitlines())
            elif self.process.poll() is not None:
                return self.process.returncode
            elif time.monotonic() > end:
                self.process.kill()
                self.process.wait()
                raise subprocess.TimeoutExpired("mpgls", LIMIT)
        assert len(set(codes.values())) == 1, f"the ranks end with {codes}"
        return int(codes["0"])

    def _read(self, name: str) -> str:
        path = self.folder / name
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def close(self) -> None:
        """The ranks end with their pipes."""
        for pipe in [*self.asks, self.done]:
            os.close(pipe)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


@atexit.register
def _close_all() -> None:
    while _kept:
        _kept.popitem()[1].close()
