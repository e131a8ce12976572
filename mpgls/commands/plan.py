"""``mpgls plan``: what a run would cost, stage by stage, on a machine whose rates ``mpgls doctor`` measured."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mpgls.commands.plan_parts.low_rank import Cost, LowRankProblem, predict
from mpgls.commands.plan_parts.rates import Rates
from mpgls.errors import InputError, StorageError, UsageError
from mpgls.mpi import agree, on_root
from mpgls.run.log import duration
from mpgls.run.plan import GIB, Machine

if TYPE_CHECKING:
    from mpi4py import MPI

BASE = 150 << 20
"""Bytes of a rank before it has read anything: Python, NumPy, MPI."""
FILE_BYTES = 64 << 20
"""Of a file that each node writes and reads where rates are measured now."""
SHOWN = 0.02
"""Share of the run from which on a term is named."""
PAPER_SIZES = (1_000_000, 1_000_000, 50_000)
PAPER_CPU_DAYS = 868.0
"""[Ludicrous], abstract: the sizes above (samples, SNPs, similarity SNPs) on the authors' cluster."""


@dataclass(frozen=True)
class PlanConfig:
    """Options of ``mpgls plan low-rank``. ``memory`` in GiB a rank; ``rates`` a JSON of ``mpgls doctor``."""

    problem: LowRankProblem
    ranks: int
    ranks_per_node: int | None = None
    memory: float | None = None
    rates: str | None = None
    json: str | None = None

    def __post_init__(self) -> None:
        if self.ranks < 1:
            raise UsageError(f"--ranks must be at least 1, not {self.ranks}")
        if self.ranks_per_node is not None and not 1 <= self.ranks_per_node <= self.ranks:
            raise UsageError(f"--ranks-per-node must be from 1 to --ranks, {self.ranks}, not {self.ranks_per_node}")
        if self.memory is not None and not 0 < self.memory < math.inf:
            raise UsageError(f"--memory must be positive, not {self.memory}")
        if (
            self.json is not None
            and self.rates is not None
            and os.path.realpath(self.json) == os.path.realpath(self.rates)
        ):
            raise UsageError(f"the plan would overwrite its rates {self.rates}: give another --json")

    @property
    def machine(self) -> Machine:
        """What the plan must fit."""
        limit = None if self.memory is None else int(self.memory * GIB)
        return Machine(self.ranks, self.ranks_per_node or self.ranks, limit, BASE)


@dataclass(frozen=True)
class Source:
    """Where rates come from: in words, and on how many ranks, threads of a rank and nodes they were measured."""

    text: str
    ranks: int
    threads: int
    nodes: int


def run(config: PlanConfig, comm: MPI.Comm) -> None:
    """Print the plan on rank 0. Collective.

    Raises InputError for a file of rates that is not one, MemoryPlanError when no plan fits, StorageError when a file
    cannot be read or written.
    """
    if config.rates is None:
        facts = measure_now(comm)
        source = Source(f"measured here, now, on {_ranks(comm.size)}", comm.size, facts["threads"], facts["nodes"])
    else:
        facts = on_root(comm, lambda: read_rates(str(config.rates)))
        nodes = max(1, len(facts.get("nodes") or ()))
        ranks, threads = int(facts.get("ranks", 1)), int(facts.get("threads", 1))
        source = Source(f"{config.rates}, measured on {_ranks(ranks)}", ranks, threads, nodes)

    def show() -> None:
        rates = Rates.of(facts, config.rates or "this machine")
        cost = predict(config.problem, config.machine, rates)
        print(text(cost, rates, source), flush=True)
        if config.json is not None:
            write_json(config.json, cost, rates, source)

    on_root(comm, show)


def measure_now(comm: MPI.Comm) -> dict[str, Any]:
    """The rates of this machine on the ranks that there are, in about a second. Collective.

    Raises StorageError, on all ranks, where no file can be written in the current directory.
    """
    from mpi4py import MPI

    from mpgls.commands.doctor import Report, measure
    from mpgls.commands.doctor_parts.rates import startup_seconds
    from mpgls.run.hardware import limit_threads

    report = Report({"startup_seconds": startup_seconds(comm)})
    node = comm.Split_type(MPI.COMM_TYPE_SHARED, comm.rank)
    try:
        threads = limit_threads(node, None)
        nodes = comm.allreduce(1 if node.rank == 0 else 0)
        measure(report, comm, node, ".", FILE_BYTES)
    finally:
        node.Free()
    agree(comm, StorageError(report.problems[0]) if report.problems else None)
    return report.facts | {"threads": threads, "nodes": nodes}


def read_rates(path: str) -> dict[str, Any]:
    """The JSON of ``mpgls doctor``. Raises InputError, and StorageError when it cannot be read."""
    try:
        with open(path, encoding="utf-8") as file:
            facts = json.load(file)
    except OSError as error:
        raise StorageError(f"cannot read the rates {path}: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{path} is not the JSON of mpgls doctor: {error}") from None
    if not isinstance(facts, dict):
        raise InputError(f"{path} is not the JSON of mpgls doctor: it holds no object")
    return facts


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
    lines = [
        f"study     {p.n:,} samples, {p.m:,} SNPs, {p.K:,} similarity SNPs, {_count(p.chromosomes, 'chromosome')}, "
        f"{_count(p.T, 'trait')}, {_count(p.q - 1, 'covariate')}, {'mixed' if p.mixed else 'double'} precision",
        f"machine   {_ranks(at.ranks)} on {_count(nodes, 'node')}, {limit}",
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
        f"{core_hours / 24:,.4g} CPU-days ({_count(source.threads, 'core')} a rank)",
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


def write_json(path: str, cost: Cost, rates: Rates, source: Source) -> None:
    """The plan for programs. Raises StorageError."""
    made = {
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
    try:
        with open(path, "w", encoding="utf-8") as out:
            json.dump(made, out, indent=1)
            out.write("\n")
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from None


def _ranks(count: int) -> str:
    return _count(count, "rank")


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _bytes(size: float) -> str:
    if size == 0:
        return "-"
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= scale:
            return f"{size / scale:,.1f} {unit}"
    return f"{size / 1e3:,.1f} kB"


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else duration(seconds)
