"""Whether a run uses GPUs, and the plan of a scan on them: what lies on each card, and what on the host."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from mpgls.device import cuda
from mpgls.device.card import Card
from mpgls.device.operator import panel_height, row_panels
from mpgls.device.parts import PRECISIONS, Double
from mpgls.device.products import aligned
from mpgls.device.triangle import WIDTH, bytes_of_triangles
from mpgls.engine.device_blocks import OnCard
from mpgls.engine.part_worlds import in_world, null_snps, world_counts
from mpgls.engine.scan_plan import ScanPlan, ScanSizes
from mpgls.errors import MemoryPlanError, MpglsError
from mpgls.la.layout import Block, grid_shape
from mpgls.mpi import agree, node_of
from mpgls.run.device_options import DeviceWish
from mpgls.run.plan import GIB, NARROWEST, Machine, block_widths, check_team_size, does_not_fit, grid_block
from mpgls.run.world import World
from mpgls.study.genotype_files import Genotypes
from mpgls.study.genotypes import bytes_per_dosages

SPLITTING = 24
"""Bytes of a number of a panel of L^-1 while it is split into parts, beyond those that inverting took."""
WIDER = 4
"""Blocks are as many times as wide as those of a core."""


def choose_card(wish: DeviceWish, world: World) -> Card | None:
    """The GPU of this rank, None for a run on ranks alone. Collective. Raises UsageError, MemoryPlanError."""
    if not wish.tried:
        return None
    card, problem = None, None
    with node_of(world.comm) as node:
        try:
            card = cuda.open_card(node.rank, node.size, wish.limit)
        except MpglsError as error:
            problem = error
    if wish.needed:
        agree(world.comm, problem)
    problems = [text for text in world.comm.allgather(problem and str(problem)) if text]
    if not problems:
        return card
    world.log.info(f"--device auto: no GPU is used, because {problems[0]}")
    return None


def card_limit(card: Card | None, world: World) -> int | None:
    """Bytes that every rank may use of its card; None without cards. Collective."""
    return None if card is None else world.comm.allreduce(card.limit, op=min)


@dataclass(frozen=True)
class CardPlan(ScanPlan):
    """A `ScanPlan` of teams of GPUs. ``on_card``: bytes of a card, by what they are for.

    ``room``: bytes for the operator; ``streamed``: bytes of it that do not fit, and ``enough``: ranks that hold it;
    ``null``: bytes of the card of rank 0 while the null model is made, and whether it ``factorises``.
    """

    on_card: dict[str, int]
    room: int
    streamed: int
    enough: int
    null: int
    factorises: bool

    def text(self, machine: Machine) -> str:
        """The plan as it stands in the log."""
        sizes = ", ".join(f"{name} {size / GIB:.2f}" for name, size in self.on_card.items())
        text = f"{super().text(machine)}\nplan: at most {sum(self.on_card.values()) / GIB:.2f} GiB of a GPU ({sizes})"
        if self.streamed:
            text += (
                f"; {self.streamed / GIB:.2f} GiB of the operator do not fit and are copied to it for every block: "
                f"teams of {self.enough} GPUs would hold it"
            )
        return text + self._null_text()

    def _null_text(self) -> str:
        if not self.null:
            return ""
        size = f"{self.null / GIB:.2f} GiB"
        whose = "the first rank of each world" if self.worlds > 1 else "rank 0"
        if self.factorises:
            return (
                f"\nplan: null models on the GPU of {whose}: V and its factor, {size}, until L^-1 is handed out, and "
                "L^-1, half of that, until the scan begins"
            )
        return (
            f"\nplan: null models on the ranks: a GPU has no room for V and its factor, {size}, or for L^-1, half of "
            "that, beside operator and block"
        )


@dataclass(frozen=True)
class CardSizes:
    """A scan on cards of which ``limit`` bytes may be used each; ``n_file`` samples in the file, or their dosages."""

    scan: ScanSizes
    precision: Double
    limit: int
    n_file: int
    dosages: bool

    def operator(self, team: int) -> int:
        """Bytes of the rows of a rank of a team."""
        panels = max(map(self._numbers, row_panels(self.scan.n, team, not self.scan.basis)))
        return panels * self.precision.count * self.precision.kind.itemsize

    def fewest_ranks(self) -> int:
        """No fewer have room for the operator."""
        numbers = self.scan.n**2 if self.scan.basis else self.scan.n**2 // 2
        return max(1, numbers * self.precision.count * self.precision.kind.itemsize // self.limit)

    def _numbers(self, panels: list[Block]) -> int:
        return sum(len(rows) * aligned(len(cols)) for rows, cols in panels)

    def buffers(self) -> int:
        """Bytes of the two panels on their way to the card."""
        rows = panel_height(self.scan.n)
        return 2 * rows * aligned(self.scan.n) * self.precision.count * self.precision.kind.itemsize

    def genotypes(self, columns: int) -> int:
        """Bytes of packed and decoded ``columns``, and of what decoding takes."""
        kind, n = self.precision.kind.itemsize, max(self.n_file, aligned(self.scan.n))
        parts = 1 + (self.precision.dosage_count if self.dosages else 1)  # the first of missing genotypes
        work = 4 * 8 if self.dosages else 1 + kind
        return columns * (2 * self.scan.snp_bytes + (parts * kind + work) * n)

    def null(self) -> int:
        """Bytes of Phi and a factor of V, none where there is an eigenbasis."""
        return 0 if self.scan.basis else bytes_of_triangles(self.scan.n, 2)

    def inverse(self) -> int:
        """Bytes of L^-1 on the card of rank 0, from which the operator is made and which a sample of SNPs checks."""
        n = self.scan.n
        return 0 if self.scan.basis else bytes_of_triangles(n, 1) + SPLITTING * panel_height(n) * n

    def products(self, columns: int) -> int:
        """Bytes of a panel's products with ``columns``, before and after they are added up."""
        rows = panel_height(self.scan.n)
        return rows * columns * (4 + 5 * self.precision.sums.itemsize)


def card_sizes(scan: ScanSizes, precision: str, limit: int, bed: Genotypes) -> CardSizes:
    """Of a scan of the genotypes ``bed``."""
    return CardSizes(scan, PRECISIONS[precision], limit, bed.n, scan.snp_bytes >= bytes_per_dosages(bed.n))


def on_the_card(card: Card | None, plan: ScanPlan, precision: str) -> OnCard | None:
    """How a scan that keeps to ``plan`` is made on the card, if there is one."""
    if card is None:
        return None
    assert isinstance(plan, CardPlan)
    return OnCard(card, PRECISIONS[precision], plan.block, plan.room, card if plan.factorises else None)


def plan_on_cards(machine: Machine, sizes: CardSizes, team_size: int | None, block: int | None) -> CardPlan:
    """The most worlds, then the smallest teams, whose cards make null models and hold the operator.

    Where there are none: the smallest teams that hold the operator, or else all GPUs with panels copied for every
    block. ``team_size`` and ``block`` of the user win. Raises MemoryPlanError, UsageError for an impossible team.
    """
    check_team_size(team_size, machine)
    plan = None
    for worlds in world_counts(machine.ranks, sizes.scan.parts, null_snps(sizes.scan.n, sizes.scan.basis)):
        own = in_world(machine, worlds)
        plan = _best_of_teams(own, sizes, team_size, block) if own.ranks >= (team_size or 1) else None
        if worlds > 1 and plan is not None and plan.factorises and plan.fits(own.spare):
            return replace(plan, worlds=worlds)
    if plan is None:
        needed = min(_beside(sizes, team, block or NARROWEST) for team in _teams(machine, sizes, team_size))
        raise MemoryPlanError(
            f"genotypes and products need {needed / GIB:.2f} GiB of a GPU, which has {sizes.limit / GIB:.2f}: give a "
            "larger --gpu-memory or a smaller --block-size"
        )
    if not plan.fits(machine):
        raise does_not_fit(machine, f"the {plan.largest}", plan.peak, spreads=True)
    return plan


def _teams(machine: Machine, sizes: CardSizes, team_size: int | None) -> Sequence[int]:
    """The sizes of teams to try."""
    return [team_size] if team_size else range(min(sizes.fewest_ranks(), machine.ranks), machine.ranks + 1)


def _best_of_teams(machine: Machine, sizes: CardSizes, team_size: int | None, block: int | None) -> CardPlan | None:
    """The smallest team that makes null models on a card, or else the smallest that holds the operator, or the largest.

    None where no card has room for a block.
    """
    holds, plan = None, None
    may_factorise = not sizes.scan.basis and sizes.null() <= sizes.limit
    for plan in (one for team in _teams(machine, sizes, team_size) for one in _of_team(machine, sizes, team, block)):
        if plan.factorises:
            return plan
        holds = holds or (None if plan.streamed else plan)
        if holds and not may_factorise:
            break
    return holds or plan


def _of_team(machine: Machine, sizes: CardSizes, team: int, block: int | None) -> Iterator[CardPlan]:
    """The plan in teams of a size with the widest block that leaves room for the operator, if there is one."""
    wide = (WIDER * width // team for width in block_widths(sizes.scan.m, machine.ranks * WIDER))
    widths = [block] if block else [max(NARROWEST, width) for width in wide]
    operator = sizes.operator(team)
    with_inverse = [operator + sizes.inverse()] if sizes.null() <= sizes.limit else []
    for held in (*with_inverse, operator, sizes.buffers()):
        for width in widths:
            if _beside(sizes, team, width) + held <= sizes.limit:
                yield _plan(machine, sizes, team, width)
                return


def _beside(sizes: CardSizes, team: int, width: int) -> int:
    """Bytes of a card beside the operator."""
    columns = aligned(team * width)
    return sizes.genotypes(columns) + sizes.products(columns)


def _plan(machine: Machine, sizes: CardSizes, team: int, width: int) -> CardPlan:
    columns, operator, limit = aligned(team * width), sizes.operator(team), sizes.limit
    beside, room = _beside(sizes, team, width), operator
    if beside + operator > limit:
        room = limit - beside - sizes.buffers()
        beside += sizes.buffers()
    streamed = max(0, operator - room)
    enough = -(-team * operator // max(1, limit - _beside(sizes, team, width)))  # for as many columns on a card
    on_card = {
        "operator": limit - beside if streamed else operator,
        "genotypes": sizes.genotypes(columns),
        "products": sizes.products(columns),
    }
    factorises = not sizes.scan.basis and max(sizes.null(), beside + operator + sizes.inverse()) <= limit
    n, grid = sizes.scan.n, grid_shape(machine.ranks)
    stages = _host_stages(machine, sizes, team, columns, streamed, factorises)
    return CardPlan(
        stages, n, grid, grid_block(n, grid), team, "gpu", "rows of L^-1 on a GPU a rank", width, on_card, room,
        streamed, enough, sizes.null(), factorises,
    )  # fmt: skip


def _host_stages(
    machine: Machine, sizes: CardSizes, team: int, columns: int, streamed: int, factorises: bool
) -> dict[str, int]:
    """Bytes a rank of the host: of the factor and its inverse, then of the panels of a rank in float64."""
    scan, share = sizes.scan, 8 * sizes.scan.n**2 // machine.ranks
    kept = share * (scan.several_sets + scan.several_traits)
    panels = sizes.operator(team) // (sizes.precision.count * sizes.precision.kind.itemsize) * 8
    null = share * (2 + scan.several_sets) + (share if scan.packed_kinship else 0)
    hand_over = share * (3 + scan.several_sets) + panels
    if factorises:  # the factor and L^-1 are on the card, a panel of either at a time here
        panel = 3 * 8 * scan.n * min(WIDTH, scan.n)
        null, hand_over = null - share + panel, share * (1 + scan.several_sets) + panel
    return {
        "null model": machine.base + null + 8 * scan.n * scan.columns,
        "handing over the factor": machine.base + hand_over + streamed,
        "scan": machine.base + kept + streamed + 3 * columns * scan.snp_bytes + 48 * columns * scan.columns + (4 << 20),
    }
