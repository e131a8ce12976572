"""What this process runs on: memory, cores, BLAS libraries and their speed."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpi4py import MPI


def memory_of_process() -> dict[str, int]:
    """Bytes of this process as the kernel counts them: ``peak_rss``, ``rss`` and ``pss``.

    PSS divides shared pages by the processes that map them, so a factor shared by the ranks of a node counts once. The
    kernel goes through every page for it; ``resident_memory`` has the others at no cost.
    """
    return resident_memory() | _kernel_bytes("/proc/self/smaps_rollup", {"Pss:": "pss"})


def resident_memory() -> dict[str, int]:
    """Bytes of this process: ``peak_rss`` and ``rss``."""
    return _kernel_bytes("/proc/self/status", {"VmHWM:": "peak_rss", "VmRSS:": "rss"})


def _kernel_bytes(path: str, names: dict[str, str]) -> dict[str, int]:
    """The entries ``names`` of a file of the kernel that counts in KiB; 0 where it has none."""
    found = dict.fromkeys(names.values(), 0)
    with contextlib.suppress(OSError), open(path, encoding="ascii") as lines:
        for line in lines:
            parts = line.split()
            if parts and parts[0] in names:
                found[names[parts[0]]] = int(parts[1]) * 1024
    return found


def node_memory() -> tuple[int, int]:
    """Total and available bytes of this node; the limit of the control group counts where there is one."""
    sizes = {"MemTotal:": 0, "MemAvailable:": 0}
    with contextlib.suppress(OSError), open("/proc/meminfo", encoding="ascii") as lines:
        for line in lines:
            parts = line.split()
            if parts[0] in sizes:
                sizes[parts[0]] = int(parts[1]) * 1024
    total, available = sizes.values()
    with contextlib.suppress(OSError, ValueError):
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
        total, available = min(total, limit), min(available, limit)
    return total, available


def process_age() -> float:
    """Seconds since this process started; 0 where the kernel does not tell."""
    age = 0.0
    with contextlib.suppress(OSError, ValueError, IndexError):
        ticks = int(Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return max(0.0, age)


def startup_seconds(comm: MPI.Comm) -> float:
    """Seconds from the start of a process until now, the longest; 0 where the kernel does not tell. Collective."""
    from mpi4py import MPI

    return float(comm.allreduce(process_age(), op=MPI.MAX))


THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def limit_threads(node_comm: MPI.Comm, requested: int | None) -> int:
    """Bind the number of BLAS threads of this rank so that the ranks of a node do not outnumber its cores.

    ``requested`` (``--threads``) wins, then OMP_NUM_THREADS or OPENBLAS_NUM_THREADS if the user set one, otherwise the
    node's usable cores divided by its ranks. Every BLAS of the process is limited: NumPy's and ScaLAPACK's may differ.
    Collective over ``node_comm``, the ranks of one node.
    """
    from threadpoolctl import threadpool_limits

    threads = _threads_of_rank(node_comm, requested)
    threadpool_limits(threads)
    _limit_later_libraries(threads)
    return threads


@contextlib.contextmanager
def limited_threads(node_comm: MPI.Comm, requested: int | None) -> Iterator[int]:
    """``limit_threads`` while the body runs; the libraries of now, and the environment, are then as they were."""
    from threadpoolctl import threadpool_limits

    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    threads = _threads_of_rank(node_comm, requested)
    with threadpool_limits(threads):
        try:
            _limit_later_libraries(threads)
            yield threads
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def _threads_of_rank(node_comm: MPI.Comm, requested: int | None) -> int:
    by_user = requested or next((int(v) for k in THREAD_VARIABLES if (v := os.environ.get(k, "")).isdigit()), 0)
    cores = set().union(*node_comm.allgather(os.sched_getaffinity(0)))
    return by_user or max(1, len(cores) // node_comm.size)


def _limit_later_libraries(threads: int) -> None:
    """For the libraries that are loaded later: ScaLAPACK's BLAS, SciPy's."""
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))


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


GEMM_ROWS, GEMM_REPEATS = 640, 3
"""Rows of the product that measures the GEMM rate of a thread, within 5% of that of 1,200; and how often it is made."""


def gemm_rate(dtype: str, n: int, repeats: int = GEMM_REPEATS) -> float:
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
