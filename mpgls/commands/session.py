"""What every command does around its algorithm: log, threads, memory limit, rates, and the manifest at the end."""

from __future__ import annotations

import contextlib
import os
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpgls.commands.plan import Machine
from mpgls.errors import StorageError, UsageError, on_root
from mpgls.report.manifest import versions, write_manifest
from mpgls.runtime import (
    GIB,
    Log,
    StopSignal,
    Timings,
    blas_kernel_warning,
    duration,
    gemm_rate,
    limit_threads,
    memory_of_process,
    timing_table,
)

if TYPE_CHECKING:
    from mpi4py import MPI


@dataclass(frozen=True)
class RunOptions:
    """Options that every computing command has."""

    out: str
    threads: int | None = None
    memory: float | None = None
    resume: bool = False
    command_line: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.memory is not None and self.memory <= 0:
            raise UsageError(f"--memory must be positive, not {self.memory}")
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"--threads must be at least 1, not {self.threads}")


class Session:
    """One run of a command on all ranks of ``comm``. Creating and finishing it are collective.

    ``suffixes`` are the endings of the files that the command makes: a fresh run removes what an earlier one left, so
    that no old table is taken for the new one.
    """

    def __init__(self, command: str, options: RunOptions, comm: MPI.Comm, suffixes: tuple[str, ...]) -> None:
        from mpi4py import MPI

        self.command, self.options, self.comm = command, options, comm
        self.prefix = options.out
        self.timings, self.stop = Timings(), StopSignal()
        on_root(comm, lambda: _prepare(options, suffixes))
        self.log = Log(comm.rank, self.path(".log"), append=options.resume)
        node = comm.Split_type(MPI.COMM_TYPE_SHARED, comm.rank)
        self.threads = limit_threads(node, options.threads)
        self.ranks_per_node = comm.allreduce(node.size, op=MPI.MAX)
        self.nodes = comm.allreduce(1 if node.rank == 0 else 0)
        node.Free()
        self.log.info(
            f"mpgls {command}: {comm.size} ranks on {self.nodes} node(s), {self.threads} BLAS thread(s) a rank"
        )
        if warning := blas_kernel_warning():
            self.log.warn(warning)
        self.gemm = {"double": comm.allreduce(gemm_rate("float64")), "single": comm.allreduce(gemm_rate("float32"))}
        self.log.info(
            f"GEMM of all ranks at once: {self.gemm['double']:.0f} GFLOP/s double, {self.gemm['single']:.0f} single"
        )

    def path(self, suffix: str) -> Path:
        """An output file of this run."""
        return Path(self.prefix + suffix)

    def machine(self) -> Machine:
        """What a plan must fit. Collective."""
        from mpi4py import MPI

        limit = None if self.options.memory is None else int(self.options.memory * GIB)
        base = self.comm.allreduce(memory_of_process()["rss"], op=MPI.MAX)
        return Machine(self.comm.size, self.ranks_per_node, limit, base)

    def finish(self, facts: dict[str, Any]) -> None:
        """Print the timing table and write the manifest, last of all files. Collective."""
        everyone = self.comm.gather(memory_of_process(), root=0)
        table = self.timings.gather(self.comm)
        if everyone is None:
            return
        self.log.info(timing_table(table, self.gemm["double"]))
        peak = max(one["peak_rss"] for one in everyone)
        self.log.info(f"memory: peak RSS {peak / GIB:.2f} GiB on the largest rank")
        manifest = {
            "command": self.command,
            "command_line": list(self.options.command_line),
            "ranks": self.comm.size,
            "nodes": self.nodes,
            "threads": self.threads,
            "gemm_gflops": self.gemm,
            "versions": versions(self.comm),
            "memory": {"peak_rss_max": peak, "ranks": everyone},
            "timings": table,
            "seconds": self.log.seconds(),
            **{key: _plain(value) for key, value in facts.items()},
        }
        write_manifest(self.path(".json"), manifest)
        self.log.info(f"done in {duration(self.log.seconds())}: {self.path('.json')}")
        self.log.close()


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def _prepare(options: RunOptions, suffixes: tuple[str, ...]) -> None:
    """Check that the output can be written and, on a fresh run, remove what an earlier run left."""
    directory = os.path.dirname(os.path.abspath(options.out))
    if not os.path.isdir(directory):
        raise StorageError(f"cannot write {options.out}: there is no directory {directory}")
    if not os.access(directory, os.W_OK):
        raise StorageError(f"cannot write {options.out}: no permission in {directory}")
    if os.path.basename(options.out) == "":
        raise UsageError(f"--out {options.out} is a directory: give a prefix for the output files")
    if not options.resume:
        for suffix in (*suffixes, ".json", ".log"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(options.out + suffix)
