"""The two HDF5 files of a voxelwise GWAS: maxima of the permutations, and what the data as they are gave.

PREFIX.maxima.h5: root attributes ``format`` "mpgls-vgwas-maxima", ``version``, ``made_from`` (the text of a `Mark`);
for each statistic a dataset float64 (P + 1,), of which element k is the maximum over all SNPs under permutation k;
element 0 is that of the data. PREFIX.voxels.h5: ``format`` "mpgls-vgwas-entries", ``version``, ``made_from``,
``threshold`` (p), ``df``; /index int64 (m,), the .bim row of each SNP, and /records (m,), its statistics; then the
pairs beyond the threshold, sorted by SNP and voxel: /snp int64 (.bim row), /voxel int32 (column), /t, /beta and /log10p
float64; /coordinates int32 (v, 3) where known, with attributes ``shape`` and ``affine`` of the grid if there is one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mpgls.stream.files import replaced
from mpgls.stream.hdf5 import STORE, check_store
from mpgls.stream.mark import Mark
from mpgls.stream.own_file import OwnFile, add_token_attribute
from mpgls.study.hdf5 import open_hdf5

MAXIMA_FORMAT, ENTRIES_FORMAT, VERSION = "mpgls-vgwas-maxima", "mpgls-vgwas-entries", 2
COLUMNS = {"snp": np.int64, "voxel": np.int32, "t": np.float64, "beta": np.float64, "log10p": np.float64}
"""Datasets of a pair of SNP and voxel."""
_CHUNK = 1 << 13


def pairs_bytes(pairs: int) -> int:
    """Bytes of so many pairs in the file, whose columns grow by whole chunks."""
    return -(-pairs // _CHUNK) * _CHUNK * sum(np.dtype(dtype).itemsize for dtype in COLUMNS.values())


def save_maxima(path: Path, maxima: Mapping[str, np.ndarray], mark: Mark) -> None:
    """Replace the file by ``maxima``, (P + 1,) of each statistic. Call on one rank. Raises StorageError."""
    with replaced(path) as partial, open_hdf5(partial, "w") as file:
        file.attrs.update({"format": MAXIMA_FORMAT, "version": VERSION, "made_from": mark.text})
        for name, values in maxima.items():
            file.create_dataset(name, data=np.asarray(values, dtype=np.float64))


def load_maxima(path: Path, mark: Mark) -> dict[str, np.ndarray]:
    """The maxima of each statistic. Raises StorageError, or InputError for other inputs or options."""
    with open_hdf5(path, what=STORE) as file:
        check_store(file, path, MAXIMA_FORMAT, VERSION, mark)
        return {name: file[name][...] for name in file}


def save_entries(
    path: Path,
    index: np.ndarray,
    records: np.ndarray,
    blocks: Iterable[Mapping[str, np.ndarray]],
    mark: Mark,
    attributes: Mapping[str, Any],
    coordinates: np.ndarray | None,
) -> int:
    """Write records (m,) and the pairs of all ``blocks``, in their order; returns the number of pairs.

    Each block has the keys of COLUMNS; one is held at a time, and making them all may fill ``records``. Call on one
    rank. Raises StorageError.
    """
    with replaced(path) as partial, open_hdf5(partial, "w") as file:
        file.attrs.update({"format": ENTRIES_FORMAT, "version": VERSION, "made_from": mark.text, **attributes})
        add_token_attribute(file)
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
    """PREFIX.voxels.h5, with the records of ``count`` SNPs. Picklable: rank 0 opens it and broadcasts."""

    own: OwnFile
    count: int

    def records(self, start: int, stop: int) -> np.ndarray:
        """Records start..stop."""
        with self.own.open_hdf5("r") as file:
            records: np.ndarray = file["records"][start:stop]
        return records

    def pairs(self, bim_row: int) -> dict[str, np.ndarray]:
        """All pairs of one SNP."""
        with self.own.open_hdf5("r") as file:
            snp = file["snp"]
            start, stop = (_search(snp, row) for row in (bim_row, bim_row + 1))
            return {name: file[name][start:stop] for name in COLUMNS}


def open_entries(path: Path, mark: Mark) -> EntriesFile:
    """Open PREFIX.voxels.h5. Raises StorageError, or InputError for other inputs or options."""
    with open_hdf5(path, what=STORE) as file:
        check_store(file, path, ENTRIES_FORMAT, VERSION, mark)
        return EntriesFile(OwnFile.of(path, file), file["records"].shape[0])


def _search(column: Any, value: int) -> int:
    """The first position of an ascending dataset that is at least ``value``, by halving: few elements are read."""
    low, high = 0, column.shape[0]
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if column[middle] < value else (low, middle)
    return low
