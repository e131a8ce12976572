"""Significant pairs of trait and SNP, as records."""

from __future__ import annotations

from collections.abc import Iterable

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


def no_hits() -> np.ndarray:
    """HIT_DTYPE (0,)."""
    return np.empty(0, dtype=HIT_DTYPE)


def merge_hits(parts: Iterable[np.ndarray]) -> np.ndarray:
    """All hits (HIT_DTYPE) in one array, by trait and then by row of the .bim."""
    merged = np.concatenate([no_hits(), *parts])
    return merged[np.lexsort((merged["row"], merged["trait"]))]
