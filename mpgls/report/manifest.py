"""The run's manifest: versions of everything that computed, identities of the inputs, written as JSON."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import hashlib
import importlib.util
import json
import math
import os
import platform
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

import mpgls
from mpgls.errors import StorageError

if TYPE_CHECKING:
    from mpi4py import MPI

_MIB = 1 << 20
_WHOLE_BELOW = 64 * _MIB
_SAMPLES, _SAMPLE_BYTES = 64, 64 << 10


def versions(comm: MPI.Comm | None = None) -> dict[str, Any]:
    """Versions of mpgls and the libraries of this process, and its BLAS libraries (path, kernel, threads).

    Not collective. With ``comm``, also the number of ranks and the MPI library. PETSc and SLEPc are looked up on disk
    and never imported; None where nothing is found. ``libraries`` are the files of MPI, ScaLAPACK, PETSc, SLEPc and
    ELPA that this process has loaded.
    """
    import h5py
    import scipy

    from mpgls.runtime import blas_libraries

    found: dict[str, Any] = {
        "mpgls": mpgls.__version__,
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


def write_manifest(path: str | os.PathLike[str], manifest: dict[str, Any]) -> None:
    """Write ``manifest`` as indented JSON; the file appears under its name only when it is complete.

    NumPy scalars and arrays, paths, dataclasses, enumerations, tuples and sets are converted; NaN and infinities
    become null. Raises StorageError.
    """
    path = Path(path)
    partial = path.with_name(f"{path.name}.partial")
    text = json.dumps(_plain(manifest), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    try:
        with open(partial, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise StorageError(f"cannot write the manifest {path}: {error.strerror or error}") from None


def file_identity(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What identifies an input file: ``path``, ``size``, ``sha256`` and ``sha256_of``, which says what was hashed.

    Below 64 MiB the whole file; otherwise its size (decimal digits), its first MiB, 64 evenly spaced blocks of
    64 KiB and its last MiB, in this order: 6 MiB are read of a file of any size. Raises StorageError.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            whole = size < _WHOLE_BELOW
            digest = _whole_hash(file) if whole else _sampled_hash(file, size)
    except OSError as error:
        raise StorageError(f"cannot read {os.fspath(path)}: {error.strerror or error}") from None
    covered = "whole file" if whole else "size, first MiB, 64 evenly spaced blocks of 64 KiB, last MiB"
    return {"path": os.fspath(path), "size": size, "sha256": digest, "sha256_of": covered}


def _whole_hash(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(_MIB):
        digest.update(block)
    return digest.hexdigest()


def _sampled_hash(file: BinaryIO, size: int) -> str:
    digest = hashlib.sha256(str(size).encode())
    spaced = [k * (size - _SAMPLE_BYTES) // (_SAMPLES - 1) for k in range(_SAMPLES)]
    pieces = [(0, _MIB), *((offset, _SAMPLE_BYTES) for offset in spaced), (size - _MIB, _MIB)]
    for offset, length in pieces:
        file.seek(offset)
        digest.update(file.read(length))
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """``value`` in the types that JSON has."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        value = value.value
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(_plain(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((_plain(item) for item in value), key=str)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    # A run of hours must not end without its manifest for an unforeseen type.
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


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
