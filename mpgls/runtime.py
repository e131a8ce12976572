"""What a run needs around the algorithm: the log, timings by phase, threads and memory of this process."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from mpgls.errors import Stopped, StorageError

if TYPE_CHECKING:
    from mpi4py import MPI

GIB = 2**30


def memory_for(need: float) -> str:
    """The --memory, in GiB, that lets ``need`` bytes fit: 2 % more, rounded up."""
    return f"{math.ceil(need / GIB * 102) / 100:.2f}"


class Log:
    """Line-based log of rank 0: to stdout and, when a path is given, to a file. Other ranks are silent."""

    def __init__(self, rank: int, path: str | Path | None = None, append: bool = False) -> None:
        self._speaks = rank == 0
        self._file: TextIO | None = None
        self._start = time.perf_counter()
        if self._speaks and path is not None:
            try:
                self._file = open(path, "a" if append else "w", encoding="utf-8")  # noqa: SIM115
            except OSError as error:
                raise StorageError(f"cannot write the log {path}: {error.strerror}") from None

    def info(self, message: str = "") -> None:
        """One line (or a block of lines) with the seconds since the start."""
        if not self._speaks:
            return
        stamp = f"{time.perf_counter() - self._start:9.2f}  "
        for line in message.split("\n"):
            text = (stamp + line).rstrip()
            print(text, flush=True)
            if self._file is not None:
                print(text, file=self._file, flush=True)

    def warn(self, message: str) -> None:
        """A line that asks for attention."""
        self.info(f"WARNING: {message}")

    def seconds(self) -> float:
        """Seconds since the log was opened."""
        return time.perf_counter() - self._start

    def close(self) -> None:
        """Close the log file."""
        if self._file is not None:
            self._file.close()
            self._file = None


class Progress:
    """Progress of a streamed phase: at most one line every ``interval`` seconds, with rate and time left."""

    def __init__(self, log: Log, label: str, total: int, unit: str, interval: float = 10.0) -> None:
        self._log, self._label, self._total, self._unit = log, label, total, unit
        self._interval = interval
        self._start = self._last = time.perf_counter()

    def at(self, done: int) -> None:
        """Say how far the phase is, when it is time to."""
        now = time.perf_counter()
        if now - self._last < self._interval or done <= 0:
            return
        self._last = now
        rate = done / (now - self._start)
        left = (self._total - done) / rate
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


@dataclass
class Phase:
    """What one phase cost this rank."""

    seconds: float = 0.0
    flop: float = 0.0
    nbytes: float = 0.0
    calls: int = 0


@dataclass
class Timings:
    """Seconds, floating-point operations and bytes of each phase on this rank."""

    phases: dict[str, Phase] = field(default_factory=dict)

    @contextlib.contextmanager
    def phase(self, name: str, flop: float = 0.0, nbytes: float = 0.0) -> Iterator[Phase]:
        """Time the body as part of phase ``name``; the body may add to ``flop`` and ``nbytes``."""
        entry = self.phases.setdefault(name, Phase())
        start = time.perf_counter()
        try:
            yield entry
        finally:
            entry.seconds += time.perf_counter() - start
            entry.flop += flop
            entry.nbytes += nbytes
            entry.calls += 1

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


def timing_table(table: dict[str, dict[str, float]], gemm_gflops: float) -> str:
    """The timing table at the end of a run; ``gemm_gflops`` is the measured rate of all ranks together."""
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
    return "\n".join(lines)


def memory_of_process() -> dict[str, int]:
    """Bytes of this process as the kernel counts them: ``peak_rss``, ``rss`` and ``pss``.

    PSS divides shared pages by the processes that map them, so a factor shared by the ranks of a node counts once.
    """
    found = {"peak_rss": 0, "rss": 0, "pss": 0}
    keys = {"VmHWM:": "peak_rss", "VmRSS:": "rss", "Pss:": "pss"}
    for name in ("/proc/self/status", "/proc/self/smaps_rollup"):
        with contextlib.suppress(OSError), open(name, encoding="ascii") as lines:
            for line in lines:
                parts = line.split()
                if parts and parts[0] in keys:
                    found[keys[parts[0]]] = int(parts[1]) * 1024
    return found


THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def limit_threads(node_comm: MPI.Comm, requested: int | None) -> int:
    """Bind the number of BLAS threads of this rank so that the ranks of a node do not outnumber its cores.

    ``requested`` (``--threads``) wins, then OMP_NUM_THREADS or OPENBLAS_NUM_THREADS if the user set one, otherwise the
    node's usable cores divided by its ranks. Every BLAS of the process is limited: NumPy's and ScaLAPACK's may differ.
    Collective over ``node_comm``, the ranks of one node.
    """
    from threadpoolctl import threadpool_limits

    by_user = requested or next((int(v) for k in THREAD_VARIABLES if (v := os.environ.get(k, "")).isdigit()), 0)
    cores = set().union(*node_comm.allgather(os.sched_getaffinity(0)))
    threads = by_user or max(1, len(cores) // node_comm.size)
    threadpool_limits(threads)
    for name in THREAD_VARIABLES:  # for the libraries that are loaded later: ScaLAPACK's BLAS, SciPy's
        os.environ[name] = str(threads)
    return threads


def blas_libraries() -> list[dict[str, object]]:
    """The BLAS libraries of this process: path, version, kernel and threads."""
    from threadpoolctl import threadpool_info

    return [
        {
            "path": entry.get("filepath"),
            "library": entry.get("internal_api"),
            "version": entry.get("version"),
            "kernel": entry.get("architecture"),
            "threads": entry.get("num_threads"),
        }
        for entry in threadpool_info()
        if entry.get("user_api") == "blas"
    ]


def blas_kernel_warning() -> str | None:
    """A sentence when OPENBLAS_CORETYPE forces a kernel without AVX-512 on a processor that has it."""
    forced = os.environ.get("OPENBLAS_CORETYPE", "")
    if not forced or forced.lower() in {"skylakex", "cooperlake", "sapphirerapids", "zen"}:
        return None
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="ascii") as lines:
        if any("avx512f" in line for line in lines):
            return (
                f"OPENBLAS_CORETYPE={forced} keeps OpenBLAS from using this processor's AVX-512; "
                "matrix products run at about half speed: unset it"
            )
    return None


def gemm_rate(dtype: str = "float64", n: int = 1200, repeats: int = 2) -> float:
    """GFLOP/s of the best of ``repeats`` products of two n x n matrices on this rank's threads."""
    import numpy as np

    a = np.ones((n, n), dtype=dtype)
    b, c = a.copy(), np.empty_like(a)
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        np.matmul(a, b, out=c)
        best = min(best, time.perf_counter() - start)
    return 2 * n**3 / best / 1e9


def check_launcher(comm_size: int) -> str | None:
    """A sentence when the launcher started more ranks than COMM_WORLD holds: two MPIs that do not know each other."""
    ranks = launched_size()
    if ranks == 1 or comm_size > 1:
        return None
    return (
        f"the launcher started {ranks} ranks but MPI.COMM_WORLD holds 1: mpirun and the MPI library of mpi4py are "
        "different ones, so every rank would compute everything; start with the mpirun that belongs to mpi4py's MPI "
        "(see mpgls doctor)"
    )


def launched_size() -> int:
    """The number of ranks that the launcher started, known before MPI is initialised; 1 without a launcher."""
    for variable in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS", "SLURM_STEP_NUM_TASKS"):
        value = os.environ.get(variable, "")
        if value.isdigit() and int(value) > 1:
            return int(value)
    return 1


def launched_rank() -> int:
    """The rank that the launcher gave this process, known before MPI is initialised; 0 without a launcher."""
    for variable in ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK", "SLURM_PROCID"):
        value = os.environ.get(variable, "")
        if value.isdigit():
            return int(value)
    return 0


class StopSignal:
    """Remembers that SIGTERM or SIGUSR1 asked this rank to stop, so that a loop can end between two blocks."""

    def __init__(self) -> None:
        import signal

        self.requested = False
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._note)

    def _note(self, *_: object) -> None:
        self.requested = True

    def problem(self, advice: str = "run the same command with --resume to go on") -> Stopped | None:
        """What this rank brings to ``agree``: Stopped, with what to do next, if it was asked to stop."""
        return Stopped(f"stopped by a signal; {advice}") if self.requested else None


def stderr(message: str) -> None:
    """One line to standard error, at once."""
    print(message, file=sys.stderr, flush=True)
