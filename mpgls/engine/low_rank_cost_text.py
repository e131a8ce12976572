"""The cost of a low-rank run in words, beside the published one, and as plain values."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from mpgls.engine.cost import Timed
from mpgls.engine.cost_text import Source, bytes_text, hours_text, machine_lines, plan_lines, ranks_lines, time_text
from mpgls.engine.low_rank_cost import Cost
from mpgls.engine.rates import Rates
from mpgls.run.findings import count

SHOWN = 0.02
"""Share of the run from which on a term is named."""
PAPER_SIZES = (1_000_000, 1_000_000, 50_000)
PAPER_CPU_DAYS = 868.0
"""[Ludicrous], abstract: the sizes above (samples, SNPs, similarity SNPs) on the authors' cluster."""


def text(cost: Cost, rates: Rates, source: Source, sensible: tuple[Timed, Timed] | None) -> str:
    """The plan for people."""
    ranks = ranks_lines(sensible, source.threads, cost.on_cards)
    return "\n".join(
        [*_head(cost, rates, source), "", *_table(cost), "", *_total(cost, source), *ranks, "", *_paper(cost, source)]
    )


def _head(cost: Cost, rates: Rates, source: Source) -> list[str]:
    p = cost.problem
    numbers = ("dosages, " if p.dosages else "") + ("mixed" if p.mixed else "double")
    lines = [
        f"study     {p.n:,} samples, {p.m:,} SNPs, {p.K:,} similarity SNPs, {count(p.chromosomes, 'chromosome')}, "
        f"{count(p.T, 'trait')}, {count(p.q - 1, 'covariate')}, {numbers} precision",
        *machine_lines(cost.machine, rates, source, cost.on_cards),
        *plan_lines(cost.plan.text(cost.machine)),
    ]
    if p.n <= p.K:
        lines.append("note      with K >= n the n x n form of low-rank is cheaper; this is the cost of the K x K form")
    return lines


def _table(cost: Cost) -> list[str]:
    head = f"{'stage':<20}{'TFLOP':>12}{'read':>11}{'written':>11}{'sent':>11}{'a rank':>11}{'a node':>11}{'time':>13}"
    lines = [head, "-" * len(head)]
    here = cost.machine.ranks_per_node
    for stage in cost.stages:
        tflop = f"{stage.flop / 1e12:,.1f}" if stage.flop else "-"
        sizes = "".join(f" {bytes_text(size):>10}" for size in (stage.read, stage.written, stage.sent, stage.memory))
        node = bytes_text(stage.memory * here)
        lines.append(f"{stage.name:<20}{tflop:>12}{sizes} {node:>10} {time_text(stage.seconds):>12}")
    return lines


def _total(cost: Cost, source: Source) -> list[str]:
    hours = hours_text(cost.seconds, cost.machine, source, cost.on_cards)
    if not cost.on_cards:
        hours += f" = {cost.seconds * cost.machine.ranks * source.threads / 86400:,.4g} CPU-days"
    flop = sum(stage.flop for stage in cost.stages)
    terms: dict[str, float] = {}
    for stage in cost.stages:
        for name, seconds in stage.terms.items():
            terms[name] = terms.get(name, 0.0) + seconds
    largest = sorted(terms.items(), key=lambda term: -term[1])
    shares = ", ".join(f"{name} {s / cost.seconds:.0%}" for name, s in largest if s >= SHOWN * cost.seconds)
    return [
        f"in all    {time_text(cost.seconds)}, {flop / 1e12:,.1f} TFLOP; {hours}",
        f"spent on  {shares}",
    ]


def _paper(cost: Cost, source: Source) -> list[str]:
    """The whole run of [Ludicrous]; only its total is compared, because its stages are not these."""
    n, m, K = PAPER_SIZES
    p = cost.problem
    line = (
        f"beside    [Ludicrous] (Kadie and Heckerman, bioRxiv 154682): {n:,} samples x {m:,} SNPs, {K:,} similarity "
        f"SNPs: about {PAPER_CPU_DAYS:,.0f} CPU-days"
    )
    if (p.n, p.m, p.K) != PAPER_SIZES:
        return [f"{line} (other sizes than these)"]
    days = cost.seconds * cost.machine.ranks * source.threads / 86400
    if cost.on_cards:
        return [f"{line}; predicted here: {time_text(cost.seconds)} on {count(cost.machine.ranks, 'GPU')}"]
    return [f"{line}; predicted here: {days:,.4g}, {PAPER_CPU_DAYS / days:,.0f} times less, on other processors"]


def plan_facts(cost: Cost, rates: Rates, source: Source, sensible: tuple[Timed, Timed] | None) -> dict[str, Any]:
    """The plan for programs."""
    return {
        "planned": "low-rank",
        "device": "gpu" if cost.on_cards else "cpu",
        "problem": asdict(cost.problem),
        "machine": asdict(cost.machine),
        "plan": asdict(cost.plan),
        "rates": asdict(rates),
        "source": asdict(source),
        "stages": [asdict(stage) | {"seconds": stage.seconds} for stage in cost.stages],
        "seconds": cost.seconds,
        "cpu_days": cost.seconds * cost.machine.ranks * source.threads / 86400,
        "smallest": None if sensible is None else sensible[0]._asdict(),
        "fastest": None if sensible is None else sensible[1]._asdict(),
        "paper": {"sizes": PAPER_SIZES, "cpu_days": PAPER_CPU_DAYS},
    }
