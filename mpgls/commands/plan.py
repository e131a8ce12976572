"""``mpgls plan``: what a run would cost, stage by stage, on a machine whose rates ``mpgls doctor`` measured."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mpgls.engine.cost_text import Source, plan_facts, text
from mpgls.engine.low_rank_cost import LowRankProblem, predict
from mpgls.engine.probes import measure
from mpgls.engine.rates import Rates, read_rates
from mpgls.errors import StorageError, UsageError
from mpgls.mpi import agree, node_of
from mpgls.run.findings import Findings, count
from mpgls.run.hardware import limited_threads, startup_seconds
from mpgls.run.log import stdout
from mpgls.run.option_groups import POSITIVE, PRECISIONS
from mpgls.run.options import Options, at_least, flag, option, required, the_file
from mpgls.run.outputs import refuse_foreign
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
    dosages: bool = flag("dosages are read, not hard calls", group="study")
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
            self.dosages,
        )

    @property
    def machine(self) -> Machine:
        """What the plan must fit."""
        limit = None if self.memory is None else int(self.memory * GIB)
        return Machine(self.ranks, self.ranks_per_node or self.ranks, limit, BASE)


def run(options: Plan, comm: MPI.Comm) -> Results:
    """Print the plan on rank 0; the manifest of the Results is its JSON. Collective.

    Raises InputError for a file of rates that is not one, MemoryPlanError when no plan fits, StorageError when a file
    cannot be read or written.
    """
    world = World(comm)
    if options.json is not None:
        path = options.json
        world.on_root(lambda: refuse_foreign(path, options.command, "--json"))
    if options.rates is None:
        facts = measure_now(world)
        source = Source(
            f"measured here, now, on {count(comm.size, 'rank')}", comm.size, facts["threads"], facts["nodes"]
        )
    else:
        facts = world.on_root(lambda: read_rates(str(options.rates)))
        nodes = max(1, len(facts.get("nodes") or ()))
        ranks, threads = int(facts.get("ranks", 1)), int(facts.get("threads", 1))
        source = Source(f"{options.rates}, measured on {count(ranks, 'rank')}", ranks, threads, nodes)

    def tell() -> Results:
        rates = Rates.of(facts, options.rates or "this machine")
        cost = predict(options.problem, options.machine, rates)
        stdout(text(cost, rates, source))
        made, files = {"command": "plan", **plan_facts(cost, rates, source)}, []
        if options.json is not None:
            write_text(options.json, [json.dumps(made, indent=1), "\n"])
            files = [options.json]
        return Results("", {"files": files, **made})

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
