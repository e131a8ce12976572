"""What is known of null models, the fits without a SNP: one record for each part and trait.

A part is a chromosome that is left out, or all SNPs together. Stores, tables, manifests and resumed runs have the same
record.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Any

import numpy as np

from mpgls.model.gls import NullFit, degrees_of_freedom
from mpgls.model.reml import RemlResult


class Source(IntEnum):
    """Where h2 comes from."""

    UNKNOWN = 0
    GIVEN = 1
    REML = 2


class NullFlag(IntFlag):
    """What is special about a null model."""

    NONE = 0
    BOUNDARY = 1
    """h2 is at an end of its range."""


NULL_DTYPE = np.dtype(
    [
        ("h2", "<f8"),
        ("h2_se", "<f8"),
        ("s2", "<f8"),
        ("log_likelihood", "<f8"),
        ("df", "<i8"),
        ("evaluations_single", "<i4"),
        ("evaluations_double", "<i4"),
        ("source", "u1"),
        ("flag", "u1"),
    ]
)
"""h2 and its standard error (NaN where it was given), total variance, REML log-likelihood, degrees of freedom of the t
test of a SNP, factorisations in float32 and float64, `Source` and `NullFlag`."""


def unknown(*shape: int) -> np.ndarray:
    """Records of null models that nothing is known of: numbers are NaN."""
    records = np.zeros(shape, dtype=NULL_DTYPE)
    for name in ("h2", "h2_se", "s2", "log_likelihood"):
        records[name] = np.nan
    return records


def given(h2: float) -> np.ndarray:
    """One record (0-d): h2 as the user gave it."""
    record = unknown()
    record["h2"], record["source"] = h2, Source.GIVEN
    return record


def estimated(found: RemlResult) -> np.ndarray:
    """One record (0-d): h2 as REML found it."""
    record = unknown()
    record["h2"], record["h2_se"], record["source"] = found.h2, found.h2_se, Source.REML
    record["evaluations_single"], record["evaluations_double"] = found.evaluations_single, found.evaluations_double
    record["flag"] = NullFlag.BOUNDARY if found.at_boundary else NullFlag.NONE
    return record


def fitted(record: np.ndarray, fit: NullFit, unit: float = 1.0) -> np.ndarray:
    """The record (0-d) with what the fit at its h2 says, of a trait that was divided by ``unit``."""
    made = record.copy()
    made["s2"] = fit.s2 * unit**2
    made["log_likelihood"] = fit.log_likelihood - (fit.n - fit.q) * np.log(unit)
    made["df"] = degrees_of_freedom(fit.n, fit.q)
    return made


def facts(record: np.ndarray) -> dict[str, Any]:
    """One record for a manifest."""
    numbers = {name: record[name].item() for name in ("h2", "h2_se", "s2", "log_likelihood", "df")}
    if record["source"] == Source.REML:
        numbers |= {name: record[name].item() for name in ("evaluations_single", "evaluations_double")}
    return numbers | {
        "h2_source": {Source.REML: "REML", Source.GIVEN: "given"}.get(Source(int(record["source"])), "unknown"),
        "h2_at_boundary": bool(record["flag"] & NullFlag.BOUNDARY),
    }


def text(record: np.ndarray) -> str:
    """One record for the log."""
    error = f" (se {record['h2_se']:.6f})" if record["source"] == Source.REML else ""
    source = "REML" if record["source"] == Source.REML else "given"
    return (
        f"h2 {record['h2']:.8f}{error}, {source}; s2 {record['s2']:.6g}; "
        f"REML log-likelihood {record['log_likelihood']:.6f}"
    )
