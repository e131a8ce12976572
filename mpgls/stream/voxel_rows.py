"""A voxel matrix while it is made: every rank writes rows at their place, and the file gets its name when complete."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mpgls.mpi import on_root, together
from mpgls.stream.files import replaced_by_all, write_at, writing
from mpgls.study.images import ITEM, create_voxels
from mpgls.study.nifti import Mask
from mpgls.study.tables import SampleId

if TYPE_CHECKING:
    from mpi4py import MPI


class VoxelRows:
    """The open file, at byte ``offset`` of which the rows of ``v`` float32 begin."""

    def __init__(self, file: int, path: Path, offset: int, v: int) -> None:
        self._file, self._path, self._offset, self._v = file, path, offset, v

    def write(self, i: int, row: np.ndarray) -> None:
        """Put ``row`` (v,) in its place as row ``i``. Raises StorageError."""
        with writing(self._path):
            write_at(self._file, np.ascontiguousarray(row, dtype="<f4").data, self._offset + ITEM * self._v * i)


@contextlib.contextmanager
def voxel_rows(
    path: Path, ids: Sequence[SampleId], mask: Mask, comm: MPI.Comm, made_from: str = ""
) -> Iterator[VoxelRows]:
    """Make the voxel matrix ``path`` of the people ``ids`` over ``mask``; the body writes every row once, on any rank.

    Collective. The body must end alike on all ranks. Until it has, and all rows are on disk, the file has another
    name; if the body raises, it is removed. Raises StorageError on all ranks.
    """
    coordinates = mask.coordinates
    with replaced_by_all(comm, path) as partial:

        def create() -> int:
            return create_voxels(partial, ids, coordinates, mask.shape, mask.affine, mask.path, made_from)

        offset, file = on_root(comm, create), -1
        try:
            with together(comm), writing(partial):
                file = os.open(partial, os.O_WRONLY)
            yield VoxelRows(file, partial, offset, coordinates.shape[0])
        finally:
            if file >= 0:
                os.close(file)
