"""The null models of a scan that leaves one chromosome out, one row for each trait and chromosome.

Columns: ``TRAIT CHR SNPS TESTED H2 H2_SE S2 LOGLIK``. SNPS is how many SNPs the kinship lost with the chromosome,
TESTED how many of the chromosome have a p value. The figures have the shortest digits that read back to the same
float64, so the table can be given as --h2-file. What there is not is ``NA``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from mpgls.report.hits import _completed

COLUMNS = ("TRAIT", "CHR", "SNPS", "TESTED", "H2", "H2_SE", "S2", "LOGLIK")


class LocoRow(NamedTuple):
    """One null model; NaN stands for NA."""

    trait: str
    chromosome: str
    snps: int
    tested: int
    h2: float
    h2_se: float
    s2: float
    log_likelihood: float


def write_loco(path: str | os.PathLike[str], rows: Iterable[LocoRow]) -> None:
    """Write the table; it appears under its name when it is complete. Call on one rank. Raises StorageError."""
    with _completed(Path(path)) as partial, open(partial, "w", encoding="utf-8", newline="\n") as file:
        file.write("\t".join(COLUMNS) + "\n")
        file.writelines("\t".join(map(_text, row)) + "\n" for row in rows)


def _text(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return repr(float(value)) if math.isfinite(value) else "NA"
