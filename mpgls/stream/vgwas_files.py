"""The two HDF5 files of a voxelwise GWAS: maxima of the permutations, and what the data as they are gave.

PREFIX.maxima.h5: root attributes ``format`` "mpgls-vgwas-maxima", ``version``, ``made_from`` (the text of a `Mark`);
for each statistic a dataset float64 (P + 1,), of which element k is the maximum over all SNPs under permutation k;
element 0 is that of the data. PREFIX.voxels.h5: ``format`` "mpgls-vgwas-entries", ``version``, ``made_from``,
``threshold`` (p), ``df``; /index int64 (m,), the .bim row of each SNP, and /records (m,), its statistics; then the
pairs beyond the threshold, sorted by SNP and voxel: /snp int64 (.bim row), /voxel int32 (column), /t, /beta and /log10p
float64; /coordinates int32 (v, 3) where known, with attributes ``shape`` and ``affine`` of the grid if there is one.

The attribute ``sum`` of both is the checksum (`study.checksums`) of everything else. That of PREFIX.voxels.h5 leaves
out /records and the columns of pairs: of these, /NAME_sums uint32 has a checksum for each 8,192 rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mpgls.errors import InputError
from mpgls.stream.files import replaced
from mpgls.stream.hdf5 import STORE, check_store
from mpgls.stream.mark import Mark
from mpgls.stream.own_file import OwnFile, add_token_attribute
from mpgls.study.checksums import SUM_DTYPE, checksum
from mpgls.study.hdf5 import check_seal, open_hdf5, seal

MAXIMA_FORMAT, ENTRIES_FORMAT, VERSION = "mpgls-vgwas-maxima", "mpgls-vgwas-entries", 3
COLUMNS = {"snp": np.int64, "voxel": np.int32, "t": np.float64, "beta": np.float64, "log10p": np.float64}
"""Datasets of a pair of SNP and voxel."""
_IN_BLOCKS = ("records", *COLUMNS)
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
        seal(file)


def load_maxima(path: Path, mark: Mark | None) -> dict[str, np.ndarray]:
    """The maxima of each statistic. Raises StorageError, or InputError for other inputs or options, or damage."""
    with open_hdf5(path, what=STORE) as file:
        check_store(file, path, MAXIMA_FORMAT, VERSION, mark)
        check_seal(file, path)
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
        for name in _IN_BLOCKS:
            values = file[name]
            sums = [checksum(values[start : start + _CHUNK]) for start in range(0, len(values), _CHUNK)]
            file.create_dataset(f"{name}_sums", data=np.array(sums, dtype=SUM_DTYPE))
        seal(file, *_IN_BLOCKS)
        return count


@dataclass(frozen=True)
class EntriesFile:
    """PREFIX.voxels.h5, with the records of ``count`` SNPs. Picklable: rank 0 opens it and broadcasts.

    What it reads raises StorageError, or InputError where it changed on disk.
    """

    own: OwnFile
    count: int
    attributes: Mapping[str, Any]

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.own.path

    @property
    def index(self) -> np.ndarray:
        """int64 (m,): the .bim row of each record."""
        with self.own.open_hdf5("r") as file:
            return np.asarray(file["index"][...])

    @property
    def coordinates(self) -> np.ndarray | None:
        """int32 (v, 3): those of the voxels, None where they are not known."""
        with self.own.open_hdf5("r") as file:
            return np.asarray(file["coordinates"][...]) if "coordinates" in file else None

    def records(self, start: int, stop: int) -> np.ndarray:
        """Records start..stop."""
        with self.own.open_hdf5("r") as file:
            return self._read(file, "records", start, stop)

    def pairs(self, bim_row: int) -> dict[str, np.ndarray]:
        """All pairs of one SNP."""
        with self.own.open_hdf5("r") as file:
            start, stop = (self._search(file, row) for row in (bim_row, bim_row + 1))
            return {name: self._read(file, name, start, stop) for name in COLUMNS}

    def _search(self, file: Any, bim_row: int) -> int:
        """The first pair of that SNP or a later one, by halving: few blocks are read."""
        low, high = 0, file["snp"].shape[0]
        while low < high:
            middle = (low + high) // 2
            snp = self._read(file, "snp", middle, middle + 1)[0]
            low, high = (middle + 1, high) if snp < bim_row else (low, middle)
        return low

    def _read(self, file: Any, name: str, start: int, stop: int) -> np.ndarray:
        """Rows start..stop of a dataset; the blocks that they lie in are read whole, and compared."""
        first = start // _CHUNK
        blocks = [file[name][k * _CHUNK : (k + 1) * _CHUNK] for k in range(first, -(-stop // _CHUNK))]
        for k, (block, expected) in enumerate(zip(blocks, file[f"{name}_sums"][first:], strict=False), first):
            if checksum(block) != expected:
                rows = f"rows {k * _CHUNK + 1:,} to {k * _CHUNK + len(block):,} of /{name}"
                raise InputError(f"{self.own.path} is damaged: {rows} are not what was written; make the file again")
        joined = np.concatenate([file[name][:0], *blocks])
        return joined[start - first * _CHUNK : stop - first * _CHUNK]


def open_entries(path: Path, mark: Mark | None = None) -> EntriesFile:
    """Open PREFIX.voxels.h5. Raises StorageError, or InputError where ``mark`` is of others, or for damage."""
    with open_hdf5(path, what=STORE) as file:
        check_store(file, path, ENTRIES_FORMAT, VERSION, mark)
        check_seal(file, path, *_IN_BLOCKS)
        return EntriesFile(OwnFile.of(path, file), file["records"].shape[0], dict(file.attrs.items()))
