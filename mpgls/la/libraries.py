"""Where ScaLAPACK may lie: the files to load, and their order. `mpgls.la.scalapack` loads them.

``MPGLS_SCALAPACK`` names it by hand: a library, several joined by ``:`` in the order of loading, or the directory of a
netlib or MKL build. Otherwise it is looked for beside Python (wheels, conda), by name, and below ``MKLROOT``.
"""

from __future__ import annotations

import glob
import os
import re
import site
import sysconfig
from collections.abc import Iterable, Iterator

Candidate = tuple[str, ...]
"""Libraries in the order of loading; ScaLAPACK is the last."""

OPEN_MPI = "Open MPI"
"""What MPI_Get_vendor says; every other MPI that is in use has the binary interface of MPICH."""
ANY_NETLIB = ("libscalapack.so", "libscalapack.so.2.2")
MKL_THREADS = (  # a library of OpenMP, and MKL's layer on top of it
    ("libiomp5.so", "libmkl_intel_thread"),
    ("libgomp.so.1", "libmkl_gnu_thread"),
    ("", "libmkl_sequential"),
)


def candidates(vendor: str) -> Iterator[Candidate]:
    """Where to look for a ScaLAPACK whose BLACS speaks to the MPI of ``vendor``, best first."""
    wanted = os.environ.get("MPGLS_SCALAPACK", "")
    if os.path.isdir(wanted):
        yield from _in_directory(wanted, vendor)
    elif wanted:
        yield tuple(wanted.split(":"))
    else:
        for prefix in (sysconfig.get_path("data"), site.getuserbase()):
            yield from _in_directory(os.path.join(prefix, "lib"), vendor)
        yield from ((name,) for name in _netlib(vendor))
        if root := os.environ.get("MKLROOT"):
            for folder in ("lib", "lib/intel64"):
                yield from _in_directory(os.path.join(root, folder), vendor)


def mpi_libraries(maps: Iterable[str]) -> list[str]:
    """The MPI libraries among the mapped files of a process, given the lines of its /proc/PID/maps."""
    name = re.compile(r"/lib(mpi|mpich|mpi_abi|mpi_(cray|gnu|intel|amd|aocc|nvidia)\w*)\.so[.\d]*$")
    return sorted({fields[5] for line in maps if len(fields := line.split()) == 6 and name.search(fields[5])})


def _netlib(vendor: str) -> Candidate:
    """Debian's name first: it belongs to one MPI."""
    flavour = "openmpi" if vendor == OPEN_MPI else "mpich"
    return (f"libscalapack-{flavour}.so.2.2", f"libscalapack-{flavour}.so", *ANY_NETLIB)


def _in_directory(directory: str, vendor: str) -> Iterator[Candidate]:
    """Netlib's library and MKL's layers in one directory."""
    yield from ((path,) for name in _netlib(vendor) if os.path.exists(path := os.path.join(directory, name)))
    flavour = "openmpi" if vendor == OPEN_MPI else "intelmpi"
    scalapack = _mkl_layer(directory, "libmkl_scalapack_lp64")
    if not scalapack:
        return
    # each layer takes addresses of functions from those before it, so this order matters: MKL 2021, 2024 and 2026
    core, interface, blacs = (
        _mkl_layer(directory, stem) for stem in ("libmkl_core", "libmkl_intel_lp64", f"libmkl_blacs_{flavour}_lp64")
    )
    for openmp, stem in MKL_THREADS:
        beside = os.path.join(directory, openmp)
        first = () if not openmp else (beside if os.path.exists(beside) else openmp,)
        yield (*first, core, _mkl_layer(directory, stem), interface, blacs, scalapack)


def _mkl_layer(directory: str, stem: str) -> str:
    """The library's file, which may carry a version: libmkl_core.so, .so.1, .so.2, .so.3; empty without one."""
    return next(iter(sorted(glob.glob(os.path.join(glob.escape(directory), f"{stem}.so*")))), "")
