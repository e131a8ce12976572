"""Which SNPs measure how similar two people are, and in which order: by chromosome, so that one can be left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mpgls.errors import InputError, UsageError
from mpgls.study.chromosome_names import plain_chromosome, positions_of
from mpgls.study.variants import VariantRows

MANTISSA_BITS = 24
"""Integers up to 2^24 are exact in float32."""


@dataclass(frozen=True)
class SimilaritySnps:
    """K SNPs: ``index`` (K,) int64 rows of the .bim, and ``chromosome`` (K,) their labels, each in one run."""

    index: np.ndarray
    chromosome: np.ndarray

    def without(self, chromosome: str | None) -> list[slice]:
        """The SNPs that are not on ``chromosome``, as few runs; None leaves nothing out."""
        labels = self.present()
        named = [labels[k] for k in positions_of(chromosome, labels)] if chromosome else []
        kept = np.concatenate([[False], ~np.isin(self.chromosome.astype(str), named), [False]])
        edges = np.flatnonzero(np.diff(kept)).tolist()
        return [slice(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True)]

    def present(self) -> list[str]:
        """The chromosomes, each once, in order."""
        return list(dict.fromkeys(self.chromosome.tolist()))

    def subset(self, kept: np.ndarray) -> SimilaritySnps:
        """Those where ``kept`` (K,) is true."""
        return SimilaritySnps(self.index[kept], self.chromosome[kept])


def every_kth(candidates: np.ndarray, k: int) -> np.ndarray:
    """Candidates 0, k, 2k, ..."""
    return candidates[::k]


def evenly_spaced(candidates: np.ndarray, count: int) -> np.ndarray:
    """``count`` candidates at equal distances in their order. Raises UsageError when there are fewer."""
    if count > candidates.size:
        raise UsageError(f"--similarity-count {count} is more than the {candidates.size} SNPs to choose from")
    return candidates[((2 * np.arange(count) + 1) * candidates.size) // (2 * count)]


def by_chromosome(variants: VariantRows, index: np.ndarray) -> SimilaritySnps:
    """The SNPs ``index`` (ascending) of the .bim, those of a chromosome side by side, in order of first appearance.

    Each chromosome is called what the first of its SNPs has.
    """
    labels, written = np.empty(index.size, dtype=object), dict[str, str]()
    for start, rows in variants.batches():
        first, last = np.searchsorted(index, (start, start + len(rows)))
        named = [rows.chrom[row] for row in index[first:last] - start]
        # few names for many rows: each name is judged once
        known = {name: written.setdefault(plain_chromosome(name), name) for name in dict.fromkeys(named)}
        labels[first:last] = [known[name] for name in named]
    number = {label: k for k, label in enumerate(dict.fromkeys(labels))}
    order = np.argsort([number[label] for label in labels], kind="stable")
    return SimilaritySnps(index[order], labels[order])


def matching_rows(ids: Sequence[tuple[str, str]], others: Sequence[tuple[str, str]], path: str) -> np.ndarray:
    """Where each sample of ``ids`` stands among ``others``. Raises InputError naming one that ``path`` lacks."""
    position = {name: row for row, name in enumerate(others)}
    for name in ids:
        if name not in position:
            raise InputError(f"{path} has no genotypes of sample {' '.join(name)}, which is analysed")
    return np.array([position[name] for name in ids], dtype=np.int64)


def exact_shift(mean: np.ndarray, complete: np.ndarray, n: int) -> np.ndarray:
    """What to subtract from dosages (0, 1, 2) so that sums of products of n of them are exact in float32: (B,).

    A multiple of 2^-b near the mean: products are then multiples of 4^-b and at most 4, so sums of n of them are exact
    while n 4^(b+1) <= 2^24. Where genotypes are missing (not ``complete``) it is the mean itself, in float32.
    """
    bits = max(0, (MANTISSA_BITS - 2 - int(np.ceil(np.log2(max(n, 1))))) // 2)
    unit = 0.5**bits
    return np.where(complete, np.round(mean / unit) * unit, mean.astype(np.float32).astype(np.float64))
