"""mpgls single-trait: generalised least squares of one trait on every SNP ([Elem] Algorithm 3, Elem-1D).

    Phi_grid            = Phi_cols                       redistributed, scaled to mean diagonal 1
    h2                  = argmax REML(h2)                by Cholesky factorisations of V on the grid
    L L'                = V = h2 Phi + (1-h2) I
    [X_L~ | y~]         = L^-1 [X_L | y]
    for every block X of SNPs, dealt to teams that each hold L:
        X~              = L^-1 X
        S_BL, S_BR, b_B = X_L~'X~, x~'x~, y~'X~
        beta, se        = Schur complement of S_BR in the normal equations

With --loco all of this is done for each chromosome in turn: Phi without its SNPs, then its SNPs' blocks.

In mixed_model/ are the loop over blocks (scan.py), REML (null_model.py) and chromosomes (loco.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mpgls.commands.common.inputs import Study, StudyOptions, open_study
from mpgls.commands.common.session import RunOptions, Session
from mpgls.commands.mixed_model.given_h2 import given_h2
from mpgls.commands.mixed_model.loco import (
    KinshipPart,
    ScanPart,
    check_kinship,
    describe,
    scan_parts,
    tested_chromosomes,
)
from mpgls.commands.mixed_model.mixed_check import check_against_double
from mpgls.commands.mixed_model.null_figures import estimate_h2, keep, null_figures, say_null
from mpgls.commands.mixed_model.null_models import NullModels, check_components
from mpgls.commands.mixed_model.plan import ScanPlan, plan_scan
from mpgls.commands.mixed_model.records import Records
from mpgls.commands.mixed_model.results import open_results, report_parts, stored_block
from mpgls.commands.mixed_model.scan import SnpModel, SnpSolver, scan
from mpgls.errors import UsageError
from mpgls.la.grid import ProcessGrid
from mpgls.la.teams import Team, split_teams
from mpgls.mpi import on_root
from mpgls.run.plan import block_within
from mpgls.stream.eigen_file import open_eigen_file
from mpgls.stream.store import ResultStore, TraitPlace

if TYPE_CHECKING:
    from mpi4py import MPI

    from mpgls.commands.mixed_model.null_model import Covariance
    from mpgls.commands.mixed_model.spectral_null import SpectralCovariance
    from mpgls.study.align import Cohort
    from mpgls.study.chromosomes import Chromosomes
    from mpgls.study.plink import BedFile


@dataclass(frozen=True)
class SingleTraitConfig:
    """Options of ``mpgls single-trait``."""

    run: RunOptions
    study: StudyOptions
    eigen: str | None = None
    pcs: int = 0
    loco: bool = False
    h2: float | None = None
    h2_file: str | None = None
    precision: str = "double"
    test: str = "t"
    block_size: int | None = None
    team_size: int | None = None
    plots: bool = True

    def __post_init__(self) -> None:
        if self.study.grm is not None and self.eigen is not None:
            raise UsageError("give either --grm or --eigen: an eigendecomposition stands in place of the kinship")
        if self.study.grm is None and self.eigen is None:
            raise UsageError("single-trait needs a kinship, --grm (mpgls kinship makes one), or --eigen in its place")
        if self.pcs < 0:
            raise UsageError(f"--pcs must not be negative, not {self.pcs}")
        if self.loco and self.eigen is not None:
            raise UsageError(
                "--loco decomposes a kinship for each chromosome: give --grm, made with --loco, not --eigen"
            )
        if self.h2 is not None and not 0 <= self.h2 < 1:
            raise UsageError(f"--h2 must be at least 0 and below 1, not {self.h2}")
        if self.h2 is not None and self.h2_file is not None:
            raise UsageError("give either --h2 or --h2-file")
        if self.block_size is not None and self.block_size < 1:
            raise UsageError(f"--block-size must be at least 1, not {self.block_size}")

    @property
    def dtype(self) -> type:
        """Element type of the streamed solve."""
        return np.float64 if self.precision == "double" else np.float32

    def determines_results(self) -> dict[str, Any]:
        """The options that a resumed run must share."""
        names = ("h2", "h2_file", "precision", "test", "study", "eigen", "pcs", "loco")
        return {name: getattr(self, name) for name in names}


class ScanOptions(Protocol):
    """The options that the scan of a trait depends on, of whichever command."""

    @property
    def study(self) -> StudyOptions:
        """Files and filters."""

    @property
    def precision(self) -> str:
        """Of the streamed solve: double or mixed."""

    @property
    def dtype(self) -> type:
        """Its element type."""

    @property
    def test(self) -> str:
        """t or wald."""


def run(config: SingleTraitConfig, comm: MPI.Comm) -> None:
    """Scan every trait of the study. Collective over ``comm``. Raises MpglsError, the same on all ranks."""
    inputs = (*config.study.files(), *(name for name in (config.study.grm, config.eigen, config.h2_file) if name))
    session = Session("single-trait", config.run, comm, (".h5",), inputs)
    with session.timings.phase("open and check"):
        eigen_file = on_root(comm, lambda: open_eigen_file(config.eigen) if config.eigen else None)
        ids = eigen_file.ids if eigen_file is not None else None
        study = open_study(config.study, comm, session.log, model_ids=ids, further=[config.h2_file])
        check_kinship(study, config.loco, comm, session.log)
        for name, cohort in study.cohorts.items():
            check_components(config.pcs, cohort, f"trait {name!r}")
        chromosomes = tested_chromosomes(study, config.loco, comm)
        labels = chromosomes.labels if config.loco else None
        given = on_root(comm, lambda: given_h2(config.h2, config.h2_file, list(study.cohorts), labels))
    plan = make_plan(config, study, chromosomes, session)
    with session.timings.phase("open and check"):
        edges, parts = scan_parts(study, chromosomes, plan.block, config.loco)
        describe(parts, edges, plan.block, session.log)
        store = open_results(session, study, plan.block, config.determines_results(), edges)

    figures: dict[str, list[dict[str, Any]]] = {place.name: [] for place in store.traits}
    facts: dict[str, Any] = {}
    with ProcessGrid(comm, plan.grid) as grid:
        team = split_teams(comm, plan.team_size)
        for k, part in enumerate(parts):
            unfinished = [place.name for place in store.traits if not place.done[part.blocks].all()]
            models = NullModels(
                part.study, eigen_file, len(unfinished), grid, plan.grid_block, session, config.pcs,
                config.study.center_grm,
            )  # fmt: skip
            for trait, place in enumerate(store.traits):
                of_part = place.kept(part.number)
                if place.name in unfinished:
                    of_part = scan_trait(
                        config, part, store, place, models.take, given[k, trait], study.fileset.bed, team, session
                    )
                figures[place.name].append(of_part)
                if part is parts[-1]:
                    facts[place.name] = report(config, study, store, trait, parts, figures[place.name], session)
        team.comm.Free()
    session.finish({"plan": plan, "inputs": study.identities, "traits": facts})


def scan_trait(
    config: ScanOptions,
    part: ScanPart,
    store: ResultStore,
    place: TraitPlace,
    take: Callable[[str, str], tuple[Covariance | SpectralCovariance, Cohort]],
    given: float,
    bed: BedFile,
    team: Team,
    session: Session,
) -> dict[str, Any]:
    """Null model and scan of one trait on the SNPs of a part; frees the covariance before the scan. Collective.

    ``take`` hands out the covariance and the samples of a trait, see `NullModels.take`; ``given`` is h2, or NaN.
    Returns the null model's figures, which the store keeps for a run that resumes.
    """
    timings, log = session.timings, session.log
    # L L' = V(h2);  [X_L~ | y~] = L^-1 [X_L | y]
    label = part.of(place.name)
    covariance, cohort = take(place.name, label)
    estimate = estimate_h2(given, covariance, store, place, part, session)
    sums = covariance.factorise_at(estimate["h2"])
    figures = estimate | null_figures(estimate["h2"], sums, cohort.covariate_names)
    say_null(label, figures, session)
    keep(store, place, part, figures, session)
    with timings.phase("hand over factor"):
        factor = covariance.hold(team, store.block, config.dtype)
        F_rep = covariance.whiten(covariance.F_rep)
    solver = SnpSolver(SnpModel(sums, F_rep, cohort.rows, config.test, config.precision), factor, bed, timings)
    if config.precision == "mixed":
        with timings.phase("check in double"):
            figures |= check_against_double(solver, covariance, bed, store, session.comm, log)
    del covariance  # the scan needs neither Phi nor the work buffer

    # for every block: X~ = L^-1 X; S_BL, S_BR, b_B; Schur complement
    records = Records(store, [place], config.study.snps, session.options.checkpoint)
    scan(solver, bed, records, part.blocks, team, session.comm, log, session.stop, label)
    session.sample_memory()
    factor.close()
    return figures


def report(
    config: SingleTraitConfig,
    study: Study,
    store: ResultStore,
    trait: int,
    parts: list[KinshipPart],
    figures: list[dict[str, Any]],
    session: Session,
) -> dict[str, Any]:
    """Tables and plots of a finished trait; returns its facts for the manifest. Collective."""
    cohort = study.cohorts[store.traits[trait].name]
    with session.timings.phase("report"):
        facts = report_parts(session, study, store, trait, parts, figures, config.test, config.plots)
    return facts | {"n": cohort.rows.size, "funnel": cohort.funnel}


def make_plan(config: SingleTraitConfig, study: Study, chromosomes: Chromosomes, session: Session) -> ScanPlan:
    """The plan, in the log before anything large is allocated; a run that resumes keeps its store's block."""
    machine = session.machine()
    cohorts, n = list(study.cohorts.values()), study.samples.size
    plan = plan_scan(
        machine,
        n=n,
        m=-(-study.selected // len(chromosomes.labels)),
        columns=cohorts[0].X_L.shape[1] + config.pcs + 1,
        snp_bytes=study.fileset.bed.snp_bytes,
        item=np.dtype(config.dtype).itemsize,
        packed_kinship=study.kinship is not None and study.kinship.packed_lower,
        several_sets=any(cohort.rows.size < n for cohort in cohorts),
        several_traits=len(cohorts) > 1,
        team_size=config.team_size,
        block=block_within(config.block_size, study.selected) or stored_block(session),
    )
    session.log.info(plan.text(machine))
    return plan
