"""The plan of a multi-trait scan: teams, SNP blocks, trait panels and passes, and the bytes of each stage."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mpgls.engine.refit import CHUNK, PAIRS
from mpgls.engine.team_solvers import Held, TeamWork, teams_text
from mpgls.la.layout import grid_shape
from mpgls.model.h2_nodes import NODES as H2_NODES
from mpgls.model.products import ROWS
from mpgls.model.trait_records import Pass
from mpgls.run.findings import count
from mpgls.run.inputs import Study
from mpgls.run.plan import Machine, Plan, block_widths, check_team_size, first_that_fits, grid_block
from mpgls.study.trait_groups import TraitStudy

PANEL = 2048
"""Traits of one tile: enough for the matrix product, few enough for its results to be worked on in turn."""
NODES = 40
"""Values of h2 at which the Schur complement is formed, at most about this many."""
PASSES = (1, 2, 4, 8, 16, 32, 64, 128)
"""Numbers of passes to try."""
REML_BYTES = 64 << 20
"""Temporaries of REML and of making a panel, at most."""


@dataclass(frozen=True)
class TileSizes:
    """What a scan is made of: n samples and t traits of the largest group, m SNPs of a part, q covariates.

    ``snp_bytes`` of a packed SNP, ``item`` bytes of a rotated number. ``from_file``: the basis is given;
    ``packed_kinship``: its file holds a triangle; ``several_groups`` need Phi in turn; ``dense``: all effects are kept;
    ``ratios``: pairs have variance ratios of their own.
    """

    n: int
    m: int
    t: int
    q: int
    snp_bytes: int
    item: int
    from_file: bool = False
    packed_kinship: bool = False
    several_groups: bool = False
    dense: bool = False
    ratios: bool = False

    @classmethod
    def of(cls, study: Study, traits: TraitStudy, parts: int, pcs: int, dtype: type, dense: bool) -> TileSizes:
        """Of a study: those of its largest group, with ``pcs`` more covariates; SNPs of an average part."""
        return cls(
            n=max((group.n for group in traits.groups), default=1),
            m=-(-study.selected // parts),
            t=max((group.traits.size for group in traits.groups), default=1),
            q=traits.cohort.X_L.shape[1] + pcs,
            snp_bytes=study.fileset.bed.snp_bytes,
            item=np.dtype(dtype).itemsize,
            from_file=study.kinship is None,
            packed_kinship=study.kinship is not None and study.kinship.packed_lower,
            several_groups=len(traits.groups) > 1,
            dense=dense,
        )


@dataclass(frozen=True)
class TileWishes:
    """What the user wants of the plan, None or auto where it may choose: teams and how they rotate, a tile's sizes.

    A pass scans whole panels, of at most ``pass_traits`` traits.
    """

    team_size: int | None = None
    solver: str = "auto"
    block: int | None = None
    panel: int | None = None
    pass_traits: int | None = None


class Tiles(NamedTuple):
    """The sizes that a run which resumes must keep: SNPs and traits of a tile, traits of a pass."""

    block: int
    panel: int
    resident: int


@dataclass(frozen=True)
class TilePlan(Plan):
    """Sizes that the whole run keeps to, and ``why`` teams rotate so; ``resident`` traits are scanned in one pass."""

    n: int
    grid: tuple[int, int]
    grid_block: int
    team_size: int
    solver: str
    why: str
    block: int
    panel: int
    resident: int

    @property
    def tiles(self) -> Tiles:
        """Their sizes."""
        return Tiles(self.block, self.panel, self.resident)

    def passes(self, part: int, group: int, traits: int) -> list[Pass]:
        """The passes of a group of ``traits`` over the SNPs of a part."""
        ranges = _ranges(traits, self.panel)
        at_once = len(ranges) if self.resident >= traits else max(1, self.resident // self.panel)
        of_pass = [ranges[k : k + at_once] for k in range(0, len(ranges), at_once)]
        return [Pass(part, group, panels[0][0], panels[-1][1]) for panels in of_pass]

    def panels(self, one: Pass, traits: int) -> list[tuple[int, int]]:
        """The panels of a pass: ranges of its group's traits, of which there are ``traits``."""
        return [(first, stop) for first, stop in _ranges(traits, self.panel) if one.first <= first < one.stop]

    def text(self, machine: Machine, traits: int) -> str:
        """The plan as it stands in the log."""
        p_r, p_c = self.grid
        how = self.passes_text(-(-traits // self.resident))
        return (
            f"plan: {count(machine.ranks, 'rank')} as a {p_r} x {p_c} grid in blocks of {self.grid_block}; "
            f"{teams_text(Held(self.team_size, self.solver), self.why)}; tiles of {self.block} SNPs x "
            f"{count(self.panel, 'trait')}; {how}\n{self.memory_text(machine)}"
        )

    def passes_text(self, passes: int) -> str:
        """How often the SNPs are gone through."""
        return (
            "one pass over the SNPs" if passes == 1 else f"{passes} passes over the rotated SNPs, kept in scratch files"
        )


def plan_tiles(machine: Machine, sizes: TileSizes, wishes: TileWishes, tiles: Tiles | None = None) -> TilePlan:
    """Choose team, block, panel and the traits of a pass.

    Prefers small teams, then large panels and blocks: rather several passes than narrow tiles. ``tiles`` are those of
    the run that this one resumes. Raises MemoryPlanError naming what would fit, UsageError for impossible wishes.
    """
    check_team_size(wishes.team_size, machine)
    return first_that_fits(
        machine,
        _candidates(machine, sizes, wishes, tiles),
        lambda plan: f"the stage {plan.largest} in the smallest tiles",
        spreads=True,
    )


def _candidates(machine: Machine, sizes: TileSizes, wishes: TileWishes, tiles: Tiles | None) -> Iterator[TilePlan]:
    """Small teams first, then the faster solver, then wide tiles, then few passes."""
    n, grid = sizes.n, grid_shape(machine.ranks)
    work = TeamWork(n, sizes.m, sizes.item, triangle=False)
    for held in work.ways(wishes.solver, [wishes.team_size] if wishes.team_size else range(1, machine.ranks + 1)):
        for each in [tiles] if tiles else _tiles(machine, sizes, wishes):
            made = _stages(machine, sizes, work, held, each)
            yield TilePlan(made, n, grid, grid_block(n, grid), *held, work.why(held), *each)


def _tiles(machine: Machine, sizes: TileSizes, wishes: TileWishes) -> Iterator[Tiles]:
    """Tiles to try, the best first."""
    most = sizes.t if wishes.pass_traits is None else min(sizes.t, wishes.pass_traits)
    for panel in [min(most, wishes.panel)] if wishes.panel else panel_widths(most):
        for block in [wishes.block] if wishes.block else block_widths(sizes.m, machine.ranks):
            for passes in PASSES:
                wished = min(most, -(-sizes.t // passes))
                resident = sizes.t if wished == sizes.t else max(1, wished // panel) * panel
                yield Tiles(block, panel, resident)
                if resident <= panel:
                    break


def _stages(machine: Machine, sizes: TileSizes, work: TeamWork, held: Held, tiles: Tiles) -> dict[str, int]:
    """Bytes a rank of each stage."""
    block, panel, resident = tiles
    n, q, item, base = sizes.n, sizes.q, sizes.item, machine.base
    kept = 8 * n * n // machine.ranks * (1 + (sizes.several_groups and not sizes.from_file))
    basis = work.operator_bytes(held, machine)
    rows, wide = -(-n // held.team), block * held.team
    weighted = resident * (item * rows + histogram_bytes(n)) + item * rows * NODES * (1 + q)
    sums = 8 * wide * (2 * panel + NODES * (1 + q)) + (2 + sizes.ratios) * 8 * block * panel * sizes.dense
    apart = {"local": 1, "grid": 2, "inverse": 1}[held.solver]  # X~ lies beside X, and room for messages
    blocks = work.columns_bytes(held, block, machine) + apart * item * n * block + 2 * sizes.snp_bytes * block
    refit = _refit_bytes(sizes, rows, resident) if sizes.ratios else 0
    rotate = rotation_bytes(sizes, panel)
    return {
        "eigendecomposition": base + decomposition_bytes(machine, sizes),
        "handing over the basis": base + kept + basis + work.hand_over_bytes(held, machine),
        "null models": base + kept + basis + weighted + rotate + refit,
        "scan": base + kept + basis + weighted + refit + sums + blocks + (4 << 20),
    }


def decomposition_bytes(machine: Machine, sizes: TileSizes) -> int:
    """Bytes a rank of Phi, or of its eigenvectors, until the basis is there."""
    share, decomposed = 8 * sizes.n**2 // machine.ranks, not sizes.from_file
    return share * (4 + sizes.packed_kinship + sizes.several_groups if decomposed else 1)


def rotation_bytes(sizes: TileSizes, panel: int) -> int:
    """Bytes of Y, Y~ and copies on their way, and of REML, of a panel of traits."""
    return 5 * 8 * sizes.n * panel + min(REML_BYTES, 8 * 8 * sizes.n * panel)


def _refit_bytes(sizes: TileSizes, rows: int, resident: int) -> int:
    """Bytes of the covariates and traits at nodes for every h2, and of a batch of pairs that are fitted anew."""
    n, q, r = sizes.n, sizes.q, H2_NODES
    covariates = n * q + rows * (q + r) + 4 * r * q * q
    traits = r * (q + 2) * resident
    batch = 2 * CHUNK + PAIRS * (4 * ROWS + 4 * (q + 1) * r + 12 * r)
    return 8 * (covariates + traits + batch)


def histogram_bytes(n: int) -> int:
    """Bytes of a trait's histogram: 32 counters of 4 bytes for each octave of x down to about 2^-10 / n."""
    return 4 * 32 * (12 + n.bit_length())


def _ranges(traits: int, panel: int) -> list[tuple[int, int]]:
    """Ranges of at most ``panel`` traits, nearly equal."""
    cuts = np.linspace(0, traits, -(-traits // panel) + 1).astype(np.int64).tolist()
    return list(itertools.pairwise(cuts))


def panel_widths(t: int) -> list[int]:
    """Traits of a tile to try, the best first."""
    sizes = [min(t, PANEL)]
    while sizes[-1] > 64:
        sizes.append(max(64, sizes[-1] // 4))
    return sizes
