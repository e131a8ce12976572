"""A dry run: what a command would cost with its real inputs, said before the work."""

from __future__ import annotations

from collections.abc import Callable

from mpgls.engine import cost_text, low_rank_cost_text
from mpgls.engine.cost import RunCost, sensible_ranks
from mpgls.engine.cost_text import Source
from mpgls.engine.low_rank_cost import LowRankProblem, predict
from mpgls.engine.machine_rates import measure_now, rates_from
from mpgls.engine.rates import Rates
from mpgls.run.job import Job
from mpgls.run.plan import Machine
from mpgls.run.results import Results


def dry_run(cost_on: Callable[[Machine], RunCost], rates_file: str | None, job: Job) -> Results:
    """Say in the log what the run would cost here, which the Results have as plain values. Collective.

    ``cost_on`` a machine raises MemoryPlanError where the plan does not fit. The rates are those of ``rates_file``, or
    measured now in the directory of --out. Raises InputError and StorageError for a file that holds none.
    """
    machine, (rates, source) = job.machine(), _rates(rates_file, job)
    cost = cost_on(machine)
    sensible = sensible_ranks(lambda at: cost_on(at).seconds(rates), machine)
    job.world.log.info(f"dry run: nothing is computed\n{cost_text.text(cost, rates, source, sensible)}")
    facts = cost_text.cost_facts(cost, rates, source, sensible)
    return Results(job.prefix, {"command": job.options.command, **facts})


def dry_run_of_stages(problem: LowRankProblem, rates_file: str | None, job: Job) -> Results:
    """`dry_run` of low-rank, whose cost is that of its stages. Collective."""
    machine, (rates, source) = job.machine(), _rates(rates_file, job)
    cost = predict(problem, machine, rates)
    sensible = sensible_ranks(lambda at: predict(problem, at, rates).seconds, machine)
    job.world.log.info(f"dry run: nothing is computed\n{low_rank_cost_text.text(cost, rates, source, sensible)}")
    facts = low_rank_cost_text.plan_facts(cost, rates, source, sensible)
    return Results(job.prefix, {"command": job.options.command, **facts})


def _rates(rates_file: str | None, job: Job) -> tuple[Rates, Source]:
    if rates_file is None:
        return measure_now(job.world, job.outputs.directory, job.threads)
    return rates_from(job.world, rates_file)
