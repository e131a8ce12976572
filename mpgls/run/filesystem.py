"""How fast a filesystem is: a temporary file of each node, written, made safe and read."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from typing import TYPE_CHECKING

from mpgls.run.findings import Findings
from mpgls.run.installation import host
from mpgls.run.world import World

if TYPE_CHECKING:
    from mpi4py import MPI

MIB = 2**20
CHUNK = 8 * MIB
FROM_CACHE = 20_000
"""MB/s: no filesystem is that fast for one node, so the file was still in memory."""


def measure_filesystem(found: Findings, world: World, node: MPI.Comm, directory: str, nbytes: int) -> None:
    """Write and read rates of ``directory``: one file of ``nbytes`` a node, all nodes at the same time. Collective."""
    rates, sync, error = (0.0, 0.0), 0.0, ""
    path: str | None = None
    if node.rank == 0:
        try:
            path, written = _write_file(directory, nbytes)
            rates, sync = (written, 0.0), _sync_seconds(directory)
        except OSError as failure:
            error = f"{host()} cannot write a file of {nbytes // MIB} MiB in {directory}: {failure.strerror}"
    world.comm.Barrier()
    if path is not None:
        try:
            rates = (rates[0], _read_file(path, nbytes))
        except OSError as failure:
            error = f"{host()} cannot read {path}: {failure.strerror}"
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)
    everyone = world.comm.gather((rates, sync, error) if node.rank == 0 else None, root=0) or []
    nodes = [one for one in everyone if one]
    found.problems += [message for *_, message in nodes if message]
    write, read = (sum(one[k] for one, *_ in nodes) for k in (0, 1))
    slowest = min((one[1] for one, *_ in nodes), default=0.0)
    found.facts |= {"write_mb_per_s": write, "read_mb_per_s": read, "read_mb_per_s_slowest_node": slowest}
    found.facts["sync_seconds"] = slowest_sync = max((one for _, one, _ in nodes), default=0.0)
    found.facts["directory"] = os.path.abspath(directory)
    if slowest > FROM_CACHE:
        found.notes.append(f"{directory} was read from memory, not from a disk (a tmpfs, or the cache was not dropped)")
    lines = [
        f"directory     {os.path.abspath(directory)}",
        f"read          {read:,.0f} MB/s, all nodes together; {slowest:,.0f} the slowest node",
        f"write         {write:,.0f} MB/s, all nodes together",
        f"sync          {slowest_sync * 1e3:,.1f} ms until a page is safe",
    ]
    found.say(f"Filesystem, {nbytes // MIB} MiB a node", lines)


def _write_file(directory: str, nbytes: int) -> tuple[str, float]:
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


def _sync_seconds(directory: str, repeats: int = 10) -> float:
    """Median seconds until a page written to a file in ``directory`` is safe. OSError when it fails."""
    seconds = []
    with tempfile.TemporaryFile(prefix=".mpgls-doctor-", dir=directory, buffering=0) as file:
        for _ in range(repeats):
            file.write(bytes(4096))
            start = time.perf_counter()
            os.fsync(file.fileno())
            seconds.append(time.perf_counter() - start)
    return sorted(seconds)[repeats // 2]


def _read_file(path: str, nbytes: int) -> float:
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
