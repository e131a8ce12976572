"""mpgls vgwas-extract: brain images to one voxel matrix, people x voxels of a mask, that later runs read.

Y_ij = image_i(voxel j)        people dealt to the ranks, one image at a time (engine/images.py)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpgls.engine.images import check_memory, extract, open_stack
from mpgls.run.job import open_job
from mpgls.run.option_groups import RunOptions
from mpgls.run.options import required_here
from mpgls.run.results import Results
from mpgls.run.study_options import ImageOptions

if TYPE_CHECKING:
    from mpi4py import MPI


@dataclass(frozen=True, kw_only=True)
class VgwasExtract(ImageOptions, RunOptions):
    """Options of ``mpgls vgwas-extract``."""

    command = "vgwas-extract"
    summary = "brain images inside a mask as one voxel matrix, once, for many later runs"
    example = "mpirun -n 4 mpgls vgwas-extract --images images.tsv --mask mask.nii.gz --out brain"

    images: str = required_here(ImageOptions, "images")
    mask: str = required_here(ImageOptions, "mask")


def run(options: VgwasExtract, comm: MPI.Comm) -> Results:
    """Make PREFIX.h5. Collective over ``comm``. Raises MpglsError, the same on all ranks."""
    with open_job(options, comm, (".h5",)) as job:
        if job.is_complete():
            return job.results()
        with job.world.phase("open and check"):
            stack = open_stack(options.images, options.image_ids, options.mask, job.world)
            job.identify()
            job.check_room({".h5": stack.nbytes})
            check_memory(stack.held, job.machine(), job.world.log)
        made = job.path(".h5")
        with job.world.phase("write"):
            extract(stack, made, job.world)
        return job.finish({"n": stack.n, "voxels": stack.v}, files=[made])
