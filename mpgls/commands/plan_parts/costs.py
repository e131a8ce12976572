"""The cost of a run of each command, from the sizes of a study that is not there yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from mpgls.commands.plan_parts.options import Plan
from mpgls.engine.cost import RunCost
from mpgls.engine.kinship_cost import KinshipWork, eigen_cost, kinship_cost
from mpgls.engine.kinship_plan import KinshipSizes, plan_eigen, plan_kinship
from mpgls.engine.permutation_tiles import tile_width
from mpgls.engine.ridge_cost import RidgeWork, ridge_cost
from mpgls.engine.ridge_plan import RidgeSizes, plan_kernel, plan_penalties
from mpgls.engine.scan_cost import ScanWork, scan_cost
from mpgls.engine.scan_plan import ScanSizes, plan_scan
from mpgls.engine.tile_cost import TileWork, tile_cost
from mpgls.engine.tile_plan import TileSizes, TileWishes, plan_tiles
from mpgls.engine.voxelwise_cost import voxelwise_cost
from mpgls.engine.voxelwise_plan import VoxelwiseSizes, Wishes, plan_voxelwise
from mpgls.model.folds import nested_folds
from mpgls.model.kernel_ridge import LeaveOut
from mpgls.run.plan import Machine
from mpgls.study.genotypes import bytes_per_dosages, bytes_per_snp

FOLDS = (10, 5)
"""Outer and inner folds of ridge, and its penalties: its own defaults."""
PENALTIES = 5
THRESHOLD = 1e-4
"""The share of pairs of SNP and voxel that vgwas keeps by default."""
NEIGHBOURS = 6


def cost_of(options: Plan) -> Callable[[Machine], RunCost]:
    """What gives the cost on a machine, which raises MemoryPlanError where the plan does not fit."""
    made = PLANNED[options.what]
    return lambda machine: made(options, machine)


def _item(options: Plan) -> int:
    return 4 if options.mixed else 8


def _bytes(options: Plan) -> int:
    """Of a SNP once it is read."""
    return bytes_per_dosages(options.samples) if options.dosages else bytes_per_snp(options.samples)


def _snps(options: Plan) -> int:
    assert options.snps is not None
    return options.snps


def _kinship(options: Plan, machine: Machine) -> RunCost:
    n, m = options.samples, _snps(options)
    parts = (-(-m // options.parts),) * options.parts if options.loco else ()
    plan = plan_kinship(machine, KinshipSizes(n, m, _bytes(options), options.loco, parts=parts))
    return kinship_cost(machine, plan, KinshipWork(n, m, _bytes(options), options.parts if options.loco else 0))


def _eigen(options: Plan, machine: Machine) -> RunCost:
    return eigen_cost(machine, plan_eigen(machine, options.samples), options.samples)


def _single_trait(options: Plan, machine: Machine) -> RunCost:
    n, m, parts, T, q = options.samples, _snps(options), options.parts, options.t, options.q
    of_part = -(-m // parts)
    sizes = ScanSizes(
        n, of_part, q + 1, _bytes(options), _item(options), several_traits=T > 1, basis=options.from_eigen,
        parts=(of_part,) * parts if options.loco else (), n_kinship=n,
    )  # fmt: skip
    estimated = 0 if options.from_eigen else parts * T
    work = ScanWork(n, m, _bytes(options), parts, T, q, options.mixed, estimated, options.from_eigen)
    return scan_cost(machine, plan_scan(machine, sizes), work)


def _multi_trait(options: Plan, machine: Machine) -> RunCost:
    n, m, parts, t, q = options.samples, _snps(options), options.parts, options.t, options.q
    sizes = TileSizes(n, -(-m // parts), t, q, _bytes(options), _item(options), from_file=options.from_eigen)
    work = TileWork(n, m, _bytes(options), parts, t, q, options.mixed, spectral=options.from_eigen)
    return tile_cost(machine, plan_tiles(machine, sizes, TileWishes()), work)


def _vgwas(options: Plan, machine: Machine) -> RunCost:
    n, v = options.samples, options.voxels
    assert v is not None
    dtype: type = np.float32 if options.mixed else np.float64
    sizes = VoxelwiseSizes(
        n, _snps(options), v, options.q, options.permuted + 1, THRESHOLD, _bytes(options), NEIGHBOURS, dtype
    )
    return voxelwise_cost(machine, plan_voxelwise(machine, sizes, Wishes()), sizes)


def _ridge(options: Plan, machine: Machine) -> RunCost:
    n, m, t = options.samples, _snps(options), options.t
    folds = nested_folds(n, *FOLDS, seed=1)
    each = LeaveOut.size(folds)
    sizes = RidgeSizes(n, t, options.q, _item(options), _bytes(options), tile_width(t, False))
    kernel = plan_kernel(machine, sizes, None)
    plan = plan_penalties(machine, sizes, folds, [each] * PENALTIES, False)
    work = RidgeWork(
        n, m, _bytes(options), t, options.permuted, float(PENALTIES * each), PENALTIES, FOLDS, options.mixed
    )
    return ridge_cost(machine, replace(plan, stages=kernel.stages | plan.stages), work)


PLANNED: dict[str, Callable[[Plan, Machine], RunCost]] = {
    "kinship": _kinship,
    "eigen": _eigen,
    "single-trait": _single_trait,
    "multi-trait": _multi_trait,
    "vgwas": _vgwas,
    "ridge": _ridge,
}
"""All but low-rank, whose stages have a cost of their own."""
