"""Stage 4 of the low-rank model: the tested SNPs of one chromosome, streamed through every trait's factor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mpgls.commands.low_rank_parts.check import check_against_double
from mpgls.commands.low_rank_parts.estimate import Products, SimilarityPart
from mpgls.commands.low_rank_parts.inputs import SampleSet
from mpgls.commands.low_rank_parts.null import LowRankCovariance
from mpgls.commands.low_rank_parts.results import LowRankResults
from mpgls.commands.low_rank_parts.run import Run
from mpgls.commands.low_rank_parts.solver import HeldTrait, LowRankSolver, TestedSnps
from mpgls.commands.mixed_model.scan import scan
from mpgls.la.teams import Team, hold_factor


def scan_part(
    run: Run,
    samples: SampleSet,
    tested: TestedSnps,
    covariance: LowRankCovariance,
    products: Products,
    part: SimilarityPart,
    estimates: Sequence[dict[str, Any]],
    team: Team,
    results: LowRankResults,
) -> None:
    """The SNPs of one part against all traits, as many traits at a time as memory holds factors. Collective.

    ``estimates`` of h2, one for each trait. Raises Stopped, on all ranks, when a signal asked for it.
    """
    session, config, width = run.session, run.config, run.plan.block
    for start in range(0, len(samples.traits), run.plan.traits_at_once):
        chunk = range(start, min(start + run.plan.traits_at_once, len(samples.traits)))
        names = [samples.traits[j] for j in chunk]
        records = results.records(names)
        left = records.left(part.blocks)
        if left.size == 0:
            continue
        covariance.use(part.kept, part.scale)
        held = [hold_trait(covariance, products, j, part, estimates[j]["h2"], team, width, config.dtype) for j in chunk]
        for trait in held:
            results.keep_null(samples.traits[trait.column], part, samples, estimates[trait.column], trait.sums)
        solver = LowRankSolver(tested, part.runs, held, width, samples.q, config.test)
        if config.precision == "mixed" and not results.checked:
            snps = np.concatenate([records.snps(block) for block in left])
            results.checked = check_against_double(run, samples, tested.G, covariance, products, part, solver, snps)
        label = part.of(names[0] if len(names) == 1 else f"{len(names)} traits")
        bed = run.study.fileset.bed
        scan(solver, bed, records, part.blocks, team, session.comm, session.log, session.stop, label)
        session.sample_memory()
        for trait in held:
            trait.operator.close()


def hold_trait(
    covariance: LowRankCovariance,
    products: Products,
    trait: int,
    part: SimilarityPart,
    h2: float,
    team: Team,
    width: int,
    dtype: type,
) -> HeldTrait:
    """L_c and F~ of one trait, on every team. Collective."""
    null = products.null(covariance, trait, part)
    L_grid = covariance.factorise_at(h2)
    sums, F_tilde_rep = null.sums(L_grid, h2)[0], null.whiten(L_grid, h2, null.C_rep)
    with covariance.timings.phase("hand over factor"):
        return HeldTrait.of(trait, h2, part.scale, sums, hold_factor(L_grid, team, width, dtype), F_tilde_rep)
