"""A table of results, read back as columns."""

from __future__ import annotations

import gzip
import importlib
import os

import numpy as np

from mpgls.errors import StorageError
from mpgls.report.table_formats import ENDINGS


def read_columns(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The columns of a tab-separated table with a header: float64 or int64 where all values are numbers, else text.

    The same of Parquet. NA is NaN in a column of numbers. Raises StorageError when the file cannot be read.
    """
    if os.fspath(path).endswith(ENDINGS["parquet"][0]):
        return _parquet_columns(path)
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise StorageError(f"cannot read {os.fspath(path)}: {error.strerror or error}") from None
    text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode()
    lines = text.removesuffix("\n").split("\n")
    names = lines[0].split("\t") if lines[0] else []
    columns = list(zip(*(line.split("\t") for line in lines[1:]), strict=True)) or [() for _ in names]
    return {name: _typed(column) for name, column in zip(names, columns, strict=True)}


def _parquet_columns(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    parquet = importlib.import_module("pyarrow.parquet")
    try:
        with open(path, "rb") as file:
            table = parquet.read_table(file)
    except OSError as error:
        raise StorageError(f"cannot read {os.fspath(path)}: {error.strerror or error}") from None
    columns = {name: table.column(name).to_numpy() for name in table.column_names}
    return {name: values.astype(str) if values.dtype == object else values for name, values in columns.items()}


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
