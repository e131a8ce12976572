"""Which SNPs are analysed: the filters, and those that need the .bim only.

`mpgls.study.count_filters` has those that need counts of genotypes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from mpgls.errors import InputError, UsageError
from mpgls.study.chromosome_names import canonical_chromosome, is_autosome, is_sexed, plain_chromosome
from mpgls.study.regions import read_regions
from mpgls.study.text import part_names, read_words
from mpgls.study.variants import VariantRows, Variants

BY_DEFAULT = "default (X, Y, XY and MT; --all-chromosomes keeps them)"
"""What dropped a SNP that is on no autosome."""
_SHOWN = 3


@dataclass(frozen=True)
class SnpFilter:
    """The SNP filters of the command line, under PLINK 2's names.

    Raises
    ------
    UsageError : ``maf`` outside 0 to 0.5, or ``geno`` outside 0 to 1.
    """

    chromosomes: tuple[str, ...] = ()
    """Names to keep; empty keeps all."""
    extract: str | None = None
    """A file of SNP IDs to keep."""
    exclude: str | None = None
    """A file of SNP IDs to drop."""
    exclude_negative_bp: bool = False
    maf: float = 0.0
    """Smallest minor allele frequency kept."""
    geno: float = 1.0
    """Largest share of missing genotypes kept."""
    not_chromosomes: tuple[str, ...] = ()
    """Names to drop."""
    autosomes: bool = False
    """Keep autosomes only."""
    without_sexed: bool = False
    """Drop X, Y, XY and MT, unless there is nothing else."""
    range: str | None = None
    """A file of ranges of positions to keep."""
    from_bp: int | None = None
    to_bp: int | None = None
    """First and last position kept."""
    mac: float = 0.0
    """Smallest number of copies of the rarer allele kept."""
    max_maf: float = 0.5
    """Largest minor allele frequency kept."""
    hwe: float = 0.0
    """Smallest p of the exact test of Hardy-Weinberg equilibrium kept."""
    info: float = 0.0
    """Smallest imputation quality kept, see `SnpStats.info`."""

    def __post_init__(self) -> None:
        if not 0 <= self.maf <= 0.5:
            raise UsageError(f"--maf must be from 0 to 0.5, not {self.maf}")
        if not 0 <= self.geno <= 1:
            raise UsageError(f"--geno must be from 0 to 1, not {self.geno}")
        if self.maf > self.max_maf:
            raise UsageError(f"--maf {self.maf:g} is above --max-maf {self.max_maf:g}: no SNP would be left")
        if (self.from_bp is not None or self.to_bp is not None) and len(self.chromosomes) != 1:
            raise UsageError("--from-bp and --to-bp are positions on one chromosome: name it with --chr")
        if self.from_bp is not None and self.to_bp is not None and self.from_bp > self.to_bp:
            raise UsageError(f"--from-bp {self.from_bp} is beyond --to-bp {self.to_bp}")

    def everywhere(self) -> SnpFilter:
        """The same filters without those of chromosomes and positions."""
        return replace(self, chromosomes=(), not_chromosomes=(), autosomes=False, range=None, from_bp=None, to_bp=None)


@dataclass(frozen=True, eq=False)
class Selection:
    """The SNPs that the filters on the .bim leave."""

    index: np.ndarray
    """int64: their positions in the .bim, ascending."""
    total: int
    """SNPs of the .bim."""
    negative_bp: int
    """SNPs of the .bim with a negative position, kept or not."""
    reasons: dict[str, int]
    """SNPs dropped by each flag that was given; one that several flags would drop counts under the first."""
    lists: tuple[str, ...] = ()
    """For the log, a line of each list of SNP IDs: how it was understood."""


def parse_chromosomes(text: str, flag: str = "--chr") -> tuple[str, ...]:
    """The chromosomes of a list like ``1-4,X,22``, in its order, each once, as `plain_chromosome` has them.

    Raises
    ------
    UsageError : an empty item or a range that runs backwards.
    """
    names: list[str] = []
    for item in text.split(","):
        name = plain_chromosome(item.strip())
        if not name:
            raise UsageError(f"{flag} {text!r} has an empty item")
        ends = re.fullmatch(r"(\d+)-(?:CHR)?(\d+)", name)
        if ends is None:
            names.append(name)
            continue
        first, last = int(ends[1]), int(ends[2])
        if first > last:
            raise UsageError(f"{flag} {text!r}: the range {item.strip()} runs backwards")
        names += map(str, range(first, last + 1))
    return tuple(dict.fromkeys(names))


def select_snps(variants: VariantRows, snp_filter: SnpFilter) -> Selection:
    """Apply the filters that need only the .bim, which is read in batches, once as a rule.

    Chromosomes are known by all their names (`mpgls.study.chromosome_names`): X means 23, unless the .bim has both.

    Raises
    ------
    StorageError : the .bim or a list of IDs cannot be read.
    InputError : a malformed row of the .bim; an ``--extract`` list without any SNP of it; or no SNP is left.
    """
    scan = _Scan(snp_filter, variants)
    index = [np.flatnonzero(scan.keep(start, rows)) + start for start, rows in variants.batches()]
    if spelled := scan.spelling():
        scan = _Scan(snp_filter, variants, spelled)
        index = [np.flatnonzero(scan.keep(start, rows)) + start for start, rows in variants.batches()]
    if snp_filter.without_sexed and all(is_sexed(name, scan.spelled.letters) for name in scan.chromosomes):
        everything = select_snps(variants, replace(snp_filter, without_sexed=False))
        said = f"{variants.path}: there is no autosome, so X, Y, XY and MT are taken"
        return replace(everything, lists=(*everything.lists, said))
    scan.check_extract(variants)
    summaries = tuple(one.summary for one in (scan.regions, scan.extract, scan.exclude) if one is not None)
    selection = Selection(np.concatenate(index), variants.count, scan.negative_bp, scan.reasons, summaries)
    if selection.index.size == 0:
        dropped = ", ".join(f"{flag} drops {count}" for flag, count in scan.reasons.items())
        raise InputError(
            f"no SNP of {variants.path} is left: of {variants.count}, {dropped} "
            f"(its chromosomes are {_some(scan.chromosomes)})"
        )
    return selection


@dataclass(frozen=True)
class _Spelling:
    """How a .bim writes chromosomes: ``twofold`` are canonical names of which only those count that are written as
    asked for; with ``letters`` 23 to 26 are autosomes, because there is an X by this name."""

    twofold: frozenset[str] = frozenset()
    letters: bool = False


class _Scan:
    """The filters, ready to be applied to batch after batch, and their counts so far."""

    def __init__(self, snp_filter: SnpFilter, variants: VariantRows, spelled: _Spelling | None = None) -> None:
        self.filter, self.variants, self.spelled = snp_filter, variants, spelled or _Spelling()
        self.regions = None if snp_filter.range is None else read_regions(snp_filter.range)
        self.extract = _read_list(snp_filter.extract, variants)
        self.exclude = _read_list(snp_filter.exclude, variants)
        self.chromosomes: dict[str, None] = {}
        self.extracted = 0
        self.negative_bp = 0
        self.reasons: dict[str, int] = {}

    def keep(self, start: int, rows: Variants) -> np.ndarray:
        """(len(rows),) bool: which rows, of which ``start`` is the first, stay."""
        kept = self._in_place(rows)
        if self.extract is not None:
            listed = _are_in(rows.id, self.extract.ids)
            self.extracted += int(np.count_nonzero(listed))
            kept = self._drop(kept, listed, "--extract")
        if self.exclude is not None:
            kept = self._drop(kept, ~_are_in(rows.id, self.exclude.ids), "--exclude")
        negative = rows.pos < 0
        self.negative_bp += int(np.count_nonzero(negative))
        if self.filter.exclude_negative_bp:
            kept = self._drop(kept, ~negative, "--exclude-negative-bp")
        if self.variants.has_alt:
            self._refuse_several_alleles(start, rows, kept)
        return kept

    def _refuse_several_alleles(self, start: int, rows: Variants, kept: np.ndarray) -> None:
        several = np.fromiter(("," in alt for alt in rows.a1), dtype=bool, count=len(rows)) & kept
        if several.any():
            row = int(several.argmax())
            raise InputError(
                f"{self.variants.place(start + row)}: SNP {rows.id[row]} has several ALT alleles, {rows.a1[row]}: "
                "leave such SNPs out (plink2 --max-alleles 2 --make-pgen, or --exclude)"
            )

    def _in_place(self, rows: Variants) -> np.ndarray:
        """(len(rows),) bool: which rows the filters of chromosomes and positions leave."""
        asked, kept = self.filter, np.ones(len(rows), dtype=bool)
        names = dict.fromkeys(rows.chrom)
        self.chromosomes |= names
        # few names for many rows: each name is judged once
        of_name = {name: k for k, name in enumerate(names)}
        code = np.fromiter(map(of_name.__getitem__, rows.chrom), dtype=np.int64, count=len(rows))

        def where(holds: Callable[[str], bool]) -> np.ndarray:
            return np.array([holds(name) for name in names], dtype=bool)[code]

        if asked.chromosomes:
            kept = self._drop(kept, where(lambda name: bool(self._meant(name, asked.chromosomes))), "--chr")
        if asked.not_chromosomes:
            kept = self._drop(kept, where(lambda name: not self._meant(name, asked.not_chromosomes)), "--not-chr")
        if asked.autosomes:
            kept = self._drop(kept, where(lambda name: is_autosome(name, self.spelled.letters)), "--autosome")
        if asked.without_sexed:
            kept = self._drop(kept, where(lambda name: not is_sexed(name, self.spelled.letters)), BY_DEFAULT)
        if asked.from_bp is not None:
            kept = self._drop(kept, rows.pos >= asked.from_bp, "--from-bp")
        if asked.to_bp is not None:
            kept = self._drop(kept, rows.pos <= asked.to_bp, "--to-bp")
        if self.regions is not None:
            inside = np.zeros(len(rows), dtype=bool)
            for name, k in of_name.items():
                here = code == k
                inside[here] = self.regions.contain(self._meant(name, self.regions.ranges), rows.pos[here])
            kept = self._drop(kept, inside, "--range")
        return kept

    def _meant(self, name: str, asked: Iterable[str]) -> list[str]:
        """Those of the names ``asked`` for that mean the chromosome ``name`` of the .bim."""
        plain, canonical = plain_chromosome(name), canonical_chromosome(name)
        by_meaning = canonical not in self.spelled.twofold
        return [
            one
            for one in asked
            if plain_chromosome(one) == plain or (by_meaning and canonical_chromosome(one) == canonical)
        ]

    def spelling(self) -> _Spelling | None:
        """How the .bim that was read writes chromosomes, None if it is as was thought.

        Twofold are canonical names that were met written as asked for and otherwise too: these are two chromosomes.
        """
        asked = [*self.filter.chromosomes, *self.filter.not_chromosomes, *(self.regions.ranges if self.regions else ())]
        written, meant = set(map(plain_chromosome, asked)), set(map(canonical_chromosome, asked))
        as_asked = {name: plain_chromosome(name) in written for name in self.chromosomes}
        met = [{canonical_chromosome(name) for name in as_asked if as_asked[name] is yes} for yes in (True, False)]
        by_kind = self.filter.autosomes or self.filter.without_sexed
        letters = by_kind and any(plain_chromosome(name) == "X" for name in self.chromosomes)
        found = _Spelling(frozenset((met[0] & met[1]) & meant), letters)
        return None if found == self.spelled else found

    def _drop(self, kept: np.ndarray, passing: np.ndarray, flag: str) -> np.ndarray:
        self.reasons[flag] = self.reasons.get(flag, 0) + int(np.count_nonzero(kept & ~passing))
        return kept & passing

    def check_extract(self, variants: VariantRows) -> None:
        if self.extract is None or self.extracted:
            return
        first = variants.read(0, min(_SHOWN, variants.count))
        raise InputError(
            f"{self.filter.extract} (--extract) and {variants.path} have no SNP in common: "
            f"the list has {_some(self.extract.ids)}, the genotypes {_some(first.id)}"
        )


@dataclass(frozen=True)
class _SnpList:
    """The SNP IDs of a file, each once, in its order; ``notes`` say how it was understood."""

    path: str
    ids: dict[str, None]
    notes: tuple[str, ...]

    @property
    def summary(self) -> str:
        """One line for the log."""
        return "; ".join([f"{self.path}: {len(self.ids):,} SNP IDs listed", *self.notes])


def _read_list(path: str | None, variants: VariantRows) -> _SnpList | None:
    """The SNP IDs of a file, separated by blanks, line ends or commas.

    An ID that has a comma in it, as those of variants with several alleles do, is one name where the .bim has it.
    """
    if path is None:
        return None
    names, notes = read_words(path)
    with_comma = {name for name in names if "," in name}
    known: set[str] = set()
    for _, rows in variants.batches() if with_comma else ():
        known |= with_comma.intersection(rows.id)
    parted = part_names(names, known)
    return _SnpList(path, dict.fromkeys(parted), (*notes, *["commas between IDs"] * (parted != names)))


def _are_in(names: list[str], wanted: dict[str, None]) -> np.ndarray:
    return np.fromiter(map(wanted.__contains__, names), dtype=bool, count=len(names))


def _some(names: Iterable[str]) -> str:
    shown = list(names)
    return ", ".join(shown[:_SHOWN]) + (", ..." if len(shown) > _SHOWN else "") if shown else "nothing"
