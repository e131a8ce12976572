"""Significant pairs of trait and SNP, as records."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

HIT_DTYPE = np.dtype(
    [
        ("trait", "<i8"),
        ("row", "<i8"),
        ("beta", "<f8"),
        ("se", "<f8"),
        ("log10p", "<f8"),
        ("n", "<i4"),
        ("eaf", "<f8"),
        ("info", "<f8"),
    ]
)
"""One hit: position of the trait in the list of names, row of the .bim, effect, standard error, -log10 p, samples with
a genotype, frequency of A1, and INFO of dosages."""


def hit_dtype(further: Sequence[str] = ()) -> np.dtype:
    """HIT_DTYPE with ``further`` fields of float64, such as those of `model.snp_ratio`."""
    return np.dtype([*HIT_DTYPE.descr, *((name, "<f8") for name in further)])


def further_of(dtype: np.dtype) -> tuple[str, ...]:
    """The fields that a hit has beyond HIT_DTYPE."""
    return tuple(name for name in dtype.names or () if name not in (HIT_DTYPE.names or ()))


def no_hits(further: Sequence[str] = ()) -> np.ndarray:
    """`hit_dtype` (0,)."""
    return np.empty(0, dtype=hit_dtype(further))


def merge_hits(parts: Sequence[np.ndarray]) -> np.ndarray:
    """All hits, of one `hit_dtype`, in one array, by trait and then by row of the .bim."""
    merged = np.concatenate(parts)
    return merged[np.lexsort((merged["row"], merged["trait"]))]
