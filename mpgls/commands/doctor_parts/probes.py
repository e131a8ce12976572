"""What ``mpgls doctor`` asks of the operating system: memory, files and installed packages."""

from __future__ import annotations

import contextlib
import glob
import os
import tempfile
import time
from pathlib import Path

MIB = 2**20
CHUNK = 8 * MIB
DEBIAN_PACKAGES = {
    "petsc4py": "/usr/lib/petscdir/*/*/lib/python3/dist-packages",
    "slepc4py": "/usr/lib/slepcdir/*/*/lib/python3/dist-packages",
}


def how_to_get(package: str) -> str:
    """What to do when ``package`` is not on Python's path."""
    found = [path for path in sorted(glob.glob(DEBIAN_PACKAGES[package])) if "-real" in path]
    if os.environ.get("PETSC_DIR"):
        found.insert(0, os.path.join(os.environ["PETSC_DIR"], "lib/python3/dist-packages"))
    found = [path for path in found if os.path.isdir(os.path.join(path, package))]
    if found:
        return f"{package} is at {found[0]} but not on Python's path: source jobs/env.sh, or add it to PYTHONPATH"
    return (
        f"{package} is not installed; eigen-decompositions need it: install Debian's python3-{package}-real, or build "
        "it with pip against the PETSc and SLEPc of the cluster (docs/cluster.md)"
    )


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


def write_file(directory: str, nbytes: int) -> tuple[str, float]:
    """Write a temporary file of random bytes and drop it from the cache: its path and MB/s. OSError when it fails."""
    handle, path = tempfile.mkstemp(prefix=".mpgls-doctor-", dir=directory)
    try:
        data = os.urandom(CHUNK)
        start = time.perf_counter()
        left = nbytes
        while left:
            left -= os.write(handle, data[: min(left, CHUNK)])
        os.fsync(handle)
        seconds = time.perf_counter() - start
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError:
        os.unlink(path)
        raise
    finally:
        os.close(handle)
    return path, nbytes / seconds / 1e6


def sync_seconds(directory: str, repeats: int = 10) -> float:
    """Median seconds until a page written to a file in ``directory`` is safe. OSError when it fails."""
    seconds = []
    with tempfile.TemporaryFile(prefix=".mpgls-doctor-", dir=directory, buffering=0) as file:
        for _ in range(repeats):
            file.write(bytes(4096))
            start = time.perf_counter()
            os.fsync(file.fileno())
            seconds.append(time.perf_counter() - start)
    return sorted(seconds)[repeats // 2]


def read_file(path: str, nbytes: int) -> float:
    """MB/s of reading ``path`` once from its start."""
    buffer = bytearray(CHUNK)
    handle = os.open(path, os.O_RDONLY)
    try:
        start = time.perf_counter()
        while os.readv(handle, [buffer]):
            pass
        return nbytes / (time.perf_counter() - start) / 1e6
    finally:
        os.close(handle)
