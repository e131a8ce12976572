"""mpgls vgwas-extract: brain images to one voxel matrix, people x voxels of a mask, that later runs read.

    Y_ij = image_i(voxel j)        i over people, j over the voxels inside the mask, float32

People are dealt to the ranks in contiguous ranges; a rank reads one image at a time and writes its row at its place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mpgls.commands.common.session import RunOptions, Session
from mpgls.mpi import agree, on_root
from mpgls.run.identity import file_identity
from mpgls.run.log import Progress
from mpgls.run.plan import GIB, does_not_fit
from mpgls.stream.voxel_rows import voxel_rows
from mpgls.study.images import VoxelMatrix, open_voxels
from mpgls.study.nifti import ImageReader, ImageSet, Mask, open_images, read_mask

if TYPE_CHECKING:
    from mpi4py import MPI

ROUND = 8
"""People of a rank between two looks at the other ranks' errors."""
SLACK = 16 << 20


@dataclass(frozen=True)
class VgwasExtractConfig:
    """Options of ``mpgls vgwas-extract``: a list of images, or a 4-D one with ``image_ids``; and the mask."""

    run: RunOptions
    images: str
    mask: str
    image_ids: str | None = None

    def files(self) -> list[str]:
        """The files that the command line names."""
        return [self.images, self.mask, *([self.image_ids] if self.image_ids else [])]


def run(config: VgwasExtractConfig, comm: MPI.Comm) -> None:
    """Make PREFIX.h5. Collective over ``comm``. Raises MpglsError, the same on all ranks."""
    session = Session("vgwas-extract", config.run, comm, (".h5",), config.files())
    made = session.path(".h5")
    matrix = extract(config.images, config.image_ids, config.mask, made, comm, session)
    identities = on_root(comm, lambda: [file_identity(path) for path in config.files()])
    session.finish({"n": matrix.n, "voxels": matrix.v, "inputs": identities, "files": [str(made)]})


def extract(
    images: str, image_ids: str | None, mask: str, path: Path | str, comm: MPI.Comm, session: Session
) -> VoxelMatrix:
    """Write the voxels of all images inside ``mask`` to the voxel matrix ``path``, and open it. Collective.

    Raises InputError for whatever is wrong with an image, naming it; StorageError; MemoryPlanError; all on all ranks.
    """
    with session.timings.phase("open and check"):
        region = on_root(comm, lambda: read_mask(mask))
        people = on_root(comm, lambda: open_images(images, image_ids))
    n, v = len(people.ids), int(region.inside.sum())
    _describe(people, region, session)
    # for each voxel of the grid the image in float64, its scaled copy and the mask; for each of the mask the row, the
    # extremes and the coordinates
    check_memory(17 * region.inside.size + 56 * v, session)
    reader, extremes = ImageReader(people, region), Extremes(v)
    with voxel_rows(Path(path), people.ids, region, comm) as rows:

        def copy(i: int) -> None:
            with session.timings.phase("read images", nbytes=region.inside.size * 4.0):
                values = reader.read(i)
            extremes.add(values)
            with session.timings.phase("write", nbytes=values.nbytes):
                rows.write(i, values)

        each_person(n, comm, session, "images", copy)
    constant = extremes.constant(comm)
    if constant:
        session.log.warn(f"{constant:,} of {v:,} voxels have the same value in all {n:,} images")
    session.log.info(f"voxel matrix of {n:,} people x {v:,} voxels: {path}")
    return on_root(comm, lambda: open_voxels(path))


def each_person(n: int, comm: MPI.Comm, session: Session, label: str, work: Callable[[int], None]) -> None:
    """``work(i)`` once for each person i < n, this rank's contiguous share in ascending order. Collective.

    What ``work`` raises on any rank, and a signal to stop, ends it on all of them.
    """
    mine = range(n * comm.rank // comm.size, n * (comm.rank + 1) // comm.size)
    progress = Progress(session.log, label, n, "people")
    for start in range(0, -(-n // comm.size), ROUND):
        error = None
        try:
            for i in mine[start : start + ROUND]:
                work(i)
        except Exception as caught:
            error = caught
        agree(comm, error or session.stop.problem("run the same command again"))
        progress.at(min(n, (start + ROUND) * comm.size))


class Extremes:
    """The smallest and largest value of each of v voxels over the images so far, to tell which never vary."""

    def __init__(self, v: int) -> None:
        self.low, self.high = np.full(v, np.inf, dtype=np.float32), np.full(v, -np.inf, dtype=np.float32)

    def add(self, values: np.ndarray) -> None:
        """One more image, (v,)."""
        np.minimum(self.low, values, out=self.low)
        np.maximum(self.high, values, out=self.high)

    def constant(self, comm: MPI.Comm) -> int:
        """Voxels with a single value over the images of all ranks. Collective."""
        from mpi4py import MPI

        comm.Allreduce(MPI.IN_PLACE, self.low, op=MPI.MIN)
        comm.Allreduce(MPI.IN_PLACE, self.high, op=MPI.MAX)
        return int(np.count_nonzero(self.low == self.high))


def _describe(people: ImageSet, mask: Mask, session: Session) -> None:
    inside = int(mask.inside.sum())
    session.log.info(f"{mask.path}: {inside:,} of {mask.inside.size:,} voxels are inside the mask")
    session.log.info(f"{people.source}: images of {len(people.ids):,} people")
    if people.without:
        session.log.warn(f"{people.source}: left out because their path is NA: {people.without:,} people")


def check_memory(held: int, session: Session) -> None:
    """Refuse a run of which a rank holds ``held`` bytes at a time, if that is more than allowed. Collective."""
    machine = session.machine()
    need = machine.base + SLACK + held
    session.log.info(f"plan: one image at a time on each of {machine.ranks} ranks, at most {need / GIB:.2f} GiB a rank")
    if machine.limit and need > machine.limit:
        raise does_not_fit(machine, "one image at a time", need)
