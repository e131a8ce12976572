"""mpgls single-trait: generalised least squares of one trait on every SNP ([Elem] Algorithm 3, Elem-1D)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mpgls.commands.scan_parts.given_h2 import given_h2
from mpgls.commands.scan_parts.ledger import open_ledger, shape_of, stored_block
from mpgls.commands.scan_parts.report import ScanReport
from mpgls.engine.kinship_on_grid import KinshipOnGrid
from mpgls.engine.mixed_check import MixedCheck, check_against_double
from mpgls.engine.models import EigenModels, KinshipModels, Models, check_components
from mpgls.engine.parts import KinshipPart, check_kinship, describe, scan_parts, tested_chromosomes
from mpgls.engine.scan_plan import ScanPlan, ScanSizes, plan_scan
from mpgls.engine.snp_scan import WhitenedSnps, left_blocks
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
    ScanKinshipOptions,
    TeamOptions,
    TraitOptions,
)
from mpgls.run.plan import block_within
from mpgls.run.slots import ScanLedger
from mpgls.stream.eigen_file import EigenFile, open_eigen_file

if TYPE_CHECKING:
    from mpi4py import MPI

    from mpgls.run.results import Results
    from mpgls.study.chromosomes import Chromosomes


@dataclass(frozen=True, kw_only=True)
class SingleTrait(
    GenotypeOptions, TraitOptions, ScanKinshipOptions, ModelOptions, TeamOptions, BlockOptions, PlotOptions,
    CheckpointOptions,
):  # fmt: skip
    """Options of ``mpgls single-trait``."""

    command = "single-trait"
    summary = "mixed-model scan of one trait (or several, one after the other) on every SNP"
    example = (
        "mpirun -n 4 mpgls single-trait --bfile mice --pheno traits.tsv --pheno-name CD8 --grm mice_K.h5 --out cd8"
    )


def run(options: SingleTrait, comm: MPI.Comm) -> Results:
    """Scan every trait of the study. Collective over ``comm``. Raises MpglsError, the same on all ranks.

    With --loco all is done for each chromosome in turn: Phi without its SNPs, then its SNPs' blocks.
    """
    with open_job(options, comm, (".h5",)) as job:
        if job.is_complete():
            return job.results()
        world = job.world
        with world.phase("open and check"):
            eigen_file = world.on_root(lambda: open_eigen_file(options.eigen) if options.eigen else None)
            study = open_study(options, world, model_ids=eigen_file.ids if eigen_file else None)
            check_kinship(study, options.loco, world)
            for name, cohort in study.cohorts.items():
                check_components(options.pcs, cohort, f"trait {name!r}")
            chromosomes = tested_chromosomes(study, options.loco, world)
            labels = chromosomes.labels if options.loco else None
            given = world.on_root(lambda: given_h2(options.h2, options.h2_file, list(study.cohorts), labels))
            job.identify()
        plan = make_plan(options, study, chromosomes, job)
        with world.phase("open and check"):
            edges, parts = scan_parts(study, chromosomes, plan.block, options.loco)
            describe(parts, edges, plan.block, world)
            covariates = {name: cohort.covariate_names for name, cohort in study.cohorts.items()}
            shape = shape_of(selected_rows(study, world), plan.block, edges, len(parts), covariates, options.pcs)
            ledger = open_ledger(job, study, shape, {"test": options.test}, options.snps, options.checkpoint)

        report = ScanReport(job, ledger, study.fileset, options.test, not options.no_plots)
        with ProcessGrid(comm, plan.grid) as grid, split_teams(comm, plan.team_size) as team:
            for k, part in enumerate(parts):
                unfinished = ledger.unfinished(part.blocks)
                models = make_models(options, part, eigen_file, len(unfinished), grid, plan, job)
                for trait, cohort in enumerate(study.cohorts.values()):
                    if trait in unfinished:
                        found = scan_trait(options, part, k, trait, models, given[k, trait], team, ledger, job)
                        report.note_check(trait, found)
                    if part is parts[-1]:
                        report.trait(trait, parts, n=cohort.rows.size, funnel=cohort.funnel)
        return job.finish(
            {"plan": plan, "traits": report.facts}, files=[job.path(".h5"), *report.files], tables=report.tables,
            nulls=ledger.nulls,
        )  # fmt: skip


def scan_trait(
    options: SingleTrait,
    part: KinshipPart,
    k: int,
    trait: int,
    models: Models,
    given: float,
    team: Team,
    ledger: ScanLedger,
    job: Job,
) -> MixedCheck | None:
    """One trait on the SNPs of a part, number ``k``: [Elem] Algorithm 3. Collective.

    ``given`` is h2 where the user gave it, or NaN. Returns what the check of mixed precision found. Raises Stopped, on
    all ranks, when a signal asked for it.
    """
    world, bed, label = job.world, part.study.fileset.bed, part.of(ledger.traits[trait])
    V, cohort = models.take(ledger.traits[trait], label)
    F_rep = V.design(np.column_stack([cohort.X_L, cohort.y]))  # [X_L | y]
    null = ledger.null(k, trait, given)
    if null is None:
        null = ledger.keep_estimate(k, trait, null_record.estimated(V.maximise(F_rep, world)))
    h2 = float(null["h2"])
    L = V.at(h2)  # line 1: L L' = V = h2 Phi + (1-h2) I
    sums, F_tilde_rep = L.sums(F_rep), L.columns(F_rep)  # lines 2-4: S_TL, b_T; X_L~, y~
    null = ledger.keep_null(k, trait, null, fit_null(h2, sums), cohort)
    say_null(label, null, job)
    with world.phase("hand over factor"):
        L_team = L.hold(team, ledger.store.block, options.dtype)
    snps = WhitenedSnps(L_team, F_tilde_rep, cohort.rows, bed, world)
    found = None
    if options.precision == "mixed":
        with world.phase("check in double"):
            found = check_against_double(snps, V, L, bed, ledger.store, world)
    del V, L  # the scan needs neither Phi nor the work buffer

    with L_team, ledger.slots([trait]) as slots:
        for block in left_blocks(bed, slots, part.blocks, team, world, label):  # line 5
            stats = snps.decode(block.packed)
            X_tilde_team = snps.whiten(len(block.packed))  # line 6: X~ = L^-1 X
            S = snps.sums(stats, X_tilde_team)  # lines 7-11: S_BL, b_B, S_BR
            with world.phase("statistics"):  # line 12: the Schur complement of S_BR
                fit = fit_snps(
                    sums, S.S_BL, S.S_BR, S.b_B, S.norm, options.test, COLLINEAR_TOLERANCE[options.precision]
                )
            slots.keep(block.number, stats, [fit])
        job.sample_memory()
    return found


def say_null(label: str, null: np.ndarray, job: Job) -> None:
    """The null model, in the log."""
    job.world.log.info(f"{label}: {null_record.text(null)}")
    if null["flag"] & null_record.NullFlag.BOUNDARY:
        job.world.log.warn(f"{label}: h2 is at the boundary of its range")


def make_models(
    options: SingleTrait,
    part: KinshipPart,
    eigen_file: EigenFile | None,
    uses: int,
    grid: ProcessGrid,
    plan: ScanPlan,
    job: Job,
) -> Models:
    """Where each trait's covariance comes from; the kinship is loaded once for its ``uses``. Collective."""
    if eigen_file is not None:
        return EigenModels(part.study, eigen_file, grid, plan.grid_block, options.pcs, job.world)
    kinship, samples, index = part.study.kinship, part.study.samples, part.study.kinship_index()
    assert kinship is not None
    Phi = KinshipOnGrid(kinship, samples, index, uses, grid, plan.grid_block, job.world, options.center_grm)
    return KinshipModels(part.study, Phi, options.pcs, job.world)


def make_plan(options: SingleTrait, study: Study, chromosomes: Chromosomes, job: Job) -> ScanPlan:
    """The plan, in the log before anything large is allocated; a run that resumes keeps its store's block."""
    machine = job.machine()
    cohorts, n = list(study.cohorts.values()), study.samples.size
    sizes = ScanSizes(
        n,
        m=-(-study.selected // len(chromosomes.labels)),
        columns=cohorts[0].X_L.shape[1] + options.pcs + 1,
        snp_bytes=study.fileset.bed.snp_bytes,
        item=np.dtype(options.dtype).itemsize,
        packed_kinship=study.kinship is not None and study.kinship.packed_lower,
        several_sets=any(cohort.rows.size < n for cohort in cohorts),
        several_traits=len(cohorts) > 1,
    )
    block = stored_block(job, block_within(options.block_size, study.selected))
    plan = plan_scan(machine, sizes, options.team_size, block)
    job.world.log.info(plan.text(machine))
    return plan
