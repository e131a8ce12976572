"""One run of a command: open, look what is done already, plan, keep what is done, report; alike for every command."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mpgls.errors import StorageError, UsageError
from mpgls.mpi import StopSignal, node_of, on_root, together
from mpgls.report.manifest import write_manifest
from mpgls.run.clock import timing_table
from mpgls.run.hardware import blas_kernel_warning, gemm_rate, limited_threads, memory_of_process, resident_memory
from mpgls.run.identity import file_identity
from mpgls.run.ledger import State
from mpgls.run.log import Log, duration
from mpgls.run.option_groups import OutputOptions
from mpgls.run.plan import GIB, Machine
from mpgls.run.results import Results
from mpgls.run.versions import versions
from mpgls.run.world import World
from mpgls.stream.mark import Mark

if TYPE_CHECKING:
    from mpi4py import MPI

PRECISION_BITS = {"double": 64, "single": 32}


@dataclass(eq=False)
class Job:
    """A run in progress on all ranks of ``world``; made by ``open_job``.

    ``made`` are the files that the command makes, ``until_done`` the endings of those that only --resume needs;
    ``adds``: the run adds to a finished one. ``identities`` are what identifies each input file, once ``identify`` has
    looked. Methods that say so are collective.
    """

    options: OutputOptions
    world: World
    made: tuple[str, ...]
    until_done: tuple[str, ...]
    adds: bool
    nodes: int
    ranks_per_node: int
    threads: int
    identities: list[dict[str, Any]] = field(default_factory=list)
    _gemm: dict[str, float] = field(default_factory=dict)
    _base: int = 0
    _held: dict[str, int] = field(default_factory=lambda: {"largest_pss": 0, "rss_then": 0})

    @property
    def prefix(self) -> str:
        """--out."""
        return self.options.out

    @property
    def resume(self) -> bool:
        """Whether the run goes on where an earlier one stopped."""
        return self.options.resume

    def path(self, suffix: str) -> Path:
        """An output file of this run."""
        return Path(self.prefix + suffix)

    @property
    def manifest(self) -> Path:
        """The file that says that the run has ended, and what it did."""
        return self.path(self.options.record + ".json")

    # -- what the run is made from ------------------------------------------------------------------------------------

    def identify(self, **further: Sequence[str | os.PathLike[str]]) -> Mark:
        """Look at every input file; ``further`` are those that no option names, by what they are. Collective.

        Returns what everything of this run is marked with. Raises StorageError when a file cannot be read.
        """
        named: dict[str, Sequence[str | os.PathLike[str]]] = {**self.options.input_files(), **further}

        def look() -> list[dict[str, Any]]:
            return [{**file_identity(path), "option": name} for name, paths in named.items() for path in paths]

        self.identities = self.world.on_root(look)
        return self.mark

    @property
    def mark(self) -> Mark:
        """The command, the options that determine its results, and what its inputs hold. After ``identify``."""
        inputs: dict[str, list[Any]] = {}
        for one in self.identities:
            inputs.setdefault(one["option"], []).append([one["size"], one["sha256"]])
        return Mark({"command": self.options.command, "options": self.options.determine_results(), "inputs": inputs})

    def state(self, suffix: str = ".progress", **facts: Any) -> State:
        """What the run keeps in a file that is replaced whole; ``facts`` narrow its mark."""
        return State(self.path(suffix), self.mark.narrowed(**facts) if facts else self.mark)

    def is_complete(self) -> bool:
        """Whether --resume finds a run that has ended, of the same inputs and options. Collective.

        Its manifest says so, and the files that it lists are there. Then nothing is left to do: see ``results``.
        Raises InputError, naming the difference, when the run that has ended was made from others.
        """
        if not self.resume:
            return False
        try:
            self.identify()
        except StorageError:  # opening the study says better what is missing
            return False
        if not self.world.on_root(self._has_ended):
            return False
        self.world.log.info(f"resume: {self.manifest} says that this run is complete: nothing is left to do")
        return True

    def _has_ended(self) -> bool:
        manifest = self._manifest()
        if "made_from" not in manifest or (self.adds and manifest["made_from"] != self.mark.text):
            return False
        self.mark.check(manifest["made_from"], self.manifest)
        files = [*manifest.get("files", []), *manifest.get("tables", {}).values()]
        if not all(map(os.path.exists, files)):
            return False
        self._forget()  # it may have been killed before it could
        return True

    def _forget(self) -> None:
        """Remove what only --resume would have needed."""
        for ending in self.until_done:
            _remove(glob.glob(glob.escape(self.prefix) + ending))

    def _manifest(self) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError), open(self.manifest, encoding="utf-8") as file:
            found = json.load(file)
            return found if isinstance(found, dict) else {}
        return {}

    def starts_anew(self, path: Path) -> None:
        """Say in the log that --resume found nothing of an earlier run at ``path``."""
        if self.resume:
            self.world.log.info(f"resume: there is no {path}, so the run starts anew")

    def remove_earlier(self) -> None:
        """On a fresh run remove what an earlier one left. Collective."""
        if not self.resume:
            self.world.on_root(lambda: _remove(self.made))

    # -- what it may use ----------------------------------------------------------------------------------------------

    def machine(self) -> Machine:
        """What a plan must fit. Collective; measures the GEMM rate, so call it when the inputs are known to be good."""
        from mpi4py import MPI

        self._measure_gemm()
        limit = None if self.options.memory is None else int(self.options.memory * GIB)
        self._base = self.world.comm.allreduce(resident_memory()["rss"], op=MPI.MAX)
        return Machine(self.world.size, self.ranks_per_node, limit, self._base)

    def _measure_gemm(self) -> None:
        comm = self.world.comm
        self._gemm = {name: comm.allreduce(gemm_rate(f"float{bits}")) for name, bits in PRECISION_BITS.items()}
        self.world.log.info(
            f"GEMM of all ranks at once: {self._gemm['double']:.0f} GFLOP/s double, {self._gemm['single']:.0f} single"
        )

    def sample_memory(self) -> None:
        """Note the proportional set size now if the process has grown; the kernel keeps no peak of it.

        Call it where much is held.
        """
        if resident_memory()["rss"] > self._held["rss_then"]:
            self._note_memory(memory_of_process())

    def _note_memory(self, now: dict[str, int]) -> None:
        if now["pss"] > self._held["largest_pss"]:
            self._held = {"largest_pss": now["pss"], "rss_then": now["rss"]}

    # -- the end ------------------------------------------------------------------------------------------------------

    def finish(
        self,
        facts: dict[str, Any],
        *,
        files: Sequence[str | os.PathLike[str]] = (),
        tables: dict[str, Path] | None = None,
        nulls: np.ndarray | None = None,
    ) -> Results:
        """Print the timing table and write the manifest, last of all files. Collective.

        ``files`` and ``tables`` (by name) are what the run made, ``facts`` what else the manifest says of it.
        """
        comm, log = self.world.comm, self.world.log
        if not self._gemm and comm.allreduce(sum(phase.flop for phase in self.world.clock.phases.values())):
            self._measure_gemm()
        now = memory_of_process()
        self._note_memory(now)
        everyone = comm.gather(now | self._held, root=0)
        timings = self.world.clock.gather(comm)
        named = {name: str(path) for name, path in (tables or {}).items()}

        def write() -> dict[str, Any]:
            log.info(timing_table(timings, self._gemm.get("double", 0.0)))
            manifest = self._head() | {
                "memory": self._memory(everyone or []),
                "timings": timings,
                "seconds": log.seconds(),
                **{key: _plain(value) for key, value in facts.items()},
                "tables": named,
                "files": list(dict.fromkeys([*map(str, files), *named.values()])),
            }
            write_manifest(self.manifest, manifest)
            self._forget()
            log.info(f"done in {duration(log.seconds())}: {self.manifest}")
            return self._manifest()

        return Results(self.prefix, self.world.on_root(write), nulls)

    def _head(self) -> dict[str, Any]:
        """What the manifest says of every run."""
        return {
            "command": self.options.command,
            "command_line": list(self.options.typed()),
            "made_from": self.mark.text,
            "inputs": self.identities,
            "ranks": self.world.size,
            "nodes": self.nodes,
            "threads": self.threads,
            "gemm_gflops": self._gemm,
            "versions": versions(self.world.comm),
        }

    def _memory(self, everyone: list[dict[str, int]]) -> dict[str, Any]:
        peak, pss = (max(one[key] for one in everyone) for key in ("peak_rss", "largest_pss"))
        self.world.log.info(
            f"memory: peak RSS {peak / GIB:.2f} GiB on the largest rank, {pss / GIB:.2f} with shared pages divided by "
            "the ranks that share them"
        )
        return {"peak_rss_max": peak, "largest_pss_max": pss, "base": self._base, "ranks": everyone}

    def results(self) -> Results:
        """What a complete run left. Collective."""
        return Results(self.prefix, self.world.on_root(self._manifest))


@contextlib.contextmanager
def open_job(
    options: OutputOptions,
    comm: MPI.Comm,
    suffixes: Sequence[str] = (),
    *,
    until_done: Sequence[str] = (),
    adds: bool = False,
) -> Iterator[Job]:
    """Begin a run: check where its files go, open its log, bind threads, take signals; undone at the end. Collective.

    ``suffixes`` are the endings of the files that the command makes: a fresh run removes what an earlier one left, so
    that no old table is taken for the new one. ``until_done`` are those, with wildcards, of files that only --resume
    needs: they go when the run has ended. A run that ``adds`` to a finished one goes on with its log and leaves its
    files until ``remove_earlier``. Raises UsageError and StorageError, on all ranks, where files cannot go there.
    """
    made = tuple(options.out + suffix for suffix in (*suffixes, options.record + ".json"))
    inputs = [path for paths in options.input_files().values() for path in paths]
    on_root(comm, lambda: _check_places(options.out, [*made, options.out + options.record + ".log"], inputs))
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(StopSignal(f"go on with: {options.advice()}").listening())
        node = stack.enter_context(node_of(comm))
        threads = stack.enter_context(limited_threads(node, options.threads))
        nodes, widest = comm.allreduce(1 if node.rank == 0 else 0), max(comm.allgather(node.size))
        log = _open_log(options, comm, options.resume or adds)
        stack.callback(log.close)
        job = Job(options, World(comm, log, stop=stop), made, tuple(until_done), adds, nodes, widest, threads)
        if not adds:
            job.remove_earlier()
        log.info(f"mpgls {options.command}: {comm.size} ranks on {nodes} node(s), {threads} BLAS thread(s) a rank")
        if warning := blas_kernel_warning():
            log.warn(warning)
        yield job


def _open_log(options: OutputOptions, comm: MPI.Comm, append: bool) -> Log:
    """The log, which only rank 0 writes; all ranks raise StorageError if it cannot. Collective."""
    with together(comm):
        log = Log(comm.rank, options.out + options.record + ".log", append)
    return log


def _check_places(out: str, made: Sequence[str], inputs: Sequence[str]) -> None:
    """Check that the files to be ``made`` can be written."""
    if os.path.basename(out) == "":
        raise UsageError(f"--out {out or repr('')} must end in a prefix for the names of the output files")
    directory = os.path.dirname(os.path.abspath(out))
    if not os.path.isdir(directory):
        raise StorageError(f"cannot write {out}: there is no directory {directory}")
    if not os.access(directory, os.W_OK):
        raise StorageError(f"cannot write {out}: no permission in {directory}")
    refuse_overwriting(made, inputs)
    for path in made:
        if os.path.isdir(path):
            raise StorageError(f"cannot write {path}: it is a directory")


def refuse_overwriting(outputs: Sequence[str], inputs: Sequence[str]) -> None:
    """UsageError if one of ``outputs`` is a file that the run reads."""
    for output in filter(os.path.exists, outputs):
        for path in filter(os.path.exists, inputs):
            if os.path.samefile(output, path):
                raise UsageError(f"the run would overwrite its input {path}: give another --out")


def _remove(paths: Sequence[str]) -> None:
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
