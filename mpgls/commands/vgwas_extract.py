"""mpgls vgwas-extract: brain images to one voxel matrix, people x voxels of a mask, that later runs read.

Y_ij = image_i(voxel j)        people dealt to the ranks, one image at a time (engine/images.py)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpgls.engine.images import check_memory, extract, open_stack
from mpgls.run.job import open_job
from mpgls.run.option_groups import RunOptions
from mpgls.run.options import option, required, the_file
from mpgls.run.results import Results

if TYPE_CHECKING:
    from mpi4py import MPI


@dataclass(frozen=True, kw_only=True)
class VgwasExtract(RunOptions):
    """Options of ``mpgls vgwas-extract``."""

    command = "vgwas-extract"
    summary = "brain images inside a mask as one voxel matrix, once, for many later runs"
    example = "mpirun -n 4 mpgls vgwas-extract --images images.tsv --mask mask.nii.gz --out brain"

    images: str = required(
        "table with header FID IID PATH, one 3-D NIfTI a person, paths relative to the table; or one 4-D NIfTI",
        group="images",
        metavar="FILE",
        reads=the_file,
    )
    image_ids: str | None = option(
        None,
        "people (FID IID a line) of a 4-D image, in its order",
        group="images",
        metavar="FILE",
        reads=the_file,
    )
    mask: str = required(
        "3-D image, not zero where voxels are analysed", group="images", metavar="NIFTI", reads=the_file
    )


def run(options: VgwasExtract, comm: MPI.Comm) -> Results:
    """Make PREFIX.h5. Collective over ``comm``. Raises MpglsError, the same on all ranks."""
    with open_job(options, comm, (".h5",)) as job:
        if job.is_complete():
            return job.results()
        stack = open_stack(options.images, options.image_ids, options.mask, job.world)
        job.identify()
        check_memory(stack.held, job.machine(), job.world.log)
        made = job.path(".h5")
        extract(stack, made, job.world)
        return job.finish({"n": stack.n, "voxels": stack.v}, files=[made])
