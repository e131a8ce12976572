"""What the result stores have in common: HDF5 files whose datasets lie at fixed byte offsets from the start on."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mpgls.errors import InputError, StorageError
from mpgls.stream.mark import Mark
from mpgls.study.hdf5 import open_hdf5

STORE = "result store of mpgls"
"""What messages call a file of results."""


def allocate(group: Any, name: str, shape: tuple[int, ...], dtype: Any) -> None:
    """A contiguous dataset whose bytes are in the file from the start, zero-filled."""
    import h5py

    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_layout(h5py.h5d.CONTIGUOUS)
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    space = h5py.h5s.create_simple(shape)
    h5py.h5d.create(group.id, name.encode(), h5py.h5t.py_create(np.dtype(dtype), logical=True), space, creation)


def store_format(path: str | Path) -> str:
    """The ``format`` that the HDF5 file at ``path`` names, or an empty text; StorageError when it cannot be read."""
    with open_hdf5(path, what=STORE) as file:
        return str(file.attrs.get("format", ""))


def check_store(file: Any, path: Path, kind: str, version: int, mark: Mark | None) -> None:
    """InputError unless the open ``file`` is of format ``kind`` and ``version`` and, if ``mark`` is given, has it."""
    if file.attrs.get("format") != kind:
        raise InputError(f"{path} is not a result store of mpgls (an HDF5 file of format {kind!r})")
    if file.attrs.get("version") != version:
        raise InputError(
            f"{path} is a store of another version of mpgls (format {kind} {file.attrs.get('version')}, this version "
            f"has {version}): make it again"
        )
    if mark is not None:
        mark.check(str(file.attrs["made_from"]), path)


def reserve(path: Path, what: str) -> None:
    """Take the room of the whole file, so that the disk is not full when its parts are written; ``what`` takes it.

    A file system that cannot reserve is written to as it comes. Raises StorageError when there is no room.
    """
    nbytes = path.stat().st_size
    try:
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, nbytes)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            name, size = str(path).removesuffix(".partial"), f"{nbytes / 2**30:.2f} GiB"
            raise StorageError(f"cannot write {name}: {what} {size} ({error.strerror})") from None


def mapped_index(file: BinaryIO, offset: int, count: int) -> np.ndarray:
    """int64 (count,) at byte ``offset`` of the open file, mapped, so that the ranks of a node share it."""
    return np.memmap(file, dtype="<i8", mode="r", offset=offset, shape=(count,))


def read_exactly(file: BinaryIO, offset: int, out: np.ndarray) -> None:
    """Fill the contiguous array ``out`` from byte ``offset``; StorageError when the file ends before."""
    file.seek(offset)
    if out.nbytes and file.readinto(out.reshape(-1).view(np.uint8)) != out.nbytes:  # type: ignore[attr-defined]
        raise StorageError(f"{file.name} ended early: it was changed while it was read")
