"""The cost of a run of each command, from the sizes of a study that is not there yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from mpgls.commands.plan_parts.options import Plan
from mpgls.device.parts import PRECISIONS
from mpgls.engine.card_cost import kinship_on_cards_cost, scan_on_cards_cost
from mpgls.engine.cost import RunCost
from mpgls.engine.device_plan import CardSizes, plan_on_cards
from mpgls.engine.kinship_cost import KinshipWork, eigen_cost, kinship_cost
from mpgls.engine.kinship_plan import KinshipSizes, plan_eigen, plan_kinship
from mpgls.engine.permutation_tiles import tile_width
from mpgls.engine.ridge_card_cost import ridge_on_cards_cost
from mpgls.engine.ridge_card_plan import RidgeSizes
from mpgls.engine.ridge_cost import RidgeWork, ridge_cost
from mpgls.engine.ridge_plan import PenaltyPlan, plan_kernel, plan_penalties
from mpgls.engine.scan_cost import ScanWork, scan_cost
from mpgls.engine.scan_plan import ScanSizes, plan_scan
from mpgls.engine.tile_card_cost import tiles_on_cards_cost
from mpgls.engine.tile_card_plan import CardTileSizes, plan_tiles_on_cards
from mpgls.engine.tile_cost import TileWork, tile_cost
from mpgls.engine.tile_plan import TileSizes, TileWishes, plan_tiles
from mpgls.engine.voxelwise_card_cost import voxelwise_on_cards_cost
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


def cost_of(options: Plan, limit: int | None) -> Callable[[Machine], RunCost]:
    """What gives the cost on a machine, on its GPUs of ``limit`` bytes each if that is given.

    It raises MemoryPlanError where the plan does not fit.
    """
    if limit is not None:
        return lambda machine: ON_CARDS[options.what](options, machine, limit)
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
    plan = plan_kinship(machine, _kinship_sizes(options))
    return kinship_cost(machine, plan, _kinship_work(options))


def _kinship_on_cards(options: Plan, machine: Machine, limit: int) -> RunCost:
    plan = plan_kinship(machine, replace(_kinship_sizes(options), card=limit))
    return kinship_on_cards_cost(machine, plan, _kinship_work(options))


def _kinship_sizes(options: Plan) -> KinshipSizes:
    n, m = options.samples, _snps(options)
    parts = (-(-m // options.parts),) * options.parts if options.loco else ()
    return KinshipSizes(n, m, _bytes(options), options.loco, parts=parts)


def _kinship_work(options: Plan) -> KinshipWork:
    return KinshipWork(options.samples, _snps(options), _bytes(options), options.parts if options.loco else 0)


def _eigen(options: Plan, machine: Machine) -> RunCost:
    return eigen_cost(machine, plan_eigen(machine, options.samples), options.samples)


def _single_trait(options: Plan, machine: Machine) -> RunCost:
    return scan_cost(machine, plan_scan(machine, _scan_sizes(options)), _scan_work(options))


def _single_trait_on_cards(options: Plan, machine: Machine, limit: int) -> RunCost:
    precision, sizes = _card_sizes(options, _scan_sizes(options), limit)
    return scan_on_cards_cost(machine, plan_on_cards(machine, sizes, None, None), _scan_work(options), precision)


def _card_sizes(options: Plan, scan: ScanSizes, limit: int) -> tuple[str, CardSizes]:
    """The precision on GPUs, and what a scan is made of there."""
    precision = "double" if options.precision == "auto" else options.precision
    return precision, CardSizes(scan, PRECISIONS[precision], limit, options.samples, options.dosages)


def _scan_sizes(options: Plan) -> ScanSizes:
    parts, of_part = options.parts, -(-_snps(options) // options.parts)
    return ScanSizes(
        options.samples, of_part, options.q + 1, _bytes(options), _item(options), several_traits=options.t > 1,
        basis=options.from_eigen, parts=(of_part,) * parts if options.loco else (), n_kinship=options.samples,
    )  # fmt: skip


def _scan_work(options: Plan) -> ScanWork:
    parts, T = options.parts, options.t
    estimated = 0 if options.from_eigen else parts * T
    return ScanWork(
        options.samples, _snps(options), _bytes(options), parts, T, options.q, options.mixed, estimated,
        options.from_eigen,
    )  # fmt: skip


def _multi_trait(options: Plan, machine: Machine) -> RunCost:
    sizes, work = _tile_sizes(options)
    return tile_cost(machine, plan_tiles(machine, sizes, TileWishes()), work)


def _multi_trait_on_cards(options: Plan, machine: Machine, limit: int) -> RunCost:
    sizes, work = _tile_sizes(options)
    precision, of_cards = _card_sizes(options, replace(_scan_sizes(options), basis=True), limit)
    plan = plan_tiles_on_cards(machine, CardTileSizes(sizes, of_cards), TileWishes())
    return tiles_on_cards_cost(machine, plan, work, precision)


def _tile_sizes(options: Plan) -> tuple[TileSizes, TileWork]:
    n, m, parts, t, q = options.samples, _snps(options), options.parts, options.t, options.q
    sizes = TileSizes(n, -(-m // parts), t, q, _bytes(options), _item(options), from_file=options.from_eigen)
    return sizes, TileWork(n, m, _bytes(options), parts, t, q, options.mixed, spectral=options.from_eigen)


def _vgwas(options: Plan, machine: Machine) -> RunCost:
    sizes = _voxelwise_sizes(options, None)
    return voxelwise_cost(machine, plan_voxelwise(machine, sizes, Wishes()), sizes)


def _vgwas_on_cards(options: Plan, machine: Machine, limit: int) -> RunCost:
    sizes = _voxelwise_sizes(options, limit)
    return voxelwise_on_cards_cost(machine, plan_voxelwise(machine, sizes, Wishes()), sizes)


def _voxelwise_sizes(options: Plan, card: int | None) -> VoxelwiseSizes:
    assert options.voxels is not None
    dtype: type = np.float32 if options.mixed else np.float64
    return VoxelwiseSizes(
        options.samples, _snps(options), options.voxels, options.q, options.permuted + 1, THRESHOLD, _bytes(options),
        NEIGHBOURS, dtype, card,
    )  # fmt: skip


def _ridge(options: Plan, machine: Machine) -> RunCost:
    return ridge_cost(machine, *_ridge_work(options, machine, None))


def _ridge_on_cards(options: Plan, machine: Machine, limit: int) -> RunCost:
    return ridge_on_cards_cost(machine, *_ridge_work(options, machine, limit))


def _ridge_work(options: Plan, machine: Machine, card: int | None) -> tuple[PenaltyPlan, RidgeWork]:
    n, m, t = options.samples, _snps(options), options.t
    folds = nested_folds(n, *FOLDS, seed=1)
    sizes = RidgeSizes(n, t, options.q, _item(options), _bytes(options), tile_width(t, False), card)
    kernel = plan_kernel(machine, sizes, None)
    plan = plan_penalties(machine, sizes, folds, [LeaveOut] * PENALTIES, False)
    work = RidgeWork(
        n, m, _bytes(options), t, options.permuted, float(PENALTIES * LeaveOut.size(folds)), PENALTIES, FOLDS,
        options.mixed,
    )  # fmt: skip
    return replace(plan, stages=kernel.stages | plan.stages), work


PLANNED: dict[str, Callable[[Plan, Machine], RunCost]] = {
    "kinship": _kinship,
    "eigen": _eigen,
    "single-trait": _single_trait,
    "multi-trait": _multi_trait,
    "vgwas": _vgwas,
    "ridge": _ridge,
}
"""All but low-rank, whose stages have a cost of their own."""
ON_CARDS: dict[str, Callable[[Plan, Machine, int], RunCost]] = {
    "kinship": _kinship_on_cards,
    "single-trait": _single_trait_on_cards,
    "multi-trait": _multi_trait_on_cards,
    "vgwas": _vgwas_on_cards,
    "ridge": _ridge_on_cards,
}
"""The same on GPUs."""
