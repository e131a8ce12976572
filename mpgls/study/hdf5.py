"""The one way to open an HDF5 file, for reading and for writing; what goes wrong becomes one sentence."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mpgls.errors import InputError, MpglsError, StorageError
from mpgls.study.checksums import checksum
from mpgls.study.hdf5_bytes import hdf5_bytes

LOCKS = "on file systems without locks set HDF5_USE_FILE_LOCKING=FALSE"
# What h5py and NumPy raise for a dataset that is missing, of another type or shape, or whose bytes cannot be decoded;
# MemoryError for a shape that a damaged file claims.
_DAMAGE = (
    OSError,
    KeyError,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    IndexError,
    OverflowError,
    MemoryError,
)


@contextlib.contextmanager
def open_hdf5(path: str | os.PathLike[str], mode: str = "r", what: str = "HDF5 file", **settings: Any) -> Iterator[Any]:
    """The open h5py.File at ``path``; messages call it a ``what``. ``settings`` are h5py's.

    The body reads or writes the file, and does nothing else, because what it raises is taken for the file's fault.
    Raises StorageError when the file is not there, locked, or cannot be accessed; InputError when it is damaged or
    lacks what the body reads.
    """
    import h5py

    try:
        with _bytes_of(os.fspath(path), mode) as held, h5py.File(held, mode, **settings) as file:
            yield file
    except MpglsError:
        raise
    except _DAMAGE as error:
        if mode == "w" and not isinstance(error, OSError | RuntimeError):
            raise  # a new file is not damaged
        raise _in_words(error, os.fspath(path), mode, what) from None


def _bytes_of(path: str, mode: str) -> contextlib.AbstractContextManager[Any]:
    """What h5py opens: a file that is read by its name, one that is written by way of `study.hdf5_bytes`."""
    return contextlib.nullcontext(path) if mode == "r" else hdf5_bytes(path, mode)


def texts(values: Sequence[Any]) -> np.ndarray:
    """Strings, or rows of strings, as a dataset's data: UTF-8 of one length.

    HDF5 1.10 crashes on damaged strings of variable length, because it follows their references unchecked.
    """
    import h5py

    encoded = np.char.encode(np.array(values, dtype=str), "utf-8")
    return encoded.astype(h5py.string_dtype("utf-8", max(1, encoded.dtype.itemsize)))


def path_attribute(path: str) -> Any:
    """A path as an attribute's value. It may have bytes that are not UTF-8, which h5py reads but does not write."""
    import h5py

    return np.array(path.encode("utf-8", "surrogateescape"), dtype=h5py.string_dtype())


SEAL = "sum"
"""The attribute that has the checksum of a sealed file."""


def seal(file: Any, *apart: str) -> None:
    """Keep the checksum of the attributes and datasets of the open ``file``, but the datasets ``apart``."""
    file.attrs[SEAL] = _sum_of(file, apart)


def check_seal(file: Any, path: str | os.PathLike[str], *apart: str) -> None:
    """InputError when the attributes and datasets of the ``file`` at ``path`` are not those of `seal`."""
    if file.attrs.get(SEAL) != _sum_of(file, apart):
        raise InputError(f"{os.fspath(path)} is damaged: it is not what was written; make the file again")


def _sum_of(file: Any, apart: Sequence[str]) -> int:
    import h5py

    parts: list[np.ndarray] = []

    def add(name: str, item: Any) -> None:
        parts.extend(np.asarray(value) for key, value in sorted(item.attrs.items()) if key != SEAL)
        if isinstance(item, h5py.Dataset) and name not in apart:
            parts.append(item[...])

    add("", file)
    file.visititems(add)
    return checksum(*(part.astype(str) if part.dtype.hasobject else part for part in parts))


def _in_words(error: Exception, path: str, mode: str, what: str) -> MpglsError:
    """The error of the user's that an ``error`` of h5py stands for."""
    number = error.errno if isinstance(error, OSError) else None
    access = "read" if mode == "r" else "write"
    if "unable to lock file" in str(error):
        if number == errno.EAGAIN:
            doing = " for writing" if mode == "r" else ""
            return StorageError(f"another program has {path} open{doing}; {LOCKS}")
        return StorageError(f"cannot lock {path}: its file system has no locks; set HDF5_USE_FILE_LOCKING=FALSE")
    if number == errno.ENOENT and mode in ("r", "r+"):
        return StorageError(f"there is no {what} {path}")
    if number == errno.EISDIR:
        return StorageError(f"cannot {access} the {what} {path}: it is a directory")
    if number is not None:
        return StorageError(f"cannot {access} the {what} {path}: {os.strerror(number)}")
    if mode == "w":
        return StorageError(f"cannot write {path}: {_reason(error)}")
    if "file signature not found" in str(error):
        article = "an" if what[0] in "aeiou" else "a"
        return InputError(f"{path} is not {article} {what}: it is not an HDF5 file, or damaged")
    return InputError(f"{path} is not a readable {what} (damaged or truncated): {_reason(error)}")


def _reason(error: Exception) -> str:
    """What h5py says, without the names of its functions."""
    text = str(error.args[0] if error.args else error).replace("\n", " ")
    sizes = re.search(r"truncated file: eof = (\d+).*stored_eof = (\d+)", text)
    if sizes:
        return f"it has {int(sizes[1]):,} of {int(sizes[2]):,} bytes"
    missing = re.search(r"(object|component|attribute:) '?([^']+)'?(?: doesn't exist| not found|\))", text)
    return f"there is no {missing[2]!r} in it" if missing else text or type(error).__name__
