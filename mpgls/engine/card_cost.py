"""What a kinship and a single-trait scan cost on GPUs, one a rank; docs/performance.md has the formulas of the ranks.

The phases are those of a run on ranks, with the products, decoding and counting at the rates of a card. While a card
multiplies a block, the next is read, copied and counted, and the host fits the one before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from mpgls.device.operator import HEIGHT
from mpgls.device.parts import LOWEST, PRECISIONS, Double
from mpgls.engine.cost import COARSE, FINE, SYNCS, PhaseCost, RunCost, busiest, dealt_to_team, opening
from mpgls.engine.device_plan import CardPlan
from mpgls.engine.kinship_cost import KinshipWork, kinship_cost
from mpgls.engine.kinship_plan import KinshipPlan
from mpgls.engine.scan_cost import RECORD_BYTES, SOLVES, ScanWork, check_in_double, hand_over, null_models, report
from mpgls.engine.team_solvers import Held
from mpgls.la.layout import grid_shape
from mpgls.run.plan import Machine
from mpgls.study.genotypes import bytes_per_dosages

RATE_OF = {"double": "card.gemm", "mixed": "card.half", "exact": "card.int8"}
"""The rate of the products of each precision."""
PASSES = 2
"""Passes over a float64 sum to which an integer product is added."""


def products_of(precision: Double, dosages: bool) -> int:
    """Products of a part of W and a part of genotypes, or of ``dosages``."""
    if not dosages:
        return precision.count
    pairs = [(p, q) for p in range(precision.count) for q in range(precision.dosage_count)]
    if precision.name == "exact":
        return sum(p + q >= LOWEST for p, q in pairs)
    return len(pairs) - (precision.name == "mixed")  # that of two low parts is left out


def scan_on_cards_cost(machine: Machine, plan: CardPlan, work: ScanWork, precision: str) -> RunCost:
    """The cost of a scan on GPUs that keeps to ``plan``; it is checked in double in every precision."""
    rows_of_inverse, P = replace(plan, solver="inverse"), machine.ranks
    phases = (
        *opening(work.m + 3.0 * work.n),
        *_factors(null_models(P, plan, work), plan, work),
        *_factors(hand_over(machine, rows_of_inverse, work), plan, work),
        *_factors(check_in_double(P, plan.worlds, work), plan, work),
        *_stream(P, plan, work, PRECISIONS[precision]),
        report(P, work),
    )
    study = f"{work.study}, {precision} precision on GPUs"
    return RunCost("single-trait", study, machine, plan, plan.text(machine), phases, on_cards=True)


def _factors(phases: Iterator[PhaseCost], plan: CardPlan, work: ScanWork) -> Iterator[PhaseCost]:
    """``phases`` with factors, solves and inverses on the card of rank 0, where the plan makes them there."""
    n, models = float(work.n), work.models
    on_card = {
        "REML, sums": {"card.sums": SOLVES / 2 * n**2 * ((COARSE + FINE) * work.estimated + models - work.estimated)},
        "hand over factor": {"card.gemm": models * n**3 / 3, "card.copy": models * 4 * n**2},
        "check in double": {"card.potrf": models * n**3 / 3},
    }
    for phase in phases:
        if plan.factorises and phase.name.startswith("REML") and phase.flop:
            yield replace(phase, work={"card.potrf": phase.flop})
        elif plan.factorises and phase.name in on_card:
            yield replace(phase, work=on_card[phase.name])
        else:
            yield phase


def _stream(P: int, plan: CardPlan, work: ScanWork, precision: Double) -> Iterator[PhaseCost]:
    """The phases of the blocks: each rank of a team of R has the columns of all R on its card, and 1/R of W's rows."""
    n, m = float(work.n), float(work.T * work.m)
    mine = work.T * busiest(work.m, work.parts, plan.block, P)
    columns = mine * plan.team_size
    flop = (2 if work.spectral else 1) * n**2
    products = products_of(precision, work.snp_bytes >= bytes_per_dosages(work.n))
    numbers = mine * n * (1 + (products if precision.name == "exact" else 0))
    product = {RATE_OF[precision.name]: products * flop * mine, "card.decode": columns * n, "card.sums": numbers}
    dealt = dealt_to_team(Held(plan.team_size, "inverse"), m, 0.0, work.snp_bytes)
    yield PhaseCost("read (waiting)", read=m * work.snp_bytes, ahead_of=("decode", "solve"))
    yield PhaseCost("decode", {"card.copy": columns * work.snp_bytes, "card.decode": columns * n}, ahead_of=("solve",))
    yield PhaseCost("solve", product, flop=flop * m, sent=dealt)
    if plan.streamed:
        blocks = work.T * work.parts * -(-work.m // (work.parts * plan.block * P))
        yield PhaseCost("panels to GPUs", {"card.copy": float(plan.streamed) * blocks}, ahead_of=("solve",))
    yield PhaseCost("statistics", {"double.products": mine * (work.q + 2)}, ahead_of=("solve",))
    yield PhaseCost("write", written=RECORD_BYTES * m, syncs=SYNCS * work.models)


def kinship_on_cards_cost(machine: Machine, plan: KinshipPlan, work: KinshipWork) -> RunCost:
    """The cost of a kinship on GPUs, of SNPs that nobody lacks: int8 products, added up in float64."""
    on_ranks = kinship_cost(machine, plan, work)
    R, parts = machine.ranks // plan.worlds, max(1, work.parts)
    n, m, (p_r, p_c) = float(work.n), float(work.m) * -(-parts // plan.worlds) / parts, grid_shape(R)
    rows, cols = n / p_r, n / p_c
    lower = rows * cols * (1 + HEIGHT / max(HEIGHT, rows)) / 2 if R == 1 else rows * cols
    blocks = m / plan.block
    replaced = {
        "decode": PhaseCost("decode", {"card.copy": m * work.snp_bytes, "card.decode": m * (n + rows + cols)}),
        "product in double": PhaseCost(
            "product",
            {"card.int8": 2 * m * lower, "card.sums": PASSES * blocks * lower},
            flop=R * 2 * work.m * lower,
        ),
    }
    phases = tuple(replaced.get(phase.name, phase) for phase in on_ranks.phases)
    return replace(on_ranks, study=f"{on_ranks.study}, on GPUs", phases=phases, on_cards=True)
