"""What every command does around its algorithm: log, threads, memory limit, rates, and the manifest at the end."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpgls.errors import StorageError, UsageError
from mpgls.mpi import StopSignal, agree, on_root
from mpgls.report.manifest import write_manifest
from mpgls.run.clock import Clock, timing_table
from mpgls.run.hardware import blas_kernel_warning, gemm_rate, limit_threads, memory_of_process
from mpgls.run.log import Log, duration
from mpgls.run.plan import GIB, Machine
from mpgls.run.versions import versions
from mpgls.stream.progress import load_progress
from mpgls.stream.store import fingerprint
from mpgls.stream.writer import CHECKPOINT_SECONDS

if TYPE_CHECKING:
    from mpi4py import MPI

PRECISION_BITS = {"double": 64, "single": 32}


@dataclass(frozen=True)
class RunOptions:
    """Options that every computing command has."""

    out: str
    threads: int | None = None
    memory: float | None = None
    resume: bool = False
    command_line: tuple[str, ...] = ()
    checkpoint: float = CHECKPOINT_SECONDS

    def __post_init__(self) -> None:
        if self.memory is not None and not 0 < self.memory < math.inf:
            raise UsageError(f"--memory must be positive, not {self.memory}")
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"--threads must be at least 1, not {self.threads}")
        if not self.checkpoint >= 0:
            raise UsageError(f"--checkpoint must be 0 seconds or more, not {self.checkpoint}")


class Session:
    """One run of a command on all ranks of ``comm``. Creating and finishing it are collective.

    ``suffixes`` are the endings of the files that the command makes: a fresh run removes what an earlier one left, so
    that no old table is taken for the new one. ``inputs`` are files that the command reads, never to be overwritten.
    A run that ``adds`` to a finished one goes on with its log, and leaves its files until `remove_earlier`.
    """

    def __init__(
        self,
        command: str,
        options: RunOptions,
        comm: MPI.Comm,
        suffixes: tuple[str, ...],
        inputs: Sequence[str] = (),
        adds: bool = False,
    ) -> None:
        from mpi4py import MPI

        self.command, self.options, self.comm = command, options, comm
        self.prefix = options.out
        self.timings, self.stop = Clock(), StopSignal()
        self.stop.listening().__enter__()
        self._mark: str | None = None
        self._made = [options.out + suffix for suffix in (*suffixes, ".json")]
        on_root(comm, lambda: _prepare(options, [*self._made, options.out + ".log"], inputs))
        if not adds:
            self.remove_earlier()
        self.log = _open_log(comm, self.path(".log"), options.resume or adds)
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
        self.gemm: dict[str, float] = {}
        self._held = {"largest_pss": 0, "rss_then": 0}
        self._base = 0

    def path(self, suffix: str) -> Path:
        """An output file of this run."""
        return Path(self.prefix + suffix)

    def remove_earlier(self) -> None:
        """On a fresh run remove what an earlier one left. Collective."""
        if not self.options.resume:
            on_root(self.comm, lambda: _remove(self._made))

    def machine(self) -> Machine:
        """What a plan must fit. Collective; measures the GEMM rate, so call it when the inputs are known to be good."""
        from mpi4py import MPI

        self._measure_gemm()
        limit = None if self.options.memory is None else int(self.options.memory * GIB)
        self._base = self.comm.allreduce(memory_of_process()["rss"], op=MPI.MAX)
        return Machine(self.comm.size, self.ranks_per_node, limit, self._base)

    def sample_memory(self) -> None:
        """Note the proportional set size now; the kernel keeps no peak of it, so call it where much is held."""
        now = memory_of_process()
        if now["pss"] > self._held["largest_pss"]:
            self._held = {"largest_pss": now["pss"], "rss_then": now["rss"]}

    def progress_to_resume(self, path: Path, mark: str) -> Any:
        """The state that --resume goes on from; None to start anew, which the log says. Call on one rank.

        Raises InputError when the file at ``path`` belongs to other inputs or options than ``mark``.
        """
        if not self.options.resume:
            return None
        state = load_progress(path, mark)
        if state is None:
            self.log.info(f"resume: there is no {path}, so the run starts anew")
        return state

    def is_complete(self, identities: list[dict[str, Any]], config: Any) -> bool:
        """Whether --resume finds a run that has ended, of the same inputs and options but those of the run. Collective.

        Its manifest says so, and the files that it lists are there. Then nothing is left to do, and the log is closed.
        """
        options = {name: value for name, value in vars(config).items() if name != "run"}
        self._mark = fingerprint({"command": self.command, "inputs": identities, "options": options})
        if not on_root(self.comm, self._has_ended):
            return False
        self.log.info(f"resume: {self.path('.json')} says that this run is complete: nothing is left to do")
        self.log.close()
        return True

    def _has_ended(self) -> bool:
        if not self.options.resume:
            return False
        try:
            with open(self.path(".json"), encoding="utf-8") as file:
                manifest = json.load(file)
        except (OSError, ValueError):
            return False
        files = manifest.get("files") or [""]
        return manifest.get("fingerprint") == self._mark and all(map(os.path.exists, files))

    def _measure_gemm(self) -> None:
        self.gemm = {name: self.comm.allreduce(gemm_rate(f"float{bits}")) for name, bits in PRECISION_BITS.items()}
        self.log.info(
            f"GEMM of all ranks at once: {self.gemm['double']:.0f} GFLOP/s double, {self.gemm['single']:.0f} single"
        )

    def finish(self, facts: dict[str, Any]) -> None:
        """Print the timing table and write the manifest, last of all files. Collective."""
        if not self.gemm:
            self._measure_gemm()
        self.sample_memory()
        everyone = self.comm.gather(memory_of_process() | self._held, root=0)
        table = self.timings.gather(self.comm)
        if everyone is None:
            return
        self.log.info(timing_table(table, self.gemm["double"]))
        peak = max(one["peak_rss"] for one in everyone)
        pss = max(one["largest_pss"] for one in everyone)
        self.log.info(
            f"memory: peak RSS {peak / GIB:.2f} GiB on the largest rank, {pss / GIB:.2f} with shared pages divided by "
            "the ranks that share them"
        )
        manifest = {
            "command": self.command,
            "command_line": list(self.options.command_line),
            "fingerprint": self._mark,
            "ranks": self.comm.size,
            "nodes": self.nodes,
            "threads": self.threads,
            "gemm_gflops": self.gemm,
            "versions": versions(self.comm),
            "memory": {"peak_rss_max": peak, "largest_pss_max": pss, "base": self._base, "ranks": everyone},
            "timings": table,
            "seconds": self.log.seconds(),
            **{key: _plain(value) for key, value in facts.items()},
        }
        write_manifest(self.path(".json"), manifest)
        self.log.info(f"done in {duration(self.log.seconds())}: {self.path('.json')}")
        self.log.close()


def _plain(value: Any) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def _open_log(comm: MPI.Comm, path: Path, append: bool) -> Log:
    """The log, which only rank 0 writes; all ranks raise StorageError if it cannot. Collective."""
    log, error = None, None
    try:
        log = Log(comm.rank, path, append)
    except StorageError as caught:
        error = caught
    agree(comm, error)
    assert log is not None
    return log


def refuse_overwriting(outputs: Sequence[str], inputs: Sequence[str]) -> None:
    """UsageError if one of ``outputs`` is a file that the run reads."""
    for output in filter(os.path.exists, outputs):
        for path in filter(os.path.exists, inputs):
            if os.path.samefile(output, path):
                raise UsageError(f"the run would overwrite its input {path}: give another --out")


def _prepare(options: RunOptions, made: Sequence[str], inputs: Sequence[str]) -> None:
    """Check that the files to be ``made`` can be written."""
    if os.path.basename(options.out) == "":
        raise UsageError(f"--out {options.out or repr('')} must end in a prefix for the names of the output files")
    directory = os.path.dirname(os.path.abspath(options.out))
    if not os.path.isdir(directory):
        raise StorageError(f"cannot write {options.out}: there is no directory {directory}")
    if not os.access(directory, os.W_OK):
        raise StorageError(f"cannot write {options.out}: no permission in {directory}")
    refuse_overwriting(made, inputs)
    for path in made:
        if os.path.isdir(path):
            raise StorageError(f"cannot write {path}: it is a directory")


def _remove(paths: Sequence[str]) -> None:
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
