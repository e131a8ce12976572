"""What a voxelwise GWAS costs on GPUs, one a rank: products and thresholds there, scores on the ranks beside them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from mpgls.device.nominate import half_error
from mpgls.engine.cost import PhaseCost, RunCost
from mpgls.engine.voxelwise_cost import voxelwise_cost
from mpgls.engine.voxelwise_plan import VoxelwisePlan, VoxelwiseSizes
from mpgls.model.mulm import Score
from mpgls.run.plan import Machine

SCORE_PASSES, OF_CONFOUND = 3.0, 0.5
"""Passes over the samples of scoring a pair by one core: its rows and their product, and each row of Z_w."""


def voxelwise_on_cards_cost(machine: Machine, plan: VoxelwisePlan, sizes: VoxelwiseSizes) -> RunCost:
    """The cost of a scan on GPUs that keeps to ``plan``; each rank scores with one core."""
    on_ranks = voxelwise_cost(machine, plan, sizes)
    n, P = float(sizes.n), machine.ranks
    teams = P // plan.team_size
    units = -(-sizes.m // plan.block) * -(-sizes.permutations // plan.permutations)
    rounds = -(-units // teams)
    pairs = float(sizes.m) * sizes.v * sizes.permutations * rounds * teams / units / P  # of the busiest rank
    times = rounds if plan.on_card is not None and plan.on_card.voxels < plan.on_card.chunk else 1
    item = np.dtype(sizes.dtype).itemsize
    copied = item * n * (times * sizes.v / plan.team_size + rounds * min(plan.block, sizes.m))
    scored = pairs * nominated(sizes) * n * (SCORE_PASSES + OF_CONFOUND * sizes.r)
    flop = next(phase.flop for phase in on_ranks.phases if phase.name == "tiles")
    further = (
        PhaseCost("copy to the GPU", {"card.copy": copied}),
        PhaseCost("tiles", {"card.half": 2 * n * pairs, "card.sums": pairs}, flop=flop, ahead_of=("scores",)),
        PhaseCost("scores", {"scale": scored}),
    )
    phases = [one for phase in on_ranks.phases for one in (further if phase.name == "tiles" else (phase,))]
    return replace(on_ranks, study=f"{on_ranks.study}, on GPUs", phases=tuple(phases), on_cards=True)


def nominated(sizes: VoxelwiseSizes) -> float:
    """The share of pairs that chance brings within float16's error of the threshold."""
    score = Score(sizes.n - sizes.r - 1, sizes.threshold)
    beta = max(0.0, math.sqrt(score.share) - half_error(sizes.n))
    t = beta * math.sqrt(score.df / (1.0 - beta**2))
    return float(10.0 ** -score.log10_p(np.array([t]))[0])
