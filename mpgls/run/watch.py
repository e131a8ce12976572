"""A run in which no rank gets on any more ends itself, and says where it stands.

A rank that waits in MPI cannot find out why: with a dead link, or a rank that is frozen, no message would come. So a
thread of each rank tells how it gets on in a file beside the output, and reads what the others tell.

A rank gets on when a phase of its clock begins or ends, when it looks whether it was asked to stop, and when it moves
bytes. What it does alone, such as writing tables on rank 0, also gets on while it uses the processor; beside others
that says nothing, because MPI waits busily. A phase that says how many operations it takes may take them at `SLOWEST`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mpgls.run.log import stderr
from mpgls.run.world import World
from mpgls.stream.files import writing

SLOWEST = 1e9
"""Floating-point operations a second of a rank that gets on."""
MOVED = 1 << 20
"""Bytes that a rank which gets on reads or writes in a tick, beyond those of the watch."""
TICKS = 20
"""How often a rank tells and reads within --stall seconds: what lasts for all but two ticks is found in time."""
SLOT = 4096
"""Bytes of a rank in the file: a page, so that no page is written by two nodes."""
PATIENCE = 3.0
"""Seconds in which the launcher ends the other ranks after the first one."""
ENDING = ".watch"
"""What follows the prefix in the name of the file."""


@dataclass(frozen=True)
class Sign:
    """What a rank tells: how many ticks it has counted, and in how many of the last ones it has not got on.

    ``since`` is when its phase last changed, in seconds since the epoch; in none, ``phase`` is empty.
    """

    tick: int = -1
    quiet: float = 0.0
    since: float = 0.0
    host: str = ""
    phase: str = ""

    def slot(self) -> bytes:
        """As it stands in the file."""
        return json.dumps(dataclasses.astuple(self)).encode()[:SLOT].ljust(SLOT)

    @classmethod
    def of(cls, slot: bytes) -> Sign:
        """The sign in a slot; one of tick -1 where there is none."""
        try:
            return cls(*json.loads(slot))
        except ValueError:
            return cls()


@dataclass
class Pulse:
    """Counts the ticks, of so many ``seconds``, in which this rank does not get on; ``thread`` is what it works in."""

    world: World
    seconds: float
    thread: int
    ticks: int = 0
    quiet: int = 0
    _steps: tuple[float, ...] = ()
    _moved: int = 0

    def count(self) -> None:
        """One tick has passed."""
        clock, moved = self.world.clock, _bytes_moved()
        steps: tuple[float, ...] = (clock.steps, self.world.stop.looks)
        if clock.solo:
            steps += (round(time.clock_gettime(time.pthread_getcpuclockid(self.thread)), 2),)
        gets_on = steps != self._steps or moved - self._moved > MOVED + SLOT * self.world.size
        self.ticks, self.quiet = self.ticks + 1, 0 if gets_on else self.quiet + 1
        self._steps, self._moved = steps, moved

    def sign(self) -> Sign:
        """What to tell the others."""
        name, flop = (self.world.clock.open[-1:] or [("", 0.0)])[0]
        quiet = max(self.quiet - flop / SLOWEST / self.seconds, 0.0)
        return Sign(self.ticks, quiet, self.world.clock.stepped, os.uname().nodename, name)


def _bytes_moved() -> int:
    """What this process has read and written so far, from files and sockets: proc(5)."""
    return sum(int(line.split()[1]) for line in Path("/proc/self/io").read_text().splitlines()[:2])


@dataclass
class Others:
    """What a rank knows of all ranks: the last sign of each, and for how many ticks it has not been a new one."""

    signs: list[Sign]
    silent: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.silent = [0] * len(self.signs)

    def hear(self, signs: list[Sign]) -> None:
        """One tick has passed, and these signs are in the file."""
        for rank, sign in enumerate(signs):
            is_new = sign.tick > self.signs[rank].tick
            self.silent[rank] = 0 if is_new else self.silent[rank] + 1
            self.signs[rank] = sign if is_new else self.signs[rank]

    def verdict(self, ticks: int) -> str | None:
        """What is wrong: for so many ticks a rank has been silent, or no rank has got on."""
        ranks = range(len(self.signs))
        longest_silent = max(ranks, key=lambda rank: self.silent[rank])
        if self.silent[longest_silent] >= ticks:
            return f"nothing was heard of rank {longest_silent} on {self.signs[longest_silent].host}"
        if min(self.signs[rank].quiet + self.silent[rank] for rank in ranks) < ticks:
            return None
        first = min(ranks, key=lambda rank: self.signs[rank].since)
        sign = self.signs[first]
        where = f"in {sign.phase!r}" if sign.phase else "between two phases"
        return f"no rank has got on: rank {first} on {sign.host} ({where}) was the first to stand still"


@dataclass
class Watch:
    """The watch of one rank, with the file ``path``; ``end`` is called with what is wrong after ``seconds`` of it."""

    world: World
    path: Path
    seconds: float
    end: Callable[[str], None]
    _over: threading.Event = field(default_factory=threading.Event)
    _met: int = 0

    def __post_init__(self) -> None:
        at_end = min(PATIENCE + 2.0, 0.5 * self.seconds)  # in which the ranks end, one after the other
        self.pulse = Pulse(self.world, (self.seconds - at_end) / TICKS, threading.get_ident())
        self.others = Others([Sign()] * self.world.size)

    def begin(self) -> None:
        """Watch until `cease`. One thread counts; another one meets the others, and may wait for the file for ever."""
        for task in (self._count, self._meet):
            threading.Thread(target=self._repeat, args=(task,), daemon=True, name=f"mpgls{ENDING}").start()

    def cease(self) -> None:
        """The run is over."""
        self._over.set()

    def tell(self) -> None:
        """Write this rank's sign. Raises OSError."""
        with open(self.path, "r+b", buffering=0) as file:
            os.pwrite(file.fileno(), self.pulse.sign().slot(), SLOT * self.world.rank)

    def listen(self) -> list[Sign]:
        """The signs of all ranks. Raises OSError."""
        data = self.path.read_bytes()
        return [Sign.of(data[SLOT * rank : SLOT * (rank + 1)]) for rank in range(self.world.size)]

    def _repeat(self, task: Callable[[], None]) -> None:
        while not self._over.wait(self.pulse.seconds):
            task()

    def _count(self) -> None:
        self.pulse.count()
        if min(self.pulse.ticks - self._met, self.pulse.sign().quiet) >= TICKS:
            self._finish(
                f"rank {self.world.rank} on {os.uname().nodename} has not got on, nor could it use {self.path}"
            )

    def _meet(self) -> None:
        with contextlib.suppress(OSError):
            self.tell()
            if self.world.rank == 0 or self.pulse.quiet > TICKS // 2:  # of the ranks that get on, one reads
                self.others.hear(self.listen())
                wrong = self.others.verdict(TICKS - 2)
                if wrong is not None:
                    self._finish(wrong)
            self._met = self.pulse.ticks

    def _finish(self, wrong: str) -> None:
        if self.world.rank > 0:  # of those that find out, the first one speaks, and its end is that of the others
            time.sleep(PATIENCE + 0.05 * min(self.world.rank, 40))
        if not self._over.is_set():
            self.end(f"for {self.seconds:g} s (--stall) {wrong}")


@contextlib.contextmanager
def watched(world: World, path: Path, seconds: float, end: Callable[[str], None]) -> Iterator[None]:
    """A watch of all ranks over the body; none where ``seconds`` is 0, or for one rank. Collective.

    ``end`` is called in a thread of its own, once on a rank, and ends the process. Raises StorageError.
    """
    if seconds == 0 or world.size == 1:
        yield
        return
    watch = Watch(world, path, seconds, end)

    def make() -> None:
        with writing(path):
            path.write_bytes(b" " * SLOT * world.size)

    def hears_all() -> bool:
        with contextlib.suppress(OSError):
            return all(sign.tick >= 0 for sign in watch.listen())
        return False

    world.on_root(make)
    with contextlib.suppress(OSError):  # rank 0 finds out
        watch.tell()
    world.comm.Barrier()
    try:
        if world.on_root(hears_all):
            watch.begin()
        else:
            world.log.warn(f"not all ranks share {path}, so nobody can notice that they do not get on (--stall)")
        yield
    finally:
        watch.cease()
        if world.rank == 0:
            path.unlink(missing_ok=True)


def end_process(message: str, code: int) -> None:
    """Say why, and end this process at once: its own thread may wait for ever, and would not let MPI end it."""
    stderr(message)
    os._exit(code)
