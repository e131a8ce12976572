"""The HDF5 form of a kinship: where its matrices lie, which SNPs it was made of, and the sums of each chromosome.

Layout: root attributes ``format``, ``version``, ``method`` and ``snps``, the number m of SNPs; ``/fid`` and ``/iid``
(n,) strings; ``/kinship`` (n, n) float64, contiguous; ``/snps`` uint64 (m,), a key for each SNP (study/snp_keys.py).
With ``kinship --loco`` also ``/loco/K``, K = 0, 1, ...: (n, n) float64, contiguous, S_c = the sum of x x' over the
SNPs of a chromosome, whose attributes ``chromosome`` and ``snps`` give its label and its number of SNPs.

``/row_sums`` uint32 (1 + chromosomes, n) has the checksum (study/checksums.py) of each row of /kinship, /loco/0, ...;
the attribute ``sum`` of /snps has that of the keys, and that of the file the checksum of everything else. Version 1 had
no checksums.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpgls.errors import InputError
from mpgls.study.checked_rows import CheckedRows
from mpgls.study.checksums import SUM_DTYPE, checksum
from mpgls.study.hdf5 import SEAL, check_seal, open_hdf5, seal, texts
from mpgls.study.tables import PathLike, SampleId

FORMAT, VERSION = "mpgls-kinship", 2
UNCHECKED = 1
"""The version that had no checksums."""
KINSHIP = "kinship of mpgls"
"""What messages call it."""


@dataclass(frozen=True)
class SumPlace:
    """Where the sum of a chromosome's ``snps`` SNPs is in the file."""

    chromosome: str
    snps: int
    rows: CheckedRows


@dataclass(frozen=True)
class KinshipH5:
    """What the file ``path`` holds: sample IDs, number of SNPs, and where the rows of the matrix and the sums are."""

    path: str
    ids: list[SampleId]
    snps: int | None
    rows: CheckedRows
    sums: tuple[SumPlace, ...]
    has_keys: bool
    method: str


def create_kinship_h5(
    path: PathLike, ids: Sequence[SampleId], attrs: Mapping[str, Any], chromosomes: Sequence[str] = ()
) -> KinshipH5:
    """Create an mpgls kinship file without its numbers; return where they belong.

    The caller writes and marks all rows of the symmetric matrix, and those of each chromosome's sum; until then they
    read as whatever the file system gives, so write under a temporary name and rename at the end. ``attrs`` become
    attributes of the file (``method`` and ``snps``, by convention).

    Raises StorageError if the file cannot be created.
    """
    import h5py

    n = len(ids)
    with open_hdf5(path, "w", KINSHIP) as file:
        file.attrs.update({**attrs, "format": FORMAT, "version": VERSION})
        file.create_dataset("fid", data=texts([fid for fid, _ in ids]))
        file.create_dataset("iid", data=texts([iid for _, iid in ids]))
        for k, chromosome in enumerate(chromosomes):
            part = _allocate(file.require_group("loco"), str(k), (n, n), h5py.h5t.IEEE_F64LE)
            part.attrs.update({"chromosome": chromosome, "snps": 0})
        _allocate(file, "kinship", (n, n), h5py.h5t.IEEE_F64LE)
        _allocate(file, "row_sums", (1 + len(chromosomes), n), h5py.h5t.STD_U32LE)
        seal(file, *_with_rows(file))
    return read_kinship_h5(os.fspath(path))


def _allocate(group: Any, name: str, shape: tuple[int, int], dtype: Any) -> Any:
    """A contiguous dataset, whose bytes are in the file from the start."""
    import h5py

    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.CONTIGUOUS)
    # Early allocation fixes the offset now; fill values would write all n*n numbers once for nothing.
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    h5py.h5d.create(group.id, name.encode(), dtype, h5py.h5s.create_simple(shape), layout)
    return group[name]


def _with_rows(file: Any) -> list[str]:
    """The datasets that are not sealed."""
    return ["kinship", "row_sums", "snps", *(f"loco/{k}" for k in range(len(file.get("loco", ()))))]


def finish_kinship_h5(path: PathLike, snps_of: Sequence[int], keys: np.ndarray, attrs: Mapping[str, Any]) -> None:
    """Add what is known at the end: the SNPs of each chromosome's sum, all SNPs' keys, and attributes.

    Raises StorageError if the file cannot be written.
    """
    with open_hdf5(path, "r+", KINSHIP) as file:
        file.attrs.update(attrs)
        file.create_dataset("snps", data=keys.astype("<u8")).attrs[SEAL] = checksum(keys.astype("<u8"))
        for k, snps in enumerate(snps_of):
            file[f"loco/{k}"].attrs["snps"] = snps
        seal(file, *_with_rows(file))


def read_kinship_h5(path: str) -> KinshipH5:
    """What a kinship file holds. Raises InputError when it is damaged, or not a kinship."""
    with open_hdf5(path, what=KINSHIP) as file:
        if file.attrs.get("format") != FORMAT:
            raise InputError(f"{path} is an HDF5 file, but not an mpgls kinship")
        if int(file.attrs.get("version", 0)) > VERSION:
            raise InputError(f"{path} is of a later version of the format than this mpgls reads")
        fid, iid = (file[name].asstr()[:] for name in ("fid", "iid"))
        if file["kinship"].shape != (len(fid), len(iid)):
            size = " x ".join(str(extent) for extent in file["kinship"].shape)
            raise InputError(f"{path}: the matrix is {size}, but there are {len(fid)} FIDs and {len(iid)} IIDs")
        if file.attrs["version"] != UNCHECKED:
            check_seal(file, path, *_with_rows(file))
        snps, n = file.attrs.get("snps"), len(fid)
        parts = [file[f"loco/{k}"] for k in range(len(file.get("loco", ())))]
        rows, *of_parts = (_rows(path, file, k, matrix, n) for k, matrix in enumerate([file["kinship"], *parts]))
        sums = tuple(
            SumPlace(str(part.attrs["chromosome"]), int(part.attrs["snps"]), one)
            for part, one in zip(parts, of_parts, strict=True)
        )
        has_keys, method = "snps" in file, str(file.attrs.get("method", ""))
    ids = list(zip(fid.tolist(), iid.tolist(), strict=True))
    return KinshipH5(path, ids, None if snps is None else int(snps), rows, sums, has_keys, method)


def _rows(path: str, file: Any, k: int, matrix: Any, n: int) -> CheckedRows:
    """Where the numbers and checksums of the k-th n x n dataset are; InputError unless HDF5 is not needed for them."""
    offset = matrix.id.get_offset()
    if offset is None or matrix.dtype != np.dtype("<f8") or matrix.shape != (n, n):
        raise InputError(f"{path}: {matrix.name} must be stored contiguously as little-endian float64, {n} x {n}")
    unchecked = file.attrs["version"] == UNCHECKED
    sums = None if unchecked else int(file["row_sums"].id.get_offset()) + k * n * SUM_DTYPE.itemsize
    return CheckedRows(path, int(offset), n, n, n, sums)


def read_method(path: str) -> str:
    """How the kinship was made of SNPs: --method of mpgls kinship. Raises StorageError, InputError."""
    with open_hdf5(path, what=KINSHIP) as file:
        return str(file.attrs["method"])


def read_keys(path: str) -> np.ndarray:
    """The keys of the SNPs that the kinship was made of: uint64 (m,), ascending. Raises StorageError, InputError."""
    return np.sort(keys_in_order(path))


def keys_in_order(path: str) -> np.ndarray:
    """The same in the order of the .bim."""
    with open_hdf5(path, what=KINSHIP) as file:
        keys = file["snps"][...]
        if file["snps"].attrs.get(SEAL, checksum(keys)) != checksum(keys):
            raise InputError(f"{path} is damaged: its list of SNPs is not what was written; make the file again")
        return np.asarray(keys)
