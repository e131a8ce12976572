"""What a long run has finished so far, in one small file that a run with --resume reads and a complete run removes."""

from __future__ import annotations

import contextlib
import os
import pickle
from pathlib import Path
from typing import Any

from mpgls.errors import InputError, StorageError

MAGIC = b"mpgls-progress-1\n"


def save_progress(path: Path, mark: str, state: Any) -> None:
    """Replace the file by ``state``, at once and synced. Call on one rank. Raises StorageError."""
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "wb") as file:
            file.write(MAGIC + mark.encode() + b"\n")
            pickle.dump(state, file, protocol=pickle.HIGHEST_PROTOCOL)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from None


def load_progress(path: Path, mark: str) -> Any:
    """The state of an earlier run with the same ``mark``, None where there is none.

    Raises InputError when the file belongs to other inputs or options.
    """
    if not path.exists():
        return None
    try:
        with open(path, "rb") as file:
            if file.readline() != MAGIC:
                raise InputError(f"{path} is not a progress file of this version of mpgls")
            if file.readline() != mark.encode() + b"\n":
                raise InputError(
                    f"{path} was made from other inputs or options, so it cannot be resumed: "
                    "run with the same command line, or without --resume to start anew"
                )
            return pickle.load(file)
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from None


def remove_progress(path: Path) -> None:
    """Forget the progress of a run that is complete."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
