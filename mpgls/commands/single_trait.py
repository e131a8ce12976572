"""mpgls single-trait: generalised least squares of one trait on every SNP ([Elem] Algorithm 3, Elem-1D).

For each trait, as `mpgls.engine.trait_scan` does it line by line:

    L L'             = V = h2 Phi + (1-h2) I         h2 = argmax REML, on the grid
    [X_L~ | y~]      = L^-1 [X_L | y]
    for every block X of SNPs, dealt to teams that each hold L:
        X~           = L^-1 X
        beta, se     = Schur complement of x~'x~ beside X_L~ and y~

With --ratio snp it is `mpgls.engine.ratio_scan`, in the eigenbasis of Phi, and each SNP has its own h2.

With --blup the null model also gives u = h2 Phi V^-1 (y - X_L b), as `mpgls.engine.blup` does it.

With --loco all of it is done for each chromosome in turn: Phi without its SNPs, then its SNPs' blocks.

With --joint-peak `mpgls.engine.joint_peaks` scans again, with the best SNPs among the covariates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mpgls.device.card import Card
from mpgls.engine.blup import BlupFiles, KinshipBlups
from mpgls.engine.covariance import Covariance
from mpgls.engine.device_blocks import OnCard
from mpgls.engine.device_plan import CardPlan, card_limit, card_sizes, choose_card, on_the_card, plan_on_cards
from mpgls.engine.dry_run import dry_run_on
from mpgls.engine.kinship_on_grid import KinshipOnGrid
from mpgls.engine.models import DecomposedModels, EigenModels, KinshipModels, Models, check_components
from mpgls.engine.part_worlds import deal_parts, dealt_text, loads_of, null_snps
from mpgls.engine.parts import KinshipPart, check_kinship, describe, scan_parts, tested_chromosomes
from mpgls.engine.scan_plan import ScanPlan, ScanSizes, plan_scan
from mpgls.engine.spectral import SpectralCovariance
from mpgls.engine.trait_scan import C, TraitScan, TraitScans
from mpgls.errors import UsageError, about
from mpgls.la.grid import ProcessGrid
from mpgls.la.teams import split_teams
from mpgls.model.h2_nodes import NODES
from mpgls.report.scan_report import ScanReport
from mpgls.run.device_options import DevicePrecisionOptions
from mpgls.run.inputs import Study, known_h2, open_study
from mpgls.run.job import Job, open_job
from mpgls.run.option_groups import RatioOptions, TraitScanOptions
from mpgls.run.peak_options import PeakOptions
from mpgls.run.plan import Machine, block_within
from mpgls.run.scan_ledger import open_ledger, planned_block, scan_bytes
from mpgls.run.study_options import ScanKinshipOptions
from mpgls.run.world import World
from mpgls.run.worlds import Worlds, split_world
from mpgls.stream.eigen_file import EigenFile, open_eigen_file
from mpgls.study.snp_columns import columns_of_all

if TYPE_CHECKING:
    from mpi4py import MPI

    from mpgls.engine.cost import RunCost
    from mpgls.run.results import Results
    from mpgls.study.chromosomes import Chromosomes

PEAKS = ".peaks.progress"
"""What --joint-peak has found so far."""


@dataclass(frozen=True, kw_only=True)
class SingleTrait(PeakOptions, DevicePrecisionOptions, RatioOptions, TraitScanOptions, ScanKinshipOptions):
    """Options of ``mpgls single-trait``."""

    command = "single-trait"
    summary = "mixed-model scan of one trait (or several, one after the other) on every SNP"
    example = (
        "mpirun -n 4 mpgls single-trait --bfile mice --pheno traits.tsv --pheno-name CD8 --grm mice_K.h5 --out cd8"
    )

    def check(self) -> None:
        super().check()
        if self.blup and self.loco:
            raise UsageError("--blup is by the null model of the whole kinship, which --loco has not: leave one out")
        if self.dry_run and self.ratio == "snp":
            raise UsageError("--dry-run does not know what --ratio snp costs: leave one of them out")
        if self.ratio == "snp" and self.several_columns:
            raise UsageError(f"--ratio snp knows SNPs of one column only: leave it or {self.several_columns} out")
        if self.dry_run and self.joint_peak is not None:
            raise UsageError("--dry-run does not know how many scans --joint-peak takes: leave one of them out")
        if self.joint_peak is not None and self.several_columns:
            raise UsageError(f"--joint-peak adds SNPs of one column, and {self.several_columns} gives them several")
        if self.robust != "none" and self.eigen is not None:
            raise UsageError(
                "--robust needs residuals of samples, and in a basis of eigenvectors there are none: give --grm, not "
                "--eigen"
            )


def run(options: SingleTrait, comm: MPI.Comm) -> Results:
    """Scan every trait of the study. Collective over ``comm``. Raises MpglsError, the same on all ranks."""
    with open_job(options, comm, (".h5",), until_done=(PEAKS,)) as job:
        if job.is_complete():
            return job.results()
        world = job.world
        with world.phase("open and check"):
            eigen_file = world.on_root(lambda: open_eigen_file(options.eigen) if options.eigen else None)
            card = None if options.dry_run else choose_card(options.device_wish, world)
            study = open_study(options, world, eigen=eigen_file)
            check_kinship(study, options.loco, world)
            for name, cohort in study.cohorts.items():
                check_components(options.pcs, cohort, f"trait {name!r}")
            chromosomes = tested_chromosomes(study, options.loco, world)
            labels = chromosomes.labels if options.loco else None
            given = known_h2(options, list(study.cohorts), labels, world)
            job.identify()
            job.check_room(scan_bytes(options, study))
            if options.dry_run:
                machine = job.machine(study.fileset.bed.held_bytes)

                def cost(at: Machine, limit: int | None) -> RunCost:
                    return cost_on(at, options, study, chromosomes, given, limit)

                return dry_run_on(cost, machine, options.rates, options.device_wish, job)
            plan = make_plan(options, study, chromosomes, card, job)
            edges, parts = scan_parts(study, chromosomes, plan.block, options.loco, plan.keeps)
            describe(parts, edges, plan.block, world, plan.worlds)
            ledger = open_ledger(options, study, plan.block, edges, given, job, options.pcs)
            blups = find_blups(options, study, job)

        variants, plots = study.fileset.variants, not options.no_plots
        report = ScanReport(comm, options.out, options.formats, ledger.store, variants, plots, world.log.info)
        with (
            world.phase("scan"),
            split_world(world, plan.worlds) as worlds,
            ProcessGrid(worlds.own.comm, plan.grid) as grid,
            split_teams(worlds.own.comm, plan.team_size, plan.solver) as team,
        ):
            own, on_card = worlds.own, on_the_card(card, plan, options.precision)
            shared = (study.fileset.bed, options.snp_test, team, ledger.of(own), own, job.sample_memory)
            source = KinshipSource(options, eigen_file, grid, plan, own, on_card)
            scan = Scan(options, study, parts, report, job, worlds)
            if options.ratio == "null":
                one_h2 = TraitScan(*shared, columns=options.columns, blups=blups, on_card=on_card)
                scan_traits(scan, one_h2, source.models)
            else:
                from mpgls.engine.ratio_scan import RatioScan

                own_h2 = RatioScan(*shared, columns=options.columns, blups=blups)
                scan_traits(scan, own_h2, source.spectral_models)
        return job.finish(
            {"plan": plan, "traits": report.facts}, files=[job.path(".h5"), *report.files],
            tables=report.tables | (blups.files.tables() if blups else {}), nulls=ledger.nulls,
        )  # fmt: skip


def find_blups(options: SingleTrait, study: Study, job: Job) -> KinshipBlups | None:
    """Where genetic values go, and the SNPs of the kinship; None without --blup. Collective."""
    if not options.blup:
        return None
    from mpgls.engine.kinship_snps import KinshipSnps

    files = BlupFiles(options.out, list(study.cohorts), study.fileset.variants, job.world)
    return KinshipBlups(files, KinshipSnps.find(study, options.center_grm, job.world))


@dataclass(frozen=True)
class Scan:
    """What the traits of a scan share."""

    options: SingleTrait
    study: Study
    parts: list[KinshipPart]
    report: ScanReport
    job: Job
    worlds: Worlds

    @property
    def null(self) -> float:
        """SNPs whose scan takes as long as a null model."""
        return null_snps(self.study.samples.size, basis=self.options.ratio == "snp")

    def tell(self, trait: int, traits: TraitScans[C]) -> None:
        """Tables and plots of a trait that is scanned. Collective. Raises StorageError on all ranks."""
        cohort = self.study.cohorts[traits.ledger.traits[trait]]
        with self.job.world.phase("report"):
            facts = {"n": cohort.rows.size, "funnel": cohort.funnel, **traits.checked(trait)}
            self.report.trait(trait, self.parts, facts)


def scan_traits(scan: Scan, traits: TraitScans[C], models_of: Callable[[KinshipPart, int], Models[C]]) -> None:
    """Every trait on the SNPs of every part that its ledger lacks, and its tables. Collective; raises Stopped.

    Parts are dealt to worlds. ``models_of`` gives the models of a part for so many uses.
    """
    T, worlds, several = len(scan.study.cohorts), scan.worlds, len(scan.parts) > 1
    left = [traits.unfinished(part) for part in scan.parts]
    world_of = deal_parts(loads_of(scan.parts, left, traits.ledger.store.edges, scan.null), worlds.count)
    if worlds.count > 1:
        worlds.whole.log.info(dealt_text([str(part.label) for part in scan.parts], world_of, worlds.count))
    with worlds.together():
        for part, unfinished in zip(scan.parts, left, strict=True):
            if world_of[part.k] != worlds.number:
                continue
            models = models_of(part, len(unfinished))
            for trait in range(T):
                if trait in unfinished:
                    with about(part.of(traits.ledger.traits[trait])):
                        traits.run(part, trait, models)
                if not several:
                    scan.tell(trait, traits)
    traits.join(worlds, world_of)
    for trait in range(T if several else 0):
        scan.tell(trait, traits)
    if scan.options.joint_peak is not None:
        look_for_peaks(scan, traits, models_of)


def look_for_peaks(scan: Scan, traits: TraitScans[C], models_of: Callable[[KinshipPart, int], Models[C]]) -> None:
    """The independent signals of each trait, in tables of their own. Collective; raises Stopped."""
    from mpgls.engine.joint_peaks import JointPeaks, PeakRule

    options, study, job = scan.options, scan.study, scan.job
    rule, state = PeakRule(int(options.joint_peak or 0), options.p_threshold, options.joint_max), job.state(PEAKS)
    peaks = JointPeaks(
        traits, study, scan.parts, lambda part: models_of(part, 1), rule, options.coding, options.pcs, state
    )
    peaks.recall(job.resume)
    for trait in range(len(study.cohorts)):
        signals = peaks.signals(trait)
        with job.world.phase("report"):
            scan.report.peaks(trait, signals)


@dataclass(frozen=True)
class KinshipSource:
    """Where each trait's covariance comes from: the kinship, loaded once a part, or the file of its eigenvectors."""

    options: SingleTrait
    eigen_file: EigenFile | None
    grid: ProcessGrid
    plan: ScanPlan
    world: World
    on_card: OnCard | None

    def models(self, part: KinshipPart, uses: int) -> Models[Covariance]:
        """The models of a part for so many ``uses``. Collective."""
        if self.eigen_file is not None:
            return self.spectral_models(part, uses)
        card = self.on_card.null_card if self.on_card else None
        return KinshipModels(part.study, self._kinship(part.study, uses), self.options.pcs, self.world, card)

    def spectral_models(self, part: KinshipPart, uses: int) -> Models[SpectralCovariance]:
        """The same, all in an eigenbasis. Collective."""
        study, pcs, world = part.study, self.options.pcs, self.world
        if self.eigen_file is not None:
            return EigenModels(study, self.eigen_file, self.grid, self.plan.grid_block, pcs, world)
        return DecomposedModels(study, self._kinship(study, uses), pcs, world)

    def _kinship(self, study: Study, uses: int) -> KinshipOnGrid:
        assert study.kinship is not None
        block, center = self.plan.grid_block, self.options.center_grm
        index, world = study.kinship_index(), self.world
        return KinshipOnGrid(study.kinship, study.samples, index, uses, self.grid, block, world, center)


def make_plan(options: SingleTrait, study: Study, chromosomes: Chromosomes, card: Card | None, job: Job) -> ScanPlan:
    """The plan, in the log before anything large is allocated; a run that resumes keeps its store's block."""
    machine = job.machine(study.fileset.bed.held_bytes)
    block = planned_block(options, study, job)
    plan = plan_on(machine, options, study, chromosomes, block, card_limit(card, job.world))
    job.world.log.info(plan.text(machine))
    return plan


def plan_on(
    machine: Machine,
    options: SingleTrait,
    study: Study,
    chromosomes: Chromosomes,
    block: int | None,
    limit: int | None,
) -> ScanPlan:
    """The plan; ``limit``: bytes of each rank's GPU, None without GPUs. Raises MemoryPlanError."""
    sizes = sizes_of(options, study, chromosomes)
    if limit is not None:
        of_card = card_sizes(sizes, options.precision, limit, study.fileset.bed)
        return plan_on_cards(machine, of_card, options.team_size, block)
    return plan_scan(machine, sizes, options.team_size, block, options.solver)


def sizes_of(options: SingleTrait, study: Study, chromosomes: Chromosomes) -> ScanSizes:
    """What the scan is made of."""
    cohorts, n = list(study.cohorts.values()), study.samples.size
    return ScanSizes(
        n,
        m=-(-study.selected // len(chromosomes.labels)),
        columns=cohorts[0].X_L.shape[1] + options.pcs + 1,
        snp_bytes=study.fileset.bed.snp_bytes,
        item=np.dtype(options.dtype).itemsize,
        packed_kinship=study.kinship is not None and study.kinship.packed_lower,
        several_sets=any(cohort.rows.size < n for cohort in cohorts),
        several_traits=len(cohorts) > 1,
        nodes=0 if options.ratio == "null" else NODES,
        basis=options.eigen is not None or options.ratio == "snp",
        keeps_model=options.joint_peak is not None,
        tested=columns_of_all(study.cohorts, options.columns).count,
        parts=tuple(chromosomes.sizes().tolist()) if can_be_dealt(options) else (),
        n_kinship=0 if study.kinship is None else study.kinship.n,
    )


def can_be_dealt(options: SingleTrait) -> bool:
    """Whether worlds of ranks may take chromosomes: further scans keep a model of all ranks, and SLEPc needs them."""
    return options.loco and options.joint_peak is None and not options.pcs


def cost_on(
    machine: Machine,
    options: SingleTrait,
    study: Study,
    chromosomes: Chromosomes,
    given: np.ndarray,
    limit: int | None,
) -> RunCost:
    """What the scan costs; ``given`` (parts, T) are heritabilities of the user, or NaN; ``limit``: bytes of a GPU.

    Raises MemoryPlanError.
    """
    from mpgls.engine.card_cost import scan_on_cards_cost
    from mpgls.engine.scan_cost import ScanWork, scan_cost

    plan = plan_on(machine, options, study, chromosomes, block_within(options.block_size, study.selected), limit)
    q, (parts, T) = next(iter(study.cohorts.values())).X_L.shape[1] + options.pcs, given.shape
    work = ScanWork(
        plan.n, study.selected, study.fileset.bed.snp_bytes, parts, T, q, options.precision == "mixed",
        int(np.isnan(given).sum()), options.eigen is not None, not options.no_plots,
    )  # fmt: skip
    if isinstance(plan, CardPlan):
        return scan_on_cards_cost(machine, plan, work, options.precision)
    return scan_cost(machine, plan, work)
