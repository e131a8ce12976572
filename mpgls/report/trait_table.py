"""The table of traits: null model, inflation, best SNP and number of hits of each, in one tab-separated row.

Columns: ``TRAIT N H2 H2_SE S2 LAMBDA_GC TESTED MIN_P LOG10P_MAX BEST_SNP BEST_CHR BEST_POS HITS FLAGS``. N is the
number of samples, S2 the total variance, TESTED the number of SNPs with a p value, HITS of those below the threshold.
H2, H2_SE and S2 have the shortest digits that read back to the same float64, so the table can be given as --h2-file.
What a trait does not have is ``NA``; several flags are separated by semicolons.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mpgls.model.trait_flags import flag_text
from mpgls.report.hits import HitVariants, _completed
from mpgls.report.table import VariantReader, format_p

COLUMNS = (
    "TRAIT", "N", "H2", "H2_SE", "S2", "LAMBDA_GC", "TESTED", "MIN_P", "LOG10P_MAX", "BEST_SNP", "BEST_CHR",
    "BEST_POS", "HITS", "FLAGS",
)  # fmt: skip


@dataclass(frozen=True)
class TraitRows:
    """The columns of the table, each of t entries.

    ``best_row`` is the .bim row of the SNP with the smallest p value, -1 where none was tested; NaN stands for NA.
    ``flags`` holds bits of `mpgls.model.trait_flags.Flag`.
    """

    names: Sequence[str]
    n: np.ndarray
    h2: np.ndarray
    h2_se: np.ndarray
    s2: np.ndarray
    lambda_gc: np.ndarray
    tested: np.ndarray
    log10p_max: np.ndarray
    best_row: np.ndarray
    hits: np.ndarray
    flags: np.ndarray

    def __post_init__(self) -> None:
        lengths = {len(column) for column in self.__dict__.values()}
        if len(lengths) > 1:
            raise ValueError(f"the columns of the trait table differ in length: {sorted(lengths)}")


def write_traits(path: str | os.PathLike[str], rows: TraitRows, variants: VariantReader) -> None:
    """Write the table; it appears under its name when it is complete. Call on one rank. Raises StorageError."""
    best_row = np.asarray(rows.best_row, dtype=np.int64)
    found = HitVariants(variants, best_row[best_row >= 0])
    with _completed(Path(path)) as partial, open(partial, "w", encoding="utf-8", newline="\n") as file:
        file.write("\t".join(COLUMNS) + "\n")
        file.writelines(_row(rows, j, found) for j in range(len(rows.names)))


def _row(rows: TraitRows, j: int, found: HitVariants) -> str:
    row = int(rows.best_row[j])
    best = ["NA"] * 3
    if row >= 0:
        k = int(found.at(np.array([row]))[0])
        best = [found.id[k], found.chrom[k], str(found.pos[k])]
    # adding zero turns the -0.0 of p = 1 into 0
    log10p = float(rows.log10p_max[j]) + 0.0 if row >= 0 else float("nan")
    figures = [_number(column[j], "r") for column in (rows.h2, rows.h2_se, rows.s2)]
    flags = flag_text(int(rows.flags[j])) or "NA"
    fields = [
        rows.names[j], str(int(rows.n[j])), *figures, _number(rows.lambda_gc[j], ".10g"), str(int(rows.tested[j])),
        format_p(log10p), _number(log10p, ".15g"), *best, str(int(rows.hits[j])), flags,
    ]  # fmt: skip
    return "\t".join(fields) + "\n"


def _number(value: float, form: str) -> str:
    value = float(value)
    if np.isnan(value):
        return "NA"
    return repr(value) if form == "r" else format(value, form)
