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
    UNIDENTIFIED = 2
    """The kinship tells nothing about h2, which is NaN: V = I, and the tests are ordinary least squares."""


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
    record["flag"] = NullFlag.BOUNDARY * found.at_boundary | NullFlag.UNIDENTIFIED * (not found.identified)
    return record


def is_identified(record: np.ndarray) -> bool:
    """Whether the kinship tells something about h2."""
    return not record["flag"] & NullFlag.UNIDENTIFIED


def h2_of_V(record: np.ndarray) -> float:
    """The h2 that V is taken at: 0 where it is not identified."""
    return float(record["h2"]) if is_identified(record) else 0.0


def fitted(record: np.ndarray, fit: NullFit, unit: float = 1.0, columns: int = 1) -> np.ndarray:
    """The record (0-d) with what the fit at its h2 says, of a trait that was divided by ``unit``.

    The degrees of freedom are those beside the ``columns`` of a SNP.
    """
    made = record.copy()
    made["s2"] = fit.s2 * unit**2
    made["log_likelihood"] = fit.log_likelihood - (fit.n - fit.q) * np.log(unit)
    made["df"] = degrees_of_freedom(fit.n, fit.q, columns)
    return made


def facts(record: np.ndarray) -> dict[str, Any]:
    """One record for a manifest."""
    numbers = {name: record[name].item() for name in ("h2", "h2_se", "s2", "log_likelihood", "df")}
    if record["source"] == Source.REML:
        numbers |= {name: record[name].item() for name in ("evaluations_single", "evaluations_double")}
    return numbers | {
        "h2_source": {Source.REML: "REML", Source.GIVEN: "given"}.get(Source(int(record["source"])), "unknown"),
        "h2_at_boundary": bool(record["flag"] & NullFlag.BOUNDARY),
        "h2_identified": is_identified(record),
    }


def text(record: np.ndarray) -> str:
    """One record for the log."""
    if not is_identified(record):
        h2 = "h2 NA, not identified"
    elif record["source"] == Source.REML:
        h2 = f"h2 {record['h2']:.8f} (se {record['h2_se']:.6f}), REML"
    else:
        h2 = f"h2 {record['h2']:.8f}, given"
    return f"{h2}; s2 {record['s2']:.6g}; REML log-likelihood {record['log_likelihood']:.6f}"


def unidentified(label: str, kinship: str) -> str:
    """The warning that the file ``kinship`` leaves h2 of ``label`` open."""
    return (
        f"{label}: h2 is not identified: beside the covariates, all eigenvalues of the kinship are equal over the "
        f"analysed samples ({kinship}); h2 is NA, and the p values are those of ordinary least squares"
    )
