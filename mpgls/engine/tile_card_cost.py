"""What a multi-trait scan costs on GPUs, one a rank: rotation, and tiles with what is kept of them."""

from __future__ import annotations

from collections.abc import Iterator

from mpgls.device.parts import PRECISIONS, Double
from mpgls.engine.card_cost import RATE_OF, products_of
from mpgls.engine.cost import SYNCS, PhaseCost, RunCost, busiest, dealt_to_team, leaving
from mpgls.engine.team_solvers import Held
from mpgls.engine.tile_card_plan import CardTilePlan
from mpgls.engine.tile_cost import TileWork, before_tiles, report
from mpgls.engine.tile_plan import NODES
from mpgls.run.plan import Machine
from mpgls.study.genotypes import bytes_per_dosages

EPILOGUE = 12.0
"""Passes over a tile of what is kept of it: squares, histograms, best SNPs, hits."""


def tiles_on_cards_cost(machine: Machine, plan: CardTilePlan, work: TileWork, precision: str) -> RunCost:
    """The cost of a scan on GPUs that keeps to ``plan``; every pass over the SNPs rotates them anew."""
    phases = (
        *before_tiles(machine, plan, work),
        *_stream(machine.ranks, plan, work, PRECISIONS[precision]),
        report(),
    )
    study = f"{work.study}, {precision} precision on GPUs"
    return RunCost("multi-trait", study, machine, plan, plan.text(machine, work.t), phases, on_cards=True)


def _stream(P: int, plan: CardTilePlan, work: TileWork, precision: Double) -> Iterator[PhaseCost]:
    """X~ = Z'X on a team of R cards, each of which then has all rows of its own SNPs and meets every trait alone."""
    n, t, q, R, rate = float(work.n), float(work.t), work.q, plan.team_size, RATE_OF[precision.name]
    passes = -(-work.t // plan.resident)
    m = float(work.groups * work.m * passes)
    mine = work.groups * passes * busiest(work.m, work.parts, plan.block, P)
    columns, rotate = mine * R, 2 * n**2
    phases = ("rotate SNPs", "tiles")
    yield PhaseCost("read (waiting)", read=m * work.snp_bytes, ahead_of=("decode", *phases))
    yield PhaseCost("decode", {"card.copy": columns * work.snp_bytes, "card.decode": columns * n}, ahead_of=phases)
    products = products_of(precision, work.snp_bytes >= bytes_per_dosages(work.n))
    rotation = {rate: products * rotate * mine, "card.decode": columns * n, "card.sums": products * mine * n}
    exchanged = leaving(precision.sums.itemsize * n * m, R)
    dealt = dealt_to_team(Held(R, "inverse"), m, 0.0, work.snp_bytes)
    yield PhaseCost("rotate SNPs", rotation, flop=rotate * m, sent=dealt + exchanged)
    if plan.streamed:
        blocks = work.groups * passes * work.parts * -(-work.m // (work.parts * plan.block * P))
        yield PhaseCost("panels to GPUs", {"card.copy": float(plan.streamed) * blocks}, ahead_of=phases)
    nodes = 2 * n * -(-work.t // plan.panel) * NODES * (1 + q)
    tile = 2 * n * t / passes
    of_parts = products_of(precision, dosages=True)  # X~ is split as dosages are
    tiles = {"card.gemm": nodes / passes * mine, "card.sums": EPILOGUE * t / passes * mine}
    tiles[rate] = tiles.get(rate, 0.0) + of_parts * tile * mine
    yield PhaseCost("tiles", tiles, flop=tile * m)
    effects = 2 * 8.0 * work.m * t if work.dense else 0.0
    yield PhaseCost("write", written=effects, syncs=SYNCS * work.parts * passes)
