"""mpgls vgwas-extract: brain images to one voxel matrix, people x voxels of a mask, that later runs read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpgls.commands.common.session import RunOptions, Session
from mpgls.engine.images import check_memory, extract, open_stack
from mpgls.mpi import on_root
from mpgls.run.identity import file_identity
from mpgls.run.world import World

if TYPE_CHECKING:
    from mpi4py import MPI


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
    session.stop.advice = "run the same command again"
    world = World(comm, session.log, session.timings, session.stop)
    stack = open_stack(config.images, config.image_ids, config.mask, world)
    check_memory(stack.held, session.machine(), world.log)
    made = session.path(".h5")
    extract(stack, made, world)
    identities = on_root(comm, lambda: [file_identity(path) for path in config.files()])
    session.finish({"n": stack.n, "voxels": stack.v, "inputs": identities, "files": [str(made)]})
