"""The plan of a scan: grid, teams, block size and the bytes of each stage, made before anything large is allocated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mpgls.la.layout import grid_shape
from mpgls.run.plan import Machine, Plan, block_widths, check_team_size, first_that_fits, grid_block


@dataclass(frozen=True)
class ScanSizes:
    """What a scan is made of: n samples, m SNPs of a part, ``columns`` of [X_L | y].

    ``snp_bytes`` of a packed SNP, ``item`` bytes of a streamed number (8 double, 4 mixed). ``packed_kinship``: its file
    holds a triangle; ``several_sets``: traits differ in their samples; ``several_traits`` need Phi in turn.
    ``nodes`` of h2, where each SNP has its own: then Phi is decomposed.
    """

    n: int
    m: int
    columns: int
    snp_bytes: int
    item: int
    packed_kinship: bool = False
    several_sets: bool = False
    several_traits: bool = False
    nodes: int = 0


@dataclass(frozen=True)
class ScanPlan(Plan):
    """Sizes that the whole run keeps to: blocks of the grid, ranks of a team, SNPs of a block."""

    n: int
    grid: tuple[int, int]
    grid_block: int
    team_size: int
    block: int

    def text(self, machine: Machine) -> str:
        """The plan as it stands in the log."""
        p_r, p_c = self.grid
        return (
            f"plan: {machine.ranks} ranks as a {p_r} x {p_c} grid in blocks of {self.grid_block}; teams of "
            f"{self.team_size}; SNP blocks of {self.block}\n{self.memory_text(machine)}"
        )


def plan_scan(machine: Machine, sizes: ScanSizes, team_size: int | None = None, block: int | None = None) -> ScanPlan:
    """Choose team size and SNP block so that every stage fits the machine's limit.

    ``team_size`` and ``block`` of the user win where given. The team is the smallest that fits: a team of one needs no
    communication. Raises MemoryPlanError that names what would fit, UsageError for a team that there cannot be.
    """
    check_team_size(team_size, machine)
    return first_that_fits(machine, _candidates(machine, sizes, team_size, block), spreads=True)


def _candidates(machine: Machine, sizes: ScanSizes, team_size: int | None, block: int | None) -> Iterator[ScanPlan]:
    """Small teams first, then wide blocks."""
    n, grid = sizes.n, grid_shape(machine.ranks)
    for team in [team_size] if team_size else range(1, machine.ranks + 1):
        for width in [block] if block else block_widths(sizes.m, machine.ranks):
            yield ScanPlan(stages(machine, sizes, team, width), n, grid, grid_block(n, grid), team, width)


def stages(machine: Machine, sizes: ScanSizes, team: int, width: int) -> dict[str, int]:
    """Bytes a rank of each stage."""
    n, item, columns, base = sizes.n, sizes.item, sizes.columns, machine.base
    share = 8 * n * n // machine.ranks
    kept = share * (sizes.several_sets + sizes.several_traits)
    factor = item * n * n // (machine.ranks_per_node if team == 1 else team)
    sums = 48 * columns + 64 * sizes.nodes * (columns + 1)
    buffers = width * (n * item * (1 if team == 1 and not sizes.nodes else 2) + 2 * sizes.snp_bytes + sums) + (4 << 20)
    null = share * (2 + sizes.several_sets) + (share if sizes.packed_kinship else 0)
    if sizes.nodes:
        null = max(null, kept + 4 * share)
    hand_over = kept + share + factor + (factor if team > 1 and item == 4 else 0)
    return {
        "null model": base + null + 8 * n * columns,
        "handing over the factor": base + hand_over,
        "scan": base + kept + factor + buffers,
    }
