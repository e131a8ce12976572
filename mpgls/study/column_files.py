"""Tables of which a few columns are read at a time: HDF5 and Parquet, known by their first bytes.

The HDF5 form holds `/traits` (t, n), any real type, NaN where missing; `/names` (t,) strings; and `/samples`, strings
(n, 2) with FID and IID, or (n,) with 'FID IID'. A Parquet file has the columns FID and IID, or IID alone, first.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from mpgls.errors import InputError, StorageError, UsageError
from mpgls.study.hdf5 import open_hdf5
from mpgls.study.sample_ids import SampleColumns, SampleId, index_ids, show_sample

TRAITS = "HDF5 file of traits"
"""What messages call it."""
_HDF5 = b"\x89HDF\r\n\x1a\n"
_PARQUET = b"PAR1"


class ColumnFile(Protocol):
    """A table of n samples. Picklable: what opens it keeps no handle."""

    @property
    def path(self) -> str:
        """The file."""

    @property
    def names(self) -> tuple[str, ...]:
        """All columns beside FID and IID."""

    @property
    def ids(self) -> list[SampleId]:
        """(FID, IID) of each sample, each once."""

    @property
    def notes(self) -> tuple[str, ...]:
        """How the file was understood, for the log."""

    def read(self, columns: np.ndarray) -> np.ndarray:
        """The columns at these positions (k,) of ``names``: (k, n) float64, C order, NaN where missing.

        Raises InputError for text, StorageError where the file cannot be read.
        """

    def texts(self, column: int) -> list[str] | None:
        """The column as text, empty where it is missing; None where it holds numbers."""


def open_columns(path: str, known: Sequence[SampleId] | None = None) -> ColumnFile | None:
    """Open an HDF5 or a Parquet file; None for anything else, which is text.

    ``known`` are the samples of the genotypes, which give an IID its FID where the file has none. Raises InputError for
    a malformed file, StorageError for an unreadable one, UsageError where pyarrow is not installed.
    """
    try:
        with open(path, "rb") as stream:
            start = stream.read(len(_HDF5))
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from None
    if start == _HDF5:
        return _open_hdf5(path)
    return _open_parquet(path, known) if start.startswith(_PARQUET) else None


def check_finite(
    path: str, names: Sequence[str], ids: Sequence[SampleId], values: np.ndarray, what: str = "column"
) -> None:
    """InputError for an infinite value in the columns ``names`` (k,) of ``values`` (k, n), naming column and sample."""
    infinite = np.isinf(values)
    if infinite.any():
        k, i = np.argwhere(infinite)[0]
        raise InputError(
            f"{path}: {what} {names[k]!r} of sample {show_sample(ids[i])} is {values[k, i]}, not a finite number"
        )


# -- HDF5 -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Hdf5Columns:
    path: str
    names: tuple[str, ...]
    ids: list[SampleId] = field(repr=False)
    notes: tuple[str, ...] = ("HDF5",)

    def read(self, columns: np.ndarray) -> np.ndarray:
        values = np.empty((columns.size, len(self.ids)))
        edges = [0, *(np.flatnonzero(np.diff(columns) != 1) + 1).tolist(), columns.size]
        with open_hdf5(self.path, what=TRAITS) as file:
            for a, b in itertools.pairwise(edges):
                if a < b:
                    file["traits"].read_direct(values, np.s_[int(columns[a]) : int(columns[b - 1]) + 1], np.s_[a:b])
        return values

    def texts(self, column: int) -> list[str] | None:
        return None


def _open_hdf5(path: str) -> _Hdf5Columns:
    import h5py

    with open_hdf5(path, what=TRAITS) as file:
        for name in ("traits", "names", "samples"):
            if not isinstance(file.get(name), h5py.Dataset):
                raise InputError(f"{path} holds no traits: there is no dataset /{name}")
        shape, kind = file["traits"].shape, file["traits"].dtype.kind
        names, ids = _strings(path, file["names"]).tolist(), _samples(path, file["samples"])
    if kind not in "fiu" or shape != (len(names), len(ids)):
        size = " x ".join(map(str, shape))
        raise InputError(
            f"{path}: /traits is {size}{'' if kind in 'fiu' else ' and not numeric'}, but there are "
            f"{len(names)} names and {len(ids)} samples"
        )
    _check_names(path, names)
    index_ids(ids, path)
    return _Hdf5Columns(path, tuple(names), ids)


def _strings(path: str, dataset: Any) -> np.ndarray:
    """The texts of a dataset, as an array of objects of its shape."""
    try:
        return np.asarray(dataset.asstr()[...], dtype=object)
    except TypeError:
        raise InputError(f"{path}: {dataset.name} does not hold strings") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: {dataset.name} holds a text that is not in UTF-8") from None


def _samples(path: str, dataset: Any) -> list[SampleId]:
    texts = _strings(path, dataset)
    if texts.ndim == 2 and texts.shape[1] == 2:
        return [(fid, iid) for fid, iid in texts.tolist()]
    if texts.ndim != 1:
        raise InputError(f"{path}: /samples must be n x 2 (FID, IID) or n texts 'FID IID'")
    ids = []
    for k, text in enumerate(texts.tolist()):
        fields = text.split()
        if len(fields) != 2:
            raise InputError(f"{path}: entry {k + 1} of /samples is {text!r}, not 'FID IID'")
        ids.append((fields[0], fields[1]))
    return ids


def _check_names(path: str, names: Sequence[str]) -> None:
    position: dict[str, int] = {}
    for k, name in enumerate(names):
        if not name or any(letter.isspace() for letter in name):
            raise InputError(f"{path}: trait {k + 1} of /names has an empty name or one with white space: {name!r}")
        if position.setdefault(name, k) != k:
            raise InputError(f"{path}: /names lists trait {name!r} twice (entries {position[name] + 1} and {k + 1})")
    if not names:
        raise InputError(f"{path} holds no traits")


# -- Parquet ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _ParquetColumns:
    path: str
    names: tuple[str, ...]
    ids: list[SampleId] = field(repr=False)
    notes: tuple[str, ...]

    def read(self, columns: np.ndarray) -> np.ndarray:
        values = np.empty((columns.size, len(self.ids)))
        for row, name in zip(values, self._arrow(columns), strict=True):
            row[...] = self._numbers(*name)
        return values

    def texts(self, column: int) -> list[str] | None:
        ((_, values),) = self._arrow(np.array([column]))
        return _as_texts(values) if _holds_text(values.type) else None

    def _arrow(self, columns: np.ndarray) -> Iterator[tuple[str, Any]]:
        """The columns, each with its name."""
        names = [self.names[k] for k in columns]
        table = _read_parquet(self.path, names)
        return ((name, table.column(name)) for name in names)

    def _numbers(self, name: str, values: Any) -> np.ndarray:
        types = _pyarrow().types
        if types.is_boolean(values.type):
            values = values.cast("int8")
        elif types.is_decimal(values.type):
            values = values.cast("float64")
        if not (types.is_integer(values.type) or types.is_floating(values.type) or types.is_null(values.type)):
            raise InputError(f"{self.path}: column {name!r} is of type {values.type} and holds no numbers")
        return np.asarray(values.cast("float64").fill_null(math.nan).to_numpy())


def _open_parquet(path: str, known: Sequence[SampleId] | None) -> _ParquetColumns:
    with _reading(path):
        header = list(_pyarrow().parquet.read_schema(path).names)
    first = 2 if header[:2] == ["FID", "IID"] else 1
    if header[first - 1 : first] != ["IID"]:
        raise InputError(f"{path}: the columns must begin with FID and IID, or with IID; they are {', '.join(header)}")
    repeated = next((name for k, name in enumerate(header) if name in header[:k]), None)
    if repeated is not None:
        raise InputError(f"{path} has the column {repeated!r} twice")
    if len(header) == first:
        raise InputError(f"{path} has no column besides FID and IID")
    columns = SampleColumns(path, header, 1, known, row="row")
    table = _read_parquet(path, header[:first])
    fields = [_as_texts(table.column(name)) for name in header[:first]]
    ids = [columns.sample(number, row) for number, row in enumerate(zip(*fields, strict=True), start=1)]
    if not ids:
        raise InputError(f"{path} has columns but no samples")
    index_ids(ids, path)
    return _ParquetColumns(path, tuple(header[first:]), ids, ("Parquet", columns.note))


def _holds_text(kind: Any) -> bool:
    types = _pyarrow().types
    kind = kind.value_type if types.is_dictionary(kind) else kind
    return bool(types.is_string(kind) or types.is_large_string(kind))


def _as_texts(values: Any) -> list[str]:
    """Texts or whole numbers as text; empty where missing."""
    return ["" if value is None else str(value) for value in values.to_pylist()]


def _read_parquet(path: str, names: list[str]) -> Any:
    with _reading(path):
        return _pyarrow().parquet.read_table(path, columns=names, partitioning=None)


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
    """Errors of pyarrow as ours."""
    arrow = _pyarrow()
    try:
        yield
    except (arrow.ArrowInvalid, arrow.ArrowNotImplementedError, arrow.ArrowKeyError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is a damaged Parquet file: {str(error).splitlines()[0]}") from None
    except OSError as error:
        what = os.strerror(error.errno) if error.errno else str(error).splitlines()[0]
        raise StorageError(f"cannot read {path}: {what}") from None


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
        import pyarrow.types
    except ImportError:
        raise UsageError("Parquet files need the Python package pyarrow: pip install 'mpgls[parquet]'") from None
    return pyarrow
