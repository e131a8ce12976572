"""Brain images: the user's mask, list of 3-D images or 4-D image, read one person at a time; and images to write.

Anything that nibabel reads will do. Voxel indices i j k are those of the file, millimetres those of its affine.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np

from mpgls.errors import InputError, StorageError, UsageError
from mpgls.study.images import show_shape, show_voxel
from mpgls.study.regular import check_regular
from mpgls.study.tables import MISSING, PathLike, SampleId, SampleTable, index_ids, read_ids, show_sample

PATH_COLUMN = "PATH"
AFFINE_TOLERANCE = 1e-4
"""Largest difference between an entry of an image's affine and of the mask's, in mm."""
_CHUNK = 1 << 20
_ALIGNED = 2
"""NIfTI-1's code of an affine to the coordinates of another image: here that of the mask."""


class Intent(IntEnum):
    """What the values of an image are: NIfTI-1's codes."""

    NONE = 0
    LOG10PVAL = 24
    LABEL = 1002


@dataclass(frozen=True, eq=False)
class Mask:
    """The voxels that are analysed: ``inside`` (shape) bool, and ``affine`` (4, 4) from indices to millimetres."""

    path: str
    inside: np.ndarray = field(repr=False)
    affine: np.ndarray = field(repr=False)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels of the grid along its three axes."""
        i, j, k = self.inside.shape
        return i, j, k

    @property
    def coordinates(self) -> np.ndarray:
        """(v, 3) int32: indices of the voxels inside, in C order."""
        return np.argwhere(self.inside).astype(np.int32)


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Which image is whose: ``paths`` has one file a person, or a single 4-D file whose volumes follow ``ids``.

    ``without`` counts the people of the list whose path is missing (NA); they are not among ``ids``. ``notes`` say how
    the list was understood.
    """

    source: str
    ids: list[SampleId] = field(repr=False)
    paths: tuple[str, ...] = field(repr=False)
    volumes: bool = False
    without: int = 0
    notes: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """One line for the log: how the list of people was understood."""
        what = f"{self.source}: {len(self.ids):,} people with an image, {self.without:,} without"
        return "; ".join([what, *self.notes])


def read_mask(path: PathLike) -> Mask:
    """The mask of a 3-D image: its voxels that are finite and not zero.

    Raises InputError for a file that is no image, not 3-D, without an affine that can be inverted, or without a voxel
    inside; StorageError if there is none.
    """
    name = os.fspath(path)
    if not os.path.exists(name):
        raise StorageError(f"cannot read the mask {name}: there is no such file")
    with _Image(name) as image:
        shape, affine = _grid(image.shape), image.affine
        if len(shape) != 3:
            raise InputError(f"the mask {name} is {show_shape(image.shape)}, not an image of three dimensions")
        if not np.isfinite(affine).all() or np.linalg.det(affine[:3, :3]) == 0:
            raise InputError(f"the affine of the mask {name} does not map its voxels one to one to millimetres")
        values = image.read(name, ..., last=True).reshape(shape)
    inside = np.isfinite(values) & (values != 0)
    if not inside.any():
        raise InputError(f"the mask {name} is empty: none of its {inside.size:,} voxels is finite and not zero")
    return Mask(name, inside, affine)


def open_images(
    images: PathLike, image_ids: PathLike | None = None, known: Sequence[SampleId] | None = None
) -> ImageSet:
    """The images of a LIST, a table FID IID PATH with paths relative to its own folder; or those of one 4-D image.

    ``image_ids`` names the people of a 4-D image, FID and IID a line, in the order of its volumes. ``known`` are
    samples that give FIDs to a list without.

    Raises InputError, with the line, for a list that is malformed, names a person twice or a file that is not there;
    and for a 4-D image that does not fit its people. UsageError for an image without ``image_ids``, or the reverse.
    """
    name = os.fspath(images)
    is_image = name.endswith((".nii", ".nii.gz"))
    if is_image and image_ids is None:
        raise UsageError(f"{name} is one image: name the people of its volumes with --image-ids, or give a list")
    if image_ids is None:
        return _read_list(name, known)
    if not is_image:
        raise UsageError(f"--image-ids is for one 4-D image .nii or .nii.gz; {name} names its people itself")
    return _open_volumes(name, os.fspath(image_ids), known)


class ImageReader:
    """Reads the images of an `ImageSet` inside a mask, one person at a time."""

    def __init__(self, images: ImageSet, mask: Mask) -> None:
        self._images, self._mask = images, mask
        self._volumes: _Image | None = None

    def read(self, k: int) -> np.ndarray:
        """Image of person ``k``: (v,) float32, the voxels inside the mask in C order.

        Raises InputError for an image that cannot be read, whose shape or affine is not the mask's, or that has a
        voxel inside the mask that is not finite, which is named.
        """
        path = self._images.paths[0 if self._images.volumes else k]
        whose = f"{path} (person {show_sample(self._images.ids[k])})"
        if self._images.volumes:
            # one open file, so that a compressed one is unpacked once, from front to back
            self._volumes = self._volumes or _Image(path)
            _check_grid(whose, self._volumes.shape[:3], self._volumes.affine, self._mask)
            values = self._volumes.read(whose, (..., k), last=k == len(self._images.ids) - 1)
        else:
            with _Image(path) as image:
                _check_grid(whose, _grid(image.shape), image.affine, self._mask)
                values = image.read(whose, ..., last=True)
        inside = values.reshape(self._mask.shape)[self._mask.inside]
        with np.errstate(over="ignore"):
            inside = inside.astype(np.float32)
        self._check_finite(whose, inside)
        return inside

    def _check_finite(self, whose: str, inside: np.ndarray) -> None:
        if np.isfinite(inside).all():
            return
        at = np.flatnonzero(~np.isfinite(inside))
        voxel = np.argwhere(self._mask.inside)[at[0]]
        more = f" (and {at.size - 1:,} more voxels)" if at.size > 1 else ""
        raise InputError(f"{whose}: voxel {show_voxel(voxel)} inside the mask is {inside[at[0]]}{more}")


def write_image(path: Path, values: np.ndarray, affine: np.ndarray, intent: Intent = Intent.NONE) -> None:
    """Write the 3-D ``values`` as NIfTI ``path`` (compressed if it ends in .gz), complete or not at all.

    ``affine`` (4, 4) is the image's sform, and its qform as well unless it shears, which a qform cannot. Equal
    arguments give equal bytes. Raises StorageError.
    """
    import gzip

    image = _nibabel().Nifti1Image(values, affine)
    image.set_qform(affine, code=_ALIGNED)
    if not np.allclose(image.get_qform(), affine, atol=1e-4):
        image.set_qform(None, code=0)
    image.header.set_intent(int(intent))
    data = image.to_bytes()
    if path.suffix == ".gz":
        data = gzip.compress(data, compresslevel=1, mtime=0)
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from None


def _read_list(name: str, known: Sequence[SampleId] | None) -> ImageSet:
    table = SampleTable(name, known, who="person", wanted=PATH_COLUMN)
    if PATH_COLUMN not in table.header:
        raise InputError(f"{name}: the header has no column {PATH_COLUMN}; it names {', '.join(table.header)}")
    column, folder = table.header.index(PATH_COLUMN), Path(name).parent
    paths: dict[SampleId, str] = {}
    without = 0
    for number, sample, fields in table:
        if fields[column] in MISSING:
            without += 1
            continue
        path = str(folder / fields[column])
        if not os.path.exists(path):
            raise InputError(f"{name}, line {number}: there is no image {path} for person {show_sample(sample)}")
        paths[sample] = path
    if not paths:
        raise InputError(f"{name} names no image")
    return ImageSet(name, list(paths), tuple(paths.values()), without=without, notes=table.notes)


def _open_volumes(name: str, image_ids: str, known: Sequence[SampleId] | None) -> ImageSet:
    if not os.path.exists(name):
        raise StorageError(f"cannot read the images {name}: there is no such file")
    people = read_ids(image_ids, known)
    ids = people.ids
    with _Image(name) as image:
        shape = image.shape
    if len(shape) != 4:
        raise InputError(f"{name} is {show_shape(shape)}, not an image of four dimensions, the last the people")
    index_ids(ids, image_ids)
    if shape[3] != len(ids):
        raise InputError(f"{name} has {shape[3]} volumes, but {image_ids} lists {len(ids)} people")
    return ImageSet(name, ids, (name,), volumes=True, notes=people.notes)


class _Image:
    """An open image, of which only the header has been read; InputError if that is not possible.

    nibabel stops before the check sum at the end of a compressed file, so such a file is read through ``_stream``.
    """

    def __init__(self, path: str) -> None:
        import gzip

        check_regular(path)
        self._stream: Any = None
        nibabel = _nibabel()
        try:
            self._image = nibabel.load(path)
            if path.endswith(".nii.gz"):
                self._stream = gzip.open(path)  # noqa: SIM115, closed by __exit__
                self._image = type(self._image).from_stream(self._stream)
        except Exception as error:  # a damaged file fails in as many ways as there are formats
            raise InputError(f"{path} is not an image that nibabel can read: {_sentence(error)}") from None
        self.shape = tuple(int(extent) for extent in self._image.shape)
        affine = getattr(self._image, "affine", None)
        if affine is None or len(self.shape) < 3:
            raise InputError(f"{path} is not a brain image: it has no affine or fewer than three dimensions")
        self.affine = np.asarray(affine, dtype=np.float64)

    def __enter__(self) -> _Image:
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.close()

    def read(self, whose: str, index: Any, last: bool) -> np.ndarray:
        """The numbers at ``index``, scaled as the header says; with ``last`` the check sum too. Raises InputError."""
        try:
            values = np.asarray(self._image.dataobj[index])
            while last and self._stream is not None and self._stream.read(_CHUNK):
                pass
        except Exception as error:  # the errors of zlib, gzip, mmap and NumPy
            raise InputError(f"{whose} is damaged or truncated: {_sentence(error)}") from None
        if values.dtype.kind not in "biuf":
            raise InputError(f"{whose} holds {values.dtype} values, not one real number a voxel")
        return values


def _nibabel() -> Any:
    try:
        import nibabel
    except ImportError:
        raise UsageError("brain images need the Python package nibabel: pip install 'mpgls[images]'") from None
    return nibabel


def _grid(shape: Sequence[int]) -> tuple[int, ...]:
    """The extents of an image without last ones of 1, as some programs write them; at least three."""
    extents = tuple(int(extent) for extent in shape)
    while len(extents) > 3 and extents[-1] == 1:
        extents = extents[:-1]
    return extents


def _check_grid(whose: str, shape: Sequence[int], affine: np.ndarray, mask: Mask) -> None:
    if tuple(shape) != mask.shape:
        raise InputError(f"{whose} is {show_shape(shape)} voxels, but the mask {mask.path} {show_shape(mask.shape)}")
    difference = float(np.abs(np.asarray(affine, dtype=np.float64) - mask.affine).max())
    # not <=, so that a NaN is refused too
    if not difference <= AFFINE_TOLERANCE:
        raise InputError(
            f"{whose} lies elsewhere than the mask {mask.path}: their affines differ by up to {difference:.4g}; "
            "resample the image to the mask's grid"
        )


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
