"""``mpgls plan``: what a run would cost, stage by stage, on a machine whose rates ``mpgls doctor`` measured."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mpgls.commands.plan_parts.low_rank import Cost, LowRankProblem, predict
from mpgls.engine.probes import measure
from mpgls.engine.rates import Rates, read_rates
from mpgls.errors import StorageError, UsageError
from mpgls.mpi import agree, node_of
from mpgls.run.findings import Findings, count
from mpgls.run.hardware import limited_threads, startup_seconds
from mpgls.run.log import duration
from mpgls.run.option_groups import POSITIVE, PRECISIONS
from mpgls.run.options import Options, at_least, option, required, the_file
from mpgls.run.plan import GIB, Machine
from mpgls.run.results import Results
from mpgls.run.world import World
from mpgls.stream.files import write_text

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


@dataclass(frozen=True, kw_only=True)
class Plan(Options):
    """Options of ``mpgls plan``."""

    command = "plan"
    summary = "what a run would cost in operations, bytes, memory and hours, before it is started"
    example = (
        "mpgls plan low-rank --samples 1000000 --snps 1000000 --similarity-count 50000 --ranks 64 --rates rates.json"
    )

    what: str = required("the command whose run is planned", metavar="low-rank", choices=("low-rank",), positional=True)
    samples: int = required("number of samples", group="study", metavar="N")
    snps: int = required("number of tested SNPs", group="study", metavar="M")
    similarity_count: int = required("number of similarity SNPs", group="study", metavar="K")
    chromosomes: int = option(22, "chromosomes left out in turn (22)", group="study", metavar="C")
    traits: int = option(1, "number of traits (1)", group="study", metavar="T")
    covariates: int = option(3, "covariates beside the intercept (3)", group="study", metavar="Q")
    precision: str = option(
        "mixed",
        "mixed streams the large products and solves in single precision; the default here",
        group="study",
        choices=PRECISIONS,
    )
    ranks: int = required("number of ranks", group="machine", metavar="P", check=at_least(1))
    ranks_per_node: int | None = option(
        None, "ranks of a node; default: all on one", group="machine", metavar="R", check=at_least(1)
    )
    memory: float | None = option(
        None, "memory a rank may use; default: no limit", group="machine", metavar="GIB", check=POSITIVE
    )
    rates: str | None = option(
        None,
        "rates that mpgls doctor --json FILE measured there; default: measured here, now",
        group="machine",
        metavar="FILE",
        reads=the_file,
    )
    json: str | None = option(None, "write the plan as JSON as well", metavar="FILE")

    def check(self) -> None:
        super().check()
        _ = self.problem  # sizes that cannot be
        if self.ranks_per_node is not None and self.ranks_per_node > self.ranks:
            raise UsageError(f"--ranks-per-node must be from 1 to --ranks, {self.ranks}, not {self.ranks_per_node}")
        both = self.json is not None and self.rates is not None
        if both and os.path.realpath(str(self.json)) == os.path.realpath(str(self.rates)):
            raise UsageError(f"the plan would overwrite its rates {self.rates}: give another --json")

    @property
    def problem(self) -> LowRankProblem:
        """The sizes of the study. Raises UsageError."""
        return LowRankProblem(
            self.samples,
            self.snps,
            self.similarity_count,
            self.chromosomes,
            self.traits,
            self.covariates + 1,
            self.precision == "mixed",
        )

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


def run(options: Plan, comm: MPI.Comm) -> Results:
    """Print the plan on rank 0; the manifest of the Results is its JSON. Collective.

    Raises InputError for a file of rates that is not one, MemoryPlanError when no plan fits, StorageError when a file
    cannot be read or written.
    """
    world = World(comm)
    if options.rates is None:
        facts = measure_now(world)
        source = Source(f"measured here, now, on {_ranks(comm.size)}", comm.size, facts["threads"], facts["nodes"])
    else:
        facts = world.on_root(lambda: read_rates(str(options.rates)))
        nodes = max(1, len(facts.get("nodes") or ()))
        ranks, threads = int(facts.get("ranks", 1)), int(facts.get("threads", 1))
        source = Source(f"{options.rates}, measured on {_ranks(ranks)}", ranks, threads, nodes)

    def tell() -> Results:
        rates = Rates.of(facts, options.rates or "this machine")
        cost = predict(options.problem, options.machine, rates)
        print(text(cost, rates, source), flush=True)
        made, files = plan_facts(cost, rates, source), []
        if options.json is not None:
            write_text(options.json, [json.dumps(made, indent=1), "\n"])
            files = [options.json]
        return Results("", {"command": "plan", "files": files, **made})

    return world.on_root(tell)


def measure_now(world: World) -> dict[str, Any]:
    """The rates of this machine on the ranks that there are, in about a second. Collective.

    Raises StorageError, on all ranks, where no file can be written in the current directory.
    """
    found = Findings({"startup_seconds": startup_seconds(world.comm)})
    with node_of(world.comm) as node, limited_threads(node, None) as threads:
        nodes = world.comm.allreduce(1 if node.rank == 0 else 0)
        measure(found, world, node, ".", FILE_BYTES)
    agree(world.comm, StorageError(found.problems[0]) if found.problems else None)
    return found.facts | {"threads": threads, "nodes": nodes}


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
        f"study     {p.n:,} samples, {p.m:,} SNPs, {p.K:,} similarity SNPs, {count(p.chromosomes, 'chromosome')}, "
        f"{count(p.T, 'trait')}, {count(p.q - 1, 'covariate')}, {'mixed' if p.mixed else 'double'} precision",
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
