"""The HDF5 form of a kinship: where its matrices lie, which SNPs it was made of, and the sums of each chromosome.

Layout: root attributes ``format``, ``version``, ``method`` and ``snps``, the number m of SNPs; ``/fid`` and ``/iid``
(n,) strings; ``/kinship`` (n, n) float64, contiguous; ``/snps`` uint64 (m,), a key for each SNP (study/snp_keys.py).
With ``kinship --loco`` also ``/loco/K``, K = 0, 1, ...: (n, n) float64, contiguous, S_c = the sum of x x' over the
SNPs of a chromosome, whose attributes ``chromosome`` and ``snps`` give its label and its number of SNPs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpgls.errors import InputError
from mpgls.study.hdf5 import open_hdf5, texts
from mpgls.study.tables import PathLike, SampleId

FORMAT, VERSION = "mpgls-kinship", 1
KINSHIP = "kinship of mpgls"
"""What messages call it."""


@dataclass(frozen=True)
class SumPlace:
    """Where the sum of a chromosome's ``snps`` SNPs begins in the file."""

    chromosome: str
    snps: int
    offset: int


@dataclass(frozen=True)
class KinshipH5:
    """What the file ``path`` holds: sample IDs, number of SNPs, and the byte offsets of the matrix and the sums."""

    path: str
    ids: list[SampleId]
    snps: int | None
    offset: int
    sums: tuple[SumPlace, ...]
    has_keys: bool


def create_kinship_h5(
    path: PathLike, ids: Sequence[SampleId], attrs: Mapping[str, Any], chromosomes: Sequence[str] = ()
) -> int:
    """Create an mpgls kinship file without its numbers; return the byte offset at which they belong.

    The caller writes n*n float64 (little-endian, all of the symmetric matrix) at that offset, and as many at that of
    each chromosome's sum (see `read_kinship_h5`); until then they read as whatever the file system gives, so write
    under a temporary name and rename at the end. ``attrs`` become attributes of the file (``method`` and ``snps``, by
    convention).

    Raises StorageError if the file cannot be created.
    """
    n = len(ids)
    with open_hdf5(path, "w", KINSHIP) as file:
        file.attrs.update({**attrs, "format": FORMAT, "version": VERSION})
        file.create_dataset("fid", data=texts([fid for fid, _ in ids]))
        file.create_dataset("iid", data=texts([iid for _, iid in ids]))
        for k, chromosome in enumerate(chromosomes):
            part = _allocate_square(file.require_group("loco"), str(k), n)
            part.attrs.update({"chromosome": chromosome, "snps": 0})
        return int(_allocate_square(file, "kinship", n).id.get_offset())


def _allocate_square(group: Any, name: str, n: int) -> Any:
    """A contiguous n x n dataset, whose bytes are in the file from the start."""
    import h5py

    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.CONTIGUOUS)
    # Early allocation fixes the offset now; fill values would write all n*n numbers once for nothing.
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    space = h5py.h5s.create_simple((n, n))
    h5py.h5d.create(group.id, name.encode(), h5py.h5t.IEEE_F64LE, space, layout)
    return group[name]


def finish_kinship_h5(path: PathLike, snps_of: Sequence[int], keys: np.ndarray, attrs: Mapping[str, Any]) -> None:
    """Add what is known at the end: the SNPs of each chromosome's sum, all SNPs' keys, and attributes.

    Raises StorageError if the file cannot be written.
    """
    with open_hdf5(path, "r+", KINSHIP) as file:
        file.attrs.update(attrs)
        file.create_dataset("snps", data=keys.astype("<u8"))
        for k, snps in enumerate(snps_of):
            file[f"loco/{k}"].attrs["snps"] = snps


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
        snps = file.attrs.get("snps")
        offset = _offset(path, file["kinship"], len(fid))
        parts = [file[f"loco/{k}"] for k in range(len(file.get("loco", ())))]
        sums = tuple(
            SumPlace(str(part.attrs["chromosome"]), int(part.attrs["snps"]), _offset(path, part, len(fid)))
            for part in parts
        )
        has_keys = "snps" in file
    ids = list(zip(fid.tolist(), iid.tolist(), strict=True))
    return KinshipH5(path, ids, None if snps is None else int(snps), offset, sums, has_keys)


def _offset(path: str, matrix: Any, n: int) -> int:
    """Where the numbers of an n x n dataset begin; InputError unless they can be read without HDF5."""
    offset = matrix.id.get_offset()
    if offset is None or matrix.dtype != np.dtype("<f8") or matrix.shape != (n, n):
        raise InputError(f"{path}: {matrix.name} must be stored contiguously as little-endian float64, {n} x {n}")
    return int(offset)


def read_keys(path: str) -> np.ndarray:
    """The keys of the SNPs that the kinship was made of: uint64 (m,), ascending. Raises StorageError."""
    with open_hdf5(path, what=KINSHIP) as file:
        return np.sort(file["snps"][...])
