"""The plan of a multi-trait scan: teams, SNP blocks, trait panels and passes, and the bytes of each stage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mpgls.errors import UsageError
from mpgls.la.layout import grid_shape
from mpgls.model.trait_records import Pass
from mpgls.run.plan import GIB, Machine, block_widths, does_not_fit, grid_block
from mpgls.stream.dense_store import panels_of

PANEL = 2048
"""Traits of one tile: enough for the matrix product, few enough for its results to be worked on in turn."""
NODES = 40
"""Values of h2 at which the Schur complement is formed, at most about this many."""

REML_BYTES = 64 << 20
"""Temporaries of REML and of making a panel, at most."""


@dataclass(frozen=True)
class TilePlan:
    """Sizes that the whole run keeps to. ``stages`` are bytes a rank; ``resident`` traits are scanned in one pass."""

    n: int
    grid: tuple[int, int]
    grid_block: int
    team_size: int
    block: int
    panel: int
    resident: int
    stages: dict[str, int]

    @property
    def peak(self) -> int:
        """Bytes of the largest stage."""
        return max(self.stages.values())

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
        passes = -(-traits // self.resident)
        limit = f" of {machine.limit / GIB:.2f} GiB allowed" if machine.limit else ""
        how = (
            "one pass over the SNPs" if passes == 1 else f"{passes} passes over the rotated SNPs, kept in scratch files"
        )
        return (
            f"plan: {machine.ranks} ranks as a {p_r} x {p_c} grid in blocks of {self.grid_block}; teams of "
            f"{self.team_size}; tiles of {self.block} SNPs x {self.panel} traits; {how}\n"
            f"plan: at most {self.peak / GIB:.2f} GiB a rank{limit} ("
            + ", ".join(f"{name} {size / GIB:.2f}" for name, size in self.stages.items())
            + ")"
        )


def plan_tiles(
    machine: Machine,
    *,
    n: int,
    m: int,
    t: int,
    q: int,
    snp_bytes: int,
    item: int,
    from_file: bool,
    packed_kinship: bool,
    several_groups: bool,
    dense: bool,
    team_size: int | None,
    block: int | None,
    panel: int | None,
    pass_traits: int | None = None,
) -> TilePlan:
    """Choose team, block, panel and the traits of a pass for n samples, m SNPs and t traits of the largest group.

    ``q`` covariates; ``item`` bytes of a rotated number. Prefers small teams, then large panels and blocks: rather
    several passes than narrow tiles. A pass scans whole panels, of at most ``pass_traits`` traits if that is given.
    Raises MemoryPlanError naming what would fit, UsageError for impossible wishes.
    """
    if team_size is not None and not 1 <= team_size <= machine.ranks:
        raise UsageError(f"--team-size must be from 1 to the number of ranks, {machine.ranks}, not {team_size}")
    grid = grid_shape(machine.ranks)
    share = 8 * n * n // machine.ranks
    decompose = share * (1 if from_file else 4 + packed_kinship) + (0 if from_file else share * several_groups)
    kept = share * (1 + (several_groups and not from_file))
    widths = [block] if block else list(block_widths(m, machine.ranks))
    most = t if pass_traits is None else min(t, pass_traits)
    panels = [min(most, panel)] if panel else _panels(most)

    def stages(team: int, width: int, traits: int, resident: int) -> dict[str, int]:
        basis = item * n * n // (machine.ranks_per_node if team == 1 else team)
        rows = -(-n // team)
        wide = width * team
        weighted = resident * (item * rows + histogram_bytes(n)) + item * rows * NODES * (1 + q)
        tile = 8 * wide * (2 * traits + NODES * (1 + q)) + 2 * 8 * width * traits * dense
        blocks = 2 * item * n * width * (1 if team == 1 else 2) + 2 * snp_bytes * width
        rotate = 5 * 8 * n * traits + min(REML_BYTES, 8 * 8 * n * traits)  # Y, Y~ and copies on their way
        return {
            "eigendecomposition": machine.base + decompose,
            "handing over the basis": machine.base + kept + basis * (2 if team > 1 and item == 4 else 1),
            "null models": machine.base + kept + basis + weighted + rotate,
            "scan": machine.base + kept + basis + weighted + tile + blocks + (4 << 20),
        }

    plan = None
    for team in [team_size] if team_size else range(1, machine.ranks + 1):
        for traits in panels:
            for width in widths:
                for passes in (1, 2, 4, 8, 16, 32, 64, 128):
                    wished = min(most, -(-t // passes))
                    resident = t if wished == t else max(1, wished // traits) * traits
                    plan = TilePlan(
                        n,
                        grid,
                        grid_block(n, grid),
                        team,
                        width,
                        traits,
                        resident,
                        stages(team, width, traits, resident),
                    )
                    if machine.limit is None or plan.peak <= machine.limit:
                        return plan
                    if resident <= traits:
                        break
    assert plan is not None
    name = max(plan.stages, key=plan.stages.__getitem__)
    raise does_not_fit(machine, f"the {name} in the smallest tiles", plan.peak, spreads=True)


def histogram_bytes(n: int) -> int:
    """Bytes of a trait's histogram: 32 counters of 4 bytes for each octave of x down to about 2^-10 / n."""
    return 4 * 32 * (12 + n.bit_length())


def _ranges(traits: int, panel: int) -> list[tuple[int, int]]:
    """Ranges of at most ``panel`` traits, nearly equal."""
    return [(first, stop) for first, stop in panels_of(np.zeros(traits, dtype=np.int64), panel).tolist()]


def _panels(t: int) -> list[int]:
    """Traits of a tile to try, the best first."""
    sizes = [min(t, PANEL)]
    while sizes[-1] > 64:
        sizes.append(max(64, sizes[-1] // 4))
    return sizes
