"""The voxels of a voxelwise GWAS as the teams hold them: unit residuals R_Y on the confounds, resident or streamed.

R_Y = (I - Z_w'Z_w) Y, every voxel scaled to length 1         ([vGWAS] Da Mota et al., Algorithm 2.1)
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from mpgls.engine.voxelwise_plan import VoxelwisePlan
from mpgls.la.shared import SharedArray, split_node
from mpgls.la.teams import Team
from mpgls.model.mulm import CONSTANT_VOXEL, unit_residuals, whiten
from mpgls.run.world import World
from mpgls.study.voxel_study import VoxelStudy

READ_BYTES = 32 << 20
"""Values that are read together while residuals are made."""


class Chunk(NamedTuple):
    """Voxels of a team's rank from ``first`` on: unit residuals (w, n) and their lengths before scaling (w,)."""

    first: int
    R_Y_team: np.ndarray
    lengths_team: np.ndarray


class TeamVoxels:
    """This rank's share of the voxels of its team, as chunks of unit residuals; iterating is no communication.

    Resident voxels are one chunk, made once; in teams of one rank the ranks of a node share it. Streamed voxels are
    read and made anew in each pass, the next chunk being read by a thread while this one is worked on. ``Z_w_rep``
    (r, n) is an orthonormal basis of the confounds. Making and closing it are collective over ``world``; InputError or
    StorageError from the voxels' file, MemoryPlanError without room in shared memory.
    """

    def __init__(self, voxels: VoxelStudy, plan: VoxelwisePlan, team: Team, world: World) -> None:
        self.voxels, self.team, self.world = voxels, team, world
        self.dtype, self.chunk = plan.dtype, plan.chunk
        self.Z_w_rep = whiten(voxels.Z)
        self.first = voxels.v * team.comm.rank // team.comm.size
        self.stop = voxels.v * (team.comm.rank + 1) // team.comm.size
        self._untestable = np.zeros(self.stop - self.first, dtype=bool)
        self._shared: list[SharedArray] = []
        self._resident: Chunk | None = None
        if not plan.streamed:
            self._resident = self._load()

    def __iter__(self) -> Iterator[Chunk]:
        if self._resident is not None:
            self._untestable[:] = self._resident.lengths_team == 0
            yield self._resident
            return
        R_Y: np.ndarray = np.empty((self.chunk, self.voxels.n), dtype=self.dtype)
        for first, values in self._stream(self.first, self.stop, self.chunk):
            here = R_Y[: len(values)]
            lengths = self._residuals(values, here)
            self._untestable[first - self.first : first - self.first + len(values)] = lengths == 0
            yield Chunk(first, here, lengths)

    def _stream(self, start: int, stop: int, step: int) -> Iterator[tuple[int, np.ndarray]]:
        """(first, voxels (w, n)) of consecutive chunks, read one ahead."""
        ranges = [(first, min(first + step, stop)) for first in range(start, stop, step)]
        with ThreadPoolExecutor(1) as reader:
            ahead = [reader.submit(self.voxels.read, *one) for one in ranges[:1]]
            for k, (first, _) in enumerate(ranges):
                with self.world.phase("read voxels (waiting)") as reading:
                    values = ahead.pop().result()
                    reading.nbytes += values.nbytes
                ahead = [reader.submit(self.voxels.read, *one) for one in ranges[k + 1 : k + 2]]
                yield first, values

    def _residuals(self, values: np.ndarray, out: np.ndarray) -> np.ndarray:
        with self.world.phase("residuals of voxels"):
            return unit_residuals(values, self.Z_w_rep, out, CONSTANT_VOXEL)

    def _load(self) -> Chunk:
        """The whole share; the ranks of a node make it together where they share it. Collective."""
        size, n, team = self.stop - self.first, self.voxels.n, self.team.comm
        node = split_node(self.world.comm) if team.size == 1 else team.Split(team.rank)
        R_Y_node = SharedArray(node, (n, size), self.dtype, "voxel matrix")
        lengths_node = SharedArray(node, (size,), np.float64, "voxel matrix")
        self._shared = [R_Y_node, lengths_node]
        R_Y, lengths = R_Y_node.array.T, lengths_node.array
        start, stop = (size * k // node.size for k in (node.rank, node.rank + 1))
        with self.world.together():
            for first, values in self._stream(self.first + start, self.first + stop, max(1, READ_BYTES // (4 * n))):
                at = slice(first - self.first, first - self.first + len(values))
                lengths[at] = self._residuals(values, R_Y[at])
        R_Y_node.fence()
        return Chunk(self.first, R_Y, lengths)

    def constant(self) -> np.ndarray:
        """int32: this rank's voxels that do not vary beside the confounds, once all have been seen."""
        return (self.first + np.flatnonzero(self._untestable)).astype(np.int32)

    def close(self) -> None:
        """Give shared memory back. Collective over the node."""
        self._resident = None
        for one in self._shared:
            one.close()
