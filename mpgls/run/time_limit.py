"""How long a run may take: --max-hours, or the end that the scheduler has set for its job."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

RESERVE = 60.0
"""Seconds, or a twentieth of the whole time if that is less, that the end of a run may take."""


@dataclass
class TimeLimit:
    """``end`` is when the run must have ended, in seconds since the epoch; ``whose`` limit it is, in words."""

    end: float
    whose: str
    _reserve: float = 0.0
    _last: float | None = None
    _waits: deque[float] = field(default_factory=lambda: deque(maxlen=16))

    def __post_init__(self) -> None:
        self._reserve = min(RESERVE, 0.05 * (self.end - time.time()))

    def reason(self) -> str | None:
        """Why the run must stop now, if it must: there may be no time for two more of the units between two looks.

        A unit is the second longest time between the last looks: the longest may be a factorisation, done once.
        """
        now = time.time()
        if self._last is not None:
            self._waits.append(now - self._last)
        self._last = now
        unit = sorted(self._waits)[-2] if len(self._waits) > 1 else 0.0
        return f"before the end of {self.whose}" if now + self._reserve + 2 * unit >= self.end else None


def time_limit(max_hours: float | None, environment: Mapping[str, str] = os.environ) -> TimeLimit | None:
    """The earlier one of --max-hours from now on and of what the scheduler says; None where there is neither."""
    now = time.time()
    limits = [] if max_hours is None else [TimeLimit(now + 3600 * max_hours, f"--max-hours {max_hours:g}")]
    limits += [TimeLimit(end, whose) for end, whose in _scheduled(environment) if end > now]
    return min(limits, key=lambda limit: limit.end, default=None)


def _scheduled(environment: Mapping[str, str]) -> list[tuple[float, str]]:
    """What Slurm (since 23.02) and Torque tell their jobs; PBS Pro and LSF tell them nothing of it."""
    limits = []
    if (end := environment.get("SLURM_JOB_END_TIME", "")).isdigit():
        limits.append((float(end), "the job (SLURM_JOB_END_TIME)"))
    if (seconds := environment.get("PBS_WALLTIME", "")).isdigit():
        start = _start_of_job("PBS_JOBID", environment.get("PBS_JOBID", ""))
        limits.append((start + float(seconds), "the job (PBS_WALLTIME)"))
    return limits


def _start_of_job(name: str, job: str) -> float:
    """When the oldest ancestor of this process began whose environment has the same job in the variable ``name``."""
    process, said = os.getpid(), f"{name}={job}".encode()
    while True:
        parent = int(_of_process(process)[1])
        try:
            if parent == 0 or said not in Path(f"/proc/{parent}/environ").read_bytes().split(b"\0"):
                break
        except OSError:  # another user's: that of the scheduler
            break
        process = parent
    ticks = float(_of_process(process)[19])
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")


def _of_process(process: int) -> list[str]:
    """The fields of /proc/PROCESS/stat from the third one on, which follows the name in brackets: proc(5)."""
    return Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
