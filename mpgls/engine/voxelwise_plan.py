"""The plan of a voxelwise GWAS: teams, resident or streamed voxels, units of work, and the bytes a rank holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mpgls.device.nominate import PLACES, SNP_COPIES, UPLOAD
from mpgls.device.products import ALIGNED, aligned
from mpgls.errors import MemoryPlanError
from mpgls.model.mulm import TILE_BYTES, TILE_SNPS
from mpgls.run.findings import count
from mpgls.run.plan import GIB, Machine, Plan, check_team_size, first_that_fits

UNIT_FLOP, UNIT_FLOP_ON_CARD = 1e13, 5e14
"""Work of a unit, at most about this: what is lost when a run is killed."""
UNITS_A_TEAM = 4
"""Units of a team, at least, so that all teams end at about the same time."""
NARROWEST_BLOCK = 64
WIDEST_STREAMED = 4096
"""SNPs of a block when voxels are streamed: they are read once for each unit, so units should be large."""
NARROWEST_RESIDENT, FEWEST_RESIDENT = 512, 8
"""SNPs and permutations of a unit below which larger units with streamed voxels are the better use of memory."""
NARROWEST_CHUNK = 256
WIDEST_TILE, NARROWEST_TILE = 1 << 26, 1 << 16
"""Numbers of products that a card compares together: large beside the start of a kernel."""
NOMINATED, FEWEST_NOMINATED = 2.0, 1 << 12
"""Room for pairs of a permutation that a card nominates, over those that chance puts beyond the threshold; at least."""
ENTRY_BYTES = 120
"""An entry beyond the threshold: its record, copies while entries are sorted and joined, and its neighbours."""
SLACK = 48 << 20


@dataclass(frozen=True)
class VoxelwiseSizes:
    """What is to be scanned: n samples, m SNPs, v voxels, r confounds, ``permutations`` with index 0 among them.

    ``threshold`` is the share of entries that leave a tile, ``neighbours`` the columns of the neighbour table.
    ``card``: bytes of a GPU that a rank may use for the products; None for products on ranks.
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
    card: int | None = None


@dataclass(frozen=True)
class Wishes:
    """Sizes that are given, by the user or by a run that is resumed; None where the plan may choose."""

    team_size: int | None = None
    block: int | None = None
    chunk: int | None = None
    permutations: int | None = None


@dataclass(frozen=True)
class CardShare:
    """Of a chunk of ``chunk`` voxels, ``voxels`` lie on the card together, in ``stages`` of bytes.

    ``tile``: numbers of the products that are compared together; ``room``: pairs of a permutation.
    """

    chunk: int
    voxels: int
    tile: int
    room: int
    stages: dict[str, int]

    @property
    def bytes(self) -> int:
        """Bytes of a card."""
        return sum(self.stages.values())

    def text(self, team: int) -> str:
        """What lies on the card, for the plan; ``team`` ranks share the voxels."""
        sizes = ", ".join(f"{name} {size / GIB:.2f}" for name, size in self.stages.items())
        text = f"plan: at most {self.bytes / GIB:.2f} GiB of a GPU ({sizes})"
        if self.voxels < self.chunk:
            text += (
                f"; {self.voxels:,} of {self.chunk:,} voxels lie on it at a time, and are copied to it for every unit: "
                f"teams of {team * -(-self.chunk // self.voxels)} GPUs would hold them"
            )
        return text


@dataclass(frozen=True)
class VoxelwisePlan(Plan):
    """Sizes that the run keeps to. A unit is ``block`` SNPs under ``permutations`` permutations and all voxels.

    ``chunk``: voxels that a rank holds at a time. Everything is held at once, so the stages add up.
    ``on_card``: what lies on the card of a rank, if it has one.
    """

    team_size: int
    streamed: bool
    block: int
    permutations: int
    chunk: int
    precision: str
    on_card: CardShare | None = None

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
        card = f"\n{self.on_card.text(self.team_size)}" if self.on_card is not None else ""
        return (
            f"plan: {count(machine.ranks, 'rank')} in teams of {self.team_size}, voxels {voxels}; units of "
            f"{self.block:,} SNPs x {count(self.permutations, 'permutation')}\n{self.memory_text(machine)}{card}"
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
            yield VoxelwisePlan(held, team, streamed, block, indices, here, precision, _on_card(scan, block, here))


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


def _on_card(scan: VoxelwiseSizes, block: int, chunk: int) -> CardShare | None:
    """As much of a chunk and as large a tile as the card has room for. Raises MemoryPlanError."""
    if scan.card is None:
        return None
    shares = [_card_share(scan, min(block, scan.m), chunk, *sizes) for sizes in _card_sizes(chunk)]
    for share in shares:
        if share.bytes <= scan.card:
            return share
    raise MemoryPlanError(
        f"{min(block, scan.m):,} SNPs and {share.voxels:,} voxels need {share.bytes / GIB:.2f} GiB of a GPU, which has "
        f"{scan.card / GIB:.2f}: give a larger --gpu-memory or a smaller --block-size"
    )


def _card_sizes(chunk: int) -> Iterator[tuple[int, int]]:
    """(voxels, numbers of a tile) to try, the best first."""
    voxels = chunk
    while True:
        tile = WIDEST_TILE
        while tile >= NARROWEST_TILE:
            yield voxels, tile
            tile //= 4
        if voxels <= NARROWEST_CHUNK:
            return
        voxels = max(NARROWEST_CHUNK, -(-voxels // 2))


def _card_share(scan: VoxelwiseSizes, block: int, chunk: int, voxels: int, tile: int) -> CardShare:
    k, rows, v = aligned(scan.n), scan.r + block, aligned(voxels)
    tile = min(tile, rows * v)
    room = min(block * v, FEWEST_NOMINATED + int(NOMINATED * scan.threshold * block * v))
    width = max(ALIGNED, tile // rows)
    item = np.dtype(scan.dtype).itemsize
    stages = {
        "voxels": 2 * k * v + v,
        "SNPs": SNP_COPIES * 2 * k * rows + (item + 10) * min(UPLOAD, k * max(rows, v)),
        "products": 4 * tile + 8 * (scan.r + 6) * width,
        "pairs": 8 * PLACES * room,
    }
    return CardShare(chunk, voxels, tile, room, stages)


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
        at_most = UNIT_FLOP if scan.card is None else UNIT_FLOP_ON_CARD
        parts = min(permutations, max(round(flop / at_most), -(-wanted // blocks), 1))
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
