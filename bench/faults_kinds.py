"""The kinds of faults of ``faults.py``. Each is made of a folder with the study, and makes one trial of it a call."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import BenchError
from faults_mutations import mutate
from faults_study import CASES, LIMIT, Ended, alone, clear, contents, difference, finished, ranks_of, run, start

PATIENCE = 20.0
"""Seconds in which the ranks of a launcher that was killed must have ended."""
STOPPED = 75


@dataclass(frozen=True)
class Trial:
    """What was done, how the run ended, and what was wrong with that; ``fault`` is empty where nothing was."""

    what: str
    ending: str
    fault: str = ""
    said: str = ""


class Undisturbed:
    """What each command makes in ``folder`` where nothing disturbs it, and the seconds that it works."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[tuple[str, int], tuple[dict[str, Any], float, int]] = {}

    def of(self, name: str, ranks: int) -> tuple[dict[str, Any], float, int]:
        """The contents of its files, its seconds, and the bytes of its files."""
        if (name, ranks) not in self._known:
            clear(self.folder, "out")
            words = [*CASES[name].line.split(), "--out", "out"]
            ended = run(ranks, words, self.folder)
            if ended.code != 0:
                raise BenchError(f"{' '.join(words)}: {ended.text}")
            seconds = float((self.folder / self._log()).read_text().splitlines()[-1].split()[0])
            nbytes = sum(path.stat().st_blocks * 512 for path in self.folder.rglob("out*") if path.is_file())
            self._known[name, ranks] = contents(self.folder, "out"), seconds, nbytes
            clear(self.folder, "out")
        return self._known[name, ranks]

    def _log(self) -> str:
        return next(path.name for path in self.folder.glob("out*.log"))


def resumed(name: str, ranks: int, folder: Path, out: str, whole: dict[str, Any]) -> tuple[str, str]:
    """What is wrong with the run that goes on, and what it said."""
    ended = run(ranks, [*CASES[name].line.split(), "--out", out, "--resume"], folder)
    fault = ended.fault(allowed=(0,))
    if not fault:
        of_run = folder / Path(out).parent
        differs = difference(whole, lambda: contents(of_run, "out"))
        fault = f"other {differs}" if differs else ""
    return fault and f"resumed: {fault}", ended.text


# -- kills ------------------------------------------------------------------------------------------------------------


class Kills:
    """A rank or the launcher gets KILL, TERM or USR1 at a random moment, or when its store is being made."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.whole = folder, Undisturbed(folder)

    def __call__(self, chance: random.Random) -> Trial:
        name, ranks = chance.choice(list(CASES)), chance.choice((2, 3))
        whom, number = chance.choice(
            [("rank", signal.SIGKILL)] * 3
            + [("rank", signal.SIGTERM), ("rank", signal.SIGUSR1)]
            + [("launcher", one) for one in (signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1)]
        )
        whole, seconds, _ = self.whole.of(name, ranks)
        at_store = chance.random() < 0.2
        what = f"{number.name} of the {whom}, {name}"
        output = self.folder / ".said.killed"
        clear(self.folder, "out")
        process = start(ranks, [*CASES[name].line.split(), "--out", "out"], self.folder, output)
        self._wait_for("out*.h5.partial" if at_store else "out*.lock", process)
        if not at_store:
            time.sleep(chance.uniform(0, 1.1 * seconds))
        gone = self._send(process, whom, number, chance)
        ended = finished(process, output)
        problem = "orphans" if not gone() else "hang" if ended.code is None else ""
        if not problem and "Traceback" in ended.text:
            problem = "traceback"
        said = ended.text
        if not problem:
            problem, more = resumed(name, ranks, self.folder, "out", whole)
            said += more
        return Trial(what, str(ended.code), problem, said)

    def _wait_for(self, pattern: str, process: subprocess.Popen[bytes]) -> None:
        end = time.monotonic() + LIMIT
        while process.poll() is None and not any(self.folder.glob(pattern)) and time.monotonic() < end:
            time.sleep(0.001)

    def _send(
        self, process: subprocess.Popen[bytes], whom: str, number: signal.Signals, chance: random.Random
    ) -> Callable[[], bool]:
        """Send the signal; returns what waits until the ranks are gone."""
        ranks: list[int] = []
        with contextlib.suppress(OSError, IndexError):  # it has ended by itself
            ranks = ranks_of(process.pid)
            if process.poll() is None:
                os.kill(process.pid if whom == "launcher" else chance.choice(ranks), number)

        def gone() -> bool:
            end = time.monotonic() + PATIENCE
            while any(_runs_mpgls(pid) for pid in ranks):
                if time.monotonic() > end:
                    return False
                time.sleep(0.01)
            return True

        return gone


def _runs_mpgls(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"mpgls" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


# -- full disks -------------------------------------------------------------------------------------------------------


class FullDisks:
    """The output lies on a tmpfs: too small from the start, or filled while the run works; later there is room."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.whole = folder, Undisturbed(folder)
        self.small = folder / "small"
        self.small.mkdir()

    def __call__(self, chance: random.Random) -> Trial:
        name, ranks, fills = chance.choice(list(CASES)), chance.choice((1, 2, 3)), chance.random() < 0.6
        whole, seconds, nbytes = self.whole.of(name, ranks)
        share = 2.0 if fills else chance.uniform(0.02, 1.0)
        with self._mounted(int(share * nbytes) + 8192):
            moment = chance.uniform(0, 1.1 * seconds)
            ended = self._filled(name, ranks, moment) if fills else self._run(name, ranks)
            problem = ended.fault(allowed=(0, 5))
            said = [line for line in ended.text.splitlines() if line.startswith("mpgls ")]
            if not problem and ended.code == 5 and "small" not in said[0]:
                problem = "no file named"
            text = ended.text
            if not problem:
                with contextlib.suppress(FileNotFoundError):
                    (self.small / "ballast").unlink()
                self._mount(f"remount,size={4 * nbytes + (1 << 20)}")
                problem, more = resumed(name, ranks, self.folder, "small/out", whole)
                text += more
        return Trial(f"{name}, {'filled' if fills else 'too small'}", str(ended.code), problem, text)

    def _run(self, name: str, ranks: int) -> Ended:
        return run(ranks, self._words(name), self.folder)

    def _words(self, name: str) -> list[str]:
        return [*CASES[name].line.split(), "--out", "small/out"]

    def _filled(self, name: str, ranks: int, moment: float) -> Ended:
        """The run, beside which a file takes all the room ``moment`` seconds after it has begun."""
        output = self.folder / ".said.filled"
        process = start(ranks, self._words(name), self.folder, output)
        ended = threading.Event()
        filler = threading.Thread(target=self._fill, args=(moment, ended))
        filler.start()
        try:
            return finished(process, output)
        finally:
            ended.set()
            filler.join()

    def _fill(self, moment: float, ended: threading.Event) -> None:
        while not (self.small / "out.lock").exists() and not ended.is_set():
            time.sleep(0.001)
        if ended.wait(moment):
            return
        with open(self.small / "ballast", "wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))

    @contextlib.contextmanager
    def _mounted(self, size: int) -> Any:
        self._mount(f"size={size}")
        try:
            yield
        finally:
            subprocess.run(["umount", str(self.small)], check=True)

    def _mount(self, settings: str) -> None:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", settings, "mpgls-faults", str(self.small)], capture_output=True, text=True
        )
        if done.returncode != 0:
            raise PermissionError(f"a tmpfs cannot be mounted here ({done.stderr.strip()})")


# -- mutated inputs ---------------------------------------------------------------------------------------------------


class Inputs:
    """One file that a command reads is changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, chance: random.Random) -> Trial:
        name = chance.choice([name for name, case in CASES.items() if case.reads])
        path = self.folder / chance.choice(CASES[name].reads)
        before = path.read_bytes()
        how = mutate(path, chance)
        try:
            clear(self.folder, "out")
            ended = alone([*CASES[name].line.split(), "--out", "out"], self.folder)
        finally:
            path.write_bytes(before)
        return Trial(f"{name}, {path.name}, {how}", str(ended.code), ended.fault(), ended.text)


# -- mutated state ----------------------------------------------------------------------------------------------------

READ_AGAIN = {
    "eigen": "K.h5", "single-trait": "K.h5", "loco": "K.h5", "given-eigen": "E.h5", "vgwas": "voxels.h5",
    "export": "dense.h5",
}  # fmt: skip
"""Files of earlier commands that commands read."""
KEPT = ("single-trait", "loco", "multi-trait", "low-rank", "vgwas", "ridge")
"""Commands that keep what is done."""


class State:
    """Bytes of a file of an earlier command, or of a killed run's own, are changed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.whole = folder, Undisturbed(folder)
        self._killed: dict[str, list[Path]] = {}

    def __call__(self, chance: random.Random) -> Trial:
        if chance.random() < 0.4:
            name = chance.choice(list(READ_AGAIN))
            whole, path = self.whole.of(name, 1)[0], self.folder / READ_AGAIN[name]
            clear(self.folder, "out")
            return self._trial(name, path, path.name, whole, chance, "")
        name = chance.choice(KEPT)
        whole = self.whole.of(name, 1)[0]
        kept = self._snapshot(name, chance)
        clear(self.folder, "out")
        for path in kept:
            shutil.copy(path, self.folder / path.name)
        path = self.folder / chance.choice([path.name for path in kept if path.suffix not in (".log", ".lock")])
        return self._trial(name, path, path.name.removeprefix("out"), whole, chance, "--resume")

    def _trial(
        self, name: str, path: Path, kind: str, whole: dict[str, Any], chance: random.Random, resume: str
    ) -> Trial:
        before = path.read_bytes()
        how = mutate(path, chance, binary=True)
        try:
            ended = alone([*CASES[name].line.split(), "--out", "out", *resume.split()], self.folder)
        finally:
            if not resume:
                path.write_bytes(before)
        problem = ended.fault(allowed=(0, 2, 3, 5, 6))
        if not problem and ended.code == 0:
            differs = difference(whole, lambda: contents(self.folder, "out"))
            problem = f"other numbers ({differs})" if differs else ""
        return Trial(f"{name}, {kind}, {how}", str(ended.code), problem, ended.text)

    def _keeps(self, name: str) -> bool:
        """Whether something is there that --resume reads."""
        kept = {"ridge": "out.progress", "vgwas": "out.units.*", "multi-trait": "out.progress"}.get(name, "out*.h5")
        return any(self.folder.glob(kept))

    def _snapshot(self, name: str, chance: random.Random) -> list[Path]:
        """The files of a run that was killed in its midst."""
        while name not in self._killed:
            _, seconds, _ = self.whole.of(name, 1)
            clear(self.folder, "out")
            output = self.folder / ".said.killed"
            process = start(1, [*CASES[name].line.split(), "--out", "out"], self.folder, output)
            while process.poll() is None and not (self.folder / "out.lock").exists():
                time.sleep(0.001)
            time.sleep(chance.uniform(0.4, 1.0) * seconds)
            with contextlib.suppress(OSError, IndexError):
                os.kill(ranks_of(process.pid)[0], signal.SIGKILL)
            finished(process, output)
            if not (self.folder / "out.json").exists() and self._keeps(name):
                kept = self.folder / f"killed-{name}"
                kept.mkdir(exist_ok=True)
                self._killed[name] = [Path(shutil.copy(path, kept)) for path in self.folder.glob("out.*")]
        return self._killed[name]


KINDS: dict[str, Callable[[Path], Callable[[random.Random], Trial]]] = {
    "kills": Kills,
    "disk": FullDisks,
    "inputs": Inputs,
    "state": State,
}
