"""The cost of a low-rank run in words, beside the published one, and as plain values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from mpgls.engine.low_rank_cost import Cost
from mpgls.engine.rates import Rates
from mpgls.run.findings import count
from mpgls.run.log import duration
from mpgls.run.plan import GIB

SHOWN = 0.02
"""Share of the run from which on a term is named."""
PAPER_SIZES = (1_000_000, 1_000_000, 50_000)
PAPER_CPU_DAYS = 868.0
"""[Ludicrous], abstract: the sizes above (samples, SNPs, similarity SNPs) on the authors' cluster."""


@dataclass(frozen=True)
class Source:
    """Where rates come from: in words, and on how many ranks, threads of a rank and nodes they were measured."""

    text: str
    ranks: int
    threads: int
    nodes: int


def text(cost: Cost, rates: Rates, source: Source) -> str:
    """The plan for people."""
    return "\n".join(
        [*_head(cost, rates, source), "", *_table(cost), "", *_total(cost, source), "", *_paper(cost, source)]
    )


def _head(cost: Cost, rates: Rates, source: Source) -> list[str]:
    p, at, plan = cost.problem, cost.machine, cost.plan
    nodes = -(-at.ranks // at.ranks_per_node)
    limit = "no limit of memory" if at.limit is None else f"{at.limit / GIB:.4g} GiB a rank"
    single, double = rates.single.gemm / 1e9, rates.double.gemm / 1e9
    numbers = ("dosages, " if p.dosages else "") + ("mixed" if p.mixed else "double")
    lines = [
        f"study     {p.n:,} samples, {p.m:,} SNPs, {p.K:,} similarity SNPs, {count(p.chromosomes, 'chromosome')}, "
        f"{count(p.T, 'trait')}, {count(p.q - 1, 'covariate')}, {numbers} precision",
        f"machine   {_ranks(at.ranks)} on {count(nodes, 'node')}, {limit}",
        f"rates     {source.text}: GEMM of a rank {double:.0f} GFLOP/s double, {single:.0f} single",
        *("          " + line.removeprefix("plan: ") for line in plan.text(at).split("\n")),
    ]
    lines[3] = "plan" + lines[3][4:]
    if p.n <= p.K:
        lines.append("note      with K >= n the n x n form of low-rank is cheaper; this is the cost of the K x K form")
    if source.ranks != at.ranks:
        lines.append(
            f"note      rates of {_ranks(source.ranks)} stand for those of {at.ranks}: exchange and the Cholesky on a "
            "grid get slower with more nodes, and the filesystem is taken to serve no more than it did"
        )
    return lines


def _table(cost: Cost) -> list[str]:
    head = f"{'stage':<20}{'TFLOP':>12}{'read':>11}{'written':>11}{'sent':>11}{'a rank':>11}{'a node':>11}{'time':>13}"
    lines = [head, "-" * len(head)]
    here = cost.machine.ranks_per_node
    for stage in cost.stages:
        tflop = f"{stage.flop / 1e12:,.1f}" if stage.flop else "-"
        sizes = "".join(f"{_bytes(size):>11}" for size in (stage.read, stage.written, stage.sent, stage.memory))
        node = _bytes(stage.memory * here)
        lines.append(f"{stage.name:<20}{tflop:>12}{sizes}{node:>11}{_time(stage.seconds):>13}")
    return lines


def _total(cost: Cost, source: Source) -> list[str]:
    core_hours = cost.seconds * cost.machine.ranks * source.threads / 3600
    flop = sum(stage.flop for stage in cost.stages)
    terms: dict[str, float] = {}
    for stage in cost.stages:
        for name, seconds in stage.terms.items():
            terms[name] = terms.get(name, 0.0) + seconds
    largest = sorted(terms.items(), key=lambda term: -term[1])
    shares = ", ".join(f"{name} {s / cost.seconds:.0%}" for name, s in largest if s >= SHOWN * cost.seconds)
    return [
        f"in all    {_time(cost.seconds)}, {flop / 1e12:,.1f} TFLOP; {core_hours:,.4g} core-hours = "
        f"{core_hours / 24:,.4g} CPU-days ({count(source.threads, 'core')} a rank)",
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
    return [f"{line}; predicted here: {days:,.4g}, {PAPER_CPU_DAYS / days:,.0f} times less, on other processors"]


def plan_facts(cost: Cost, rates: Rates, source: Source) -> dict[str, Any]:
    """The plan for programs."""
    return {
        "problem": asdict(cost.problem),
        "machine": asdict(cost.machine),
        "plan": asdict(cost.plan),
        "rates": asdict(rates),
        "source": asdict(source),
        "stages": [asdict(stage) | {"seconds": stage.seconds} for stage in cost.stages],
        "seconds": cost.seconds,
        "cpu_days": cost.seconds * cost.machine.ranks * source.threads / 86400,
        "paper": {"sizes": PAPER_SIZES, "cpu_days": PAPER_CPU_DAYS},
    }


def _ranks(number: int) -> str:
    return count(number, "rank")


def _bytes(size: float) -> str:
    if size == 0:
        return "-"
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return f"{size / scale:,.1f} {unit}"
    return f"{size / 1e3:,.1f} kB"


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else duration(seconds)
