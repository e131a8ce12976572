"""Which SNPs of some genotypes have a weight, and on which of their alleles.

A SNP is the same where chromosome, position, ID and both alleles are; the alleles may be exchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mpgls.errors import InputError, UsageError
from mpgls.study.genotypes import HAPLOID, ON_X, ON_Y
from mpgls.study.plink import Fileset
from mpgls.study.ploidy import SexedGenotypes
from mpgls.study.snp_keys import snp_keys
from mpgls.study.variants import Variants
from mpgls.study.weights_file import WeightsFile

_PALINDROMES = ({"A", "T"}, {"C", "G"})
_SHOWN = 3


@dataclass(frozen=True, eq=False)
class ScoredSnps:
    """SNPs that have a weight: a person's value is the sum of ``values`` (k, t) times x - ``center`` (k,).

    ``rows`` (k,) are their .bim rows, ascending, and x are copies of A1 there, whichever allele the weights are of.
    """

    rows: np.ndarray
    center: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class MatchCounts:
    """What became of the ``listed`` SNPs of a file of weights.

    ``used`` ones are in the genotypes, ``swapped`` of them with EA as A2, ``palindromic`` of them A/T or C/G. The other
    ones are there ``elsewhere``, at another position, have ``other_alleles``, or are ``absent``.
    """

    listed: int
    used: int
    swapped: int
    palindromic: int
    elsewhere: int
    other_alleles: int
    absent: int

    def lines(self) -> list[str]:
        """What the log says."""
        lines = [
            f"weights: {self.used:,} of {self.listed:,} SNPs are in the genotypes, {self.swapped:,} of them swapped"
        ]
        if self.palindromic:
            lines.append(
                f"weights: {self.palindromic:,} of these SNPs are A/T or C/G, whose strand cannot be told: the alleles "
                "are taken as they are named"
            )
        return lines

    def warnings(self) -> list[str]:
        """What is not used, and why."""
        left = {
            "not there": self.absent,
            "at another position": self.elsewhere,
            "there with other alleles": self.other_alleles,
        }
        said = ", ".join(f"{count:,} {why}" for why, count in left.items() if count)
        if not said:
            return []
        left_out = self.listed - self.used
        return [f"weights: {left_out:,} of {self.listed:,} SNPs are not used, so they count as average: {said}"]


@dataclass
class _Found:
    """What the rows of the genotypes have of the weights' SNPs, batch by batch."""

    weights: WeightsFile
    rows: list[np.ndarray] = field(default_factory=list)
    at: list[np.ndarray] = field(default_factory=list)
    swapped: list[np.ndarray] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.places, self.keys = snp_keys(self.weights.variants), _allele_keys(self.weights.variants)
        self.order = np.argsort(self.keys, kind="stable")
        self.sorted = self.keys[self.order]
        self.ids = set(self.weights.variants.id)
        self.met_places: list[np.ndarray] = []
        self.met_ids: set[str] = set()

    def add(self, first: int, chosen: np.ndarray, batch: Variants) -> None:
        """The ``chosen`` rows of a ``batch`` that begins at row ``first``."""
        mine = _take(batch, chosen)
        keys = _allele_keys(mine)
        where = np.minimum(np.searchsorted(self.sorted, keys), self.sorted.size - 1)
        hit = np.flatnonzero(self.sorted[where] == keys)
        at = self.order[where[hit]]
        self.rows.append(first + chosen[hit])
        self.at.append(at)
        pairs = zip(hit.tolist(), at.tolist(), strict=True)
        self.swapped.append(np.array([mine.a1[k] != self.weights.variants.a1[j] for k, j in pairs], dtype=bool))
        self.met_places.append(np.intersect1d(snp_keys(mine), self.places))
        self.met_ids.update(self.ids.intersection(mine.id))


def match_weights(weights: WeightsFile, fileset: Fileset, index: np.ndarray) -> tuple[ScoredSnps, MatchCounts]:
    """The SNPs among the .bim rows ``index``, ascending, that have a weight.

    Raises InputError where a SNP stands twice in either file, or no SNP has a weight; UsageError for a swapped SNP on X
    of which men have one copy and women two.
    """
    _refuse_twice(weights)
    found, variants = _Found(weights), fileset.variants
    for start, batch in variants.batches():
        first, last = np.searchsorted(index, (start, start + len(batch)))
        found.add(start, index[first:last] - start, batch)
    rows, at, swapped = (np.concatenate(part) for part in (found.rows, found.at, found.swapped))
    if not rows.size:
        first_rows = variants.read(0, min(_SHOWN, variants.count))
        raise InputError(
            f"{weights.path} and {variants.path} have no SNP in common: the weights have {_some(weights.variants)}, "
            f"the genotypes {_some(first_rows)}"
        )
    _refuse_repeated(rows, at, weights, fileset)
    counts = _count(found, at, swapped)
    most = _copies(fileset, rows, swapped)
    center = np.where(swapped, most - weights.mean[at], weights.mean[at])
    return ScoredSnps(rows, center, np.where(swapped, -1.0, 1.0)[:, None] * weights.values[at]), counts


def _count(found: _Found, at: np.ndarray, swapped: np.ndarray) -> MatchCounts:
    of = found.weights.variants
    listed, left = len(of), np.ones(len(of), dtype=bool)
    left[at] = False
    placed = left & np.isin(found.places, np.concatenate(found.met_places))
    named = left & ~placed & np.fromiter((name in found.met_ids for name in of.id), dtype=bool, count=listed)
    palindromic = sum({of.a1[j], of.a2[j]} in _PALINDROMES for j in at.tolist())
    numbers = (int(np.count_nonzero(one)) for one in (named, placed, left & ~placed & ~named))
    return MatchCounts(listed, at.size, int(swapped.sum()), palindromic, *numbers)


def _copies(fileset: Fileset, rows: np.ndarray, swapped: np.ndarray) -> np.ndarray:
    """(k,) the largest x there is. Raises UsageError for a swapped SNP of which it differs between people."""
    bed = fileset.bed
    if not isinstance(bed, SexedGenotypes):
        return np.full(rows.size, 2.0)
    kinds = bed.kinds.of(rows)
    if bed.x_model == 1 and (wrong := np.flatnonzero(swapped & (kinds == ON_X))).size:
        raise UsageError(
            f"--x-model 1: {fileset.variants.place(int(rows[wrong[0]]))} has the alleles of a SNP on X the other way "
            "round than the weights: exchange them (plink2 --ref-allele), or make the weights with --x-model 2"
        )
    return np.where(np.isin(kinds, (ON_Y, HAPLOID)), 1.0, 2.0)


def _refuse_twice(weights: WeightsFile) -> None:
    keys = _allele_keys(weights.variants)
    order = np.argsort(keys, kind="stable")
    same = np.flatnonzero(keys[order][1:] == keys[order][:-1])
    if same.size:
        one, other = order[same[0]], order[same[0] + 1]
        raise InputError(
            f"{weights.path}: SNP {_show(weights.variants, one)} occurs twice, in lines {weights.lines[one]} and "
            f"{weights.lines[other]}"
        )


def _refuse_repeated(rows: np.ndarray, at: np.ndarray, weights: WeightsFile, fileset: Fileset) -> None:
    order = np.argsort(at, kind="stable")
    same = np.flatnonzero(at[order][1:] == at[order][:-1])
    if same.size:
        one, other = order[same[0]], order[same[0] + 1]
        place, again = (fileset.variants.place(int(rows[k])) for k in (one, other))
        raise InputError(
            f"the genotypes have SNP {_show(weights.variants, int(at[one]))} twice ({place}; {again}), so its weight "
            "belongs to neither: leave it out by --exclude"
        )


def _allele_keys(variants: Variants) -> np.ndarray:
    """As `snp_keys`, of the alleles as well, in whatever order."""
    named = [
        " ".join([name, *sorted((a1, a2))]) for name, a1, a2 in zip(variants.id, variants.a1, variants.a2, strict=True)
    ]
    return snp_keys(Variants(variants.chrom, named, variants.pos, variants.a1, variants.a2))


def _take(variants: Variants, chosen: np.ndarray) -> Variants:
    if chosen.size == len(variants):
        return variants
    texts = (variants.chrom, variants.id, variants.a1, variants.a2)
    chrom, name, a1, a2 = ([column[k] for k in chosen.tolist()] for column in texts)
    return Variants(chrom, name, variants.pos[chosen], a1, a2)


def _show(variants: Variants, k: int) -> str:
    return f"{variants.id[k]} ({variants.chrom[k]}:{variants.pos[k]} {variants.a1[k]}/{variants.a2[k]})"


def _some(variants: Variants) -> str:
    shown: Sequence[str] = [_show(variants, k) for k in range(min(_SHOWN, len(variants)))]
    return ", ".join(shown) + (", ..." if len(variants) > _SHOWN else "")
