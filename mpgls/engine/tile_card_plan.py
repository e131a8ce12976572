"""The plan of a multi-trait scan on GPUs: what lies on each card, and what on the host."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mpgls.device.card import Card
from mpgls.device.operator import panel_height
from mpgls.device.parts import PRECISIONS, STRIP, Double
from mpgls.device.products import aligned
from mpgls.engine.device_blocks import OnCard
from mpgls.engine.device_plan import WIDER, CardSizes, card_sizes
from mpgls.engine.scan_plan import ScanSizes
from mpgls.engine.team_solvers import MESSAGES
from mpgls.engine.tile_plan import (
    NODES,
    PANEL,
    TilePlan,
    Tiles,
    TileSizes,
    TileWishes,
    decomposition_bytes,
    histogram_bytes,
    panel_widths,
    rotation_bytes,
)
from mpgls.errors import MemoryPlanError
from mpgls.la.layout import grid_shape
from mpgls.model.products import ROWS
from mpgls.run.findings import count
from mpgls.run.plan import GIB, NARROWEST, Machine, block_widths, check_team_size, does_not_fit, grid_block
from mpgls.study.genotype_files import Genotypes

OF_SPLIT = 40
"""Bytes of a number of X~ while it is split into parts."""
OF_TILE = 12
"""Arrays of a strip of traits and a block of SNPs that are there at the same time, about."""


@dataclass(frozen=True)
class CardTilePlan(TilePlan):
    """A `TilePlan` of teams of GPUs. ``on_card``: bytes of a card, by what they are for.

    ``room``: bytes for the basis, and for rows of traits; ``streamed``: bytes of the basis that do not fit, and
    ``enough``: ranks that hold it.
    """

    on_card: dict[str, int]
    room: tuple[int, int]
    streamed: int
    enough: int

    def text(self, machine: Machine, traits: int) -> str:
        """The plan as it stands in the log."""
        sizes = ", ".join(f"{name} {size / GIB:.2f}" for name, size in self.on_card.items())
        whole = f"{super().text(machine, traits)}\nplan: at most {sum(self.on_card.values()) / GIB:.2f} GiB of a GPU"
        text = f"{whole} ({sizes})"
        if self.streamed:
            text += (
                f"; {self.streamed / GIB:.2f} GiB of the basis do not fit and are copied to it for every block: "
                f"teams of {self.enough} GPUs would hold it"
            )
        return text

    def passes_text(self, passes: int) -> str:
        """How often the SNPs are gone through."""
        return "one pass over the SNPs" if passes == 1 else f"{passes} passes over the SNPs, which rotate them anew"


@dataclass(frozen=True)
class CardTileSizes:
    """A scan on cards: its sizes, and those of its basis and of genotypes on ``cards``."""

    tiles: TileSizes
    cards: CardSizes

    @classmethod
    def of(cls, sizes: TileSizes, precision: str, limit: int, bed: Genotypes) -> CardTileSizes:
        """Of the genotypes ``bed``, on cards of which ``limit`` bytes may be used each."""
        scan = ScanSizes(sizes.n, sizes.m, sizes.q + 1, sizes.snp_bytes, sizes.item, basis=True)
        return cls(sizes, card_sizes(scan, precision, limit, bed))

    @property
    def precision(self) -> Double:
        """Of the products."""
        return self.cards.precision

    def trait(self) -> int:
        """Bytes of a trait: its row, and what is kept of its tiles."""
        row = aligned(self.tiles.n) * self.precision.count * self.precision.kind.itemsize
        return row + histogram_bytes(self.tiles.n) + (NODES + 8) * self.precision.sums.itemsize

    def rotated(self, team: int, width: int) -> int:
        """Bytes of X~, of a team's columns and of one's own, in parts too, and of what the split takes."""
        n, parts = self.tiles.n, self.precision.count * self.precision.kind.itemsize
        own = aligned(width)
        columns = own if team == 1 else own + -(-aligned(team * width) // team)
        return n * (columns * self.precision.sums.itemsize + own * parts + OF_SPLIT * min(STRIP, own))

    def tile(self, width: int, panel: int, resident: int) -> int:
        """Bytes of the tiles of a strip, and of the sums at the nodes of h2 of all panels."""
        each = (OF_TILE + 5) * self.precision.sums.itemsize
        nodes = 8 * -(-resident // panel) * NODES * (1 + self.tiles.q)
        return (
            panel_height(panel) * width * each
            + nodes * (self.tiles.n + 2 * width)
            + 16 * min(ROWS, self.tiles.n) * width
        )


def basis_on_card(card: Card, plan: TilePlan, precision: str) -> tuple[OnCard, int]:
    """How a scan that keeps to ``plan`` is made on the card, and the bytes for rows of traits."""
    assert isinstance(plan, CardTilePlan)
    basis, traits = plan.room
    return OnCard(card, PRECISIONS[precision], plan.block, basis), traits


def plan_tiles_on_cards(
    machine: Machine, sizes: CardTileSizes, wishes: TileWishes, tiles: Tiles | None = None
) -> CardTilePlan:
    """The smallest teams whose cards hold the basis, or else all GPUs with panels of it copied for every block.

    Then the widest blocks that leave room for a panel of traits, and as many traits as there is room for. What the user
    ``wishes`` wins; ``tiles`` are those of the run that this one resumes. Raises MemoryPlanError, UsageError.
    """
    check_team_size(wishes.team_size, machine)
    fewest = min(sizes.cards.fewest_ranks(), machine.ranks)
    teams = [wishes.team_size] if wishes.team_size else range(fewest, machine.ranks + 1)
    plan = None
    for plan in (plan for team in teams for plan in _of_team(machine, sizes, wishes, tiles, team)):
        if not plan.streamed:
            break
    if plan is None:
        raise _too_small(sizes, wishes, tiles, teams[-1])
    if not plan.fits(machine):
        raise does_not_fit(machine, f"the stage {plan.largest}", plan.peak, spreads=True)
    return plan


def _of_team(
    machine: Machine, sizes: CardTileSizes, wishes: TileWishes, tiles: Tiles | None, team: int
) -> Iterator[CardTilePlan]:
    """The best plan in teams of a size, if there is one."""
    for held in (sizes.cards.operator(team), sizes.cards.buffers()):
        for each in _tiles(machine, sizes, wishes, tiles, team, sizes.cards.limit - held):
            yield _plan(machine, sizes, team, each)
            return


def _tiles(
    machine: Machine, sizes: CardTileSizes, wishes: TileWishes, tiles: Tiles | None, team: int, room: int
) -> Iterator[Tiles]:
    """Tiles that fit in the ``room`` beside the basis, the best first."""
    if tiles is not None:
        if _beside(sizes, team, tiles) <= room:
            yield tiles
        return
    most = _most(sizes, wishes)
    for panel in [min(most, wishes.panel)] if wishes.panel else panel_widths(most):
        for width in _widths(machine, sizes, wishes, team):
            least = Tiles(width, panel, panel)
            left = room - _beside(sizes, team, least)
            if left < 0:
                continue
            more = _beside(sizes, team, least._replace(resident=2 * panel)) - _beside(sizes, team, least)
            resident = panel + left // more * panel
            yield least._replace(resident=most if resident >= most else resident)


def _most(sizes: CardTileSizes, wishes: TileWishes) -> int:
    """Traits of a pass, at most."""
    return sizes.tiles.t if wishes.pass_traits is None else min(sizes.tiles.t, wishes.pass_traits)


def _widths(machine: Machine, sizes: CardTileSizes, wishes: TileWishes, team: int) -> list[int]:
    """SNPs of a block of a rank to try, the best first."""
    if wishes.block:
        return [wishes.block]
    wide = (WIDER * width // team for width in block_widths(sizes.tiles.m, machine.ranks * WIDER))
    return [max(NARROWEST, width) for width in wide]


def _beside(sizes: CardTileSizes, team: int, tiles: Tiles) -> int:
    """Bytes of a card beside the basis."""
    return sum(_parts(sizes, team, tiles).values())


def _parts(sizes: CardTileSizes, team: int, tiles: Tiles) -> dict[str, int]:
    """The same by what they are for."""
    width, panel, resident = tiles
    columns = aligned(team * width)
    return {
        "genotypes": sizes.cards.genotypes(columns),
        "rotated SNPs": sizes.cards.products(columns) + sizes.rotated(team, width),
        "traits": resident * sizes.trait(),
        "tiles": sizes.tile(width, panel, resident),
    }


def _too_small(sizes: CardTileSizes, wishes: TileWishes, tiles: Tiles | None, team: int) -> MemoryPlanError:
    """What is said where the smallest tiles do not fit."""
    if tiles is None:
        panel = min(wishes.panel or panel_widths(PANEL)[-1], _most(sizes, wishes))
        tiles = Tiles(wishes.block or NARROWEST, panel, panel)
    need = sizes.cards.buffers() + _beside(sizes, team, tiles)
    return MemoryPlanError(
        f"tiles of {tiles.block} SNPs x {count(tiles.panel, 'trait')} need {need / GIB:.2f} GiB of a GPU, which has "
        f"{sizes.cards.limit / GIB:.2f}: give a larger --gpu-memory, or a smaller --block-size and --trait-block"
    )


def _plan(machine: Machine, sizes: CardTileSizes, team: int, tiles: Tiles) -> CardTilePlan:
    operator, limit, parts = sizes.cards.operator(team), sizes.cards.limit, _parts(sizes, team, tiles)
    beside, room = sum(parts.values()), operator
    if beside + operator > limit:
        room = limit - beside - sizes.cards.buffers()
    streamed = max(0, operator - room)
    enough = -(-team * operator // max(1, limit - beside))
    n, grid = sizes.tiles.n, grid_shape(machine.ranks)
    on_card = {"basis": room + sizes.cards.buffers() if streamed else operator, **parts}
    stages = _host_stages(machine, sizes, team, tiles, streamed)
    return CardTilePlan(
        stages, n, grid, grid_block(n, grid), team, "gpu", "rows of Z' on a GPU a rank", *tiles, on_card,
        (room, parts["traits"]), streamed, enough,
    )  # fmt: skip


def _host_stages(machine: Machine, sizes: CardTileSizes, team: int, tiles: Tiles, streamed: int) -> dict[str, int]:
    """Bytes a rank of the host: of the eigendecomposition, of a rank's rows of Z' in float64, of a panel of traits."""
    of, (width, panel, resident) = sizes.tiles, tiles
    kept = machine.base + 8 * of.n**2 // machine.ranks * (1 + (of.several_groups and not of.from_file)) + streamed
    histograms, columns = resident * histogram_bytes(of.n), aligned(team * width)
    exchanged = 8 * of.n * width + 16 * panel_height(of.n) * columns if team > 1 else 0
    estimates = 2 * 8 * width * panel * of.dense
    return {
        "eigendecomposition": machine.base + decomposition_bytes(machine, of),
        "handing over the basis": kept + 8 * of.n**2 // team + MESSAGES,
        "null models": kept + histograms + rotation_bytes(of, panel) + 2 * of.item * of.n * panel,
        "scan": kept + histograms + 3 * columns * of.snp_bytes + exchanged + estimates + (4 << 20),
    }
