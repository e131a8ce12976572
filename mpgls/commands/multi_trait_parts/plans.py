"""The plan of mpgls multi-trait, and what a run of it costs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mpgls.commands.multi_trait_parts.options import MultiTrait
from mpgls.engine.device_plan import card_limit
from mpgls.engine.tile_card_plan import CardTilePlan, CardTileSizes, plan_tiles_on_cards
from mpgls.engine.tile_plan import TilePlan, Tiles, TileSizes, TileWishes, plan_tiles
from mpgls.run.findings import count
from mpgls.run.inputs import Study
from mpgls.run.job import Job
from mpgls.run.plan import Machine, block_within
from mpgls.study.trait_groups import TraitStudy

if TYPE_CHECKING:
    from mpgls.device.card import Card
    from mpgls.engine.cost import RunCost
    from mpgls.study.chromosomes import Chromosomes

SHOWN_GROUPS = 20
"""Groups that the plan lists."""


def make_plan(
    options: MultiTrait,
    study: Study,
    traits: TraitStudy,
    chromosomes: Chromosomes,
    tiles: Tiles | None,
    card: Card | None,
    job: Job,
) -> TilePlan:
    """The plan for the largest group, in the log before anything large is allocated; a resumed run keeps its tiles."""
    machine, limit = job.machine(study.fileset.bed.held_bytes), card_limit(card, job.world)
    sizes = sizes_of(options, study, traits, len(chromosomes.labels))
    plan = plan_on(machine, options, study, sizes, limit, tiles)
    job.world.log.info(plan.text(machine, sizes.t))
    for g, group in enumerate(traits.groups[:SHOWN_GROUPS]):
        job.world.log.info(f"plan: group {g + 1}: {count(group.traits.size, 'trait')} over {group.n:,} samples")
    return plan


def plan_on(
    machine: Machine, options: MultiTrait, study: Study, sizes: TileSizes, limit: int | None, tiles: Tiles | None = None
) -> TilePlan:
    """The plan; ``limit``: bytes of each rank's GPU, None without GPUs. Raises MemoryPlanError."""
    if limit is None:
        return plan_tiles(machine, sizes, wishes_of(options, study), tiles)
    of_card = CardTileSizes.of(sizes, options.precision, limit, study.fileset.bed)
    return plan_tiles_on_cards(machine, of_card, wishes_of(options, study), tiles)


def sizes_of(options: MultiTrait, study: Study, traits: TraitStudy, parts: int) -> TileSizes:
    """What the plan depends on."""
    sizes = TileSizes.of(study, traits, parts, options.pcs, options.dtype, options.dense)
    return replace(sizes, ratios=options.ratio == "snp")


def wishes_of(options: MultiTrait, study: Study) -> TileWishes:
    """What the user asks of the plan."""
    block = block_within(options.block_size, study.selected)
    return TileWishes(options.team_size, options.solver, block, options.trait_block, options.pass_traits)


def cost_on(
    machine: Machine,
    options: MultiTrait,
    study: Study,
    traits: TraitStudy,
    given: np.ndarray,
    limit: int | None,
) -> RunCost:
    """What the scan costs; ``given`` (parts, t) are heritabilities of the user, or NaN; ``limit``: bytes of a GPU.

    Raises MemoryPlanError.
    """
    from mpgls.engine.tile_card_cost import tiles_on_cards_cost
    from mpgls.engine.tile_cost import TileWork, tile_cost

    sizes = sizes_of(options, study, traits, len(given))
    groups, estimated = max(1, len(traits.groups)), int(np.isnan(given).sum())
    work = TileWork.of(sizes, study.selected, given.shape, groups, estimated)
    plan = plan_on(machine, options, study, sizes, limit)
    if isinstance(plan, CardTilePlan):
        return tiles_on_cards_cost(machine, plan, work, options.precision)
    return tile_cost(machine, plan, work)
