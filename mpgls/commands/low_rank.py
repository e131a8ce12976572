"""mpgls low-rank: the mixed model of K similarity SNPs for up to millions of people ([Ludicrous], without its U).

Nothing of size n x n or n x m is ever made where K < n. [Ludicrous]' stage 3, the files of U, is not needed
(model/woodbury.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mpgls.commands.low_rank_parts.inputs import (
    SampleSet,
    SimilarityChoice,
    SimilarityInput,
    make_parts,
    open_similarity,
    sample_sets,
)
from mpgls.commands.low_rank_parts.stages import STAGES, Stages
from mpgls.commands.scan_parts.given_h2 import given_h2
from mpgls.commands.scan_parts.ledger import open_ledger, shape_of, stored_block
from mpgls.commands.scan_parts.report import ScanReport
from mpgls.engine import mixed_check
from mpgls.engine.cholesky import CholeskyCovariance
from mpgls.engine.low_rank import TOLERANCE, LowRankCovariance
from mpgls.engine.low_rank_nulls import Products, SimilarityPart, load_gram
from mpgls.engine.low_rank_plan import LowRankPlan, LowRankSizes, plan_low_rank
from mpgls.engine.low_rank_scan import TestedSnps, check_against_double, hold_trait
from mpgls.engine.parts import tested_chromosomes
from mpgls.engine.sample_products import sample_products, without
from mpgls.engine.similarity import PackedSnps, Similarity
from mpgls.engine.snp_scan import WhitenedSnps, left_blocks
from mpgls.errors import UsageError
from mpgls.la.grid import ProcessGrid
from mpgls.la.teams import Team, split_teams
from mpgls.model import null_record
from mpgls.model.gls import COLLINEAR_TOLERANCE, fit_null, fit_snps
from mpgls.run.inputs import Study, open_study, selected_rows
from mpgls.run.job import Job, open_job
from mpgls.run.option_groups import (
    BlockOptions,
    CheckpointOptions,
    GenotypeOptions,
    ModelOptions,
    PlotOptions,
    TeamOptions,
    TraitOptions,
    plink_files,
)
from mpgls.run.options import at_least, flag, option, the_file
from mpgls.run.plan import block_within
from mpgls.run.slots import ScanLedger

if TYPE_CHECKING:
    from mpi4py import MPI

    from mpgls.run.results import Results
    from mpgls.study.chromosomes import Chromosomes

SIMILARITY = "similarity SNPs (one of the first three)"


@dataclass(frozen=True, kw_only=True)
class LowRank(
    GenotypeOptions, TraitOptions, ModelOptions, TeamOptions, BlockOptions, PlotOptions, CheckpointOptions
):  # fmt: skip
    """Options of ``mpgls low-rank``; exactly one of ``similarity_snps``, ``_every`` and ``_count`` is given."""

    command = "low-rank"
    summary = "mixed-model scan with a kinship of K similarity SNPs, for up to millions of samples"
    example = "mpirun -n 4 mpgls low-rank --bfile cohort --pheno traits.tsv --similarity-count 50000 --out lr"

    similarity_snps: str | None = option(
        None, "these SNPs (IDs separated by white space)", group=SIMILARITY, metavar="FILE", reads=the_file
    )
    similarity_every: int | None = option(None, "every K-th SNP", group=SIMILARITY, metavar="K", check=at_least(1))
    similarity_count: int | None = option(
        None, "K SNPs at equal distances in the .bim", group=SIMILARITY, metavar="K", check=at_least(1)
    )
    similarity_bfile: str | None = option(
        None,
        "PLINK files that they are taken from; default: --bfile",
        group=SIMILARITY,
        metavar="PREFIX",
        reads=plink_files,
    )
    no_loco: bool = flag("do not leave out the similarity SNPs of a SNP's chromosome", group=SIMILARITY)
    h2_file: str | None = option(
        None,
        "table with columns TRAIT, CHR (not with --no-loco) and H2; what it does not have is estimated",
        group="model",
        metavar="FILE",
        reads=the_file,
    )
    form: str = option(
        "auto",
        "auto: n x n matrices where there are as many similarity SNPs as samples, otherwise K x K",
        group="model",
        choices=("auto", "low-rank", "dense"),
    )
    stage: int | None = option(
        None, "compute this stage only; default: all of them", metavar="0|1|2|4", changes_results=False
    )

    def check(self) -> None:
        super().check()
        ways = (self.similarity_snps, self.similarity_every, self.similarity_count)
        if sum(way is not None for way in ways) != 1:
            raise UsageError(
                "low-rank needs one of --similarity-snps, --similarity-every and --similarity-count: "
                "the SNPs that measure similarity"
            )
        if self.stage is not None and self.stage not in STAGES:
            raise UsageError(f"--stage must be one of {', '.join(map(str, STAGES))}, not {self.stage}")

    @property
    def scans(self) -> bool:
        """Whether the last stage is asked for."""
        return self.stage in (None, 4)

    def is_dense(self, n: int, K: int) -> bool:
        """Whether n x n matrices are used: asked for, or cheaper because there are as many SNPs as samples."""
        return self.form == "dense" or (self.form == "auto" and n <= K)

    def determine_similarity(self) -> dict[str, Any]:
        """The options that G depends on, beside its files."""
        names = ("similarity_every", "similarity_count", "precision", "maf", "geno", "exclude_negative_bp")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Run:
    """What all sample sets of a run have in common; ``given`` (parts, all traits) is h2 where the user gave it."""

    options: LowRank
    study: Study
    similarity: SimilarityInput
    chromosomes: Chromosomes
    given: np.ndarray
    plan: LowRankPlan
    grid: ProcessGrid
    stages: Stages
    job: Job
    ledger: ScanLedger | None

    def positions(self, samples: SampleSet) -> list[int]:
        """The set's traits among all."""
        everyone = list(self.study.cohorts)
        return [everyone.index(name) for name in samples.traits]


def run(options: LowRank, comm: MPI.Comm) -> Results:
    """Run the stages that are asked for. Collective over ``comm``. Raises MpglsError, the same on all ranks."""
    # a single early stage keeps a log and a manifest of its own
    own = options if options.scans else replace(options, out=f"{options.out}.stage{options.stage}")
    with open_job(own, comm, (".h5",) if options.scans else ()) as job:
        if job.is_complete():
            return job.results()
        world = job.world
        with world.phase("open and check"):
            study = open_study(options, world)
            choice = SimilarityChoice(
                options.similarity_bfile, options.similarity_snps, options.similarity_every, options.similarity_count
            )
            similarity = open_similarity(choice, options.snps, study, world)
            sets = world.on_root(lambda: sample_sets(study, similarity.fileset))
            chromosomes = tested_chromosomes(study, not options.no_loco, world)
            labels = None if options.no_loco else chromosomes.labels
            given = world.on_root(lambda: given_h2(options.h2, options.h2_file, list(study.cohorts), labels))
            job.identify()
        plan = make_plan(options, study, similarity, sets, chromosomes, job)
        ledger = make_ledger(options, study, chromosomes, plan, len(given), job) if options.scans else None
        stages = Stages(job, options.out, options.stage, options.determine_similarity(), similarity)
        report = ScanReport(job, ledger, study.fileset, options.test, not options.no_plots) if ledger else None
        with ProcessGrid(comm, plan.grid) as grid:
            everything = Run(options, study, similarity, chromosomes, given, plan, grid, stages, job, ledger)
            packed = PackedSnps(similarity.fileset.bed, similarity.snps.index, world)
            for samples in sets:
                run_set(everything, samples, packed, report)
            packed.close()
        if report is None or ledger is None:
            files = [path for samples in sets if (path := stages.path(samples, options.stage or 0)).exists()]
            return job.finish({"plan": plan}, files=files)
        return job.finish(
            {"plan": plan, "traits": report.facts}, files=[job.path(".h5"), *report.files], tables=report.tables,
            nulls=ledger.nulls,
        )  # fmt: skip


def run_set(run: Run, samples: SampleSet, packed: PackedSnps, report: ScanReport | None) -> None:
    """The stages for the traits of one sample set. Collective."""
    options, world = run.options, run.job.world
    kept, stats = run.stages.count(samples, packed, options.snps)  # stage 0: G is known by its counts
    if options.stage == 0:
        return
    snps = run.similarity.snps.subset(kept)
    with world.phase("decode G"):
        at = np.flatnonzero(kept)
        rows = samples.similarity_rows
        G = Similarity(snps, packed, at, stats, rows, options.dtype, run.plan.resident, world.comm)
    say_similarity(run, G, samples)
    parts = make_parts(not options.no_loco, run.chromosomes, run.plan.block, snps, stats)
    checked = scan_dense(run, samples, G, parts) if options.is_dense(G.n, G.K) else scan_set(run, samples, G, parts)
    G.close()
    if report is not None:
        facts = {"n": samples.rows.size, "funnel": samples.cohort.funnel, "similarity_snps": int(parts[0].kept.size)}
        for trait in run.positions(samples):
            report.trait(trait, parts, **facts, **checked)


def scan_set(run: Run, samples: SampleSet, G: Similarity, parts: list[SimilarityPart]) -> dict[str, float]:
    """Stages 1, 2 and 4 with K x K matrices. Collective. Returns what the check in double found, for the manifest."""
    options, world, plan = run.options, run.job.world, run.plan
    gram = run.stages.multiply(samples, G, plan.strip, run.grid)  # stage 1: G'G
    if options.stage == 1:
        return {}
    F_rep = samples.F_rep
    products = Products.of(F_rep, samples.q, G, world)  # F'F, G'F
    given = run.given[:, run.positions(samples)]
    nulls = run.stages.estimate(samples, gram, products, parts, given, plan.null_team)  # stage 2: h2 = argmax REML
    if run.ledger is None:
        return {}
    with split_teams(world.comm, plan.team_size) as team:
        GG = load_gram(gram, G.n, run.grid, world)
        tested = TestedSnps(run.study.fileset.bed, samples.rows, F_rep, G, plan.block, world)
        checked: dict[str, float] = {}
        for k, part in enumerate(parts):
            for start in range(0, len(samples.traits), plan.traits_at_once):
                columns = range(start, min(start + plan.traits_at_once, len(samples.traits)))
                V = GG.covariance(part.kept, part.scale, world)
                checked |= scan_part(run, samples, tested, V, products, part, k, columns, nulls, team, checked)
    return checked


def scan_part(
    run: Run,
    samples: SampleSet,
    tested: TestedSnps,
    V: LowRankCovariance,
    products: Products,
    part: SimilarityPart,
    k: int,
    columns: range,
    nulls: np.ndarray,
    team: Team,
    checked: dict[str, float],
) -> dict[str, float]:
    """Stage 4: the SNPs of a part against the traits at ``columns`` of the set. Collective.

    Raises Stopped, on all ranks, when a signal asked for it.
    """
    options, world, ledger = run.options, run.job.world, run.ledger
    assert ledger is not None
    traits = [run.positions(samples)[j] for j in columns]
    slots = ledger.slots(traits)
    if slots.left(part.blocks).size == 0:
        return {}
    designs = {j: products.design(j, part) for j in columns}
    # L_c L_c' = I + w G_c'G_c,  F~ = sqrt(w) L_c^-1 G_c'F, of each trait, on every team
    held = [
        hold_trait(V, designs[j], j, float(nulls["h2"][k, j]), team, run.plan.block, options.dtype) for j in columns
    ]
    for trait, one in zip(traits, held, strict=True):
        cohort = run.study.cohorts[samples.traits[one.column]]
        ledger.keep_null(k, trait, nulls[k, one.column], fit_null(one.h2, one.sums), cohort)
    tested.begin(part)
    found: dict[str, float] = {}
    if options.precision == "mixed" and not checked:
        snps = np.concatenate([slots.snps(block) for block in slots.left(part.blocks)])
        first = held[0]
        columns_of_first = samples.F_of(first.column)
        found = check_against_double(tested, V, designs[first.column], first, part, snps, columns_of_first).facts()
    label = part.of(samples.traits[columns[0]] if len(columns) == 1 else f"{len(columns)} traits")
    tolerance, q = COLLINEAR_TOLERANCE[options.precision], samples.q
    with slots:
        for number, packed in left_blocks(tested.bed, slots, part.blocks, team, world, label):
            block = tested.decode(packed)
            H = tested.cross(part, block)  # H = G_c'X, the one large product
            fits = []
            for one in held:
                S = tested.sums(one, block, H, q)  # (F'X - w (L_c^-1 G_c'F)'L_c^-1 H) / (1-h2)
                norm = block.stats.n * block.stats.variance
                fits.append(fit_snps(one.sums, S[:q], S[q + 1], S[q], norm, options.test, tolerance))
            slots.keep(number, block.stats, fits)
    run.job.sample_memory()
    for one in held:
        one.L_team.close()
    return found


def scan_dense(run: Run, samples: SampleSet, G: Similarity, parts: list[SimilarityPart]) -> dict[str, float]:
    """Everything after stage 0 with n x n matrices. Collective. Raises UsageError when one stage alone is asked for."""
    options, world, ledger = run.options, run.job.world, run.ledger
    if options.stage is not None or ledger is None:
        raise UsageError(
            f"{G.K:,} similarity SNPs of {G.n:,} samples: the n x n form is cheaper, and it has no stages; "
            "leave --stage out, or give --form low-rank"
        )
    checked: dict[str, float] = {}
    with split_teams(world.comm, run.plan.team_size) as team:
        T_grid = sample_products(G, [slice(0, G.K)], run.grid, world)  # T = G G'
        for k, part in enumerate(parts):
            left = [j for j, trait in enumerate(run.positions(samples)) if ledger.slots([trait]).left(part.blocks).size]
            if left:
                Phi_grid = without(T_grid, G, part, world)  # Phi_c = (T - G_out G_out') / s_c
                for j in left:
                    V = CholeskyCovariance(Phi_grid, world, TOLERANCE)
                    checked |= scan_dense_trait(run, samples, part, k, j, V, team)
    return checked


def scan_dense_trait(
    run: Run, samples: SampleSet, part: SimilarityPart, k: int, j: int, V: CholeskyCovariance, team: Team
) -> dict[str, float]:
    """One trait of a set on the SNPs of a part, as single-trait does it: h2, L L' = V, X~ = L^-1 X. Collective."""
    options, world, ledger, bed = run.options, run.job.world, run.ledger, run.study.fileset.bed
    assert ledger is not None
    trait, label, F_rep = run.positions(samples)[j], part.of(samples.traits[j]), samples.F_of(j)
    null = ledger.null(k, trait, run.given[k, trait])
    if null is None:
        null = ledger.keep_estimate(k, trait, null_record.estimated(V.maximise(F_rep, world)))
    L = V.at(float(null["h2"]))
    sums, F_tilde_rep = L.sums(F_rep), L.columns(F_rep)
    null = ledger.keep_null(k, trait, null, fit_null(float(null["h2"]), sums), run.study.cohorts[samples.traits[j]])
    world.log.info(f"{label}: {null_record.text(null)}")
    found: dict[str, float] = {}
    with world.phase("hand over factor"):
        L_team = L.hold(team, ledger.store.block, options.dtype)
    snps = WhitenedSnps(L_team, F_tilde_rep, samples.rows, bed, world)
    if options.precision == "mixed":
        with world.phase("check in double"):
            found = mixed_check.check_against_double(snps, V, L, bed, ledger.store, world).facts()
    del V, L
    with L_team, ledger.slots([trait]) as slots:
        for block in left_blocks(bed, slots, part.blocks, team, world, label):
            S = snps.sums(snps.decode(block.packed), snps.whiten(len(block.packed)))
            with world.phase("statistics"):
                tolerance = COLLINEAR_TOLERANCE[options.precision]
                fit = fit_snps(sums, S.S_BL, S.S_BR, S.b_B, S.norm, options.test, tolerance)
            slots.keep(block.number, S.stats, [fit])
        run.job.sample_memory()
    return found


def make_ledger(
    options: LowRank, study: Study, chromosomes: Chromosomes, plan: LowRankPlan, parts: int, job: Job
) -> ScanLedger:
    """The result store. Collective."""
    edges, _ = chromosomes.blocks(plan.block)
    covariates = {name: cohort.covariate_names for name, cohort in study.cohorts.items()}
    shape = shape_of(selected_rows(study, job.world), plan.block, edges, parts, covariates)
    return open_ledger(job, study, shape, {"test": options.test}, options.snps, options.checkpoint)


def make_plan(
    options: LowRank,
    study: Study,
    similarity: SimilarityInput,
    sets: list[SampleSet],
    chromosomes: Chromosomes,
    job: Job,
) -> LowRankPlan:
    """The plan, in the log before anything large is allocated."""
    machine = job.machine()
    n, K = max(samples.rows.size for samples in sets), similarity.snps.index.size
    sizes = LowRankSizes(
        n=n,
        K=K,
        largest_part=int(chromosomes.sizes().max()),
        snp_bytes=study.fileset.bed.snp_bytes,
        similarity_bytes=similarity.fileset.bed.snp_bytes,
        item=np.dtype(options.dtype).itemsize,
        traits=max(len(samples.traits) for samples in sets),
        columns=max(samples.F_rep.shape[1] for samples in sets),
        dense=options.is_dense(n, K),
    )
    block = block_within(options.block_size, study.selected)
    plan = plan_low_rank(machine, sizes, options.team_size, stored_block(job, block) if options.scans else block)
    job.world.log.info(plan.text(machine))
    return plan


def say_similarity(run: Run, G: Similarity, samples: SampleSet) -> None:
    """What G is, in the log."""
    products = {True: "exact in float32", False: "in float32" if G.dtype == np.float32 else "in float64"}[G.exact]
    dense = run.options.is_dense(G.n, G.K)
    form = f"{'n x n' if dense else 'K x K'} matrices"
    if dense and run.options.form == "auto":
        form += ", which are cheaper for so many"
    names = ", ".join(samples.traits[:5]) + (", ..." if len(samples.traits) > 5 else "")
    run.job.world.log.info(f"{names}: n = {G.n:,}, K = {G.K:,} similarity SNPs that vary; {form}; products {products}")
