"""On which chromosome each selected SNP lies, and blocks of SNPs that do not cross from one to the next.

Any labels will do (1-22, X, 1A, scaffold_12). Case, a leading ``chr`` and leading zeros make no difference.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mpgls.errors import InputError
from mpgls.study.chromosome_names import plain_chromosome
from mpgls.study.variants import VariantRows

UNPLACED = frozenset({"", "0", "."})
"""Labels that say that a SNP's chromosome is not known."""


@dataclass(frozen=True, eq=False)
class Chromosomes:
    """The m selected SNPs as runs of neighbours on one chromosome.

    ``labels`` (C,) are the chromosomes as the .bim writes them, in the order in which they first appear; run r holds
    the positions ``edges[r]`` to ``edges[r+1]`` (exclusive) among the selected SNPs, on chromosome ``code[r]``.
    """

    labels: tuple[str, ...]
    edges: np.ndarray
    code: np.ndarray

    @classmethod
    def together(cls, count: int) -> Chromosomes:
        """All ``count`` SNPs as one run, wherever they lie."""
        return cls(("all",), np.array([0, count], dtype=np.int64), np.zeros(1, dtype=np.int64))

    def sizes(self) -> np.ndarray:
        """(C,) int64: selected SNPs of each chromosome."""
        return np.bincount(self.code, np.diff(self.edges), minlength=len(self.labels)).astype(np.int64)

    def positions(self, c: int) -> np.ndarray:
        """int64, ascending: the positions, among the selected SNPs, of those on chromosome ``labels[c]``."""
        runs = np.flatnonzero(self.code == c)
        return np.concatenate([np.arange(self.edges[r], self.edges[r + 1]) for r in runs])

    def blocks(self, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Cut every run into blocks of ``width`` SNPs and a last one of the rest: edges (B+1,), chromosomes (B,)."""
        runs = zip(self.edges[:-1], self.edges[1:], strict=True)
        starts = [np.arange(first, last, width) for first, last in runs]
        code = np.repeat(self.code, [of_run.size for of_run in starts])
        return np.concatenate([*starts, self.edges[-1:]]).astype(np.int64), code


def chromosomes_of(variants: VariantRows, index: np.ndarray) -> Chromosomes:
    """The chromosomes of the .bim rows ``index`` (m,), ascending. The .bim is read once, in batches.

    Raises InputError, naming SNP and line, for a SNP without a chromosome (labels 0 and .), StorageError if the .bim
    cannot be read.
    """
    number: dict[str, int] = {}
    labels: dict[str, str] = {}
    codes = []
    for start, batch in variants.batches():
        rows = index[slice(*np.searchsorted(index, [start, start + len(batch)]))] - start
        named = [batch.chrom[row] for row in rows]
        # few names for many rows: each name is judged once
        for name in dict.fromkeys(named):
            key = plain_chromosome(name)
            if key in UNPLACED:
                row = int(rows[named.index(name)])
                raise InputError(
                    f"{variants.place(start + row)}: SNP {batch.id[row]} has no chromosome (its label is "
                    f"{name!r}), so none can be left out for it: leave the SNP out, with --exclude or --chr"
                )
            number[name] = list(labels).index(key) if key in labels else len(labels)
            labels.setdefault(key, name)
        codes.append(np.fromiter(map(number.__getitem__, named), dtype=np.int64, count=len(named)))
    code = np.concatenate(codes)
    first = np.flatnonzero(np.diff(code, prepend=-1))
    return Chromosomes(tuple(labels.values()), np.append(first, code.size).astype(np.int64), code[first])
