"""Of which kind the chromosome of each SNP is: one that everybody has twice, X, Y, or one that is haploid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mpgls.study.chromosome_names import canonical_chromosome, plain_chromosome
from mpgls.study.genotypes import HAPLOID, ON_X, ON_Y, TWO_COPIES
from mpgls.study.variants import VariantRows

PSEUDO_AUTOSOMAL = {37: (2_699_520, 154_931_044), 38: (2_781_479, 155_701_383)}
"""By build: the last position of PAR1 and the first of PAR2 on X, as PLINK 2 has them."""
_LETTERS = {"X": ON_X, "Y": ON_Y, "MT": HAPLOID, "M": HAPLOID}
_NUMBERS = {"23": ON_X, "24": ON_Y, "26": HAPLOID}


@dataclass(frozen=True, eq=False)
class Kinds:
    """Runs of SNPs of one kind: run k has the .bim rows ``edges[k]`` to ``edges[k+1]`` (exclusive), of ``codes[k]``."""

    edges: np.ndarray
    codes: np.ndarray

    def of(self, rows: np.ndarray) -> np.ndarray:
        """(B,) uint8: the kinds of the SNPs ``rows``."""
        return self.codes[np.searchsorted(self.edges, rows, side="right") - 1]


def kinds_of_variants(variants: VariantRows, build: int | None = None) -> Kinds:
    """The kinds of all SNPs; with ``build`` those in pseudo-autosomal regions of X are as on autosomes.

    23 is X, 24 Y and 26 MT where the .bim has no X by this letter. Reads the .bim once, or twice where it has both.
    """
    letters = False
    while True:
        parts, names = [], set[str]()
        for _, rows in variants.batches():
            of_name = {name: _kind(name, letters) for name in dict.fromkeys(rows.chrom)}
            names |= of_name.keys()
            codes = np.fromiter(map(of_name.__getitem__, rows.chrom), dtype=np.uint8, count=len(rows))
            if build is not None:
                last, first = PSEUDO_AUTOSOMAL[build]
                codes[(codes == ON_X) & ((rows.pos <= last) | (rows.pos >= first))] = TWO_COPIES
            parts.append(codes)
        written = {plain_chromosome(name) for name in names}
        if letters or "X" not in written or not written & _NUMBERS.keys():
            break
        letters = True
    return _runs(np.concatenate(parts))


def _kind(name: str, letters: bool) -> int:
    plain = plain_chromosome(name)
    if letters:
        return _LETTERS.get(plain, TWO_COPIES)
    return _LETTERS.get(plain, _NUMBERS.get(canonical_chromosome(name), TWO_COPIES))


def _runs(codes: np.ndarray) -> Kinds:
    starts = np.concatenate([[0], np.flatnonzero(np.diff(codes)) + 1])
    return Kinds(np.append(starts, codes.size), codes[starts])
