"""What a voxelwise GWAS costs, phase by phase; docs/performance.md has the formulas."""

from __future__ import annotations

from collections.abc import Iterator

from mpgls.engine.cost import PLOT_SECONDS, PLOT_START, ROW_BYTES, SYNCS, PhaseCost, RunCost, leaving, opening
from mpgls.engine.voxelwise_plan import VoxelwisePlan, VoxelwiseSizes
from mpgls.run.findings import count
from mpgls.run.plan import Machine

TILE_SHARE = 0.9
"""Rate of the tiles, with their threshold while they are in cache, over that of GEMM."""
ENTRY_NUMBERS = 40.0
"""Numbers put right, at the rate of an epilogue, for each pair of SNP and voxel beyond the threshold."""
SNP_PASSES = 15.0
"""Passes over the decoded SNPs of a unit: those that are tested, their residuals and lengths."""
PERMUTE_PASSES = 2.0
"""Passes over the SNPs of a unit of permuting them."""
RESIDUAL_PASSES = 6.0
"""Passes over the voxels of taking the confounds away and scaling to length 1."""
ENTRY_BYTES = 32


def voxelwise_cost(machine: Machine, plan: VoxelwisePlan, sizes: VoxelwiseSizes) -> RunCost:
    """The cost of a scan that keeps to ``plan``; pairs beyond the threshold are those that chance makes."""
    permutations, confounds = count(sizes.permutations - 1, "permutation"), count(sizes.r, "confound")
    study = (
        f"{sizes.n:,} samples, {sizes.m:,} SNPs, {sizes.v:,} voxels, {permutations} and the data, {confounds}, "
        f"{plan.precision} precision"
    )
    phases = (*opening(sizes.m + 3.0 * sizes.n), *_scan(machine, plan, sizes), *_report(machine.ranks, sizes))
    return RunCost("vgwas", study, machine, plan, plan.text(machine), phases)


def _scan(machine: Machine, plan: VoxelwisePlan, sizes: VoxelwiseSizes) -> Iterator[PhaseCost]:
    """Units of SNPs and permutations, dealt to teams whose ranks share the voxels: 2 n operations a pair."""
    n, m, v, permutations = float(sizes.n), float(sizes.m), float(sizes.v), sizes.permutations
    P, R = machine.ranks, plan.team_size
    teams = P // R
    units = -(-sizes.m // plan.block) * -(-permutations // plan.permutations)
    rounds = -(-units // teams)
    decoded = rounds * min(plan.block, m) * n  # by every rank of a team
    passes = rounds if plan.streamed else 1
    sharing = 1 if plan.streamed else min(machine.ranks_per_node, P) if R == 1 else 1
    voxels = passes * n * v / R / sharing
    read = 4 * n * v * (teams * passes if plan.streamed else -(-P // machine.ranks_per_node) if R == 1 else teams)
    rate = "single" if plan.precision == "mixed" else "double"
    flop = 2 * n * m * v * permutations
    share = rounds * teams / units  # of the busiest team, over an even share
    permuted = n * m * permutations * share / teams
    entries = sizes.threshold * m * v * permutations
    yield PhaseCost("read voxels (waiting)", read=read, ahead_of=("residuals of voxels",))
    yield PhaseCost("residuals of voxels", {"scale": RESIDUAL_PASSES * voxels})
    reads = -(-permutations // plan.permutations) * m * sizes.snp_bytes
    yield PhaseCost("read (waiting)", read=reads * R, ahead_of=("decode", "tiles"))
    yield PhaseCost("decode", {"count": decoded, "double.decode": decoded, "scale": SNP_PASSES * decoded})
    yield PhaseCost(
        "tiles", {f"{rate}.gemm": flop * share / P / TILE_SHARE, "scale": PERMUTE_PASSES * permuted}, flop=flop
    )
    yield PhaseCost("combine in team", sent=leaving(ENTRY_BYTES * entries, R))
    yield PhaseCost("clusters", {"epilogue": ENTRY_NUMBERS * entries * share / P}, syncs=SYNCS * rounds)


def _report(P: int, sizes: VoxelwiseSizes) -> Iterator[PhaseCost]:
    """The table of SNPs by all ranks, the pairs of the data and pictures by rank 0."""
    rows, pairs = float(sizes.m), sizes.threshold * sizes.m * sizes.v
    written = ROW_BYTES * rows + ENTRY_BYTES * pairs
    yield PhaseCost("report", {"rows": rows / P, "epilogue": pairs}, written=written, seconds=PLOT_START + PLOT_SECONDS)
