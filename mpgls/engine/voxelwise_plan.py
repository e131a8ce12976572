"""The plan of a voxelwise GWAS: teams, resident or streamed voxels, units of work, and the bytes a rank holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mpgls.model.mulm import TILE_BYTES, TILE_SNPS
from mpgls.run.plan import Machine, Plan, check_team_size, first_that_fits

UNIT_FLOP = 1e13
"""Work of a unit, at most about this: what is lost when a run is killed."""
UNITS_A_TEAM = 4
"""Units of a team, at least, so that all teams end at about the same time."""
NARROWEST_BLOCK = 64
WIDEST_STREAMED = 4096
"""SNPs of a block when voxels are streamed: they are read once for each unit, so units should be large."""
NARROWEST_RESIDENT, FEWEST_RESIDENT = 512, 8
"""SNPs and permutations of a unit below which larger units with streamed voxels are the better use of memory."""
NARROWEST_CHUNK = 256
ENTRY_BYTES = 120
"""An entry beyond the threshold: its record, copies while entries are sorted and joined, and its neighbours."""
SLACK = 48 << 20


@dataclass(frozen=True)
class VoxelwiseSizes:
    """What is to be scanned: n samples, m SNPs, v voxels, r confounds, ``permutations`` with index 0 among them.

    ``threshold`` is the share of entries that leave a tile, ``neighbours`` the columns of the neighbour table.
    """

    n: int
    m: int
    v: int
    r: int
    permutations: int
    threshold: float
    snp_bytes: int
    neighbours: int
    dtype: type


@dataclass(frozen=True)
class Wishes:
    """Sizes that are given, by the user or by a run that is resumed; None where the plan may choose."""

    team_size: int | None = None
    block: int | None = None
    chunk: int | None = None
    permutations: int | None = None


@dataclass(frozen=True)
class VoxelwisePlan(Plan):
    """Sizes that the run keeps to. A unit is ``block`` SNPs under ``permutations`` permutations and all voxels.

    ``chunk``: voxels that a rank holds at a time. Everything is held at once, so the stages add up.
    """

    team_size: int
    streamed: bool
    block: int
    permutations: int
    chunk: int
    precision: str

    @property
    def dtype(self) -> type:
        """Element type of the products."""
        return np.float64 if self.precision == "double" else np.float32

    @property
    def peak(self) -> int:
        """Bytes a rank holds at most."""
        return sum(self.stages.values())

    def text(self, machine: Machine) -> str:
        """The plan as it stands in the log."""
        voxels = f"streamed in chunks of {self.chunk:,}" if self.streamed else "resident"
        return (
            f"plan: {machine.ranks} ranks in teams of {self.team_size}, voxels {voxels}; units of {self.block:,} SNPs "
            f"x {self.permutations:,} permutations\n{self.memory_text(machine)}"
        )


def plan_voxelwise(machine: Machine, scan: VoxelwiseSizes, wishes: Wishes) -> VoxelwisePlan:
    """The first candidate that fits. Raises MemoryPlanError that names what would, UsageError."""
    return first_that_fits(
        machine,
        candidates(machine, scan, wishes),
        lambda plan: f"a scan of {scan.n:,} samples and {scan.v:,} voxels, streamed in chunks of {plan.chunk:,},",
    )


def candidates(machine: Machine, scan: VoxelwiseSizes, wishes: Wishes) -> Iterator[VoxelwisePlan]:
    """Plans, the best first.

    Voxels stay resident, once a node, where they fit; otherwise the ranks of a team hold them together; otherwise, or
    where a chunk is given, they are streamed. Raises UsageError for a team of more ranks than there are.
    """
    check_team_size(wishes.team_size, machine)
    precision = "double" if np.dtype(scan.dtype).itemsize == 8 else "mixed"
    for team, streamed, here in _layouts(machine.ranks, scan.v, wishes.team_size, wishes.chunk):
        for block, indices in _units(machine.ranks // team, streamed, scan, wishes):
            held = _held(machine, scan, (team, streamed, block, indices, here))
            yield VoxelwisePlan(held, team, streamed, block, indices, here, precision)


def _held(machine: Machine, scan: VoxelwiseSizes, sizes: tuple[int, bool, int, int, int]) -> dict[str, int]:
    """Bytes of a rank by what they are for."""
    (team, streamed, block, indices, here), item = sizes, np.dtype(scan.dtype).itemsize
    resident = item * scan.n * here // (machine.ranks_per_node if team == 1 else 1)
    voxels = (item + 2 * 4) * scan.n * here if streamed else resident + 2 * (32 << 20)
    return {
        "program": machine.base + SLACK + 2 * TILE_BYTES,
        "voxels": voxels + scan.v * (8 + 12 + 4 * scan.neighbours),
        "SNPs": block * (scan.n * (8 + 2 * item) + 2 * scan.snp_bytes),
        "entries": int(ENTRY_BYTES * (1.5 * scan.threshold * block * indices * scan.v / team + 1000)),
    }


def _layouts(ranks: int, v: int, team_size: int | None, chunk: int | None) -> Iterator[tuple[int, bool, int]]:
    """(team, streamed, voxels of a rank at a time) to try, the best first."""
    teams = [team_size] if team_size else list(range(1, ranks + 1))
    if chunk is None:
        for team in teams:
            yield team, False, -(-v // (ranks // (ranks // team)))
    team = team_size or 1
    share = -(-v // team)
    sizes = [min(share, chunk)] if chunk else []
    while not chunk and (not sizes or sizes[-1] > NARROWEST_CHUNK):
        sizes.append(max(min(share, NARROWEST_CHUNK), min(share, sizes[-1] // 2 if sizes else share // 2)))
        if sizes[-1] == share:
            break
    for size in sizes:
        yield team, True, size


def _units(teams: int, streamed: bool, scan: VoxelwiseSizes, wishes: Wishes) -> list[tuple[int, int]]:
    """(SNPs, permutations) of a unit to try, the best first: enough units for all teams, then fewer entries each."""
    m, permutations, block, indices = scan.m, scan.permutations, wishes.block, wishes.permutations
    wanted = UNITS_A_TEAM * teams
    blocks = -(-m // (block or (WIDEST_STREAMED if streamed else TILE_SNPS)))
    if streamed and block is None:
        blocks = max(blocks, min(teams, -(-m // NARROWEST_BLOCK)))
        parts = 1
    else:
        flop = 2.0 * scan.n * scan.v * -(-m // blocks) * permutations
        parts = min(permutations, max(round(flop / UNIT_FLOP), -(-wanted // blocks), 1))
        if blocks * parts < wanted and block is None:
            blocks = max(blocks, min(-(-wanted // parts), -(-m // NARROWEST_BLOCK)))
    width = block or -(-m // blocks)
    tried = [(width, indices or -(-permutations // parts))]
    fewest, narrowest = (1, NARROWEST_BLOCK) if streamed else (FEWEST_RESIDENT, NARROWEST_RESIDENT)
    while tried[-1][1] > fewest and not indices:
        tried.append((width, -(-tried[-1][1] // 2)))
    while tried[-1][0] > narrowest and not block:
        tried.append((-(-tried[-1][0] // 2), tried[-1][1]))
    return tried
