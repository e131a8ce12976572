"""The plan of a scan: grid, teams, block size and the bytes of each stage, made before anything large is allocated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from mpgls.engine.part_worlds import in_world, null_snps, world_counts
from mpgls.engine.team_solvers import Held, TeamWork, teams_text
from mpgls.la.layout import grid_shape
from mpgls.run.plan import Machine, Plan, block_widths, check_team_size, first_that_fits, grid_block

SEVERAL = 32 << 20
"""Bytes of a strip of SNPs of several columns, whose squares and residuals are looked at together."""


@dataclass(frozen=True)
class ScanSizes:
    """What a scan is made of: n samples, m SNPs of a part, ``columns`` of [X_L | y].

    ``snp_bytes`` of a packed SNP, ``item`` bytes of a streamed number (8 double, 4 mixed). ``packed_kinship``: its file
    holds a triangle; ``several_sets``: traits differ in their samples; ``several_traits`` need Phi in turn.
    ``tested`` columns of a SNP; ``nodes`` of h2, where each SNP has its own; ``basis``: Phi is decomposed;
    ``keeps_model``: Phi and its factor stay for further scans. ``parts``: the SNPs of each part, where worlds of ranks
    may take whole parts; ``n_kinship`` samples of the kinship's file.
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
    basis: bool = False
    keeps_model: bool = False
    tested: int = 1
    parts: tuple[int, ...] = ()
    n_kinship: int = 0


@dataclass(frozen=True)
class ScanPlan(Plan):
    """Sizes that the whole run keeps to: blocks of the grid, teams and ``why`` they solve so, SNPs of a block.

    Grid and teams are those of each of so many ``worlds`` of ranks, which take parts by themselves. ``keeps``: each
    world has the rows of the whole kinship in memory.
    """

    n: int
    grid: tuple[int, int]
    grid_block: int
    team_size: int
    solver: str
    why: str
    block: int
    worlds: int = field(default=1, kw_only=True)
    keeps: bool = field(default=False, kw_only=True)

    def text(self, machine: Machine) -> str:
        """The plan as it stands in the log."""
        p_r, p_c = self.grid
        worlds = f"{self.worlds} worlds, of whole chromosomes, of " if self.worlds > 1 else ""
        return (
            f"plan: {worlds}{p_r * p_c} ranks as a {p_r} x {p_c} grid in blocks of {self.grid_block}; "
            f"{teams_text(Held(self.team_size, self.solver), self.why)}; SNP blocks of {self.block}\n"
            f"{self.memory_text(machine)}"
        )


def plan_scan(
    machine: Machine,
    sizes: ScanSizes,
    team_size: int | None = None,
    block: int | None = None,
    solver: str = "auto",
) -> ScanPlan:
    """Choose worlds, team size, solver and SNP block so that every stage fits the machine's limit.

    ``team_size``, ``block`` and ``solver`` of the user win where given. The team is the smallest that fits: a team of
    one needs no communication. There are several worlds only where that of each is one. Raises MemoryPlanError that
    names what would fit, UsageError for an impossible team.
    """
    check_team_size(team_size, machine)
    candidates = (
        plan
        for worlds in world_counts(machine.ranks, sizes.parts, null_snps(sizes.n, sizes.basis))
        for plan in _candidates(in_world(machine, worlds), sizes, team_size, block, solver, worlds)
        if worlds == 1 or (plan.team_size == 1 and plan.fits(machine.spare))
    )
    return _keeping(machine, sizes, first_that_fits(machine, candidates, spreads=True))


def _keeping(machine: Machine, sizes: ScanSizes, plan: ScanPlan) -> ScanPlan:
    """The plan in which the file of the kinship is read once, if worlds read it for several parts and memory allows."""
    kept = 8 * sizes.n_kinship**2 // (machine.ranks // plan.worlds)
    stages = {name: size + kept for name, size in plan.stages.items()}
    keeping = replace(plan, stages=stages, keeps=True)
    return keeping if kept and len(sizes.parts) > plan.worlds and keeping.fits(machine.spare) else plan


def _candidates(
    machine: Machine, sizes: ScanSizes, team_size: int | None, block: int | None, wish: str, worlds: int
) -> Iterator[ScanPlan]:
    """Of the ``machine`` of a world: small teams first, then the faster solver, then wide blocks."""
    n, grid, work = sizes.n, grid_shape(machine.ranks), _work(sizes)
    for held in work.ways(wish, [team_size] if team_size else range(1, machine.ranks + 1)):
        for width in [block] if block else block_widths(sizes.m, machine.ranks):
            made = stages(machine, sizes, held, width)
            yield ScanPlan(made, n, grid, grid_block(n, grid), *held, work.why(held), width, worlds=worlds)


def _work(sizes: ScanSizes) -> TeamWork:
    """Of the teams: L^-1 X, or Z'X in a basis."""
    return TeamWork(sizes.n, sizes.m * sizes.tested, sizes.item, triangle=not sizes.basis)


def stages(machine: Machine, sizes: ScanSizes, held: Held, width: int) -> dict[str, int]:
    """Bytes a rank of each stage."""
    n, columns, base = sizes.n, sizes.columns, machine.base
    share = 8 * n * n // machine.ranks
    kept = share * (sizes.several_sets + sizes.several_traits + 2 * sizes.keeps_model)
    work = _work(sizes)
    factor, columns_here = work.operator_bytes(held, machine), work.columns_bytes(held, width * sizes.tested, machine)
    if sizes.basis and held.team == 1:  # X~ = Z'X lies beside X
        columns_here *= 2
    sums = 48 * columns + 64 * sizes.nodes * (columns + 1)
    if sizes.tested > 1:  # packed once for each column, and matrices of the columns of a SNP
        sums = sizes.tested * (sizes.snp_bytes + 48 * (columns + 2 * sizes.tested))
        base += SEVERAL
    buffers = columns_here + width * (2 * sizes.snp_bytes + sums) + (4 << 20)
    null = share * (2 + sizes.several_sets) + (share if sizes.packed_kinship else 0)
    if sizes.nodes:
        null = max(null, kept + 4 * share)
    hand_over = share * (2 + sizes.several_sets) + factor + work.hand_over_bytes(held, machine)  # Phi and L are there
    return {
        "null model": base + null + 8 * n * columns,
        "handing over the factor": base + hand_over,
        "scan": base + kept + factor + buffers,
    }
