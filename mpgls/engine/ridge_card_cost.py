"""What ridge regression in nested cross-validation costs on GPUs, one a rank; all of its products are made there."""

from __future__ import annotations

from dataclasses import replace

from mpgls.engine.cost import PhaseCost, RunCost
from mpgls.engine.kernel_on_card import EDGE
from mpgls.engine.ridge_cost import RidgeWork, ridge_cost
from mpgls.engine.ridge_plan import PenaltyPlan
from mpgls.run.plan import Machine

INVERSE = 3.0
"""Operations of L^-1 and of L^-T L^-1, over n^3."""


def ridge_on_cards_cost(machine: Machine, plan: PenaltyPlan, work: RidgeWork) -> RunCost:
    """The cost of all penalties, folds and permutations; each card makes the operators of all penalties."""
    on_ranks = ridge_cost(machine, plan, work)
    n, m, P, (outer, inner) = float(work.n), float(work.m), machine.ranks, work.folds
    kernels = 1 + work.by_fold * outer * (1 + inner)
    edges = -(-work.n // EDGE)
    tiles = edges * (edges + 1) / 2
    product = kernels * 2.0 * m * (n / edges) ** 2
    o, i = n / outer, (n - n / outer) / inner  # samples of a fold
    of_folds = outer * (2 * n * o**2 + INVERSE * o**3) + outer * inner * (2 * i * i * (i + 2 * o) + INVERSE * i**3)
    columns = float(work.t) * (1 + work.permutations) / P
    flop = 2.0 * work.multiplications * columns
    moved = work.penalties * columns * (outer * inner * (3 * i + o) + 3 * n)
    replaced = {
        "kernel": PhaseCost(
            "kernel",
            {"card.copy": 8 * kernels * n * m, "card.gemm": product * -(-tiles // P)},
            flop=product * tiles,
        ),
        "permutations": PhaseCost("permutations", {"card.gemm": flop, "card.sums": moved}, flop=P * flop),
    }
    if not work.by_fold:
        made = {"card.potrf": n**3 / 3, "card.gemm": INVERSE * n**3 + of_folds}
        making = {name: work.penalties * amount for name, amount in made.items()}
        replaced["fold operators"] = PhaseCost("fold operators", making)
    phases = [replaced.get(phase.name, phase) for phase in on_ranks.phases if phase.name != "invert"]
    how = on_ranks.how if plan.on_card is None else f"{on_ranks.how}\n{plan.on_card.text}"
    return replace(on_ranks, study=f"{on_ranks.study}, on GPUs", how=how, phases=tuple(phases), on_cards=True)
