"""What a multi-trait scan costs, phase by phase; docs/performance.md has the formulas."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mpgls.engine.cost import (
    NUMBERS_OF_LINE,
    PLOT_SECONDS,
    PLOT_START,
    SNP_SECONDS,
    SYNCS,
    PhaseCost,
    RunCost,
    busiest,
    dealt_to_team,
    leaving,
    loading,
    opening,
    team_rate,
    times,
)
from mpgls.engine.kinship_cost import decomposing
from mpgls.engine.team_solvers import Held
from mpgls.engine.tile_plan import NODES, TilePlan, TileSizes
from mpgls.run.plan import Machine

REML_GRID = 2 * 2 * 60.0
"""Operations by sample and trait of the likelihoods and slopes on the grid of about 60 values of h2."""
REML_PASSES = 60.0
"""Passes over the samples of a trait in Newton's steps on the exact likelihood."""
PANEL_PASSES = 25.0
"""Passes over the samples of a trait of its null model and of weighing it, by every rank."""


@dataclass(frozen=True)
class TileWork:
    """n samples, m SNPs of ``snp_bytes`` in ``parts`` (chromosomes left out in turn), t traits, q covariates.

    ``groups`` of traits have the same samples. ``estimated``: null models, of parts x t, whose h2 REML has to find;
    None: all. ``spectral``: an eigendecomposition is given; ``dense``: all effects are kept.
    """

    n: int
    m: int
    snp_bytes: int
    parts: int
    t: int
    q: int
    mixed: bool
    groups: int = 1
    estimated: int | None = None
    spectral: bool = False
    dense: bool = False

    @classmethod
    def of(cls, sizes: TileSizes, m: int, models: tuple[int, ...], groups: int, estimated: int) -> TileWork:
        """From what the plan depends on, and m SNPs, ``models`` (parts, t)."""
        parts, t = models
        mixed, spectral = sizes.item == 4, sizes.from_file
        return cls(sizes.n, m, sizes.snp_bytes, parts, t, sizes.q, mixed, groups, estimated, spectral, sizes.dense)

    @property
    def study(self) -> str:
        """The sizes in words."""
        groups = f" in {self.groups} groups" if self.groups > 1 else ""
        loco = f", {self.parts} chromosomes left out in turn" if self.parts > 1 else ""
        return f"{self.n:,} samples, {self.m:,} SNPs, {self.t:,} traits{groups}, {self.q} columns of covariates{loco}"

    @property
    def item(self) -> int:
        """Bytes of a streamed number."""
        return 4 if self.mixed else 8

    @property
    def gemm(self) -> str:
        """The rate of the streamed products."""
        return "single.gemm" if self.mixed else "double.gemm"


def tile_cost(machine: Machine, plan: TilePlan, work: TileWork) -> RunCost:
    """The cost of a scan that keeps to ``plan``; groups are taken to be of all samples and of equal size."""
    study = f"{work.study}, {'mixed' if work.mixed else 'double'} precision"
    phases = (*before_tiles(machine, plan, work), *_stream(machine.ranks, plan, work), report())
    return RunCost("multi-trait", study, machine, plan, plan.text(machine, work.t), phases)


def before_tiles(machine: Machine, plan: TilePlan, work: TileWork) -> Iterator[PhaseCost]:
    """What comes before the SNPs."""
    yield from opening(work.m + 3.0 * work.n + work.t * work.n / NUMBERS_OF_LINE)
    yield from _bases(machine, plan, work)
    yield from _traits(machine.ranks, work)


def _bases(machine: Machine, plan: TilePlan, work: TileWork) -> Iterator[PhaseCost]:
    """Z diag(lam) Z' = Phi for each chromosome and group, and Z to every team."""
    P, R, n = machine.ranks, plan.team_size, float(work.n)
    count = work.parts * work.groups
    if work.spectral:
        yield loading("load eigenvectors", work.n, count, P)
    else:
        yield loading("load kinship", work.n, work.parts, P, files=1 if work.parts == 1 else 2)
        yield decomposing(work.n, P, count)
    copies = -(-P // machine.ranks_per_node) if R == 1 else max(1, P // R)
    moved = leaving(count * work.item * n**2 * copies, P)
    yield PhaseCost("hand over basis", {"scale": count * n**2 / P}, sent=moved)


def _traits(P: int, work: TileWork) -> Iterator[PhaseCost]:
    """Y~ = Z'Y (2 n^2 t), the h2 of each trait, and its weighted residuals, for each chromosome."""
    n, traits = float(work.n), float(work.parts * work.t)
    estimated = traits if work.estimated is None else float(work.estimated)
    flop = 2 * n**2 * traits
    yield PhaseCost("rotate traits", {"double.gemm": flop / P}, flop=flop, sent=8 * n * traits * (P - 1))
    grid, passes = REML_GRID * n * estimated / P, REML_PASSES * n * estimated / P
    yield PhaseCost("REML", {"double.gemm": grid, "scale": passes}, flop=P * grid)
    yield PhaseCost("prepare panels", {"scale": PANEL_PASSES * n * traits})


def _stream(P: int, plan: TilePlan, work: TileWork) -> Iterator[PhaseCost]:
    """X~ = Z'X (2 n^2 a SNP), tiles (2 n (t + nodes (1+q)) + 2 t nodes a SNP), and what is kept of them."""
    n, m, t, q = float(work.n), work.m, float(work.t), work.q
    mine = busiest(m, work.parts, plan.block, P)
    phases = ("decode", "rotate SNPs", "tiles", "epilogue")
    rate = "single" if work.mixed else "double"
    yield PhaseCost("read (waiting)", read=float(work.groups * m * work.snp_bytes), ahead_of=phases)
    decoding = times(work.groups, {"count": mine * n, f"{rate}.decode": mine * n})
    yield PhaseCost("decode", decoding, seconds=SNP_SECONDS * mine * work.groups)
    rotate = 2 * n**2 * work.groups
    held = Held(plan.team_size, plan.solver)
    dealt = dealt_to_team(held, work.groups * m, work.item * n, work.snp_bytes)
    yield PhaseCost("rotate SNPs", {work.gemm: rotate * mine / team_rate(held)}, flop=rotate * m, sent=dealt)
    panels = -(-work.t // plan.panel)
    tile = 2 * n * (t + panels * NODES * (1 + q)) + 2 * t * NODES
    sums = leaving(8 * (t + panels * NODES * (1 + q)) * m, plan.team_size)
    yield PhaseCost("tiles", {work.gemm: tile * mine}, flop=tile * m, sent=sums)
    passes = -(-work.t // plan.resident)
    if passes > 1:
        rotated = work.item * n * m
        yield PhaseCost("scratch", read=(passes - 1) * rotated, written=rotated)
    yield PhaseCost("epilogue", {"tile": mine * t})
    effects = 2 * 8.0 * m * t if work.dense else 0.0
    yield PhaseCost("write", written=effects, syncs=SYNCS * work.parts * passes)


def report() -> PhaseCost:
    """Plots by rank 0."""
    return PhaseCost("report", seconds=PLOT_START + 2 * PLOT_SECONDS)
