"""The plan of a low-rank run: what is resident, teams, strips and blocks, so that every stage fits the memory."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from mpgls.commands.low_rank_parts.similarity import PANEL
from mpgls.errors import UsageError
from mpgls.la.layout import grid_shape
from mpgls.run.plan import GIB, NARROWEST, WIDEST, Machine, does_not_fit

STRIP = 512
"""Columns of a strip of G'G for each process column."""
SLACK = 32 << 20


@dataclass(frozen=True)
class LowRankPlan:
    """Sizes that the whole run keeps to. ``stages`` are bytes a rank, by stage; ``peak`` is the largest."""

    n: int
    K: int
    grid: tuple[int, int]
    resident: bool
    strip: int
    null_team: int
    team_size: int
    block: int
    traits_at_once: int
    stages: dict[str, int]

    @property
    def peak(self) -> int:
        """Bytes of the largest stage."""
        return max(self.stages.values())

    def text(self, machine: Machine) -> str:
        """The plan as it stands in the log."""
        limit = f" of {machine.limit / GIB:.2f} GiB allowed" if machine.limit else ""
        p_r, p_c = self.grid
        how = "decoded once and resident on every node" if self.resident else "decoded in panels from packed genotypes"
        sizes = ", ".join(f"{name} {size / GIB:.2f}" for name, size in self.stages.items())
        return (
            f"plan: {self.K:,} similarity SNPs, {how}; G'G on a {p_r} x {p_c} grid in strips of {self.strip}; REML on "
            f"teams of {self.null_team}, scan on teams of {self.team_size}; SNP blocks of {self.block}\n"
            f"plan: at most {self.peak / GIB:.2f} GiB a rank{limit} ({sizes})"
        )


def plan_low_rank(
    machine: Machine,
    *,
    n: int,
    K: int,
    largest_part: int,
    snp_bytes: int,
    similarity_bytes: int,
    item: int,
    traits: int,
    columns: int,
    team_size: int | None,
    block: int | None,
    dense: bool = False,
) -> LowRankPlan:
    """Choose what makes every stage fit ``machine.limit``, the fastest way first.

    n samples, K similarity SNPs, ``largest_part`` tested SNPs of the largest chromosome; bytes of a packed SNP of the
    tested and of the similarity genotypes; ``item`` bytes of a streamed number; ``columns`` of [X_L | Y]; ``dense``:
    n x n matrices.
    Raises MemoryPlanError that names what would fit, UsageError for impossible wishes.
    """
    if team_size is not None and not 1 <= team_size <= machine.ranks:
        raise UsageError(f"--team-size must be from 1 to the number of ranks, {machine.ranks}, not {team_size}")
    grid = grid_shape(machine.ranks)
    p_r, p_c = grid
    strip = min(K, STRIP * p_c)
    here = machine.ranks_per_node

    def stages(resident: bool, null_team: int, team: int, width: int, at_once: int) -> dict[str, int]:
        G = (n * K * item if resident else 0) // here + K * similarity_bytes // here + 8 * n * columns
        decoding = n * item * (-(-strip // p_c) + min(PANEL, K)) + 16 * (K // p_r + 1) * (strip // p_c + 1)
        factor = item * K * K // (here if team == 1 else team)
        world = 8 * K * K // machine.ranks
        block_bytes = width * (n * item + 2 * snp_bytes + K * (3 * item + 16)) + (0 if resident else n * item * PANEL)
        if dense:
            square = 8 * n * n // machine.ranks
            factor = item * n * n // (here if team == 1 else team)
            return {
                "null models": machine.base + G + 4 * square + n * item * PANEL + SLACK,
                "scan": machine.base + G + 3 * square + factor + width * (n * item + 2 * snp_bytes) + SLACK,
            }
        return {
            "G'G": machine.base + G + decoding + SLACK,
            "REML": machine.base + G + 8 * K * columns + 3 * 8 * K * K // null_team + SLACK,
            "factors": machine.base + G + at_once * factor + 3 * world + SLACK,
            "scan": machine.base + G + at_once * factor + 2 * world + block_bytes + SLACK,
        }

    rounds = -(-largest_part // (machine.ranks * WIDEST))
    widest = max(NARROWEST, -(-largest_part // (machine.ranks * rounds)))
    widths = [block] if block else [max(NARROWEST, widest >> k) for k in range(4)]
    sizes = sorted({*(2**k for k in range(machine.ranks.bit_length())), machine.ranks})
    teams = [team_size] if team_size else sizes
    null_team = {
        resident: next(
            (r for r in sizes if machine.limit is None or stages(resident, r, 1, 1, 1).get("REML", 0) <= machine.limit),
            machine.ranks,
        )
        for resident in (True, False)
    }
    at_once = sorted({max(1, traits >> k) for k in range(traits.bit_length())}, reverse=True)
    # most at a loss last: a wide block, then a resident G, then few passes over the tested SNPs, then a small team
    for team, count, resident, width in itertools.product(teams, at_once, (True, False), widths):
        need = stages(resident, null_team[resident], team, width, count)
        plan = LowRankPlan(n, K, grid, resident, strip, null_team[resident], team, width, count, need)
        if machine.limit is None or plan.peak <= machine.limit:
            return plan
    name = max(plan.stages, key=lambda stage: plan.stages[stage])
    raise does_not_fit(machine, f"the stage {name}", plan.peak, "more ranks", "fewer similarity SNPs")
