"""What each phase of a run costs: seconds, floating-point operations and bytes, on one rank and over all of them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mpgls.run.hardware import process_age

if TYPE_CHECKING:
    from mpi4py import MPI

_start: float | None = None


def begin_with_process() -> None:
    """The clock of the next run begins with this process: it is called by a program that is one run."""
    global _start
    _start = time.perf_counter() - process_age()


def take_start() -> float:
    """Where the clock of a run begins, as ``time.perf_counter`` counts: now, if no program said otherwise."""
    global _start
    start, _start = _start, None
    return time.perf_counter() if start is None else start


@dataclass
class Phase:
    """What one phase cost this rank."""

    seconds: float = 0.0
    flop: float = 0.0
    nbytes: float = 0.0
    calls: int = 0


@dataclass
class Clock:
    """Seconds, floating-point operations and bytes of each phase on this rank, since ``began``.

    A second belongs to one phase: what a phase inside another one takes is not the outer one's. ``open`` are the phases
    that the rank is in, with the operations that each said it would take. ``steps`` counts how often the rank got
    on, the last time at ``stepped`` (seconds since the epoch). ``solo`` is above 0 while the rank does what no other
    rank takes part in.
    """

    began: float = field(default_factory=time.perf_counter)
    phases: dict[str, Phase] = field(default_factory=dict)
    open: list[tuple[str, float]] = field(default_factory=list)
    steps: int = 0
    stepped: float = field(default_factory=time.time)
    solo: int = 0
    _inside: float = 0.0  # seconds in phases that have ended

    @contextlib.contextmanager
    def phase(self, name: str, flop: float = 0.0, nbytes: float = 0.0) -> Iterator[Phase]:
        """Time the body as part of phase ``name``; the body may add to ``flop`` and ``nbytes``."""
        entry = self.phases.setdefault(name, Phase())
        self.open.append((name, flop))
        self.step()
        start, inside = time.perf_counter(), self._inside
        try:
            yield entry
        finally:
            self.open.pop()
            self.step()
            seconds = time.perf_counter() - start
            entry.seconds += seconds - (self._inside - inside)
            self._inside = inside + seconds
            entry.flop += flop
            entry.nbytes += nbytes
            entry.calls += 1

    def seconds(self) -> float:
        """Seconds since the clock began."""
        return time.perf_counter() - self.began

    def unnamed(self) -> float:
        """Seconds since the clock began that were in no phase."""
        return self.seconds() - self._inside

    def name_start(self) -> None:
        """Until now was the phase ``start``."""
        start = Phase(self.unnamed(), calls=1)
        self.phases["start"] = start
        self._inside += start.seconds

    def step(self) -> None:
        """The rank gets on: a phase begins or ends, or comes back from a part of a long call."""
        self.steps, self.stepped = self.steps + 1, time.time()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """The body waits for no other rank."""
        self.solo += 1
        try:
            yield
        finally:
            self.solo -= 1

    def gather(self, comm: MPI.Comm) -> dict[str, dict[str, float]]:
        """All ranks' phases on rank 0 (empty elsewhere): sums of work, largest and smallest seconds over ranks."""
        everyone = comm.gather({k: (v.seconds, v.flop, v.nbytes) for k, v in self.phases.items()}, root=0) or []
        table: dict[str, dict[str, float]] = {}
        for name in dict.fromkeys(name for one in everyone for name in one):
            rows = [one.get(name, (0.0, 0.0, 0.0)) for one in everyone]
            seconds = [row[0] for row in rows]
            table[name] = {
                "seconds": max(seconds),
                "seconds_smallest": min(seconds),
                "gflop": sum(row[1] for row in rows) / 1e9,
                "bytes": sum(row[2] for row in rows),
            }
        return table


def timing_table(table: dict[str, dict[str, float]], gemm_gflops: float, unnamed: float = 0.0) -> str:
    """The timing table at the end of a run; ``gemm_gflops`` is the measured rate of all ranks together.

    ``unnamed`` are the seconds in no phase of the rank that has most of them.
    """
    head = f"{'phase':<24}{'seconds':>9}{'min/max':>9}{'GFLOP/s':>10}{'of GEMM':>9}{'MB/s':>9}"
    lines = [head, "-" * len(head)]
    for name, row in table.items():
        seconds = row["seconds"]
        balance = f"{row['seconds_smallest'] / seconds:.2f}" if seconds > 0 else "-"
        rate = row["gflop"] / seconds if seconds > 0 else 0.0
        share = f"{rate / gemm_gflops:.0%}" if rate and gemm_gflops else "-"
        flops = f"{rate:.1f}" if rate else "-"
        bandwidth = f"{row['bytes'] / seconds / 1e6:,.0f}" if row["bytes"] and seconds > 0 else "-"
        lines.append(f"{name:<24}{seconds:>9.2f}{balance:>9}{flops:>10}{share:>9}{bandwidth:>9}")
    return "\n".join([*lines, f"{'in no phase':<24}{unnamed:>9.2f}"])
