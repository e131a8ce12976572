"""mpgls low-rank: the mixed model of K similarity SNPs for up to millions of people ([Ludicrous], without its U).

    0  G   = similarity SNPs, standardised                  packed once a node; only their counts are kept
    1  G'G                                                  K x K on the process grid, strip by strip (gram.py)
    for every chromosome c, G_c = G without c's SNPs, V = h2 G_c G_c'/s_c + (1-h2) I:
    2  h2  = argmax REML(h2)                                K x K Cholesky only (estimate.py)
    4  L_c L_c' = I + w G_c'G_c,   w = h2 / ((1-h2) s_c)
       for every block X of c's SNPs, dealt to teams that each hold L_c:
           H           = G_c'X                              the one large product (scan.py)
           S_BL, b_B   = (F'X - w (L_c^-1 G_c'F)'L_c^-1 H) / (1-h2)
           beta, se    = Schur complement of S_BR in the normal equations

Nothing of size n x n or n x m is ever made. [Ludicrous]' stage 3, the files of U, is not needed (model/woodbury.py).
Files without a folder are in low_rank_parts/.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mpgls.commands.common.inputs import Study, open_study
from mpgls.commands.common.session import Session
from mpgls.commands.low_rank_parts.config import LowRankConfig
from mpgls.commands.low_rank_parts.dense import scan_dense
from mpgls.commands.low_rank_parts.estimate import NullTable, Products, SimilarityPart, estimate_all, load_covariance
from mpgls.commands.low_rank_parts.gram import GramFile, make_gram, open_gram
from mpgls.commands.low_rank_parts.inputs import (
    SampleSet,
    SimilarityInput,
    make_parts,
    open_similarity,
    sample_sets,
)
from mpgls.commands.low_rank_parts.plan import LowRankPlan, plan_low_rank
from mpgls.commands.low_rank_parts.results import LowRankResults
from mpgls.commands.low_rank_parts.run import Run
from mpgls.commands.low_rank_parts.scan import scan_part
from mpgls.commands.low_rank_parts.similarity import PackedSnps, Similarity, count_snps, usable
from mpgls.commands.low_rank_parts.solver import TestedSnps
from mpgls.commands.mixed_model.given_h2 import given_h2
from mpgls.commands.mixed_model.loco import tested_chromosomes
from mpgls.commands.mixed_model.results import stored_block
from mpgls.errors import UsageError
from mpgls.la.grid import ProcessGrid
from mpgls.la.teams import split_teams
from mpgls.mpi import on_root
from mpgls.run.plan import block_within
from mpgls.stream.stage_file import load_stage, save_stage
from mpgls.study.chromosomes import Chromosomes
from mpgls.study.genotypes import SnpStats

if TYPE_CHECKING:
    from mpi4py import MPI

STAGE_0 = "mpgls-low-rank-counts"


def run(config: LowRankConfig, comm: MPI.Comm) -> None:
    """Run the stages that are asked for. Collective over ``comm``. Raises MpglsError, the same on all ranks."""
    last = config.stage in (None, 4)
    session = Session("low-rank", config.run_options(), comm, (".h5",) if last else (), config.inputs())
    with session.timings.phase("open and check"):
        study = open_study(config.study, comm, session.log, further=(config.h2_file,))
        similarity = open_similarity(config, study, comm, session.log)
        sets = on_root(comm, lambda: sample_sets(study, similarity.fileset))
        chromosomes = tested_chromosomes(study, config.loco, comm)
        labels = chromosomes.labels if config.loco else None
        given = on_root(comm, lambda: given_h2(config.h2, config.h2_file, list(study.cohorts), labels))
    plan = make_plan(config, study, similarity, sets, chromosomes, session)
    results = LowRankResults(config, study, chromosomes, plan.block, similarity.identities, session) if last else None
    with ProcessGrid(comm, plan.grid) as grid:
        everything = Run(config, study, similarity, chromosomes, given, plan, grid, session)
        with session.timings.phase("read similarity SNPs") as reading:
            packed = PackedSnps(similarity.fileset.bed, similarity.snps.index, comm)
            reading.nbytes += packed.rows.size / comm.size
        for samples in sets:
            run_set(everything, samples, packed, results)
        packed.close()
    facts: dict[str, Any] = {"plan": plan, "inputs": study.identities + similarity.identities}
    if results is not None:
        facts["traits"] = results.facts
    session.finish(facts)


def run_set(run: Run, samples: SampleSet, packed: PackedSnps, results: LowRankResults | None) -> None:
    """The stages for the traits of one sample set. Collective."""
    comm, session = run.session.comm, run.session
    kept, stats = count(run, samples, packed)
    if run.config.stage == 0:
        return
    snps = run.similarity.snps.subset(kept)
    with session.timings.phase("decode G"):
        at, rows = np.flatnonzero(kept), samples.similarity_rows
        G = Similarity(snps, packed, at, stats, rows, run.config.dtype, run.plan.resident, comm)
    say_similarity(run, G, samples)
    parts = make_parts(run.config, run.chromosomes, run.plan.block, snps, stats)
    if run.config.is_dense(G.n, G.K):
        scan_set_dense(run, samples, G, parts, results)
    else:
        scan_set(run, samples, G, parts, results)
    G.close()


def scan_set(
    run: Run, samples: SampleSet, G: Similarity, parts: list[SimilarityPart], results: LowRankResults | None
) -> None:
    """Stages 1, 2 and 4 with K x K matrices. Collective."""
    session, comm = run.session, run.session.comm
    gram = multiply(run, samples, G)
    if run.config.stage == 1:
        return
    with session.timings.phase("G'F"):
        F_rep = samples.F_rep
        products = Products(G.n, samples.q, F_rep.T @ F_rep, G.project(F_rep, comm))  # F'F, G'F
    nulls = estimate(run, samples, gram, products, parts)
    if results is not None:
        team = split_teams(comm, run.plan.team_size)
        covariance = load_covariance(gram, G.n, run.grid, session)
        tested = TestedSnps(run.study.fileset.bed, samples.rows, samples.F_rep, G, run.plan.block, session.timings)
        for c, part in enumerate(parts):
            estimates = [nulls.estimate(j, c) for j in range(len(samples.traits))]
            scan_part(run, samples, tested, covariance, products, part, estimates, team, results)
        team.comm.Free()
        results.report(samples, parts)


def scan_set_dense(
    run: Run, samples: SampleSet, G: Similarity, parts: list[SimilarityPart], results: LowRankResults | None
) -> None:
    """Everything after stage 0 with n x n matrices. Collective. Raises UsageError when one stage alone is asked for."""
    if run.config.stage is not None or results is None:
        raise UsageError(
            f"{G.K:,} similarity SNPs of {G.n:,} samples: the n x n form is cheaper, and it has no stages; "
            "leave --stage out, or give --form low-rank"
        )
    team = split_teams(run.session.comm, run.plan.team_size)
    scan_dense(run, samples, G, parts, run.given_h2(samples), team, results)
    team.comm.Free()
    results.report(samples, parts)


def count(run: Run, samples: SampleSet, packed: PackedSnps) -> tuple[np.ndarray, SnpStats]:
    """Stage 0: which similarity SNPs vary and pass the filters, and their counts. Collective."""
    comm, path, mark = run.session.comm, run.path(samples, 0), run.mark(samples, 0)

    def make() -> dict[str, np.ndarray]:
        with run.session.timings.phase("stage 0"):
            stats = count_snps(packed, samples.similarity_rows, comm)
            kept = usable(stats, run.config.study.snps)
            found = {"kept": kept, "n_obs": stats.n_obs, "a1_sum": stats.a1_sum, "sum_sq": stats.sum_sq}
            on_root(comm, lambda: save_stage(path, STAGE_0, mark, found))
            return found

    found = run.made(0, on_root(comm, lambda: load_stage(path, STAGE_0, mark)), path, make)
    kept = found["kept"].astype(bool)
    n_obs, a1_sum, sum_sq = (found[name][kept] for name in ("n_obs", "a1_sum", "sum_sq"))
    return kept, SnpStats(n_obs, a1_sum, sum_sq, samples.rows.size)


def multiply(run: Run, samples: SampleSet, G: Similarity) -> GramFile:
    """Stage 1: G'G, in its file. Collective."""
    comm, path, mark = run.session.comm, run.path(samples, 1), run.mark(samples, 1)
    found = on_root(comm, lambda: open_gram(path, mark))
    if found is not None and not found.done.all():
        found = None
    return run.made(1, found, path, lambda: make_gram(G, path, mark, run.plan.strip, run.grid, run.session))


def estimate(
    run: Run, samples: SampleSet, gram: GramFile, products: Products, parts: list[SimilarityPart]
) -> NullTable:
    """Stage 2: h2 of every trait without every chromosome. Collective."""
    comm, path, mark = run.session.comm, run.path(samples, 2), run.mark(samples, 2)
    found = on_root(comm, lambda: NullTable.load(path, mark))
    if found is not None and not found.done.all():
        found = None
    known = run.given_h2(samples).T
    return run.made(
        2, found, path,
        lambda: estimate_all(gram, products, parts, known, path, mark, run.plan.null_team, run.session),
    )  # fmt: skip


def make_plan(
    config: LowRankConfig,
    study: Study,
    similarity: SimilarityInput,
    sets: list[SampleSet],
    chromosomes: Chromosomes,
    session: Session,
) -> LowRankPlan:
    """The plan, in the log before anything large is allocated."""
    machine = session.machine()
    n, K = max(samples.rows.size for samples in sets), similarity.snps.index.size
    plan = plan_low_rank(
        machine,
        n=n,
        K=K,
        dense=config.is_dense(n, K),
        largest_part=int(chromosomes.sizes().max()),
        snp_bytes=study.fileset.bed.snp_bytes,
        similarity_bytes=similarity.fileset.bed.snp_bytes,
        item=np.dtype(config.dtype).itemsize,
        traits=max(len(samples.traits) for samples in sets),
        columns=max(samples.F_rep.shape[1] for samples in sets),
        team_size=config.team_size,
        block=block_within(config.block_size, study.selected) or stored_block(session),
    )
    session.log.info(plan.text(machine))
    return plan


def say_similarity(run: Run, G: Similarity, samples: SampleSet) -> None:
    """What G is, in the log."""
    products = {True: "exact in float32", False: "in float32" if G.dtype == np.float32 else "in float64"}[G.exact]
    dense = run.config.is_dense(G.n, G.K)
    form = f"{'n x n' if dense else 'K x K'} matrices"
    if dense and run.config.form == "auto":
        form += ", which are cheaper for so many"
    names = ", ".join(samples.traits[:5]) + (", ..." if len(samples.traits) > 5 else "")
    run.session.log.info(f"{names}: n = {G.n:,}, K = {G.K:,} similarity SNPs that vary; {form}; products {products}")
