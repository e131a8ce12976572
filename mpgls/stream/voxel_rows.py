"""A voxel matrix while it is made: every rank writes rows at their place, and the file gets its name when complete."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mpgls.mpi import on_root, together
from mpgls.stream.files import replaced_by_all, writing
from mpgls.study.checked_rows import CheckedRows
from mpgls.study.images import create_voxels
from mpgls.study.nifti import Mask
from mpgls.study.tables import SampleId

if TYPE_CHECKING:
    from mpi4py import MPI


class VoxelRows:
    """The rows of the file that is made, and the checksums of those that this rank wrote."""

    def __init__(self, rows: CheckedRows) -> None:
        self._rows = rows
        self._sums: dict[int, np.ndarray] = {}

    def write(self, i: int, row: np.ndarray) -> None:
        """Put ``row`` (v,) in its place as row ``i``. Raises StorageError."""
        with writing(self._rows.path):
            self._sums[i] = self._rows.put(i, row[None])

    def mark(self, comm: MPI.Comm) -> None:
        """Write the checksums of all rows, which is faster together. Collective. Raises StorageError on all ranks."""
        of_ranks = comm.gather(self._sums) or []
        with together(comm), writing(self._rows.path):
            if of_ranks:
                of_rows = {i: sums for of_rank in of_ranks for i, sums in of_rank.items()}
                self._rows.mark(0, np.hstack([of_rows[i] for i in range(self._rows.count)]))


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

        def create() -> CheckedRows:
            return create_voxels(partial, ids, coordinates, mask.shape, mask.affine, mask.path, made_from)

        rows = VoxelRows(on_root(comm, create))
        yield rows
        rows.mark(comm)
