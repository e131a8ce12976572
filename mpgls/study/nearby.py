"""SNPs near other SNPs, by the table of variants."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpgls.study.chromosome_names import plain_chromosome
from mpgls.study.variants import VariantRows


def rows_near(variants: VariantRows, rows: Sequence[int], distance: int) -> np.ndarray:
    """int64, ascending: .bim rows of the SNPs less than ``distance`` base pairs from one of ``rows`` on its chromosome.

    One pass over the table, unless there are no ``rows``. Raises StorageError and InputError.
    """
    if not rows:
        return np.empty(0, dtype=np.int64)
    places = [(plain_chromosome(one.chrom[0]), int(one.pos[0])) for one in (variants.read(k, k + 1) for k in rows)]
    near = []
    for start, batch in variants.batches():
        plain = {name: plain_chromosome(name) for name in dict.fromkeys(batch.chrom)}
        chromosome = np.array([plain[name] for name in batch.chrom])
        close = np.zeros(len(batch), dtype=bool)
        for name, position in places:
            close |= (chromosome == name) & (np.abs(batch.pos - position) < distance)
        near.append(start + np.flatnonzero(close))
    return np.concatenate(near)
