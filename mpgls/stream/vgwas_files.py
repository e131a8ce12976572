"""The two HDF5 files of a voxelwise GWAS: maxima of the permutations, and what the data as they are gave.

PREFIX.maxima.h5: root attributes ``format`` "mpgls-vgwas-maxima", ``version``, ``fingerprint``; for each statistic a
dataset float64 (P + 1,), of which element k is the maximum over all SNPs under permutation k; element 0 is that of the
data. PREFIX.voxels.h5: ``format`` "mpgls-vgwas-entries", ``version``, ``fingerprint``, ``threshold`` (p), ``df``;
/index int64 (m,), the .bim row of each SNP, and /records (m,), its statistics; then the pairs beyond the threshold,
sorted by SNP and voxel: /snp int64 (.bim row), /voxel int32 (column), /t, /beta and /log10p float64; /coordinates int32
(v, 3) where known, with the attributes ``shape`` and ``affine`` of the grid if there is one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mpgls.errors import StorageError
from mpgls.stream.hdf5 import check_fingerprint, opened, read_exactly

MAXIMA_FORMAT, ENTRIES_FORMAT, VERSION = "mpgls-vgwas-maxima", "mpgls-vgwas-entries", 1
COLUMNS = {"snp": np.int64, "voxel": np.int32, "t": np.float64, "beta": np.float64, "log10p": np.float64}
"""Datasets of a pair of SNP and voxel."""
_CHUNK = 1 << 13


def save_maxima(path: Path, maxima: Mapping[str, np.ndarray], mark: str) -> None:
    """Replace the file by ``maxima``, (P + 1,) of each statistic. Call on one rank. Raises StorageError."""
    with _replaced(path) as partial, _created(partial, path) as file:
        file.attrs.update({"format": MAXIMA_FORMAT, "version": VERSION, "fingerprint": mark})
        for name, values in maxima.items():
            file.create_dataset(name, data=np.asarray(values, dtype=np.float64))


def load_maxima(path: Path, mark: str) -> dict[str, np.ndarray]:
    """The maxima of each statistic. Raises StorageError, or InputError for other inputs or options."""
    with opened(path) as file:
        check_fingerprint(file, path, MAXIMA_FORMAT, mark)
        return {name: file[name][...] for name in file}


def save_entries(
    path: Path,
    index: np.ndarray,
    records: np.ndarray,
    blocks: Iterable[Mapping[str, np.ndarray]],
    mark: str,
    attributes: Mapping[str, Any],
    coordinates: np.ndarray | None,
) -> int:
    """Write records (m,) and the pairs of all ``blocks``, in their order; returns the number of pairs.

    Each block has the keys of COLUMNS; one is held at a time, and making them all may fill ``records``. Call on one
    rank. Raises StorageError.
    """
    with _replaced(path) as partial, _created(partial, path) as file:
        file.attrs.update({"format": ENTRIES_FORMAT, "version": VERSION, "fingerprint": mark, **attributes})
        file.create_dataset("index", data=np.asarray(index, dtype=np.int64))
        if coordinates is not None:
            file.create_dataset("coordinates", data=np.asarray(coordinates, dtype=np.int32))
        columns = {
            name: file.create_dataset(name, (0,), dtype=dtype, maxshape=(None,), chunks=(_CHUNK,))
            for name, dtype in COLUMNS.items()
        }
        count = 0
        for block in blocks:
            stop = count + len(block["snp"])
            for name, column in columns.items():
                column.resize((stop,))
                column[count:stop] = block[name]
            count = stop
        file.create_dataset("records", data=records)
        return count


@dataclass(frozen=True)
class EntriesFile:
    """Where records lie in PREFIX.voxels.h5. Picklable: rank 0 opens it and broadcasts."""

    path: Path
    count: int
    records_offset: int
    dtype: np.dtype

    def records(self, start: int, stop: int) -> np.ndarray:
        """Records start..stop."""
        records = np.empty(stop - start, dtype=self.dtype)
        with open(self.path, "rb") as file:
            read_exactly(file, self.records_offset + start * self.dtype.itemsize, records)
        return records

    def pairs(self, bim_row: int) -> dict[str, np.ndarray]:
        """All pairs of one SNP."""
        with opened(self.path) as file:
            snp = file["snp"]
            start, stop = (_search(snp, row) for row in (bim_row, bim_row + 1))
            return {name: file[name][start:stop] for name in COLUMNS}


def open_entries(path: Path, mark: str) -> EntriesFile:
    """Open PREFIX.voxels.h5. Raises StorageError, or InputError for other inputs or options."""
    with opened(path) as file:
        check_fingerprint(file, path, ENTRIES_FORMAT, mark)
        records = file["records"]
        return EntriesFile(path, records.shape[0], records.id.get_offset(), records.dtype)


def _search(column: Any, value: int) -> int:
    """The first position of an ascending dataset that is at least ``value``, by halving: few elements are read."""
    low, high = 0, column.shape[0]
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if column[middle] < value else (low, middle)
    return low


class _replaced:
    """The name under which a file is written until it is complete."""

    def __init__(self, path: Path) -> None:
        self.path, self.partial = path, path.with_name(path.name + ".partial")

    def __enter__(self) -> Path:
        return self.partial

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            os.replace(self.partial, self.path)
        else:
            self.partial.unlink(missing_ok=True)


class _created:
    """A new HDF5 file; OSError becomes StorageError naming ``path``."""

    def __init__(self, partial: Path, path: Path) -> None:
        self.partial, self.path = partial, path

    def __enter__(self) -> Any:
        import h5py

        try:
            self.file = h5py.File(self.partial, "w")
        except OSError as error:
            raise StorageError(f"cannot write {self.path}: {error.strerror or error}") from None
        return self.file

    def __exit__(self, kind: object, error: object, *_: object) -> None:
        self.file.close()
        if isinstance(error, OSError):
            raise StorageError(f"cannot write {self.path}: {error.strerror or error}") from None
