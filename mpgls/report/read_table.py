"""A table of results, read back as columns."""

from __future__ import annotations

import gzip
import os

import numpy as np

from mpgls.errors import StorageError


def read_columns(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The columns of a tab-separated table with a header: float64 or int64 where all values are numbers, else text.

    NA is NaN in a column of numbers. Raises StorageError when the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise StorageError(f"cannot read {os.fspath(path)}: {error.strerror or error}") from None
    text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode()
    lines = text.splitlines()
    names = lines[0].split("\t") if lines else []
    columns = list(zip(*(line.split("\t") for line in lines[1:]), strict=True)) or [() for _ in names]
    return {name: _typed(column) for name, column in zip(names, columns, strict=True)}


def _typed(column: tuple[str, ...]) -> np.ndarray:
    values = np.array(column, dtype=str)
    try:
        return values.astype(np.int64)
    except ValueError:
        pass
    known = values != "NA"
    numbers = np.full(values.size, np.nan)
    try:
        numbers[known] = values[known].astype(np.float64)
    except ValueError:
        return values
    return numbers if known.any() else values
