"""The weights of SNPs, of one trait or several, as a tab-separated table: what `mpgls score` reads.

Columns: ``CHR POS ID EA NEA EAF MEAN`` and one for each trait. A person's predicted value is

    sum_j weight_j (x_j - MEAN_j)        x_j copies of EA, a missing genotype counts as MEAN_j

EAF is the frequency of EA among the people that the weights were made from, MEAN the mean of x over them; it is 2 EAF
but where not everybody has two copies. EAF has ten digits, all else the shortest that read back the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mpgls.report.hits import HitVariants
from mpgls.report.table import VariantReader
from mpgls.stream.files import write_text
from mpgls.study.weights_file import COLUMNS

NUMBER_BYTES = 20
"""Of a number with all its digits, about."""


class SnpWeights(NamedTuple):
    """Weights ``values`` (m, k) per copy of EA of the .bim rows ``rows`` (m,), ascending; ``eaf``, ``mean`` (m,)."""

    rows: np.ndarray
    eaf: np.ndarray
    mean: np.ndarray
    values: np.ndarray


def write_weights(path: Path, variants: VariantReader, weights: SnpWeights, names: Sequence[str]) -> None:
    """Write the weights for the traits ``names``; call on one rank. Raises StorageError."""
    found = HitVariants(variants, weights.rows)

    def lines() -> Iterator[str]:
        yield "\t".join([*COLUMNS, *names]) + "\n"
        for j, k in enumerate(found.at(weights.rows)):
            fields = [found.chrom[k], str(found.pos[k]), found.id[k], found.a1[k], found.a2[k]]
            figures = [f"{weights.eaf[j]:.10g}", *map(repr, [float(weights.mean[j]), *weights.values[j].tolist()])]
            yield "\t".join([*fields, *figures]) + "\n"

    write_text(path, lines())
