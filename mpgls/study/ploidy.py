"""What sex makes of genotypes: chromosome X of males, Y and MT, in the rows as they are read.

    X     males have one copy, coded 0/2 (dosage compensation) or 0/1; heterozygous males are missing
    Y     males have one copy, coded 0/1; females, and who has no sex, are missing; so are heterozygous males
    MT    everybody has one copy, coded 0/1; who is heterozygous is missing

The pseudo-autosomal regions, by position or as XY, are as autosomes are. People without sex have two X, as PLINK has
them. A row that was changed, or could be, ends in a byte with the kind of its chromosome, so that it is counted right
wherever it is decoded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mpgls.study.chromosome_names import plain_chromosome
from mpgls.study.genotype_files import Genotypes
from mpgls.study.genotypes import HAPLOID, ON_X, ON_X_SINGLE, ON_Y, TWO_COPIES, bytes_per_dosages, keep_bytes
from mpgls.study.plink import Fileset
from mpgls.study.sexes import MALE, read_sexes
from mpgls.study.variant_kinds import Kinds, kinds_of_variants

_LOW = np.uint8(0b01010101)


class SexRule(NamedTuple):
    """How sex is taken into account: the table of --sex, the build that says where X is pseudo-autosomal, --x-model."""

    table: str | None = None
    build: int | None = None
    x_model: int = 2


@dataclass(frozen=True, eq=False)
class SexedGenotypes:
    """Genotypes with SNPs that not everybody has twice: their rows as `recode` makes them.

    ``sexes`` (n,) int8 of the samples, ``kinds`` of the SNPs. ``plain`` are the files.
    """

    plain: Genotypes
    sexes: np.ndarray
    kinds: Kinds
    x_model: int

    @property
    def path(self) -> Path:
        """The file."""
        return self.plain.path

    @property
    def n(self) -> int:
        """Samples."""
        return self.plain.n

    @property
    def m(self) -> int:
        """SNPs."""
        return self.plain.m

    @property
    def dosages(self) -> bool:
        """Whether a SNP is float32 dosages."""
        return self.plain.dosages

    @property
    def held_bytes(self) -> int:
        """Bytes that an open reader holds."""
        return self.plain.held_bytes

    @property
    def snp_bytes(self) -> int:
        """Bytes of a row, with its kind."""
        return bytes_per_dosages(self.n + 1) if self.dosages else self.plain.snp_bytes + 1

    @property
    def males(self) -> np.ndarray:
        """(n,) bool."""
        return self.sexes == MALE

    def recode(self, packed: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The rows ``packed`` (B, snp_bytes of the file) of the SNPs ``rows``, as sex has them: (B, snp_bytes)."""
        kinds = self.kinds.of(rows)
        if self.dosages:
            return self._recode_dosages(packed.view(np.float32), kinds)
        made = np.column_stack([packed, kinds])
        males, everyone = keep_bytes(np.flatnonzero(self.males), self.n), keep_bytes(np.arange(self.n), self.n)
        for kind, who in ((ON_X, males), (ON_Y, males), (HAPLOID, everyone)):
            of_kind = np.flatnonzero(kinds == kind)
            if of_kind.size:
                one_copy = kind != ON_X or self.x_model == 1
                made[of_kind, :-1] = _single(packed[of_kind], who, one_copy)
        on_y = kinds == ON_Y
        made[on_y, :-1] = (made[on_y, :-1] & males) | (~males & _LOW)  # 01: missing
        return made

    def _recode_dosages(self, dosages: np.ndarray, kinds: np.ndarray) -> np.ndarray:
        """As `recode`. A dosage of exactly 1 is a heterozygote; others of males go from 0 to 2, as PLINK has them."""
        made = np.column_stack([dosages, kinds.astype(np.float32)])
        x = made[:, :-1]
        alone = np.isin(kinds, (ON_X, ON_Y))[:, None] & self.males | (kinds == HAPLOID)[:, None]
        x[alone & (x == 1)] = -9.0
        one_copy = alone & (x > 0) & ((kinds != ON_X)[:, None] | (self.x_model == 1))
        x[one_copy] /= 2
        x[(kinds == ON_Y)[:, None] & ~self.males] = -9.0
        if self.x_model == 1:
            made[kinds == ON_X, -1] = ON_X_SINGLE
        return made.view(np.uint8)

    def heterozygous(self, packed: np.ndarray, rows: np.ndarray, samples: np.ndarray) -> SexCounts:
        """What the ``samples`` who should have one copy have of the SNPs ``rows``, whose ``packed`` are those of the
        file."""
        kinds, counts = self.kinds.of(rows), SexCounts()
        if self.dosages:
            return self._heterozygous_dosages(packed.view(np.float32)[:, samples], kinds, self.males[samples])
        males = keep_bytes(samples[self.males[samples]], self.n)
        for kind, who in ((ON_X, males), (ON_Y, males), (HAPLOID, keep_bytes(samples, self.n))):
            of_kind = packed[kinds == kind]
            low, high = of_kind & who & _LOW, (of_kind & who) >> 1 & _LOW
            counts.snps[kind] += len(of_kind)
            counts.heterozygous[kind] += _ones(high & ~low)
            counts.homozygous[kind] += _ones(~(high | low) & who & _LOW)
        return counts

    @staticmethod
    def _heterozygous_dosages(x: np.ndarray, kinds: np.ndarray, males: np.ndarray) -> SexCounts:
        counts = SexCounts()
        for kind, who in ((ON_X, males), (ON_Y, males), (HAPLOID, np.ones_like(males))):
            of_kind = x[kinds == kind][:, who]
            counts.snps[kind] += len(of_kind)
            counts.heterozygous[kind] += np.count_nonzero(of_kind == 1)
            counts.homozygous[kind] += np.count_nonzero(of_kind == 2)
        return counts


class SexCounts:
    """By kind: SNPs, and genotypes with one and with two copies of A1 of people who should have one copy."""

    def __init__(self) -> None:
        self.snps, self.heterozygous, self.homozygous = (np.zeros(HAPLOID + 1, dtype=np.int64) for _ in range(3))

    def add(self, other: SexCounts) -> None:
        """Those of further SNPs."""
        self.snps += other.snps
        self.heterozygous += other.heterozygous
        self.homozygous += other.homozygous


def with_sex(fileset: Fileset, rule: SexRule) -> Fileset:
    """The fileset, with genotypes as the ``rule`` has them where the .bim has X, Y or MT.

    Raises InputError and StorageError for what is wrong with the table of sexes.
    """
    kinds = kinds_of_variants(fileset.variants, rule.build)
    if (kinds.codes == TWO_COPIES).all():
        return fileset
    sexes = fileset.samples.sex
    if rule.table is not None:
        sexes = read_sexes(rule.table, fileset.samples.ids())
    return replace(fileset, bed=SexedGenotypes(fileset.bed, sexes, kinds, rule.x_model))


def is_sexed(chromosome: str) -> bool:
    """Whether a chromosome's name may be that of one that not everybody has twice."""
    return plain_chromosome(chromosome) in {"X", "Y", "MT", "M", "23", "24", "26"}


def _single(packed: np.ndarray, who: np.ndarray, one_copy: bool) -> np.ndarray:
    """Rows in which the people of the mask ``who`` have one copy: heterozygotes missing, and 0/1 with ``one_copy``."""
    low, high = packed & _LOW, packed >> 1 & _LOW
    both = ~low & high & who & _LOW
    made = packed ^ (both | both << 1)  # 10 to 01
    if one_copy:
        made |= (~(low | high) & who & _LOW) << 1  # 00 to 10
    return made


def _ones(flags: np.ndarray) -> int:
    return int(np.unpackbits(flags).sum())
