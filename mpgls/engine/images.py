"""Brain images to one voxel matrix: people are dealt to the ranks, and a rank holds one image at a time.

    Y_ij = image_i(voxel j)        i over n people, j over the v voxels inside a mask, float32

The bytes of the file are the same on any number of ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mpgls.run.log import Log
from mpgls.run.plan import Machine, Plan, first_that_fits
from mpgls.run.world import World
from mpgls.stream.voxel_rows import voxel_rows
from mpgls.study.images import ITEM, VoxelMatrix, open_voxels
from mpgls.study.nifti import ImageReader, ImageSet, Mask, open_images, read_mask
from mpgls.study.sample_ids import SampleId

if TYPE_CHECKING:
    from mpi4py import MPI

ROUND = 8
"""People of a rank between two looks at the other ranks' errors."""
SLACK = 16 << 20


@dataclass(frozen=True, eq=False)
class ImageStack:
    """Images of n people over the v voxels of a mask, opened but not read."""

    people: ImageSet
    mask: Mask

    @property
    def n(self) -> int:
        """People."""
        return len(self.people.ids)

    @property
    def v(self) -> int:
        """Voxels inside the mask."""
        return int(self.mask.inside.sum())

    @property
    def nbytes(self) -> int:
        """Bytes of the voxel matrix, with the coordinates of its voxels."""
        return (ITEM * self.n + 12) * self.v

    @property
    def held(self) -> int:
        """Bytes that a rank holds while it extracts."""
        # for each voxel of the grid the image in float64, its scaled copy and the mask; for each of the mask the row,
        # the extremes and the coordinates
        return 17 * self.mask.inside.size + 56 * self.v


def open_stack(
    images: str, image_ids: str | None, mask: str, world: World, known: Sequence[SampleId] = ()
) -> ImageStack:
    """The ``images`` of a list, or a 4-D one of the people in ``image_ids``, and the ``mask``. Collective.

    ``known`` are the samples of the genotypes, which give FIDs to people without.

    Raises InputError or StorageError, on all ranks, for whatever is wrong with a list or a header, naming the file.
    """
    region = world.on_root(lambda: read_mask(mask))
    people = world.on_root(lambda: open_images(images, image_ids, known))
    stack = ImageStack(people, region)
    world.log.info(f"{region.path}: {stack.v:,} of {region.inside.size:,} voxels are inside the mask")
    world.log.info(people.summary)
    if people.without:
        world.log.warn(f"{people.source}: left out because their path is NA: {people.without:,} people")
    return stack


def extract(stack: ImageStack, path: Path, world: World, made_from: str = "") -> VoxelMatrix:
    """Write the voxels of all images to the voxel matrix ``path``, and open it. Collective.

    ``made_from`` is the text of a mark that the file keeps, for a run that may go on with it.
    Raises InputError for whatever is wrong with an image, naming it; StorageError; Stopped; all on all ranks.
    """
    reader, extremes = ImageReader(stack.people, stack.mask), Extremes(stack.v)
    with voxel_rows(path, stack.people.ids, stack.mask, world.comm, made_from) as rows:

        def copy(i: int) -> None:
            with world.phase("read images", nbytes=stack.mask.inside.size * 4.0):
                values = reader.read(i)
            extremes.add(values)
            with world.phase("write", nbytes=values.nbytes):
                rows.write(i, values)

        each_person(stack.n, world, "images", copy)
    constant = extremes.constant(world.comm)
    if constant:
        world.log.warn(f"{constant:,} of {stack.v:,} voxels have the same value in all {stack.n:,} images")
    world.log.info(f"voxel matrix of {stack.n:,} people x {stack.v:,} voxels: {path}")
    return world.on_root(lambda: open_voxels(path))


def each_person(n: int, world: World, label: str, work: Callable[[int], None]) -> None:
    """``work(i)`` once for each person i < n, this rank's contiguous share in ascending order. Collective.

    What ``work`` raises on any rank, and a signal to stop, ends it on all of them.
    """
    mine = range(n * world.rank // world.size, n * (world.rank + 1) // world.size)
    progress = world.progress(label, n, "people")
    for start in range(0, -(-n // world.size), ROUND):
        with world.together(stop=True):
            for i in mine[start : start + ROUND]:
                work(i)
        progress.at(min(n, (start + ROUND) * world.size))


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


def check_memory(held: int, machine: Machine, log: Log) -> None:
    """Refuse a run of which a rank holds ``held`` bytes at a time, if that is more than allowed: MemoryPlanError."""
    plan = Plan({"one image at a time": machine.base + SLACK + held})
    first_that_fits(machine, [plan], lambda plan: plan.largest)
    log.info(plan.memory_text(machine))
