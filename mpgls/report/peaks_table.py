"""The independent signals of a trait, one row a SNP in the order in which they were found.

Columns: ``STEP CHR POS ID EA NEA EAF N LOG10P_STEP P_STEP BETA SE STAT LOG10P P``. The p value of the step is the
SNP's beside the covariates and the SNPs of the rows above; BETA and what follows are its figures in the joint model of
all rows. EAF has 10 digits; other figures have the shortest that read back to the same float64.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from mpgls.report.hits import _completed
from mpgls.report.table import VariantReader, format_p

COLUMNS = (
    "STEP", "CHR", "POS", "ID", "EA", "NEA", "EAF", "N", "LOG10P_STEP", "P_STEP", "BETA", "SE", "STAT", "LOG10P", "P",
)  # fmt: skip


class Signal(NamedTuple):
    """The SNP ``row`` of the .bim: counts, minus log10 p at its step, and its figures in the joint model."""

    row: int
    eaf: float
    n: int
    log10p_step: float
    beta: float
    se: float
    log10p: float


def write_peaks(path: str | os.PathLike[str], signals: Iterable[Signal], variants: VariantReader) -> None:
    """Write the table; it appears under its name when it is complete. Call on one rank. Raises StorageError."""
    with _completed(Path(path)) as partial, open(partial, "w", encoding="utf-8", newline="\n") as file:
        file.write("\t".join(COLUMNS) + "\n")
        for step, one in enumerate(signals, start=1):
            snp = variants.read(one.row, one.row + 1)
            names = (step, snp.chrom[0], snp.pos[0], snp.id[0], snp.a1[0], snp.a2[0], f"{one.eaf:.10g}", one.n)
            figures = (repr(one.beta), repr(one.se), repr(one.beta / one.se), repr(one.log10p), format_p(one.log10p))
            texts = map(str, (*names, repr(one.log10p_step), format_p(one.log10p_step), *figures))
            file.write("\t".join(texts) + "\n")
