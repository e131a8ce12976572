"""``mpgls plan``: what a run would cost, phase by phase, on a machine whose rates ``mpgls doctor`` measured."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from mpgls.commands.plan_parts.costs import cost_of
from mpgls.commands.plan_parts.options import Plan
from mpgls.engine import cost_text, low_rank_cost_text
from mpgls.engine.card_rates import usable
from mpgls.engine.cost import sensible_ranks
from mpgls.engine.cost_text import Source
from mpgls.engine.low_rank_card_cost import predicting
from mpgls.engine.machine_rates import rates_of
from mpgls.engine.rates import Rates
from mpgls.run.log import stdout
from mpgls.run.outputs import refuse_foreign
from mpgls.run.results import Results
from mpgls.run.world import World
from mpgls.stream.files import write_text

if TYPE_CHECKING:
    from mpi4py import MPI


def run(options: Plan, comm: MPI.Comm) -> Results:
    """Print the plan on rank 0; the manifest of the Results is its JSON. Collective.

    Raises InputError for a file of rates that is not one, MemoryPlanError when no plan fits, StorageError when a file
    cannot be read or written.
    """
    world = World(comm)
    if options.json is not None:
        path = options.json
        world.on_root(lambda: refuse_foreign(path, options.command, "--json"))
    rates, source = rates_of(world, options.rates, ".", options.device_wish)

    def tell() -> Results:
        limit = usable(rates.card, options.device_wish.limit, source.text) if options.device == "gpu" else None
        made_by = low_rank if options.what == "low-rank" else plan
        shown, facts = made_by(options, rates, source, limit)
        stdout(shown)
        made, files = {"command": "plan", **facts}, []
        if options.json is not None:
            write_text(options.json, [json.dumps(made, indent=1, default=list), "\n"])
            files = [options.json]
        return Results("", {"files": files, **made})

    return world.on_root(tell)


def plan(options: Plan, rates: Rates, source: Source, limit: int | None) -> tuple[str, dict[str, Any]]:
    """The cost of any command but low-rank, for people and for programs; ``limit``: bytes of a GPU.

    Raises MemoryPlanError.
    """
    cost_on, machine = cost_of(options, limit), options.machine
    cost = cost_on(machine)
    sensible = sensible_ranks(lambda at: cost_on(at).seconds(rates), machine)
    return cost_text.text(cost, rates, source, sensible), cost_text.cost_facts(cost, rates, source, sensible)


def low_rank(options: Plan, rates: Rates, source: Source, limit: int | None) -> tuple[str, dict[str, Any]]:
    """The cost of low-rank, by its stages. Raises MemoryPlanError."""
    cost_on = predicting(options.problem, rates, limit)
    cost, sensible = cost_on(options.machine), sensible_ranks(lambda at: cost_on(at).seconds, options.machine)
    facts = low_rank_cost_text.plan_facts(cost, rates, source, sensible)
    return low_rank_cost_text.text(cost, rates, source, sensible), facts
