"""A dry run: what a command would cost with its real inputs, said before the work.

Every command knows this file, so what it needs is imported where a dry run begins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mpgls.errors import UsageError
from mpgls.run.device_options import NO_CARDS, DeviceWish
from mpgls.run.inputs import Study
from mpgls.run.job import Job
from mpgls.run.plan import Machine
from mpgls.run.results import Results
from mpgls.study.genotypes import bytes_per_dosages

if TYPE_CHECKING:
    from mpgls.engine.cost import RunCost
    from mpgls.engine.cost_text import Source
    from mpgls.engine.low_rank_cost import LowRankProblem
    from mpgls.engine.low_rank_inputs import SampleSet, SimilarityInput
    from mpgls.engine.rates import Rates


def dry_run(cost_on: Callable[[Machine], RunCost], machine: Machine, rates_file: str | None, job: Job) -> Results:
    """Say in the log what the run would cost on ``machine``, which the Results have as plain values. Collective.

    ``cost_on`` one raises MemoryPlanError where the plan does not fit. The rates are those of ``rates_file``, or
    measured now in the directory of --out. Raises InputError and StorageError for a file that holds none.
    """
    return dry_run_on(lambda at, _: cost_on(at), machine, rates_file, NO_CARDS, job)


def dry_run_on(
    cost_on: Callable[[Machine, int | None], RunCost],
    machine: Machine,
    rates_file: str | None,
    wish: DeviceWish,
    job: Job,
) -> Results:
    """`dry_run` of a command whose run is on GPUs where they are wished for. Collective.

    ``cost_on`` gets the bytes of a GPU as well, None without GPUs. A file of rates stands for GPUs that are not here.
    """
    from mpgls.engine import cost_text
    from mpgls.engine.cost import sensible_ranks

    rates, source, limit = _rates(rates_file, wish, job)

    def cost_at(at: Machine) -> RunCost:
        return cost_on(at, limit)

    cost = cost_at(machine)
    sensible = sensible_ranks(lambda at: cost_at(at).seconds(rates), machine)
    job.world.log.info(f"dry run: nothing is computed\n{cost_text.text(cost, rates, source, sensible)}")
    facts = cost_text.cost_facts(cost, rates, source, sensible)
    return Results(job.prefix, {"command": job.options.command, **facts})


def dry_run_of_stages(
    problem: LowRankProblem, machine: Machine, rates_file: str | None, wish: DeviceWish, job: Job
) -> Results:
    """`dry_run_on` of low-rank, whose cost is that of its stages. Collective."""
    from mpgls.engine import low_rank_cost_text
    from mpgls.engine.cost import sensible_ranks
    from mpgls.engine.low_rank_card_cost import predicting

    rates, source, limit = _rates(rates_file, wish, job)
    cost_on = predicting(problem, rates, limit)
    cost, sensible = cost_on(machine), sensible_ranks(lambda at: cost_on(at).seconds, machine)
    job.world.log.info(f"dry run: nothing is computed\n{low_rank_cost_text.text(cost, rates, source, sensible)}")
    facts = low_rank_cost_text.plan_facts(cost, rates, source, sensible)
    return Results(job.prefix, {"command": job.options.command, **facts})


def _rates(rates_file: str | None, wish: DeviceWish, job: Job) -> tuple[Rates, Source, int | None]:
    """Rates, where they come from, and the bytes of a GPU that may be used, None without GPUs."""
    from mpgls.engine.card_rates import usable
    from mpgls.engine.machine_rates import rates_of

    rates, source = rates_of(job.world, rates_file, job.outputs.directory, wish, job.threads)
    if not wish.tried or (rates.card is None and not wish.needed):
        return rates, source, None
    return rates, source, usable(rates.card, wish.limit, source.text)


def problem_of(
    study: Study,
    similarity: SimilarityInput,
    sets: Sequence[SampleSet],
    parts: int,
    dtype: type,
    is_dense: Callable[[int, int], bool],
) -> LowRankProblem:
    """The sizes of a low-rank study. Raises UsageError where n x n matrices are used, whose cost is not known."""
    from mpgls.engine.low_rank_cost import LowRankProblem

    n, K, bed = max(samples.rows.size for samples in sets), similarity.snps.index.size, study.fileset.bed
    if is_dense(n, K):
        raise UsageError(
            f"--dry-run knows the cost of K x K matrices only, and {K:,} similarity SNPs of {n:,} samples take n x n: "
            "give --form low-rank, or ask mpgls plan single-trait"
        )
    traits, q = sum(len(samples.traits) for samples in sets), next(iter(study.cohorts.values())).X_L.shape[1]
    mixed, dosages = np.dtype(dtype).itemsize == 4, bed.snp_bytes == bytes_per_dosages(bed.n)
    return LowRankProblem(n, study.selected, K, parts, traits, q, mixed, dosages)


def held_bytes(study: Study, similarity: SimilarityInput) -> int:
    """What open genotypes hold on a rank: of the tested and of the similarity SNPs, which may be the same ones."""
    return sum(files.held_bytes for files in {study.fileset.bed, similarity.fileset.bed})
