"""The run's manifest, written as JSON."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from mpgls.errors import StorageError


def write_manifest(path: str | os.PathLike[str], manifest: dict[str, Any]) -> None:
    """Write ``manifest`` as indented JSON; the file appears under its name only when it is complete.

    NumPy scalars and arrays, paths, dataclasses, enumerations, tuples and sets are converted; NaN becomes
    null, and infinities "inf" and "-inf", which JSON has no numbers for. Raises StorageError.
    """
    path = Path(path)
    partial = path.with_name(f"{path.name}.partial")
    text = json.dumps(_plain(manifest), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    try:
        # a byte of a path that is not UTF-8 becomes an escape, which JSON has
        with open(partial, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise StorageError(f"cannot write the manifest {path}: {error.strerror or error}") from None


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
        return value if math.isfinite(value) else None if math.isnan(value) else str(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    # A run of hours must not end without its manifest for an unforeseen type.
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
