"""The cost of a run in words, and as plain values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from mpgls.engine.cost import RunCost, Timed
from mpgls.engine.rates import Rates
from mpgls.run.findings import count
from mpgls.run.log import duration
from mpgls.run.plan import GIB, Machine

TOTALS = ("flop", "read", "written", "sent")
"""What a phase has beside its seconds: operations and bytes, sums over ranks."""


@dataclass(frozen=True)
class Source:
    """Where rates come from: in words, and on how many ranks, threads of a rank and nodes they were measured."""

    text: str
    ranks: int
    threads: int
    nodes: int


def text(cost: RunCost, rates: Rates, source: Source, sensible: tuple[Timed, Timed] | None) -> str:
    """The plan for people: study, machine, memory of each stage, seconds of each phase, and how many ranks."""
    return "\n".join(
        [
            f"study     {cost.study}",
            *machine_lines(cost.machine, rates, source, cost.on_cards),
            *plan_lines(cost.how),
            "",
            *_memory(cost),
            "",
            *_phases(cost, rates),
            "",
            _total(cost, rates, source),
            *ranks_lines(sensible, source.threads, cost.on_cards),
        ]
    )


def machine_lines(at: Machine, rates: Rates, source: Source, on_cards: bool) -> list[str]:
    """The machine, where its rates come from, and what these cannot say."""
    nodes = -(-at.ranks // at.ranks_per_node)
    limit = "no limit of memory" if at.limit is None else f"{at.limit / GIB:.4g} GiB a rank"
    single, double = rates.single.gemm / 1e9, rates.double.gemm / 1e9
    lines = [
        f"machine   {count(at.ranks, 'rank')} on {count(nodes, 'node')}, {limit}",
        f"rates     {source.text}: GEMM of a rank {double:.0f} GFLOP/s double, {single:.0f} single",
    ]
    if on_cards and rates.card is not None:
        double, half, int8 = (rate / 1e12 for rate in (rates.card.gemm, rates.card.half, rates.card.int8))
        lines.append(
            f"          a GPU a rank: products at {double:.0f} TFLOP/s double, {half:.0f} float16, {int8:.0f} int8; "
            f"{rates.card.memory / GIB:.0f} GiB"
        )
    if source.ranks != at.ranks:
        lines.append(
            f"note      rates of {count(source.ranks, 'rank')} stand for those of {at.ranks}: exchange and the "
            "Cholesky on a grid get slower with more nodes, and the filesystem is taken to serve no more than it did"
        )
    return lines


def plan_lines(how: str) -> list[str]:
    """The plan as it stands in the log of a run."""
    first, *others = (line.removeprefix("plan: ") for line in how.split("\n"))
    return [f"plan      {first}", *(f"          {line}" for line in others)]


def ranks_lines(sensible: tuple[Timed, Timed] | None, threads: int, on_cards: bool) -> list[str]:
    """The fewest ranks that fit, and the most that are worth it; ``on_cards``: each has a GPU, whose hours count."""
    if sensible is None:
        return ["ranks     no number of ranks that was looked at has room"]
    smallest, fastest = sensible

    def on(what: str, one: Timed) -> str:
        hours = one.ranks * (1 if on_cards else threads) * one.seconds / 3600
        return f"{what} {one.ranks:,} ({time_text(one.seconds)}, {hours:,.4g} {'GPU' if on_cards else 'core'}-hours)"

    return [f"ranks     {on('the fewest that fit:', smallest)}; {on('the fastest that are worth it:', fastest)}"]


def cost_facts(cost: RunCost, rates: Rates, source: Source, sensible: tuple[Timed, Timed] | None) -> dict[str, Any]:
    """The plan for programs."""
    seconds = cost.seconds_by_phase(rates)
    work = {phase.name: {name: getattr(phase, name) for name in TOTALS} for phase in cost.phases}
    return {
        "planned": cost.command,
        "device": "gpu" if cost.on_cards else "cpu",
        "study": cost.study,
        "machine": asdict(cost.machine),
        "plan": asdict(cost.plan),
        "rates": asdict(rates),
        "source": asdict(source),
        "phases": [{"name": name, "seconds": time, **work.get(name, {})} for name, time in seconds.items()],
        "seconds": cost.seconds(rates),
        "core_hours": core_hours(cost, rates, source),
        **{name: cost.total(name) for name in TOTALS},
        "smallest": None if sensible is None else sensible[0]._asdict(),
        "fastest": None if sensible is None else sensible[1]._asdict(),
    }


def core_hours(cost: RunCost, rates: Rates, source: Source) -> float:
    """Hours times cores."""
    return cost.seconds(rates) * cost.machine.ranks * source.threads / 3600


def _memory(cost: RunCost) -> list[str]:
    head = f"{'memory':<26}{'a rank':>11}{'a node':>11}"
    here = cost.machine.ranks_per_node
    stages = [*cost.plan.stages.items(), ("at most", cost.plan.peak)]
    return [
        head,
        "-" * len(head),
        *(f"{name:<26} {bytes_text(size):>10} {bytes_text(size * here):>10}" for name, size in stages),
    ]


def _phases(cost: RunCost, rates: Rates) -> list[str]:
    head = f"{'phase':<26}{'TFLOP':>12}{'read':>11}{'written':>11}{'sent':>11}{'time':>13}{'share':>7}"
    lines = [head, "-" * len(head)]
    spent, whole = cost.seconds_by_phase(rates), cost.seconds(rates)
    work = {phase.name: phase for phase in cost.phases}
    for name, time in spent.items():
        one = work.get(name)
        sizes = [0.0] * 3 if one is None else [one.read, one.written, one.sent]
        tflop = "-" if one is None or not one.flop else _tflop(one.flop)
        moved = "".join(f" {bytes_text(size):>10}" for size in sizes)
        lines.append(f"{name:<26}{tflop:>12}{moved} {time_text(time):>12}{time / whole:>7.1%}")
    return lines


def _total(cost: RunCost, rates: Rates, source: Source) -> str:
    return (
        f"in all    {time_text(cost.seconds(rates))}, {_tflop(cost.total('flop'))} TFLOP, "
        f"{bytes_text(cost.total('read'))} read, {bytes_text(cost.total('written'))} written; "
        f"{hours_text(cost.seconds(rates), cost.machine, source, cost.on_cards)}"
    )


def hours_text(seconds: float, at: Machine, source: Source, on_cards: bool) -> str:
    """Hours of all GPUs where ranks have them, else of all cores."""
    hours = seconds * at.ranks / 3600
    if on_cards:
        return f"{hours:,.4g} GPU-hours"
    return f"{hours * source.threads:,.4g} core-hours ({count(source.threads, 'core')} a rank)"


def _tflop(flop: float) -> str:
    return f"{flop / 1e12:,.1f}" if flop >= 1e12 else f"{flop / 1e12:.2g}"


def bytes_text(size: float) -> str:
    """Bytes for people."""
    if size == 0:
        return "-"
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return f"{size / scale:,.1f} {unit}"
    return f"{size / 1e3:,.1f} kB"


def time_text(seconds: float) -> str:
    """Seconds for people."""
    return f"{seconds:.1f} s" if seconds < 60 else duration(seconds)
