"""What is known of a trait's null model: how it is estimated, said in the log, kept in the store and reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mpgls.model.gls import NullSums, degrees_of_freedom, fit_null
from mpgls.mpi import on_root
from mpgls.stream.store import ResultStore, TraitPlace, save_attributes

if TYPE_CHECKING:
    from mpgls.commands.common.session import Session
    from mpgls.commands.mixed_model.loco import ScanPart
    from mpgls.commands.mixed_model.null_model import Covariance
    from mpgls.commands.mixed_model.spectral_null import SpectralCovariance

ESTIMATE = ("h2", "h2_se", "h2_at_boundary", "evaluations_single", "evaluations_double", "h2_source")
"""What is kept of an estimate before the scan begins."""


def given_estimate(h2: float) -> dict[str, Any]:
    """h2 as the user gave it."""
    return {"h2": float(h2), "h2_source": "given"}


def reml_estimate(h2: float, h2_se: float, at_boundary: bool, **further: int) -> dict[str, Any]:
    """h2 as REML found it."""
    found = {"h2": float(h2), "h2_se": float(h2_se), "h2_at_boundary": bool(at_boundary), "h2_source": "REML"}
    return found | further


def estimate_h2(
    given: float,
    covariance: Covariance | SpectralCovariance,
    store: ResultStore,
    place: TraitPlace,
    part: ScanPart,
    session: Session,
) -> dict[str, Any]:
    """h2 as given (not NaN), as an interrupted run found it, or by REML; kept for a run that resumes. Collective."""
    if not np.isnan(given):
        return given_estimate(given)
    kept = place.kept(part.number)
    if "h2_source" in kept:
        return {name: kept[name] for name in ESTIMATE}
    found = covariance.maximise(session.log, session.stop)
    estimate = reml_estimate(
        found.h2,
        found.h2_se,
        found.at_boundary,
        evaluations_single=found.evaluations_single,
        evaluations_double=found.evaluations_double,
    )
    keep(store, place, part, estimate, session)
    return estimate


def null_figures(h2: float, sums: NullSums, covariates: Sequence[str]) -> dict[str, Any]:
    """The fit without a SNP at this h2. Raises NumericalError, see `fit_null`."""
    null = fit_null(h2, sums)
    figures = {name: getattr(null, name) for name in ("h2", "s2", "log_likelihood", "beta", "beta_se")}
    return figures | {"df": degrees_of_freedom(null.n, null.q), "covariates": list(covariates)}


def keep(store: ResultStore, place: TraitPlace, part: ScanPart, figures: dict[str, Any], session: Session) -> None:
    """Keep what is known of a null model in the store, for a run that resumes. Collective."""

    def save() -> None:
        save_attributes(store.path, place.name, figures, part.number)
        if part.number is not None and "df" in figures:  # the same for all chromosomes, and mpgls export asks for it
            save_attributes(store.path, place.name, {"df": figures["df"]})

    on_root(session.comm, save)


def say_null(label: str, figures: Mapping[str, Any], session: Session) -> None:
    """The null model, in the log."""
    error = f" (se {figures['h2_se']:.6f})" if "h2_se" in figures else ""
    session.log.info(
        f"{label}: h2 {figures['h2']:.8f}{error}, {figures['h2_source']}; s2 {figures['s2']:.6g}; "
        f"REML log-likelihood {figures['log_likelihood']:.6f}"
    )
    if figures.get("h2_at_boundary"):
        session.log.warn(f"{label}: h2 is at the boundary of its range")


def null_facts(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The null model as the manifest has it."""
    effects = zip(figures["beta"], figures["beta_se"], strict=True)
    plain = {name: value for name, value in figures.items() if name not in ("beta", "beta_se")}
    return plain | {"covariates": dict(zip(figures["covariates"], effects, strict=True))}
