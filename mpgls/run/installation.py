"""What an installation consists of: MPI, Python's packages, ScaLAPACK, SLEPc, the BLAS, and the nodes they run on."""

from __future__ import annotations

import glob
import importlib
import importlib.util
import os
import platform
from typing import TYPE_CHECKING, Any

from mpgls.run.findings import Findings, count
from mpgls.run.hardware import blas_libraries, node_memory
from mpgls.run.kernels import kernel_warnings
from mpgls.run.launcher import check_launcher
from mpgls.run.placement import binding_notes, own_processors, places
from mpgls.run.plan import GIB
from mpgls.run.world import World
from mpgls.version import __version__

if TYPE_CHECKING:
    from mpi4py import MPI

DEBIAN_PACKAGES = {
    "petsc4py": "/usr/lib/petscdir/*/*/lib/python3/dist-packages",
    "slepc4py": "/usr/lib/slepcdir/*/*/lib/python3/dist-packages",
}


def look_at_mpi(found: Findings, world: World) -> None:
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
    mismatch = check_launcher(world.size)
    found.facts |= {"ranks": world.size, "mpi": library, "mpi_standard": standard, "mpi_thread_level": level}
    found.facts["launcher_agrees"] = mismatch is None
    if mismatch:
        found.problems.append(mismatch)
    launcher = "disagrees with the launcher" if mismatch else "agrees with the launcher"
    found.say(
        "MPI",
        [
            f"library       {library}, MPI {standard}, thread level {level}",
            f"mpi4py        {mpi4py.__version__} at {os.path.dirname(mpi4py.__file__)}",
            f"COMM_WORLD    {count(world.size, 'rank')}, {launcher}",
            f"start         {found.facts['startup_seconds']:.2f} s from the start of a process to its first work",
        ],
    )


def look_at_libraries(found: Findings, world: World) -> None:
    """Python and its numerical packages, and where ScaLAPACK was found; all of them loaded from here on. Collective."""
    import numpy  # noqa: F401  their BLAS are to be seen by `look_at_blas`
    import scipy.linalg  # noqa: F401

    versions = {"mpgls": __version__, "python": platform.python_version()}
    for name in ("numpy", "scipy", "h5py"):
        try:
            versions[name] = importlib.import_module(name).__version__
        except ImportError as failure:
            found.problems.append(f"the Python package {name} cannot be imported ({failure}): pip install . gets it")
    path, error = "", ""
    try:
        from mpgls.la import scalapack

        path = scalapack.library_path()
    except Exception as failure:  # any failure to load is the finding
        error = str(failure)
    everywhere = world.comm.gather((host(), path, error), root=0) or []
    failed = sorted({f"{name}: {message}" for name, _, message in everywhere if message})
    found.problems += [f"ScaLAPACK cannot be loaded on {line}" for line in failed]
    found.facts |= {"versions": versions, "scalapack": path or None}
    shown = ", ".join(f"{name} {version}" for name, version in versions.items())
    found.say("Libraries", [f"versions      {shown}", f"ScaLAPACK     {path or 'not found'}"])


def look_at_slepc(found: Findings, world: World) -> None:
    """petsc4py and slepc4py: path, version and scalar type. Only eigendecompositions need them. Collective."""
    lines = []
    for package, module in (("petsc4py", "PETSc"), ("slepc4py", "SLEPc")):
        here = importlib.util.find_spec(package) is not None
        # importing initialises PETSc on all ranks together, so all ranks import, or none
        if world.comm.allreduce(int(here)) != world.size:
            found.facts[package] = None
            lines.append(f"{package:<14}not found")
            found.notes.append(_how_to_get(package))
            continue
        try:
            fact = _package(package, module)
        except Exception as error:  # any failure to import is the finding
            found.facts[package] = None
            lines.append(f"{package:<14}cannot be imported: {error}")
            found.notes.append(
                f"{package} cannot be imported ({error}); --eigensolver slepc and leading eigenpairs need it"
            )
            continue
        found.facts[package] = fact
        scalar = f", scalars {fact['scalar']}" if "scalar" in fact else ""
        lines.append(f"{package:<14}{module} {fact['version']}{scalar} at {fact['path']}")
        if fact.get("scalar", "float64") != "float64":
            found.notes.append(
                f"petsc4py at {fact['path']} has scalars {fact['scalar']}, but mpgls needs float64: set PETSC_DIR and "
                "PYTHONPATH to the real-valued build (jobs/env.sh does)"
            )
    found.say("Eigensolver", lines)


def _package(package: str, module: str) -> dict[str, str]:
    """Where a package is, its version, and the scalars of PETSc. Raises whatever its import raises."""
    library = importlib.import_module(f"{package}.{module}")
    path = os.path.dirname(importlib.import_module(package).__file__ or "")
    fact = {"path": path, "version": ".".join(map(str, library.Sys.getVersion()))}
    return fact | ({"scalar": library.ScalarType.__name__} if package == "petsc4py" else {})


def _how_to_get(package: str) -> str:
    """What to do when ``package`` is not on Python's path. Debian's is built for Open MPI and NumPy 1 only."""
    import numpy
    from mpi4py import MPI

    fits_debian = MPI.get_vendor()[0] == "Open MPI" and numpy.__version__ < "2"
    found = [path for path in sorted(glob.glob(DEBIAN_PACKAGES[package])) if "-real" in path and fits_debian]
    if os.environ.get("PETSC_DIR"):
        found.insert(0, os.path.join(os.environ["PETSC_DIR"], "lib/python3/dist-packages"))
    found = [path for path in found if os.path.isdir(os.path.join(path, package))]
    if found:
        return f"{package} is at {found[0]} but not on Python's path: source jobs/env.sh, or add it to PYTHONPATH"
    return (
        f"{package} is not installed; --eigenpairs, --pcs with --grm, and --eigensolver slepc need it: install "
        f"Debian's python3-{package}-real beside Debian's MPI, or build it with pip (docs/cluster.md)"
    )


def look_at_nodes(found: Findings, world: World, node: MPI.Comm, threads: int) -> None:
    """Nodes with ranks, usable cores and memory; whether threads outnumber cores, or are badly bound. Collective."""
    bound = dict(node.allgather((world.rank, own_processors())))
    cores = len(frozenset().union(*bound.values()))
    mine = None
    if node.rank == 0:
        total, available = node_memory()
        mine = {"host": host(), "ranks": node.size, "cores": cores, "memory": total, "available": available}
        mine["binding"] = binding_notes(bound, threads, places())
    nodes = [one for one in world.comm.gather(mine, root=0) or [] if one]
    found.facts |= {"threads": threads, "nodes": nodes}
    lines = [
        f"{one['host']:<14}{_load(one, threads)} cores, memory {one['memory'] / GIB:.1f} GiB, "
        f"{one['available'] / GIB:.1f} GiB of it free"
        for one in nodes
    ]
    found.say("Nodes", lines)
    for one in nodes:
        if one["ranks"] * threads > one["cores"]:
            found.notes.append(
                f"{one['host']} runs {_load(one, threads)} usable cores: start fewer ranks or threads, or let the "
                "launcher bind each rank to more cores"
            )
        found.notes += [f"{one['host']}: {note}" for note in one["binding"]]


def _load(node: dict[str, Any], threads: int) -> str:
    return f"{count(node['ranks'], 'rank')} x {count(threads, 'thread')} on {node['cores']}"


def look_at_blas(found: Findings, world: World) -> None:
    """The BLAS libraries of the process with their kernels and threads. Collective."""
    libraries = blas_libraries()
    found.facts["blas"] = libraries
    lines = [
        f"{one['library']!s:<14}{one['version']}, kernel {one['kernel']}, threads {one['threads']}, {one['path']}"
        for one in libraries
    ]
    kernels = world.comm.gather(tuple(sorted({str(one["kernel"]) for one in libraries})), root=0) or []
    if len(set(kernels)) > 1:
        found.notes.append(f"ranks use different BLAS kernels ({sorted(set(kernels))}): the nodes differ")
    warnings = {(host(), warning) for warning in kernel_warnings()}
    everywhere = set().union(*(world.comm.gather(warnings, root=0) or []))
    found.notes += [f"{name}: {warning}" for name, warning in sorted(everywhere)]
    found.say("BLAS", lines or ["none recognised by threadpoolctl"])


def host() -> str:
    """The name of this node as MPI reports it."""
    from mpi4py import MPI

    return str(MPI.Get_processor_name())
