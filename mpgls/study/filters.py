"""Which SNPs are analysed: by chromosome, name and position before the scan, by frequency and missingness during it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mpgls.errors import InputError, UsageError
from mpgls.study.chromosome_names import canonical_chromosome, plain_chromosome
from mpgls.study.genotypes import SnpStats
from mpgls.study.text import part_names, read_words
from mpgls.study.variants import VariantRows, Variants

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
    info: float = 0.0
    """Smallest imputation quality kept, see `SnpStats.info`."""

    def __post_init__(self) -> None:
        if not 0 <= self.maf <= 0.5:
            raise UsageError(f"--maf must be from 0 to 0.5, not {self.maf}")
        if not 0 <= self.geno <= 1:
            raise UsageError(f"--geno must be from 0 to 1, not {self.geno}")


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


def parse_chromosomes(text: str) -> tuple[str, ...]:
    """The chromosomes of a list like ``1-4,X,22``, in its order, each once, as `plain_chromosome` has them.

    Raises
    ------
    UsageError : an empty item or a range that runs backwards.
    """
    names: list[str] = []
    for item in text.split(","):
        name = plain_chromosome(item.strip())
        if not name:
            raise UsageError(f"--chr {text!r} has an empty item")
        ends = re.fullmatch(r"(\d+)-(?:CHR)?(\d+)", name)
        if ends is None:
            names.append(name)
            continue
        first, last = int(ends[1]), int(ends[2])
        if first > last:
            raise UsageError(f"--chr {text!r}: the range {item.strip()} runs backwards")
        names += map(str, range(first, last + 1))
    return tuple(dict.fromkeys(names))


def select_snps(variants: VariantRows, snp_filter: SnpFilter) -> Selection:
    """Apply the filters that need only the .bim, which is read in batches, once as a rule.

    --chr knows chromosomes by all their names (`mpgls.study.chromosome_names`): X means 23, unless the .bim has both.

    Raises
    ------
    StorageError : the .bim or a list of IDs cannot be read.
    InputError : a malformed row of the .bim; an ``--extract`` list without any SNP of it; or no SNP is left.
    """
    scan = _Scan(snp_filter, variants)
    index = [np.flatnonzero(scan.keep(start, rows)) + start for start, rows in variants.batches()]
    if twofold := scan.twofold():
        scan = _Scan(snp_filter, variants, twofold)
        index = [np.flatnonzero(scan.keep(start, rows)) + start for start, rows in variants.batches()]
    scan.check_extract(variants)
    summaries = tuple(one.summary for one in (scan.extract, scan.exclude) if one is not None)
    selection = Selection(np.concatenate(index), variants.count, scan.negative_bp, scan.reasons, summaries)
    if selection.index.size == 0:
        dropped = ", ".join(f"{flag} drops {count}" for flag, count in scan.reasons.items())
        raise InputError(
            f"no SNP of {variants.path} is left: of {variants.count}, {dropped} "
            f"(its chromosomes are {_some(scan.chromosomes)})"
        )
    return selection


class _Scan:
    """The filters, ready to be applied to batch after batch, and their counts so far.

    ``twofold`` are canonical names of chromosomes of which only those count that are written as asked for.
    """

    def __init__(self, snp_filter: SnpFilter, variants: VariantRows, twofold: frozenset[str] = frozenset()) -> None:
        self.filter, self.variants = snp_filter, variants
        self.wanted_chromosomes = frozenset(map(plain_chromosome, snp_filter.chromosomes))
        self.wanted_meanings = frozenset(map(canonical_chromosome, snp_filter.chromosomes)) - twofold
        self.extract = _read_list(snp_filter.extract, variants)
        self.exclude = _read_list(snp_filter.exclude, variants)
        self.chromosomes: dict[str, bool] = {}
        self.extracted = 0
        self.negative_bp = 0
        self.reasons: dict[str, int] = {}

    def keep(self, start: int, rows: Variants) -> np.ndarray:
        """(len(rows),) bool: which rows, of which ``start`` is the first, stay."""
        kept = np.ones(len(rows), dtype=bool)
        on_chromosome = self._on_chromosome(rows)
        if self.wanted_chromosomes:
            kept = self._drop(kept, on_chromosome, "--chr")
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

    def _on_chromosome(self, rows: Variants) -> np.ndarray:
        # few names for many rows: each name is judged once
        for name in dict.fromkeys(rows.chrom):
            if name not in self.chromosomes:
                written, meant = plain_chromosome(name), canonical_chromosome(name)
                self.chromosomes[name] = written in self.wanted_chromosomes or meant in self.wanted_meanings
        return np.fromiter(map(self.chromosomes.__getitem__, rows.chrom), dtype=bool, count=len(rows))

    def twofold(self) -> frozenset[str]:
        """Canonical names that were met written as asked for and otherwise too, so that these are two chromosomes."""
        as_asked = {name: plain_chromosome(name) in self.wanted_chromosomes for name in self.chromosomes}
        met = [{canonical_chromosome(name) for name in as_asked if as_asked[name] is yes} for yes in (True, False)]
        return frozenset((met[0] & met[1]) & self.wanted_meanings)

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


def passes(stats: SnpStats, snp_filter: SnpFilter) -> np.ndarray:
    """(B,) bool: the SNPs that ``--maf``, ``--geno`` and ``--info`` keep, by their counts over the analysed samples.

    A SNP at the threshold is kept. Without ``--maf`` a SNP that is missing in every sample passes it, and keeps its
    row in the results; so does one that does not vary whatever ``--info`` is.
    """
    observed = np.maximum(stats.n_obs, 1)
    # one correctly rounded division each, so that a frequency of exactly 0.05 compares equal to --maf 0.05
    maf = np.minimum(stats.a1_sum, 2.0 * stats.n_obs - stats.a1_sum) / (2.0 * observed)
    missing = (stats.n - stats.n_obs) / max(stats.n, 1)
    kept = (maf >= snp_filter.maf) & (missing <= snp_filter.geno)
    return kept & ~(stats.info < snp_filter.info) if snp_filter.info > 0 else kept
