"""Numbers that stand for a missing value: which ones do, and which ones look as if they did."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from mpgls.errors import UsageError

USUAL = -9.0
"""What PLINK, GCTA, BOLT-LMM and FaST-LMM write for a missing value."""
_COLUMN_BLOCK = 1 << 20
_SHOWN = 3


def parse_missing_codes(texts: Iterable[str]) -> tuple[float, ...]:
    """The numbers of --missing-code, which may be separated by commas. Raises UsageError for what is no number."""
    codes: dict[float, None] = {}
    for text in ",".join(texts).split(","):
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise UsageError(f"--missing-code {text!r} is not a number (NA, nan and empty fields are missing anyway)")
        codes[value] = None
    return tuple(codes)


def take_codes(values: np.ndarray, codes: Sequence[float]) -> int:
    """Replace the ``codes`` in ``values`` by NaN, in place; how many there were."""
    found = 0
    for code in codes:
        coded = values == code
        found += int(np.count_nonzero(coded))
        values[coded] = np.nan
    return found


def codes_note(found: int, codes: Sequence[float]) -> str:
    """What `take_codes` did, for the log."""
    what = f"{found:,} value of" if found == 1 else f"{found:,} values of"
    return (
        f"{what} {' and '.join(f'{code:g}' for code in codes)} {'is' if found == 1 else 'are'} missing (--missing-code)"
    )


def is_case_control(values: np.ndarray) -> bool:
    """Whether a .fam's phenotypes (n,) are controls 1 and cases 2: it has 2s, and nothing but 1, 2, 0, -9 and NaN."""
    known = np.isnan(values)
    for code in (1.0, 2.0, 0.0, USUAL):
        known |= values == code
    return bool(known.all() and np.any(values == 2.0))


def doubtful_codes(path: str, names: Sequence[str], values: np.ndarray) -> tuple[str, ...]:
    """Warnings, at most two, of -9 and of 0 beside 1 and 2 in the columns ``names`` (c,) of ``values`` (k, c)."""
    minus_nine, zero = np.zeros(len(names), dtype=np.int64), np.zeros(len(names), dtype=np.int64)
    step = max(1, _COLUMN_BLOCK // max(1, values.shape[0]))
    for start in range(0, len(names), step):
        block = values[:, start : start + step]
        usual, zeros, ones, twos = (block == code for code in (USUAL, 0.0, 1.0, 2.0))
        minus_nine[start : start + step] = usual.sum(axis=0)
        coded = (usual | zeros | ones | twos | np.isnan(block)).all(axis=0) & ones.any(axis=0) & twos.any(axis=0)
        zero[start : start + step] = np.where(coded, zeros.sum(axis=0), 0)
    warnings = []
    if minus_nine.any():
        warnings.append(_warning(path, names, minus_nine, "-9", ""))
    if zero.any():
        warnings.append(_warning(path, names, zero, "0", ", where all others are 1 and 2,"))
    return tuple(warnings)


def _warning(path: str, names: Sequence[str], counts: np.ndarray, code: str, beside: str) -> str:
    columns = [names[column] for column in np.flatnonzero(counts)]
    shown = ", ".join(repr(name) for name in columns[:_SHOWN]) + (", ..." if len(columns) > _SHOWN else "")
    one = int(counts.sum()) == 1
    where = f"column {shown}" if len(columns) == 1 else f"{len(columns):,} columns ({shown})"
    return (
        f"{path}: {counts.sum():,} value{'s' * (not one)} of {where} {'is' if one else 'are'} {code}{beside} and "
        f"{'is read as a number' if one else 'are read as numbers'}: "
        f"if {code} means missing, give --missing-code {code}"
    )
