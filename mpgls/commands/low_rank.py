"""mpgls low-rank: the mixed model of K similarity SNPs for up to millions of people ([Ludicrous], without its U).

Nothing of size n x n or n x m is ever made where K < n. [Ludicrous]' stage 3, the files of U, is not needed
(model/woodbury.py).
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mpgls.device.card import Card
from mpgls.engine.blup import BlupFiles
from mpgls.engine.device_plan import card_limit, choose_card
from mpgls.engine.dry_run import dry_run_of_stages, held_bytes, problem_of
from mpgls.engine.low_rank_blup import SimilarityBlups
from mpgls.engine.low_rank_inputs import (
    SampleSet,
    SimilarityChoice,
    SimilarityInput,
    make_parts,
    open_similarity,
    sample_sets,
)
from mpgls.engine.low_rank_nulls import Products, SimilarityPart, StoredGram
from mpgls.engine.low_rank_plan import LowRankPlan, LowRankSizes, plan_low_rank
from mpgls.engine.low_rank_scan import SetModel
from mpgls.engine.low_rank_stages import FILES_OF_STAGES, STAGES, Stages, similarity_mark
from mpgls.engine.parts import tested_chromosomes
from mpgls.engine.sample_products import SampleModels, sample_products, without
from mpgls.engine.similarity import PackedSnps, Similarity
from mpgls.engine.similarity_on_card import SimilarityOnCard, check_for_cards, tested_snps
from mpgls.engine.snp_scan import left_blocks
from mpgls.engine.trait_scan import TraitScan
from mpgls.errors import UsageError, about
from mpgls.la.grid import ProcessGrid
from mpgls.la.teams import Team, split_teams
from mpgls.model.gls import fit_null
from mpgls.model.null_record import NullFlag, unidentified
from mpgls.report.scan_report import ScanReport
from mpgls.run.device_options import DeviceOptions
from mpgls.run.genotype_options import BY_COUNTS, BY_SEX, named_source
from mpgls.run.inputs import Study, known_h2, open_study
from mpgls.run.job import Job, open_job
from mpgls.run.option_groups import TraitScanOptions
from mpgls.run.options import option, the_file
from mpgls.run.plan import Machine, block_within
from mpgls.run.scan_ledger import open_ledger, planned_block, scan_bytes
from mpgls.run.similarity_options import SimilaritySnpOptions
from mpgls.run.slots import ScanLedger
from mpgls.study.snp_columns import columns_of_all

if TYPE_CHECKING:
    from mpi4py import MPI

    from mpgls.run.results import Results
    from mpgls.study.chromosomes import Chromosomes


@dataclass(frozen=True, kw_only=True)
class LowRank(TraitScanOptions, SimilaritySnpOptions, DeviceOptions):
    """Options of ``mpgls low-rank``; exactly one of ``similarity_snps``, ``_every`` and ``_count`` is given."""

    command = "low-rank"
    summary = "mixed-model scan with a kinship of K similarity SNPs, for up to millions of samples"
    example = "mpirun -n 4 mpgls low-rank --bfile cohort --pheno traits.tsv --similarity-count 50000 --out lr"

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
        if self.stage is not None and self.stage not in STAGES:
            raise UsageError(f"--stage must be one of {', '.join(map(str, STAGES))}, not {self.stage}")
        if self.blup and not self.no_loco:
            raise UsageError("--blup is by the null model of all similarity SNPs: give --no-loco as well")
        if self.blup and not self.scans:
            raise UsageError("--blup belongs to the last stage: leave --stage out")
        if self.robust != "none":
            raise UsageError(
                "--robust needs each sample's residual beside the whitened SNPs, which low-rank never makes: use "
                "mpgls single-trait"
            )
        _ = self.similarity  # several sources
        if self.device != "cpu" and self.team_size not in (None, 1):
            raise UsageError("each GPU holds a whole factor of low-rank: leave out either --team-size or --device")

    @property
    def record(self) -> str:
        """Of an early stage alone, which keeps a log and a manifest of its own."""
        return super().record or ("" if self.scans else f".stage{self.stage}")

    @property
    def similarity_name(self) -> str:
        """What the user calls the genotypes of the similarity SNPs."""
        return (self.similarity.source or self.source).value

    @property
    def scans(self) -> bool:
        """Whether the last stage is asked for."""
        return self.stage in (None, 4)

    @property
    def similarity(self) -> SimilarityChoice:
        """Which SNPs measure similarity."""
        ways = (self.similarity_snps, self.similarity_every, self.similarity_count)
        return SimilarityChoice(
            named_source(self, of_similarity=True),
            *ways,
            loco=not self.no_loco,
            every_chromosome=self.all_chromosomes,
            sex_rule=self.sex_rule,
        )

    def is_dense(self, n: int, K: int) -> bool:
        """Whether n x n matrices are used: asked for, or cheaper because there are as many SNPs as samples."""
        return self.form == "dense" or (self.form == "auto" and n <= K)

    def determine_similarity(self) -> dict[str, Any]:
        """The options that G depends on, beside its files."""
        names = ("similarity_every", "similarity_count", "precision", "exclude_negative_bp", *BY_COUNTS, *BY_SEX)
        return {name: getattr(self, name) for name in (*names, "dosage", "hard_call_threshold")}


@dataclass(frozen=True)
class Run:
    """What all sample sets of a run have in common; without the last stage there is neither ledger nor report."""

    options: LowRank
    study: Study
    similarity: SimilarityInput
    chromosomes: Chromosomes
    given: np.ndarray
    plan: LowRankPlan
    stages: Stages
    job: Job
    ledger: ScanLedger | None
    report: ScanReport | None
    card: Card | None
    blups: BlupFiles | None

    def blups_of(self, G: Similarity, part: SimilarityPart) -> SimilarityBlups | None:
        """What keeps the predictions of all similarity SNPs; None without --blup."""
        return None if self.blups is None else SimilarityBlups(self.blups, G, part.scale)


def run(options: LowRank, comm: MPI.Comm) -> Results:
    """Run the stages that are asked for. Collective over ``comm``. Raises MpglsError, the same on all ranks."""
    with open_job(options, comm, (".h5",) if options.scans else (), further=FILES_OF_STAGES) as job:
        if job.is_complete():
            return job.results()
        world = job.world
        with world.phase("open and check"):
            card = None if options.dry_run else choose_card(options.device_wish, world)
            study = open_study(options, world)
            chromosomes = tested_chromosomes(study, not options.no_loco, world)
            similarity = open_similarity(options.similarity, options.snps, study, chromosomes, world)
            sets = world.on_root(lambda: sample_sets(study, similarity.fileset))
            labels = None if options.no_loco else chromosomes.labels
            given = known_h2(options, list(study.cohorts), labels, world)
            job.identify()
            check_room(options, study, similarity, sets, job)
            machine = job.machine(held_bytes(study, similarity))
            if options.dry_run:
                problem = problem_of(study, similarity, sets, len(chromosomes.labels), options.dtype, options.is_dense)
                return dry_run_of_stages(problem, machine, options.rates, options.device_wish, job)
            plan = make_plan(machine, options, study, similarity, sets, chromosomes, card, job)
            made_from = similarity_mark(similarity, options.determine_similarity(), job.identities)
            stages = Stages(world, options.out, options.stage, made_from)
            ledger, report = None, None
            if options.scans:
                ledger = open_ledger(options, study, plan.block, chromosomes.blocks(plan.block)[0], given, job)
                variants, plots = study.fileset.variants, not options.no_plots
                report = ScanReport(comm, options.out, options.formats, ledger.store, variants, plots, world.log.info)
            blups = None
            if options.blup:
                blups = BlupFiles(options.out, list(study.cohorts), similarity.fileset.variants, world)
            whole = Run(options, study, similarity, chromosomes, given, plan, stages, job, ledger, report, card, blups)
        with world.phase("stages"), ProcessGrid(comm, plan.grid) as grid:
            packed = PackedSnps(similarity.fileset.bed, similarity.snps.index, world)
            for samples in sets:
                run_set(whole, samples, packed, grid)
            packed.close()
        if report is None or ledger is None:
            files = [path for samples in sets if (path := stages.path(samples, options.stage or 0)).exists()]
            return job.finish({"plan": plan}, files=files)
        return job.finish(
            {"plan": plan, "traits": report.facts}, files=[job.path(".h5"), *report.files],
            tables=report.tables | (blups.tables() if blups else {}), nulls=ledger.nulls,
        )  # fmt: skip


def run_set(run: Run, samples: SampleSet, packed: PackedSnps, grid: ProcessGrid) -> None:
    """The stages for the traits of one sample set. Collective."""
    options, world = run.options, run.job.world
    kept, stats = run.stages.count(samples, packed, options.snps)  # stage 0: G is known by its counts
    if options.stage == 0:
        return
    snps, at = run.similarity.snps.subset(kept), np.flatnonzero(kept)
    with world.phase("decode G"):
        known = snps, packed, at, stats, samples.similarity_rows, options.dtype
        if run.card is None:
            G = Similarity(*known, run.plan.resident, world.comm)
        else:
            check_for_cards(options.is_dense(samples.rows.size, snps.index.size))
            G = SimilarityOnCard(*known, run.card, world.comm)
    say_similarity(run, G, samples)
    parts = make_parts(not options.no_loco, run.chromosomes, run.plan.block, snps, stats)
    scan = scan_dense if options.is_dense(G.n, G.K) else scan_set
    checked = scan(run, samples, G, parts, grid)
    G.close()
    if run.report is not None:
        facts = {"n": samples.rows.size, "funnel": samples.cohort.funnel, "similarity_snps": int(parts[0].kept.size)}
        for trait in samples.numbers:
            with world.phase("report"):
                run.report.trait(trait, parts, facts | checked.get(trait, {}))


def scan_set(
    run: Run, samples: SampleSet, G: Similarity, parts: list[SimilarityPart], grid: ProcessGrid
) -> dict[int, dict[str, float]]:
    """Stages 1, 2 and 4 with K x K matrices. Collective. Returns what checks in double found, by trait."""
    world, plan = run.job.world, run.plan
    GG = run.stages.multiply(samples, G, plan.strip, grid)  # stage 1: G'G
    if run.options.stage == 1:
        return {}
    products = Products.of(samples.F_rep, samples.q, G, world)  # F'F, G'F
    given, gram = run.given[:, samples.numbers], StoredGram(GG, G.n, *plan.of_gram(run.card))
    nulls = run.stages.estimate(samples, gram, products, parts, given, plan.null_team)  # stage 2: h2 = argmax REML
    for part in parts:
        open_h2 = nulls["flag"][part.k] & NullFlag.UNIDENTIFIED != 0
        for name in np.array(samples.traits)[open_h2]:
            world.log.warn(unidentified(part.of(str(name)), run.options.similarity_name))
    if run.ledger is None:
        return {}
    checked: dict[str, float] = {}
    with split_teams(world.comm, plan.team_size, plan.solver) as team:
        of_snps = run.options.columns(samples.cohort)
        tested = tested_snps(run.study.fileset.bed, samples.rows, samples.F_rep, G, plan.block, world, of_snps)
        model = SetModel(gram.load(grid, world), products, nulls, tested)
        if (blups := run.blups_of(G, parts[0])) is not None:
            blups.keep_set(run.study, samples, model, parts[0])
        left = [part.k for part in parts if run.ledger.unfinished(part.blocks)]
        highest = float(nulls["h2"][left].max(initial=0.0))  # rounding grows as 1/(1-h2)
        for part in parts:
            for start in range(0, len(samples.traits), plan.traits_at_once):
                columns = range(start, min(start + plan.traits_at_once, len(samples.traits)))
                checked |= scan_part(run, samples, model, part, columns, team, highest)
    return dict.fromkeys(samples.numbers, checked)


def scan_part(
    run: Run,
    samples: SampleSet,
    model: SetModel,
    part: SimilarityPart,
    columns: range,
    team: Team,
    checked_h2: float,
) -> dict[str, float]:
    """Stage 4: the SNPs of a part against the traits at ``columns`` of the set. Collective.

    Returns what the check of mixed precision found, which is made of the models whose h2 is ``checked_h2``. Raises
    Stopped, on all ranks, when a signal asked for it.
    """
    ledger, world, test, tested = run.ledger, run.job.world, run.options.snp_test, model.tested
    assert ledger is not None
    slots = ledger.slots([samples.numbers[j] for j in columns])
    left = slots.left(part.blocks)
    found: dict[str, float] = {}
    if left.size == 0:
        return found
    held = [model.hold(part, j, team) for j in columns]  # L_c L_c' = I + w G_c'G_c;  F~ = sqrt(w) L_c^-1 G_c'F
    for one in held:
        cohort, null = run.study.cohorts[samples.traits[one.column]], model.nulls[part.k, one.column]
        ledger.keep_null(part.k, samples.numbers[one.column], null, fit_null(one.h2, one.sums), cohort)
    tested.begin(part)
    worst = max(held, key=lambda one: one.h2)
    if (test.precision == "mixed" or tested.on_card) and worst.h2 >= checked_h2:
        snps = np.concatenate([slots.snps(block) for block in left])
        found = model.check_against_double(part, worst, snps, test).facts()
    label = part.of(samples.traits[columns[0]] if len(columns) == 1 else f"{len(columns)} traits")
    with slots, contextlib.ExitStack() as stack:
        for one in held:
            stack.enter_context(one.L_team)
        for number, packed in left_blocks(tested.bed, slots, part.blocks, team, world, label):
            block = tested.decode(packed)  # X, F'X
            H = tested.cross(part, block)  # H = G_c'X, the one large product
            # S = (F'X - w (L_c^-1 G_c'F)'L_c^-1 H) / (1-h2); effects by the Schur complement of S_BR
            fits = [tested.sums(one, block, H).fit(one.sums, test) for one in held]
            slots.keep(number, block.stats, fits)
        run.job.sample_memory()
    return found


def scan_dense(
    run: Run, samples: SampleSet, G: Similarity, parts: list[SimilarityPart], grid: ProcessGrid
) -> dict[int, dict[str, float]]:
    """Everything after stage 0 with n x n matrices, each trait as single-trait does it. Collective.

    Returns what checks in double found, by trait. Raises UsageError when one stage alone is asked for.
    """
    options, world, ledger = run.options, run.job.world, run.ledger
    if options.stage is not None or ledger is None:
        raise UsageError(
            f"{G.K:,} similarity SNPs of {G.n:,} samples: the n x n form is cheaper, and it has no stages; "
            "leave --stage out, or give --form low-rank"
        )
    with split_teams(world.comm, run.plan.team_size, run.plan.solver) as team:
        blups = run.blups_of(G, parts[0])
        scan = TraitScan(
            run.study.fileset.bed, options.snp_test, team, ledger, world, run.job.sample_memory,
            columns=options.columns, blups=blups,
        )  # fmt: skip
        T_grid = sample_products(G, [slice(0, G.K)], grid, world)  # T = G G'
        for part in parts:
            left = {*ledger.unfinished(part.blocks), *(blups.files.lacking() if blups else ())}
            unfinished = sorted(left.intersection(samples.numbers))
            if unfinished:
                Phi_grid = without(T_grid, G, part, world)  # Phi_c = (T - G_out G_out') / s_c
                models = SampleModels(Phi_grid, run.study.cohorts, run.options.similarity_name, world)
                for trait in unfinished:
                    with about(part.of(ledger.traits[trait])):
                        scan.run(part, trait, models)
    return {trait: scan.checked(trait) for trait in samples.numbers}


def check_room(options: LowRank, study: Study, similarity: SimilarityInput, sets: list[SampleSet], job: Job) -> None:
    """The files of the stages, of which G'G is large, and of the scan must have room. Raises StorageError."""
    K = similarity.snps.index.size
    sizes = scan_bytes(options, study) if options.scans else {}
    if options.stage in (None, 1):
        dense = [options.is_dense(samples.rows.size, K) for samples in sets]
        sizes |= {
            f"{samples.suffix}.stage1.h5": 8 * K * K
            for samples, is_dense in zip(sets, dense, strict=True)
            if not is_dense
        }
    job.check_room(sizes)


def make_plan(
    machine: Machine,
    options: LowRank,
    study: Study,
    similarity: SimilarityInput,
    sets: list[SampleSet],
    chromosomes: Chromosomes,
    card: Card | None,
    job: Job,
) -> LowRankPlan:
    """The plan, in the log before anything large is allocated."""
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
        tested=columns_of_all(study.cohorts, options.columns).count,
        of_card=card_limit(card, job.world),
    )
    block = planned_block(options, study, job) if options.scans else block_within(options.block_size, study.selected)
    plan = plan_low_rank(machine, sizes, options.team_size, block, options.solver)
    job.world.log.info(plan.text(machine))
    return plan


def say_similarity(run: Run, G: Similarity, samples: SampleSet) -> None:
    """What G is, in the log."""
    dense = run.options.is_dense(G.n, G.K)
    form = f"{'n x n' if dense else 'K x K'} matrices"
    if dense and run.options.form == "auto":
        form += ", which are cheaper for so many"
    names = ", ".join(samples.traits[:5]) + (", ..." if len(samples.traits) > 5 else "")
    known = f"n = {G.n:,}, K = {G.K:,} similarity SNPs that vary"
    run.job.world.log.info(f"{names}: {known}; {form}; products {G.products}")
