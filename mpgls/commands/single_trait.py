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

The loop over blocks is in scan.py, REML in null_model.py, chromosomes are in loco.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mpgls.commands.given_h2 import given_h2
from mpgls.commands.inputs import Study, StudyOptions, open_study
from mpgls.commands.loco import ScanPart, describe, scan_parts, tested_chromosomes, warn_of_contamination
from mpgls.commands.mixed_check import check_against_double
from mpgls.commands.null_model import Covariance
from mpgls.commands.null_models import NullModels
from mpgls.commands.plan_scan import ScanPlan, plan_scan
from mpgls.commands.results import loco_row, open_results, report_trait, stored_block, tested_of_parts
from mpgls.commands.scan import SnpModel, SnpSolver, scan
from mpgls.commands.session import RunOptions, Session
from mpgls.commands.spectral_null import SpectralCovariance
from mpgls.errors import UsageError, on_root
from mpgls.la.grid import ProcessGrid
from mpgls.la.teams import Team, split_teams
from mpgls.model.gls import degrees_of_freedom, fit_null
from mpgls.report.loco_table import write_loco
from mpgls.stream.eigen_file import open_eigen_file
from mpgls.stream.store import ResultStore, TraitPlace, save_attributes

if TYPE_CHECKING:
    from mpi4py import MPI

    from mpgls.study.align import Cohort
    from mpgls.study.chromosomes import Chromosomes


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
        if (self.study.grm is None) == (self.eigen is None):
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


def run(config: SingleTraitConfig, comm: MPI.Comm) -> None:
    """Scan every trait of the study. Collective over ``comm``. Raises MpglsError, the same on all ranks."""
    inputs = (*config.study.files(), *(name for name in (config.study.grm, config.eigen, config.h2_file) if name))
    session = Session("single-trait", config.run, comm, (".h5",), inputs)
    with session.timings.phase("open and check"):
        eigen_file = on_root(comm, lambda: open_eigen_file(config.eigen) if config.eigen else None)
        ids = eigen_file.ids if eigen_file is not None else None
        study = open_study(config.study, comm, session.log, model_ids=ids, further=[config.h2_file])
        chromosomes = tested_chromosomes(study, config.loco, comm)
        if not config.loco:
            warn_of_contamination(study, comm, session.log)
    plan = make_plan(config, study, chromosomes, session)
    with session.timings.phase("open and check"):
        edges, parts = scan_parts(study, chromosomes, plan.block, config.loco)
        describe(parts, edges, plan.block, session.log)
        given = on_root(comm, lambda: given_h2(config.h2, config.h2_file, list(study.cohorts), parts))
        store = open_results(session, study, plan.block, config.determines_results(), edges)

    nulls: dict[str, list[dict[str, Any]]] = {place.name: [] for place in store.traits}
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
                null_model = place.kept(part.number)
                if place.name in unfinished:
                    null_model = scan_trait(config, part, store, place, models, given[k, trait], team, session)
                nulls[place.name].append(null_model)
                if part is parts[-1]:
                    facts[place.name] = report(config, study, store, trait, parts, nulls[place.name], session)
        team.comm.Free()
    session.finish({"plan": plan, "inputs": study.identities, "traits": facts})


def scan_trait(
    config: SingleTraitConfig,
    part: ScanPart,
    store: ResultStore,
    place: TraitPlace,
    models: NullModels,
    given: float,
    team: Team,
    session: Session,
) -> dict[str, Any]:
    """Null model and scan of one trait on the SNPs of a part; frees the covariance before the scan. Collective.

    Returns the null model's figures, which the store keeps for a run that resumes.
    """
    timings, log, bed = session.timings, session.log, part.study.fileset.bed
    # L L' = V(h2);  [X_L~ | y~] = L^-1 [X_L | y]
    label = part.of(place.name)
    covariance, cohort = models.take(place.name, label)
    estimate = estimate_h2(given, covariance, store, place, part, session)
    sums = covariance.factorise_at(estimate["h2"])
    null = fit_null(estimate["h2"], sums)
    say_null(label, estimate, null.s2, null.log_likelihood, session)
    figures = {name: getattr(null, name) for name in ("h2", "s2", "log_likelihood", "beta", "beta_se")}
    design = {"df": degrees_of_freedom(null.n, null.q), "covariates": list(cohort.covariate_names)}
    keep(store, place, part, figures | design, session)
    with timings.phase("hand over factor"):
        factor = covariance.hold(team, store.block, config.dtype)
        F_rep = covariance.whiten(covariance.F_rep)
        model = SnpModel(sums, F_rep, cohort.rows, config.test, config.precision, config.study.snps)
    solver = SnpSolver(model, factor, bed, timings)
    if config.precision == "mixed":
        with timings.phase("check in double"):
            estimate |= check_against_double(solver, covariance, bed, store, session.comm, log)
    del covariance  # the scan needs neither Phi nor the work buffer

    # for every block: X~ = L^-1 X; S_BL, S_BR, b_B; Schur complement
    checkpoint = session.options.checkpoint
    scan(solver, bed, store, place, part.blocks, team, session.comm, log, session.stop, checkpoint, label)
    session.sample_memory()
    factor.close()
    return figures | design | estimate


def keep(store: ResultStore, place: TraitPlace, part: ScanPart, figures: dict[str, Any], session: Session) -> None:
    """Keep what is known of a null model in the store, for a run that resumes. Collective."""

    def save() -> None:
        save_attributes(store.path, place.name, figures, part.number)
        if part.number is not None and "df" in figures:  # the same for all chromosomes, and mpgls export asks for it
            save_attributes(store.path, place.name, {"df": figures["df"]})

    on_root(session.comm, save)


def report(
    config: SingleTraitConfig,
    study: Study,
    store: ResultStore,
    trait: int,
    parts: list[ScanPart],
    null_models: list[dict[str, Any]],
    session: Session,
) -> dict[str, Any]:
    """Tables and plots of a finished trait; returns its facts for the manifest. Collective."""
    name, df = store.traits[trait].name, int(null_models[0]["df"])
    cohort = study.cohorts[name]
    with session.timings.phase("report"):
        facts = report_trait(session, study, store, trait, df, config.test, config.plots)
        if not config.loco:
            return facts | null_facts(null_models[0]) | cohort_facts(cohort)
        tested = tested_of_parts(store, trait, parts, session.comm)
        table = session.path(f".{name}.loco.tsv")
        rows = [loco_row(name, part, m, null) for part, m, null in zip(parts, tested, null_models, strict=True)]
        on_root(session.comm, lambda: write_loco(table, rows))
        each = {
            str(part.label): null_facts(null) | {"left_out": part.left_out, "tested": row.tested}
            for part, null, row in zip(parts, null_models, rows, strict=True)
        }
        return facts | {"loco_table": str(table), "loco": each} | cohort_facts(cohort)


def null_facts(null_model: Mapping[str, Any]) -> dict[str, Any]:
    """The null model as the manifest has it."""
    effects = zip(null_model["beta"], null_model["beta_se"], strict=True)
    return {
        **{key: value for key, value in null_model.items() if key not in ("beta", "beta_se")},
        "covariates": dict(zip(null_model["covariates"], effects, strict=True)),
    }


def cohort_facts(cohort: Cohort) -> dict[str, Any]:
    """The samples of a trait as the manifest has them."""
    return {"n": cohort.rows.size, "funnel": cohort.funnel}


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
        block=config.block_size or stored_block(session),
    )
    session.log.info(plan.text(machine))
    return plan


def estimate_h2(
    given: float,
    covariance: Covariance | SpectralCovariance,
    store: ResultStore,
    place: TraitPlace,
    part: ScanPart,
    session: Session,
) -> dict[str, Any]:
    """h2 as given, as an interrupted run found it, or by REML; kept in the store for a run that resumes."""
    if not np.isnan(given):
        return {"h2": float(given), "h2_source": "given"}
    kept = place.kept(part.number)
    if "h2" in kept:
        return {key: kept[key].item() for key in ("h2", "h2_se")} | {"h2_source": "REML, before resuming"}
    found = covariance.maximise(session.log, session.stop)
    estimate = {"h2": found.h2, "h2_se": found.h2_se}
    keep(store, place, part, estimate, session)
    return estimate | {
        "h2_source": "REML",
        "h2_at_boundary": found.at_boundary,
        "evaluations_single": found.evaluations_single,
        "evaluations_double": found.evaluations_double,
    }


def say_null(trait: str, estimate: dict[str, Any], s2: float, log_likelihood: float, session: Session) -> None:
    """The null model, in the log."""
    error = f" (se {estimate['h2_se']:.6f})" if "h2_se" in estimate else ""
    session.log.info(
        f"{trait}: h2 {estimate['h2']:.8f}{error}, {estimate['h2_source']}; s2 {s2:.6g}; "
        f"REML log-likelihood {log_likelihood:.6f}"
    )
    if estimate.get("h2_at_boundary"):
        session.log.warn(f"{trait}: h2 is at the boundary of its range")
