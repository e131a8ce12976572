"""What a stage of a long computation hands to the next one: a few arrays in one small HDF5 file, replaced at once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mpgls.errors import InputError, StorageError
from mpgls.stream.hdf5 import opened


def save_stage(path: Path, kind: str, mark: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Replace the file by ``arrays``, synced. ``mark`` is the fingerprint of what they were made from.

    Call on one rank. Raises StorageError.
    """
    import h5py

    partial = path.with_name(path.name + ".partial")
    try:
        with h5py.File(partial, "w") as file:
            file.attrs.update({"format": kind, "version": 1, "fingerprint": mark})
            for name, values in arrays.items():
                file[name] = values
        with open(partial, "rb+") as written:
            os.fsync(written.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from None


def load_stage(path: Path, kind: str, mark: str) -> dict[str, np.ndarray] | None:
    """The arrays, if the file is there and was made from the same inputs, otherwise None."""
    if not path.exists():
        return None
    try:
        with opened(path) as file:
            if file.attrs.get("format") != kind or file.attrs.get("fingerprint") != mark:
                return None
            return {name: file[name][...] for name in file}
    except (StorageError, InputError):  # half a file, or none of ours: it will be made anew
        return None
