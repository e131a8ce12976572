"""Versions of everything that computed a result."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mpgls.run.hardware import blas_libraries
from mpgls.version import __version__

if TYPE_CHECKING:
    from mpi4py import MPI


def versions(comm: MPI.Comm | None = None) -> dict[str, Any]:
    """Versions of mpgls and the libraries of this process, and its BLAS libraries (path, kernel, threads).

    Not collective. With ``comm``, also the number of ranks and the MPI library. PETSc and SLEPc are looked up on disk
    and never imported; None where nothing is found. ``libraries`` are the files of MPI, ScaLAPACK, PETSc, SLEPc and
    ELPA that this process has loaded.
    """
    import h5py
    import scipy

    found: dict[str, Any] = {
        "mpgls": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "h5py": h5py.__version__,
        "hdf5": h5py.version.hdf5_version,
        **{name: _version_on_disk(name) for name in ("mpi4py", "petsc4py", "slepc4py")},
        "petsc": _header_version("PETSC_DIR", "petscversion.h", "PETSC"),
        "slepc": _header_version("SLEPC_DIR", "slepcversion.h", "SLEPC"),
        "blas": blas_libraries(),
        "libraries": _loaded_libraries(),
        "system": platform.platform(),
    }
    if comm is not None:
        found.update(_mpi_versions(comm))
    return found


def _mpi_versions(comm: MPI.Comm) -> dict[str, Any]:
    found: dict[str, Any] = {"ranks": comm.size}
    # Whoever has a communicator has loaded this module.
    module = sys.modules.get("mpi4py.MPI")
    if module is not None:
        found["mpi"] = module.Get_library_version().split("\x00")[0].strip()
        found["mpi_standard"] = ".".join(map(str, module.Get_version()))
    return found


def _version_on_disk(package: str) -> str | None:
    """``__version__`` of an installed package, read from its source when it is not loaded."""
    if package in sys.modules:
        return getattr(sys.modules[package], "__version__", None)
    folders = [os.environ.get(name) for name in ("PETSC_DIR", "SLEPC_DIR")]
    # Debian keeps petsc4py and slepc4py below the library's own directory.
    places = [Path(folder) / "lib/python3/dist-packages" / package / "__init__.py" for folder in folders if folder]
    with contextlib.suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin:
            places.insert(0, Path(spec.origin))
    found = (_first_match(place, r"^__version__\s*=\s*['\"]([^'\"]+)") for place in places)
    return next((version for version in found if version), None)


def _header_version(variable: str, header: str, prefix: str) -> str | None:
    """A library's version from the C header below the directory that ``variable`` of the environment names."""
    folder = os.environ.get(variable)
    if not folder:
        return None
    parts = [
        _first_match(Path(folder) / "include" / header, rf"^#define\s+{prefix}_VERSION_{part}\s+(\d+)")
        for part in ("MAJOR", "MINOR", "SUBMINOR")
    ]
    return ".".join(part for part in parts if part) or None


def _loaded_libraries() -> list[str]:
    """Real paths (Debian's carry the version) of the numerical and MPI libraries mapped into this process."""
    names = re.compile(r"/lib(mpi|mpich|petsc\w*|slepc\w*|scalapack[\w-]*|elpa\w*)\.so")
    with contextlib.suppress(OSError), open("/proc/self/maps", encoding="utf-8", errors="replace") as lines:
        mapped = {line.split(maxsplit=5)[5].strip() for line in lines if names.search(line)}
        return sorted({os.path.realpath(path) for path in mapped})
    return []


def _first_match(path: Path, pattern: str) -> str | None:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        found = re.search(pattern, path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        return found.group(1) if found else None
    return None
