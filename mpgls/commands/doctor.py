"""``mpgls doctor``: is this installation ready for a run, and how fast are its processors and its filesystem?"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import platform
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mpgls.commands.doctor_parts.probes import MIB, how_to_get, node_memory, read_file, sync_seconds, write_file
from mpgls.commands.doctor_parts.rates import processor_rates, rate_lines, startup_seconds
from mpgls.errors import MpglsError, StorageError, UsageError
from mpgls.mpi import agree
from mpgls.run.hardware import blas_kernel_warning, blas_libraries, gemm_rate, limit_threads
from mpgls.run.launcher import check_launcher
from mpgls.run.plan import GIB
from mpgls.version import __version__

if TYPE_CHECKING:
    from mpi4py import MPI

FROM_CACHE = 20_000  # MB/s: no filesystem is that fast for one node, so the file was still in memory


@dataclass(frozen=True)
class DoctorConfig:
    """Options of ``mpgls doctor``.

    ``directory`` whose filesystem is measured; ``threads`` BLAS threads a rank (None: cores of the node divided by its
    ranks); ``json`` file for the same facts as JSON; ``full`` measures longer and lists every rank.
    """

    directory: str = "."
    threads: int | None = None
    json: str | None = None
    full: bool = False


@dataclass
class Report:
    """What was found: lines by group for people, ``facts`` for programs, and what should be changed."""

    facts: dict[str, Any] = field(default_factory=dict)
    groups: list[tuple[str, list[str]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def text(self) -> str:
        """The groups, the notes and the verdict as plain lines."""
        lines = []
        for title, body in self.groups:
            lines += [title, *(f"  {line}" for line in body)]
        lines += [f"note: {note}" for note in self.notes]
        if not self.problems:
            return "\n".join([*lines, "verdict: ready"])
        return "\n".join([*lines, "verdict: not ready", *(f"  problem: {problem}" for problem in self.problems)])


def run(config: DoctorConfig, comm: MPI.Comm) -> None:
    """Print the report on rank 0. Collective.

    Raises UsageError for a bad option, StorageError when the JSON file cannot be written, and MpglsError, on every
    rank, when the verdict is not 'ready'.

    The JSON has ``ranks``, ``threads`` (of a rank), ``gemm_gflops_double`` and ``gemm_gflops_single`` (the slowest
    rank, all ranks at work; ``_largest`` the fastest), the rates of `processor_rates`, ``startup_seconds`` (from the
    start of a process to its first line of work), ``read_mb_per_s`` and ``write_mb_per_s`` (10^6 bytes/s, all nodes
    together, one reader a node), ``sync_seconds`` (a page to disk, the slowest node), and what the lines say.
    """
    from mpi4py import MPI

    if config.threads is not None and config.threads < 1:
        raise UsageError(f"--threads must be at least 1, but it is {config.threads}")
    report = Report({"startup_seconds": startup_seconds(comm)})
    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    try:
        _mpi(report, comm)
        _libraries(report, comm)
        _slepc(report, comm)
        threads = limit_threads(node, config.threads)
        _hosts(report, comm, node, threads)
        _blas(report, comm)
        measure(report, comm, node, config.directory, (2048 if config.full else 256) * MIB, config.full)
    finally:
        node.Free()
    problem: Exception | None = None
    if comm.rank == 0:
        print(report.text(), flush=True)
        try:
            _write_json(config, report)
        except StorageError as error:
            problem = error
    agree(comm, problem)
    count = comm.bcast(len(report.problems), root=0)
    if count:
        raise MpglsError(f"mpgls doctor found {_count(count, 'problem')}; the report names what to do")


def measure(report: Report, comm: MPI.Comm, node: MPI.Comm, directory: str, nbytes: int, full: bool = False) -> None:
    """What depends on the machine alone: the processors' rates and the filesystem's. Collective.

    ``nbytes`` of a file that each node writes in ``directory`` and reads; ``full`` as in `DoctorConfig`.
    """
    _gemm(report, comm, 4000 if full else 1500, every_rank=full)
    rates = processor_rates(comm)
    report.facts |= rates
    report.groups.append(("Work of each rank, all ranks at once", rate_lines(rates)))
    _filesystem(report, comm, node, directory, nbytes)


def _mpi(report: Report, comm: MPI.Comm) -> None:
    """MPI library, version and thread level; and whether the launcher started as many ranks as there are."""
    import mpi4py
    from mpi4py import MPI

    levels = {
        MPI.THREAD_SINGLE: "single",
        MPI.THREAD_FUNNELED: "funneled",
        MPI.THREAD_SERIALIZED: "serialized",
        MPI.THREAD_MULTIPLE: "multiple",
    }
    library = MPI.Get_library_version().strip("\0").split("\n")[0].strip()
    level = levels.get(MPI.Query_thread(), "unknown")
    standard = ".".join(map(str, MPI.Get_version()))
    mismatch = check_launcher(comm.size)
    report.facts |= {"ranks": comm.size, "mpi": library, "mpi_standard": standard, "mpi_thread_level": level}
    report.facts["launcher_agrees"] = mismatch is None
    if mismatch:
        report.problems.append(mismatch)
    launcher = "disagrees with the launcher" if mismatch else "agrees with the launcher"
    report.groups.append(
        (
            "MPI",
            [
                f"library       {library}, MPI {standard}, thread level {level}",
                f"mpi4py        {mpi4py.__version__} at {os.path.dirname(mpi4py.__file__)}",
                f"COMM_WORLD    {_count(comm.size, 'rank')}, {launcher}",
                f"start         {report.facts['startup_seconds']:.2f} s from the start of a process to its first work",
            ],
        )
    )


def _libraries(report: Report, comm: MPI.Comm) -> None:
    """Python and its numerical packages, and where ScaLAPACK was found; all of them loaded from here on."""
    import numpy  # noqa: F401  their BLAS are to be seen by the next groups
    import scipy.linalg  # noqa: F401

    versions = {"mpgls": __version__, "python": platform.python_version()}
    for name in ("numpy", "scipy", "h5py"):
        try:
            versions[name] = importlib.import_module(name).__version__
        except ImportError as failure:
            report.problems.append(f"the Python package {name} cannot be imported ({failure}): pip install . gets it")
    path, error = "", ""
    try:
        from mpgls.la import scalapack

        path = scalapack.library_path()
    except Exception as failure:  # any failure to load is the finding
        error = str(failure)
    everywhere = comm.gather((_host(), path, error), root=0) or []
    failed = sorted({f"{host}: {message}" for host, _, message in everywhere if message})
    report.problems += [f"ScaLAPACK cannot be loaded on {line}" for line in failed]
    report.facts |= {"versions": versions, "scalapack": path or None}
    report.groups.append(
        (
            "Libraries",
            [
                "versions      " + ", ".join(f"{name} {version}" for name, version in versions.items()),
                f"ScaLAPACK     {path or 'not found'}",
            ],
        )
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _host() -> str:
    """The name of this node as MPI reports it."""
    from mpi4py import MPI

    return str(MPI.Get_processor_name())


def _slepc(report: Report, comm: MPI.Comm) -> None:
    """petsc4py and slepc4py: path, version and scalar type. They are needed for eigen-decompositions only."""
    lines = []
    for package, module, of in (("petsc4py", "PETSc", "PETSc"), ("slepc4py", "SLEPc", "SLEPc")):
        here = importlib.util.find_spec(package) is not None
        # importing initialises PETSc on all ranks together, so all ranks import, or none
        if comm.allreduce(int(here)) != comm.size:
            report.facts[package] = None
            lines.append(f"{package:<14}not found")
            report.notes.append(how_to_get(package))
            continue
        try:
            library = importlib.import_module(f"{package}.{module}")
            path = os.path.dirname(importlib.import_module(package).__file__ or "")
            version = ".".join(map(str, library.Sys.getVersion()))
            fact = {"path": path, "version": version}
            scalar = ""
            if package == "petsc4py":
                fact["scalar"] = library.ScalarType.__name__
                scalar = f", scalars {fact['scalar']}"
                if fact["scalar"] != "float64":
                    report.notes.append(
                        f"petsc4py at {path} has scalars {fact['scalar']}, but mpgls needs float64: set PETSC_DIR and "
                        "PYTHONPATH to the real-valued build (jobs/env.sh does)"
                    )
            report.facts[package] = fact
            lines.append(f"{package:<14}{of} {version}{scalar} at {path}")
        except Exception as error:  # any failure to import is the finding
            report.facts[package] = None
            lines.append(f"{package:<14}cannot be imported: {error}")
            report.notes.append(f"{package} cannot be imported ({error}); eigen-decompositions need it")
    report.groups.append(("Eigensolver", lines))


def _hosts(report: Report, comm: MPI.Comm, node: MPI.Comm, threads: int) -> None:
    """Nodes with their ranks, usable cores and memory; and whether threads outnumber cores."""
    affinities = node.allgather(os.sched_getaffinity(0))
    cores = len(set().union(*affinities))
    mine = None
    if node.rank == 0:
        total, available = node_memory()
        mine = {"host": _host(), "ranks": node.size, "cores": cores, "memory": total, "available": available}
    nodes = [one for one in comm.gather(mine, root=0) or [] if one]
    report.facts |= {"threads": threads, "nodes": nodes}
    lines = [
        f"{one['host']:<14}{_load(one, threads)} cores, memory {one['memory'] / GIB:.1f} GiB, "
        f"{one['available'] / GIB:.1f} GiB of it free"
        for one in nodes
    ]
    report.groups.append(("Nodes", lines))
    crowded = [one for one in nodes if one["ranks"] * threads > one["cores"]]
    for one in crowded:
        report.notes.append(
            f"{one['host']} runs {_load(one, threads)} usable cores: start fewer ranks or threads, or let the launcher "
            "bind each rank to more cores"
        )


def _load(node: dict[str, Any], threads: int) -> str:
    return f"{_count(node['ranks'], 'rank')} x {_count(threads, 'thread')} on {node['cores']}"


def _blas(report: Report, comm: MPI.Comm) -> None:
    """The BLAS libraries of the process with their kernels and threads."""
    libraries = blas_libraries()
    report.facts["blas"] = libraries
    lines = [
        f"{one['library']!s:<14}{one['version']}, kernel {one['kernel']}, threads {one['threads']}, {one['path']}"
        for one in libraries
    ]
    kernels = comm.gather(tuple(sorted({str(one["kernel"]) for one in libraries})), root=0) or []
    if len(set(kernels)) > 1:
        report.notes.append(f"ranks use different BLAS kernels ({sorted(set(kernels))}): the nodes differ")
    warning = blas_kernel_warning()
    if warning:
        report.notes.append(warning)
    report.groups.append(("BLAS", lines or ["none recognised by threadpoolctl"]))


def _gemm(report: Report, comm: MPI.Comm, n: int, every_rank: bool) -> None:
    """GFLOP/s of each rank while all ranks multiply at the same time."""
    lines = []
    for name, dtype in (("double", "float64"), ("single", "float32")):
        comm.Barrier()
        rates = comm.gather(gemm_rate(dtype, n), root=0) or [0.0]
        report.facts[f"gemm_gflops_{name}"] = min(rates)
        report.facts[f"gemm_gflops_{name}_largest"] = max(rates)
        lines.append(f"{dtype:<14}{min(rates):.1f} GFLOP/s the slowest rank, {max(rates):.1f} the fastest")
        if every_rank:
            lines += [f"  rank {rank:<7}{rate:.1f}" for rank, rate in enumerate(rates)]
    report.groups.append((f"GEMM of each rank, all ranks at once, n = {n:,}", lines))


def _filesystem(report: Report, comm: MPI.Comm, node: MPI.Comm, directory: str, nbytes: int) -> None:
    """Write and read rates of ``directory``: one file of ``nbytes`` a node, all nodes at the same time."""
    rates, sync, error = (0.0, 0.0), 0.0, ""
    path: str | None = None
    if node.rank == 0:
        try:
            path, written = write_file(directory, nbytes)
            rates, sync = (written, 0.0), sync_seconds(directory)
        except OSError as failure:
            error = f"{_host()} cannot write a file of {nbytes // MIB} MiB in {directory}: {failure.strerror}"
    comm.Barrier()
    if path is not None:
        try:
            rates = (rates[0], read_file(path, nbytes))
        except OSError as failure:
            error = f"{_host()} cannot read {path}: {failure.strerror}"
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)
    everyone = comm.gather((rates, sync, error) if node.rank == 0 else None, root=0) or []
    found = [one for one in everyone if one]
    report.problems += [message for *_, message in found if message]
    write, read = (sum(one[k] for one, *_ in found) for k in (0, 1))
    slowest = min((one[1] for one, *_ in found), default=0.0)
    report.facts |= {"write_mb_per_s": write, "read_mb_per_s": read, "read_mb_per_s_slowest_node": slowest}
    report.facts["sync_seconds"] = slowest_sync = max((one for _, one, _ in found), default=0.0)
    report.facts["directory"] = os.path.abspath(directory)
    if slowest > FROM_CACHE:
        report.notes.append(
            f"{directory} was read from memory, not from a disk (a tmpfs, or the cache was not dropped)"
        )
    lines = [
        f"directory     {os.path.abspath(directory)}",
        f"read          {read:,.0f} MB/s, all nodes together; {slowest:,.0f} the slowest node",
        f"write         {write:,.0f} MB/s, all nodes together",
        f"sync          {slowest_sync * 1e3:,.1f} ms until a page is safe",
    ]
    report.groups.append((f"Filesystem, {nbytes // MIB} MiB a node", lines))


def _write_json(config: DoctorConfig, report: Report) -> None:
    if config.json is None:
        return
    facts = report.facts | {"notes": report.notes, "problems": report.problems, "ready": not report.problems}
    try:
        with open(config.json, "w", encoding="utf-8") as out:
            json.dump(facts, out, indent=1)
            out.write("\n")
    except OSError as error:
        raise StorageError(f"cannot write {config.json}: {error.strerror}") from None
