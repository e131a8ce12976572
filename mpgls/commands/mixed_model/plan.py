"""The plan of a scan: grid, teams, block size and the bytes of each stage, made before anything large is allocated."""

from __future__ import annotations

from dataclasses import dataclass

from mpgls.errors import UsageError
from mpgls.la.layout import grid_shape
from mpgls.run.plan import GIB, Machine, block_widths, does_not_fit, grid_block


@dataclass(frozen=True)
class ScanPlan:
    """Sizes that the whole run keeps to. ``stages`` are bytes a rank, by name; ``peak`` is the largest."""

    n: int
    grid: tuple[int, int]
    grid_block: int
    team_size: int
    block: int
    stages: dict[str, int]

    @property
    def peak(self) -> int:
        """Bytes of the largest stage."""
        return max(self.stages.values())

    def text(self, machine: Machine) -> str:
        """The plan as it stands in the log."""
        p_r, p_c = self.grid
        limit = f" of {machine.limit / GIB:.2f} GiB allowed" if machine.limit else ""
        lines = [
            f"plan: {machine.ranks} ranks as a {p_r} x {p_c} grid in blocks of {self.grid_block}; teams of "
            f"{self.team_size}; SNP blocks of {self.block}",
            f"plan: at most {self.peak / GIB:.2f} GiB a rank{limit} ("
            + ", ".join(f"{name} {size / GIB:.2f}" for name, size in self.stages.items())
            + ")",
        ]
        return "\n".join(lines)


def plan_scan(
    machine: Machine,
    *,
    n: int,
    m: int,
    columns: int,
    snp_bytes: int,
    item: int,
    packed_kinship: bool,
    several_sets: bool,
    several_traits: bool,
    team_size: int | None,
    block: int | None,
) -> ScanPlan:
    """Choose team size and SNP block for n samples and m SNPs so that every stage fits the machine's limit.

    ``columns`` of the null design with the trait; ``item`` bytes of a streamed number (8 double, 4 mixed);
    ``team_size`` and ``block`` of the user win where given. The team is the smallest that fits ([DESIGN] a team of one
    needs no communication). Raises MemoryPlanError that names what would fit, UsageError for impossible wishes.
    """
    if team_size is not None and not 1 <= team_size <= machine.ranks:
        raise UsageError(f"--team-size must be from 1 to the number of ranks, {machine.ranks}, not {team_size}")
    if block is not None and block < 1:
        raise UsageError(f"--block-size must be at least 1, not {block}")
    grid = grid_shape(machine.ranks)
    share = 8 * n * n // machine.ranks
    kept = share * (several_sets + several_traits)

    def stages(team: int, width: int) -> dict[str, int]:
        factor = item * n * n // (machine.ranks_per_node if team == 1 else team)
        buffers = width * (n * item * (1 if team == 1 else 2) + 2 * snp_bytes + 48 * columns) + (4 << 20)
        null = share * (2 + several_sets) + (share if packed_kinship else 0)
        hand_over = kept + share + factor + (factor if team > 1 and item == 4 else 0)
        return {
            "null model": machine.base + null + 8 * n * columns,
            "handing over the factor": machine.base + hand_over,
            "scan": machine.base + kept + factor + buffers,
        }

    widths = [block] if block else list(block_widths(m, machine.ranks))
    teams = [team_size] if team_size else range(1, machine.ranks + 1)
    for team in teams:
        for width in widths:
            plan = ScanPlan(n, grid, grid_block(n, grid), team, width, stages(team, width))
            if machine.limit is None or plan.peak <= machine.limit:
                return plan
    name = max(plan.stages, key=lambda stage: plan.stages[stage])
    raise does_not_fit(machine, f"the {name}", plan.peak, spreads=True)
