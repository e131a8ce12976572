"""One run of a command: open, look what is done already, plan, keep what is done, report; alike for every command."""

from __future__ import annotations

import contextlib
import functools
import glob
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mpgls.errors import Stopped, StorageError
from mpgls.mpi import StopSignal, agree, node_of, on_root, together
from mpgls.report.file_names import LONGEST_PART
from mpgls.run.clock import Clock, take_start, timing_table
from mpgls.run.hardware import GEMM_ROWS, gemm_rate, limited_threads, memory_of_process, node_memory, resident_memory
from mpgls.run.identity import file_identity
from mpgls.run.kernels import kernel_warnings, kernels
from mpgls.run.ledger import State
from mpgls.run.log import Log, duration
from mpgls.run.option_groups import OutputOptions
from mpgls.run.outputs import PARTIAL, Outputs, read_json, remove
from mpgls.run.plan import GIB, Machine
from mpgls.run.prefix_lock import PrefixLock, held
from mpgls.run.progress_file import ENDING, ProgressFile
from mpgls.run.results import Results
from mpgls.run.time_limit import time_limit
from mpgls.run.versions import versions
from mpgls.run.watch import ENDING as WATCH
from mpgls.run.watch import end_process, watched
from mpgls.run.world import World
from mpgls.stream.mark import Mark
from mpgls.study.regular import check_regular

if TYPE_CHECKING:
    from mpi4py import MPI

PRECISION_BITS = {"double": 64, "single": 32}


@dataclass(eq=False)
class Job:
    """A run in progress on all ranks of ``world``; made by ``open_job``.

    ``outputs`` are the files that the command makes, ``replaced`` the endings of those that a fresh run removes;
    ``adds``: the run adds to a finished one. ``identities`` are what identifies each input file, once ``identify`` has
    looked. Methods that say so are collective.
    """

    options: OutputOptions
    world: World
    outputs: Outputs
    replaced: tuple[str, ...]
    adds: bool
    nodes: int
    ranks_per_node: int
    threads: int
    identities: list[dict[str, Any]] = field(default_factory=list)
    _gemm: dict[str, float] = field(default_factory=dict)
    _base: int = 0
    _warned: set[str] = field(default_factory=set)
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
        return self.outputs.manifest

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
        if self.options.lacks_tables(manifest) or not all(map(os.path.exists, files)):
            return False
        self._forget()  # it may have been killed before it could
        return True

    def _forget(self) -> None:
        """Remove what only --resume would have needed."""
        for ending in self.outputs.until_done:
            remove(glob.glob(glob.escape(self.prefix) + ending))

    def _manifest(self) -> dict[str, Any]:
        return read_json(self.manifest)

    def starts_anew(self, path: Path) -> None:
        """Say in the log that --resume found nothing of an earlier run at ``path``."""
        if self.resume:
            self.world.log.info(f"resume: there is no {path}, so the run starts anew")

    def remove_earlier(self) -> None:
        """On a fresh run remove what an earlier one left, and what a killed one was making. Collective."""
        if not self.resume and not self.options.is_dry:
            earlier = [self.prefix + suffix for suffix in self.replaced]
            self.world.on_root(lambda: remove([*earlier, *self.outputs.unfinished_files()]))

    def check_room(self, sizes: Mapping[str, int]) -> None:
        """Check, before the work, that there is room for the files of the run: bytes by name. Collective.

        Raises StorageError, on all ranks, naming the directory, the bytes that are needed and those that are free.
        """
        self.world.on_root(lambda: self.outputs.check_room(sizes, self.resume or self.adds))

    # -- what it may use ----------------------------------------------------------------------------------------------

    def machine(self, readers: int = 0) -> Machine:
        """What a plan must fit; ``readers`` are the bytes that open readers of genotypes hold in each process.

        Collective; measures the GEMM rate, so call it when the inputs are known to be good.
        """
        from mpi4py import MPI

        self._measure_gemm()
        comm, limit = self.world.comm, None if self.options.memory is None else int(self.options.memory * GIB)
        self._base = comm.allreduce(resident_memory()["rss"], op=MPI.MAX) + readers
        free = comm.allreduce(node_memory()[1] // self.ranks_per_node, op=MPI.MIN)
        return Machine(comm.size, self.ranks_per_node, limit, self._base, free)

    def _measure_gemm(self) -> None:
        comm, n = self.world.comm, round(GEMM_ROWS * self.threads ** (1 / 3))  # each thread has as much to do
        with self.world.phase("GEMM rate"):
            self._gemm = {name: comm.allreduce(gemm_rate(f"float{bits}", n)) for name, bits in PRECISION_BITS.items()}
        double, single = self._gemm.values()
        self.world.log.info(f"GEMM of all ranks at once: {double:.0f} GFLOP/s double, {single:.0f} single")

    def say_where(self) -> None:
        """Ranks, nodes, threads and the kernels of rank 0, in the log."""
        where = f"{self.world.size} ranks on {self.nodes} node(s), {self.threads} BLAS thread(s) a rank"
        if self.world.rank == 0:
            self.world.log.info(f"mpgls {self.options.command}: {where}; BLAS kernel {kernels()}")

    def warn_of_kernels(self) -> None:
        """Say which BLAS of rank 0 leaves the processor's instructions unused, each once: some are loaded late."""
        for warning in kernel_warnings() if self.world.rank == 0 else ():
            if warning not in self._warned:
                self._warned.add(warning)
                self.world.log.warn(warning)

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
        comm, log, clock = self.world.comm, self.world.log, self.world.clock
        with clock.phase("end"):
            if not self._gemm and comm.allreduce(sum(phase.flop for phase in clock.phases.values())):
                self._measure_gemm()
            self.warn_of_kernels()
            now = memory_of_process()
            self._note_memory(now)
            everyone = comm.gather(now | self._held, root=0) or []
            head = self.world.on_root(self._head)
        timings, unnamed = clock.gather(comm), max(comm.allgather(clock.unnamed()))
        named = {name: str(path) for name, path in (tables or {}).items()}

        def write() -> dict[str, Any]:
            log.info(timing_table(timings, self._gemm.get("double", 0.0), unnamed))
            manifest = head | {
                "memory": self._memory(everyone),
                "timings": timings,
                "seconds_unnamed": unnamed,
                "seconds": log.seconds(),
                **facts,
                "formats": self.options.formats or ("tsv",),
                "tables": named,
                "files": list(dict.fromkeys([*map(str, files), *named.values()])),
            }
            log.info(f"BLAS kernels at the end: {kernels()}")  # ScaLAPACK brings its own when it is loaded
            self.outputs.finish(manifest)
            self._forget()
            log.info(f"done in {duration(log.seconds())}: {self.manifest}")
            log.progress(lambda file: file.say("done"))
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
    further: Sequence[str] = (),
    later: Sequence[str] = (),
    until_done: Sequence[str] = (),
    adds: bool = False,
    reads: Sequence[str] = (),
) -> Iterator[Job]:
    """Begin a run: take its prefix, check its files, open its log, bind threads, take signals. Collective.

    All of it is undone at the end. ``suffixes`` are the endings of the files that the command makes: a fresh run
    removes what an earlier one left, so that no old table is taken for the new one. It leaves the ``further`` ones that
    it makes or finds. Of those whose names are known ``later``, nothing may lie there that another made. ``until_done``
    are files that only --resume needs: they go when the run has ended. The last three may have wildcards. A run that
    ``adds`` to a finished one goes on with its log and leaves its files until ``remove_earlier``; ``reads`` are
    prefixes whose store it reads. Raises UsageError and StorageError, on all ranks, where files cannot go there.
    """
    clock, record = Clock(began=take_start()), options.record
    until_done = (*until_done, WATCH)
    outputs = Outputs(options.out, options.command, record, _paths(options), until_done)

    def look() -> None:
        for path in outputs.inputs:
            check_regular(path)
        outputs.check_place()

    on_root(comm, look)
    command_line = shlex.join(options.typed())
    locks = [PrefixLock(options.out, command_line)]
    locks += [PrefixLock(one, command_line, reads=True) for one in reads if not _same_path(one, options.out)]
    further = (*further, *[record + ENDING] * options.progress)
    made, goes_on = (*suffixes, *further, *until_done), options.resume or adds

    def begin() -> None:
        outputs.look_back()
        names_later = (ending.replace("*", "x" * LONGEST_PART) for ending in later)
        outputs.check_names((f"{record}.json{PARTIAL}", *names_later))
        outputs.check((*made, *later, f"{record}.json", f"{record}.log"))
        outputs.known.update(dict.fromkeys(made))
        if not options.is_dry and not (goes_on and outputs.has_any(made)):  # the run that made these has listed them
            outputs.write_list()

    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(_stop_signal(options).listening())
        agree(comm, stop.problem())
        warnings = stack.enter_context(held(comm, locks))
        on_root(comm, begin)
        if comm.rank == 0:
            stack.callback(outputs.leave)
        node = stack.enter_context(node_of(comm))
        threads = stack.enter_context(limited_threads(node, options.threads))
        nodes, widest = comm.allreduce(1 if node.rank == 0 else 0), max(comm.allgather(node.size))
        log = _open_log(options, comm, clock.began, goes_on)
        stack.callback(log.close)
        replaced = (*suffixes, f"{record}.json")
        world = World(comm, log, clock, stop)
        job = Job(options, world, outputs, replaced, adds, nodes, widest, threads)
        if not adds:
            job.remove_earlier()
        job.say_where()
        for warning in warnings:
            log.warn(warning)
        job.warn_of_kernels()
        stack.enter_context(watched(world, job.path(WATCH), options.stall, functools.partial(_end_stalled, options)))
        stack.enter_context(_stop_is_said(log))
        clock.name_start()
        yield job


@contextlib.contextmanager
def _stop_is_said(log: Log) -> Iterator[None]:
    """A launcher that is told to stop may no longer pass on what a rank says: the log has it as well."""
    try:
        yield
    except Stopped as stopped:
        log.info(str(stopped))
        log.progress(lambda file: file.say("stopped"))
        raise


def _stop_signal(options: OutputOptions) -> StopSignal:
    """What asks this run to stop in order: a signal, or the end of its time."""
    limit = time_limit(options.max_hours)
    return StopSignal(options.go_on(), *([] if limit is None else [limit.reason]))


def _end_stalled(options: OutputOptions, wrong: str) -> None:
    end_process(f"mpgls {options.command}: {wrong}; {options.go_on()}", Stopped.exit_code)


def _paths(options: OutputOptions) -> list[str]:
    """The files that the options name."""
    return [path for paths in options.input_files().values() for path in paths]


def _same_path(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _open_log(options: OutputOptions, comm: MPI.Comm, began: float, append: bool) -> Log:
    """The log, which only rank 0 writes; all ranks raise StorageError if it cannot. Collective."""
    with together(comm):
        log = Log(comm.rank, options.out + options.record + ".log", append, began)
        if options.progress and comm.rank == 0:
            log.watch(ProgressFile(options.out + options.record + ENDING, append))
            log.progress(lambda file: file.say("start", command=options.command, ranks=comm.size))
    return log
