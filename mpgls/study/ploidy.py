"""What sex makes of genotypes: chromosome X of males, Y and MT, in the rows as they are read.

    X     males have one copy, coded 0/2 (dosage compensation) or 0/1; heterozygous males are missing
    Y     males have one copy, coded 0/1; females, and who has no sex, are missing; so are heterozygous males
    MT    everybody has one copy, coded 0/1; who is heterozygous is missing

The pseudo-autosomal regions, by position or as XY, are as autosomes are. People without sex have two X, as PLINK has
them. A row that was changed, or could be, ends in a byte with the kind of its chromosome, so that it is counted right
wherever it is decoded.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from mpgls.study.chromosome_names import plain_chromosome
from mpgls.study.genotypes import HAPLOID, ON_X, ON_Y, TWO_COPIES, keep_bytes
from mpgls.study.plink import BedFile, Fileset
from mpgls.study.sexes import MALE, read_sexes
from mpgls.study.variant_kinds import Kinds, kinds_of_variants

_LOW = np.uint8(0b01010101)


class SexRule(NamedTuple):
    """How sex is taken into account: the table of --sex, the build that says where X is pseudo-autosomal, --x-model."""

    table: str | None = None
    build: int | None = None
    x_model: int = 2


@dataclass(frozen=True, eq=False)
class SexedBed(BedFile):
    """A .bed with SNPs that not everybody has twice: its rows as `recode` makes them.

    ``sexes`` (n,) int8 of the samples, ``kinds`` of the SNPs. ``plain`` is the file.
    """

    plain: BedFile = field(kw_only=True)
    sexes: np.ndarray = field(kw_only=True)
    kinds: Kinds = field(kw_only=True)
    x_model: int = field(kw_only=True)

    @property
    def snp_bytes(self) -> int:
        """Bytes of a row, with its kind."""
        return self.plain.snp_bytes + 1

    def offset(self, k: int) -> int:
        """Byte offset of SNP ``k`` in the file."""
        return self.plain.offset(k)

    @property
    def males(self) -> np.ndarray:
        """(n,) bool."""
        return self.sexes == MALE

    def recode(self, packed: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """The rows ``packed`` (B, snp_bytes of the file) of the SNPs ``rows``, as sex has them: (B, snp_bytes)."""
        kinds = self.kinds.of(rows)
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

    def heterozygous(self, packed: np.ndarray, rows: np.ndarray, samples: np.ndarray) -> SexCounts:
        """What the ``samples`` who should have one copy have of the SNPs ``rows``, whose ``packed`` are those of the
        file."""
        kinds, counts = self.kinds.of(rows), SexCounts()
        males = keep_bytes(samples[self.males[samples]], self.n)
        for kind, who in ((ON_X, males), (ON_Y, males), (HAPLOID, keep_bytes(samples, self.n))):
            of_kind = packed[kinds == kind]
            low, high = of_kind & who & _LOW, (of_kind & who) >> 1 & _LOW
            counts.snps[kind] += len(of_kind)
            counts.heterozygous[kind] += _ones(high & ~low)
            counts.homozygous[kind] += _ones(~(high | low) & who & _LOW)
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
    sexes, plain = fileset.samples.sex, fileset.bed
    if rule.table is not None:
        sexes = read_sexes(rule.table, fileset.samples.ids())
    bed = SexedBed(plain.path, plain.n, plain.m, plain=plain, sexes=sexes, kinds=kinds, x_model=rule.x_model)
    return replace(fileset, bed=bed)


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
