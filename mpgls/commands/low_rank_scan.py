"""Stage 4 of the low-rank model: the tested SNPs of one chromosome, streamed through every trait's factor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpgls.commands.inputs import read_snps
from mpgls.commands.low_rank_check import check_against_double
from mpgls.commands.low_rank_estimate import Part, Products
from mpgls.commands.low_rank_inputs import SampleSet
from mpgls.commands.low_rank_null import LowRankCovariance
from mpgls.commands.low_rank_results import LowRankResults
from mpgls.commands.low_rank_run import Run
from mpgls.commands.low_rank_solver import HeldTrait, LowRankSolver, TestedSnps
from mpgls.commands.scan import own_blocks, to_records
from mpgls.errors import agree
from mpgls.la.teams import Team, hold_factor
from mpgls.runtime import Progress


def scan_part(
    run: Run,
    samples: SampleSet,
    tested: TestedSnps,
    covariance: LowRankCovariance,
    products: Products,
    number: int,
    part: Part,
    h2: np.ndarray,
    team: Team,
    results: LowRankResults,
) -> None:
    """The SNPs of one part against all traits, as many traits at a time as memory holds factors. Collective.

    ``h2`` (T,) the estimates of the part. Raises Stopped, on all ranks, when a signal asked for it.
    """
    session, config, width = run.session, run.config, run.plan.block
    for start in range(0, len(samples.traits), run.plan.traits_at_once):
        chunk = range(start, min(start + run.plan.traits_at_once, len(samples.traits)))
        names = [samples.traits[j] for j in chunk]
        left = results.left(names, part)
        if left.size == 0:
            continue
        covariance.use(part.kept, part.scale)
        held = [hold_trait(covariance, products, j, part, h2[j], team, width, config.dtype) for j in chunk]
        for name, trait in zip(names, held, strict=True):
            results.keep_null(name, number, trait.h2, trait.sums)
        solver = LowRankSolver(tested, part.runs, held, width, samples.q, config.test)
        if config.precision == "mixed":
            check_against_double(run, samples, tested.G, covariance, products, part, solver, results, left)
        scan_blocks(run, solver, names, part, left, team, results)
        session.sample_memory()
        for trait in held:
            trait.operator.close()


def hold_trait(
    covariance: LowRankCovariance,
    products: Products,
    trait: int,
    part: Part,
    h2: float,
    team: Team,
    width: int,
    dtype: type,
) -> HeldTrait:
    """L_c and F~ of one trait, on every team. Collective."""
    null = products.null(covariance, trait, part)
    L_grid = covariance.factorise_at(h2)
    sums, F_tilde = null.sums(L_grid, h2)[0], null.whiten(L_grid, h2)
    with covariance.timings.phase("hand over factor"):
        return HeldTrait.of(trait, h2, part.scale, sums, hold_factor(L_grid, team, width, dtype), F_tilde)


def scan_blocks(
    run: Run,
    solver: LowRankSolver,
    names: Sequence[str],
    part: Part,
    left: np.ndarray,
    team: Team,
    results: LowRankResults,
) -> None:
    """Solve the blocks ``left`` of the store and write their records, one set for each trait. Collective."""
    comm, session, store = run.session.comm, run.session, results.store
    blocks, index = own_blocks(part.blocks, left, team, comm), store.index
    wanted = [index[store.block_range(k).start : store.block_range(k).stop] if k >= 0 else index[:0] for k in blocks]
    writers = results.writers(names)
    progress = Progress(session.log, f"scan of {part.label}", sum(map(len, wanted)), "SNPs")
    stream = iter(read_snps(run.study.fileset.bed, wanted, comm))
    done, stopped = 0, False
    while not stopped:
        with session.timings.phase("read (waiting)") as reading:
            step = next(stream, None)
        if step is None:
            break
        k, packed = step
        reading.nbytes += packed.size
        stats, fits = solver.solve(packed)
        if blocks[k] >= 0:
            with session.timings.phase("write"):
                for writer, fit in zip(writers, fits, strict=True):
                    writer.write(blocks[k], to_records(fit, stats, run.config.study.snps))
        done += packed.shape[0]
        progress.at(done)
        stopped = session.stop.requested if team.comm.size == 1 else team.comm.allreduce(session.stop.requested)
    with session.timings.phase("write"):
        for writer in writers:
            writer.close()
    agree(comm, session.stop.problem())
