"""Who may touch what memory of a card, and when: lanes go on beside each other, and beside the host.

Each operation on a `Storage` belongs to the lane of the body, "default" outside one. It must come after what other
lanes have to do with that memory: by a mark that is followed, or by the host, which has waited. Memory that nobody
holds any longer is given out again in the lane that it came from, so that lane must come after all of its uses.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

Ticks = dict[str, int]
"""How far each lane has come."""


class Race(AssertionError):
    """Two lanes, or a lane and the host, use the same memory in no order."""


class _Lanes:
    def __init__(self) -> None:
        self.current = "default"
        self.done: Ticks = {}
        self.known: dict[str, Ticks] = {}
        self.host: Ticks = {}
        self.behind: dict[str, Ticks] = {}
        self.freed: dict[str, list[Ticks]] = {}
        self.copies: list[_Copy] = []

    def step(self) -> tuple[str, int]:
        """A further operation of the current lane."""
        lane = self.current
        tick = self.done[lane] = self.done.get(lane, 0) + 1
        known = self.known.setdefault(lane, {})
        if self.behind.get(lane) is not self.host:
            _merge(known, self.host)
            self.behind[lane] = self.host
        known[lane] = tick
        return lane, tick

    def come_after(self, uses: Ticks, what: str) -> None:
        """Race if the current lane may be ahead of ``uses``."""
        known = self.known[self.current]
        for lane, tick in uses.items():
            if known.get(lane, 0) < tick:
                raise Race(f"the lane {self.current} {what} that the lane {lane} may not be done with")

    def host_knows(self, ticks: Ticks) -> None:
        """Copies that are done by then have come."""
        self.host = _merge(dict(self.host), ticks)
        come = [copy for copy in self.copies if self.host.get(copy.lane, 0) >= copy.tick]
        self.copies = [copy for copy in self.copies if copy not in come]
        for copy in come:
            copy.arrive()


class _Copy:
    """Between host and card, on its way: ``memory`` of the host, and what it is to hold, or held at the start."""

    def __init__(self, memory: np.ndarray, values: np.ndarray, to_host: bool) -> None:
        self.lane, self.tick = LANES.step()
        self.memory, self.values, self.to_host = memory, values, to_host
        LANES.copies.append(self)

    def arrive(self) -> None:
        """At the host, or at the card: then the memory must be what it was."""
        if self.to_host:
            self.memory[...] = self.values
        elif self.memory.tobytes() != self.values.tobytes():
            raise Race("memory of the host was changed while it was copied to the card")


LANES = _Lanes()


class Storage:
    """A piece of memory of the card."""

    def __init__(self) -> None:
        self.born, tick = LANES.step()
        self.writes: Ticks = {self.born: tick}
        self.reads: Ticks = {}
        for uses in LANES.freed.pop(self.born, []):
            LANES.come_after(uses, "gets memory again")

    def read(self) -> None:
        """By an operation of the current lane."""
        lane, tick = LANES.step()
        LANES.come_after(self.writes, "reads memory")
        self.reads[lane] = tick

    def write(self) -> None:
        """By an operation of the current lane."""
        lane, tick = LANES.step()
        LANES.come_after(self.writes, "writes memory")
        LANES.come_after(self.reads, "writes memory")
        self.writes, self.reads = {lane: tick}, {}

    def __del__(self) -> None:
        uses = _merge(dict(self.reads), self.writes)
        LANES.freed.setdefault(self.born, []).append(uses)


def begin_anew() -> None:
    """As after the start of the process."""
    LANES.__init__()


@contextlib.contextmanager
def lane(name: str) -> Iterator[None]:
    """Operations of the body belong to it."""
    before, LANES.current = LANES.current, name
    try:
        yield
    finally:
        LANES.current = before


def mark() -> Ticks:
    """What the current lane has come to."""
    LANES.step()
    return dict(LANES.known[LANES.current])


def follow(ticks: Ticks | None) -> None:
    """The current lane waits."""
    LANES.step()
    _merge(LANES.known[LANES.current], ticks or {})


def wait(ticks: Ticks) -> None:
    """The host waits."""
    LANES.host_knows(ticks)


def settle() -> None:
    """The host waits for all lanes."""
    LANES.host_knows(LANES.done)


def synchronise_current() -> None:
    """The host waits for the current lane."""
    LANES.step()
    LANES.host_knows(LANES.known[LANES.current])


def copy_in(memory: np.ndarray) -> None:
    """``memory`` of the host is being copied to the card, in the current lane."""
    _Copy(memory, memory.copy(), to_host=False)


def copy_out(values: Any, memory: np.ndarray) -> None:
    """``memory`` of the host has ``values`` when the host knows that the current lane has come here."""
    _Copy(memory, np.array(values), to_host=True)
    memory[...] = np.nan if memory.dtype.kind == "f" else 85


def _merge(into: Ticks, ticks: Ticks) -> Ticks:
    for name, tick in ticks.items():
        into[name] = max(into.get(name, 0), tick)
    return into
