"""The voxel matrix: brain images of n people over the v voxels of a mask, people x voxels, in one HDF5 file.

Root attributes: ``format`` "mpgls-voxels", ``version``, ``shape`` (3) of the grid, ``affine`` (4, 4) from voxel indices
i j k to millimetres, ``mask``, the file that it was made with. Datasets: `/voxels` float32 (n, v), contiguous;
`/samples` strings (n, 2), FID and IID; `/coordinates` int32 (v, 3), i j k of each voxel in C order of the mask.
`/voxel_sums` uint32 (segments, n) has the checksum (study/checksums.py) of each SEGMENT voxels of a person, the
attribute ``sum`` that of everything else. Version 1 had no checksums.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import DTypeLike

from mpgls.errors import InputError
from mpgls.study.checked_rows import CheckedRows
from mpgls.study.hdf5 import check_seal, open_hdf5, path_attribute, seal, texts
from mpgls.study.sample_ids import FAMILIES_TAKEN, with_families
from mpgls.study.tables import PathLike, SampleId, index_ids, show_sample

H5_FORMAT = "mpgls-voxels"
H5_VERSION = 2
UNCHECKED = 1
"""The version that had no checksums."""
SEGMENT = 1024
"""Voxels of a person that have a checksum together: a page, so that a few voxels cost a page at most."""
_WITH_ROWS = ("voxels", "voxel_sums")
VOXELS = "voxel matrix"
"""What messages call it."""
ITEM = 4
"""Bytes of a voxel's value."""
PAGE = 4096


@dataclass(frozen=True, eq=False)
class VoxelGrid:
    """Where v voxels lie: indices i j k ``coordinates`` (v, 3) in a grid of ``shape``, whose ``affine`` gives mm."""

    shape: Sequence[int]
    affine: np.ndarray
    coordinates: np.ndarray


@dataclass(frozen=True, eq=False)
class VoxelMatrix:
    """A voxel matrix on disk. Picklable and small: rank 0 opens it and broadcasts; every rank reads what it needs.

    ``ids`` (n,) are the people in the order of the rows, ``coordinates`` (v, 3) int32 the voxel indices i j k of the
    columns, ``shape`` and ``affine`` (4, 4) those of the mask; ``values`` (n, v) are on disk.
    """

    path: str
    ids: list[SampleId] = field(repr=False)
    coordinates: np.ndarray = field(repr=False)
    shape: tuple[int, int, int]
    affine: np.ndarray = field(repr=False)
    values: CheckedRows
    mask: str = ""
    made_from: str = field(default="", repr=False)
    """What an unfinished run extracted it from; empty otherwise."""
    notes: tuple[str, ...] = ()
    """How its people were understood."""

    @property
    def summary(self) -> str:
        """One line for the log."""
        notes = [*self.notes, *self.values.notes]
        return "; ".join([f"{self.path}: {self.n:,} people x {self.v:,} voxels", *notes])

    @property
    def grid(self) -> VoxelGrid:
        """Where the voxels lie."""
        return VoxelGrid(self.shape, self.affine, self.coordinates)

    @property
    def n(self) -> int:
        """People."""
        return len(self.ids)

    @property
    def v(self) -> int:
        """Voxels."""
        return int(self.coordinates.shape[0])

    def columns(
        self, start: int, stop: int, rows: np.ndarray | None = None, dtype: DTypeLike = np.float32,
        out: np.ndarray | None = None,
    ) -> np.ndarray:  # fmt: skip
        """Voxels [start, stop) of the people ``rows`` (positions in ``ids``; None for all): (k, stop - start), C order.

        ``out`` (k, stop - start), C-contiguous, is filled and returned if it is given; its type then is the type of
        the result.

        Raises StorageError when the file cannot be read or ends early; InputError for values that changed on disk, or
        one that is not a finite number, naming the person and the voxels.
        """
        rows = np.arange(self.n) if rows is None else np.asarray(rows, dtype=np.int64)
        if not 0 <= start <= stop <= self.v or (rows.size and not 0 <= rows.min() <= rows.max() < self.n):
            raise ValueError(f"voxels {start}:{stop} or rows outside a voxel matrix of {self.n} x {self.v}")
        values = np.empty((rows.size, stop - start), dtype=dtype) if out is None else out
        self.values.read_into(values, rows, start, self._name)
        self._check_finite(values, rows, start)
        return values

    def _name(self, i: int, start: int, stop: int) -> str:
        first, last = (show_voxel(self.coordinates[j]) for j in (start, stop - 1))
        return f"the part of person {show_sample(self.ids[i])} from voxel {first} to {last}"

    def _check_finite(self, values: np.ndarray, rows: np.ndarray, start: int) -> None:
        # the sum is finite only if every value is, and takes no temporary array
        with np.errstate(over="ignore", invalid="ignore"):
            total = values.sum()
        if not np.isfinite(total) and not np.isfinite(values).all():
            k, j = np.argwhere(~np.isfinite(values))[0]
            raise InputError(
                f"{self.path}: voxel {show_voxel(self.coordinates[start + j])} of person "
                f"{show_sample(self.ids[rows[k]])} is {values[k, j]}, not a finite number"
            )


def open_voxels(path: PathLike, known: Sequence[SampleId] = ()) -> VoxelMatrix:
    """Open a voxel matrix; its numbers stay on disk. ``known`` samples give FIDs to people without.

    Raises StorageError if there is no such file; InputError for another format, a damaged file, sizes that disagree,
    a person that occurs twice and voxels outside the grid.
    """
    name = os.fspath(path)
    with open_hdf5(name, what=VOXELS) as file:
        if file.attrs.get("format") != H5_FORMAT:
            raise InputError(f"{name} is an HDF5 file, but not a voxel matrix: make one with mpgls vgwas-extract")
        if int(file.attrs.get("version", 0)) > H5_VERSION:
            raise InputError(f"{name} is of a later version of the format than this mpgls reads")
        if file.attrs["version"] != UNCHECKED:
            check_seal(file, name, *_WITH_ROWS)
        samples, coordinates = file["samples"].asstr()[...], file["coordinates"][...]
        extents, affine = file.attrs["shape"], np.array(file.attrs["affine"], dtype=np.float64)
        size, offset = file["voxels"].shape, file["voxels"].id.get_offset()
        sums = None if file.attrs["version"] == UNCHECKED else int(file["voxel_sums"].id.get_offset())
        single, mask = file["voxels"].dtype == np.dtype("<f4"), str(file.attrs.get("mask", ""))
        made_from = str(file.attrs.get("made_from", ""))
    if samples.shape != (size[0], 2) or coordinates.shape != (size[1], 3) or affine.shape != (4, 4):
        raise InputError(
            f"{name}: /voxels is {size[0]} x {size[1]}, but there are {len(samples)} people in /samples and "
            f"{len(coordinates)} voxels in /coordinates"
        )
    if offset is None or not single:
        raise InputError(f"{name}: /voxels must be stored contiguously as little-endian float32")
    shape = (int(extents[0]), int(extents[1]), int(extents[2]))
    if (coordinates < 0).any() or (coordinates >= np.array(shape)).any():
        raise InputError(f"{name}: /coordinates holds voxels outside the grid of {show_shape(shape)}")
    listed = [(fid, iid) for fid, iid in samples.tolist()]
    index_ids(listed, name)
    ids = with_families(listed, known)
    notes = (FAMILIES_TAKEN,) if ids != listed else ()
    values = CheckedRows(name, int(offset), size[0], size[1], SEGMENT, sums, "<f4")
    return VoxelMatrix(name, ids, coordinates.astype(np.int32), shape, affine, values, mask, made_from, notes)


def create_voxels(
    path: PathLike,
    ids: Sequence[SampleId],
    coordinates: np.ndarray,
    shape: Sequence[int],
    affine: np.ndarray,
    mask: str,
    made_from: str = "",
) -> CheckedRows:
    """Create a voxel matrix without its numbers; return the rows that they belong in.

    The caller writes and marks them; write under a temporary name and rename at the end. Equal arguments give equal
    bytes. Raises StorageError if the file cannot be created.
    """
    import h5py

    n, v = len(ids), int(coordinates.shape[0])
    large = min(PAGE, ITEM * n * v)
    with open_hdf5(path, "w", VOXELS, alignment_threshold=large, alignment_interval=PAGE) as file:
        file.attrs.update({"format": H5_FORMAT, "version": H5_VERSION, "mask": path_attribute(mask)})
        if made_from:
            file.attrs["made_from"] = made_from
        file.attrs["shape"] = np.asarray(shape, dtype=np.int64)
        file.attrs["affine"] = np.asarray(affine, dtype=np.float64)
        file.create_dataset("samples", data=texts(ids))
        file.create_dataset("coordinates", data=np.asarray(coordinates, dtype="<i4"))
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_layout(h5py.h5d.CONTIGUOUS)
        layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        layout.set_obj_track_times(False)
        shapes = {b"voxels": (n, v), b"voxel_sums": (-(-v // SEGMENT), n)}
        voxels, sums = (
            h5py.h5d.create(file.id, key, kind, h5py.h5s.create_simple(extents), layout).get_offset()
            for (key, extents), kind in zip(shapes.items(), (h5py.h5t.IEEE_F32LE, h5py.h5t.STD_U32LE), strict=True)
        )
        seal(file, *_WITH_ROWS)
        return CheckedRows(os.fspath(path), voxels, n, v, SEGMENT, sums, "<f4")


def show_voxel(indices: np.ndarray) -> str:
    """A voxel as messages show it: its indices i j k in brackets."""
    return "({}, {}, {})".format(*(int(k) for k in indices))


def show_shape(shape: Sequence[int]) -> str:
    """The extents of a grid or image as messages show them."""
    return " x ".join(str(int(extent)) for extent in shape)
