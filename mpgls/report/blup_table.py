"""What the null model makes of a trait, tab-separated: ``FID IID Y FIXED GENETIC RESIDUAL``, with Y their sum.

FIXED is what the covariates explain, GENETIC the best linear unbiased prediction of the genetic value (BLUP). All are
in the units of the trait that was analysed; numbers have the shortest digits that read back the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mpgls.stream.files import write_text
from mpgls.study.align import Cohort

COLUMNS = ("FID", "IID", "Y", "FIXED", "GENETIC", "RESIDUAL")
ROW_BYTES = 110
"""Bytes of a row, about."""


def write_blup(path: Path, cohort: Cohort, fixed: np.ndarray, genetic: np.ndarray) -> None:
    """Write the parts (n,) of the trait of a ``cohort``, in its unit and about its center; on one rank.

    The people have the order of the genotypes. Raises StorageError.
    """
    unit = cohort.unit
    numbers = np.column_stack([
        cohort.center + unit * cohort.y, cohort.center + unit * fixed, unit * genetic,
        unit * (cohort.y - fixed - genetic),
    ])  # fmt: skip

    def lines() -> Iterator[str]:
        yield "\t".join(COLUMNS) + "\n"
        for k in np.argsort(cohort.rows).tolist():
            yield "\t".join([*cohort.ids[k], *map(repr, numbers[k].tolist())]) + "\n"

    write_text(path, lines())
