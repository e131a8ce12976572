"""Options that say which genotypes are analysed: the files, and which samples and SNPs of them.

Several commands share them, under PLINK 2's names where it has them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mpgls.errors import UsageError
from mpgls.run.options import Check, Options, at_least, between, flag, option, the_file
from mpgls.study.filters import SnpFilter, parse_chromosomes
from mpgls.study.genotype_files import AS_STORED, Reading
from mpgls.study.ploidy import SexRule
from mpgls.study.sources import GenotypeSource
from mpgls.study.variant_kinds import PSEUDO_AUTOSOMAL

BY_COUNTS = ("maf", "max_maf", "mac", "geno", "hwe", "info")
"""Filters that look at the genotypes of the analysed samples."""
BY_SEX = ("build", "x_model")
"""Options that say what sex makes of genotypes, the table of sexes apart."""


def files_of(flag: str, variants_only: bool = False) -> Callable[[str], Iterable[str]]:
    """The files that a value of ``flag``, one of SOURCES, names, or those of their variants."""
    return lambda value: GenotypeSource(flag, value).files(variants_only)


@dataclass(frozen=True, kw_only=True)
class SampleOptions(Options):
    """Which samples are analysed."""

    keep: str | None = option(
        None,
        "analyse only these samples (FID IID or IID a line)",
        group="genotypes and filters",
        metavar="FILE",
        reads=the_file,
    )
    remove: str | None = option(
        None, "leave these samples out", group="genotypes and filters", metavar="FILE", reads=the_file
    )


SOURCES = ("--bfile", "--bfile-list", "--pfile", "--pfile-list", "--bgen")
"""Options that name genotype files."""


def named_source(options: Options, of_similarity: bool = False) -> GenotypeSource | None:
    """What the one of SOURCES names that is given, or of their like for similarity SNPs. UsageError for several."""
    flags = [one.replace("--", "--similarity-") if of_similarity else one for one in SOURCES]
    values = {flag: getattr(options, flag.removeprefix("--").replace("-", "_")) for flag in flags}
    reading = options.reading if isinstance(options, GenotypeOptions) else AS_STORED
    sample = getattr(options, "similarity_sample" if of_similarity else "sample", None)
    given = [GenotypeSource(flag, value, reading, sample) for flag, value in values.items() if value is not None]
    if len(given) > 1:
        raise UsageError(f"give {' or '.join(one.flag for one in given)}, not both: the genotypes are read from one")
    return given[0] if given else None


@dataclass(frozen=True, kw_only=True)
class GenotypeOptions(SampleOptions):
    """Genotype files and the filters of samples and SNPs."""

    bfile: str | None = option(
        None,
        "PLINK 1 files PREFIX.bed, .bim and .fam; @ in PREFIX stands for 1, 2, ..., X, ...: a file a chromosome",
        group="genotypes and filters",
        metavar="PREFIX",
        reads=files_of("--bfile"),
    )
    bfile_list: str | None = option(
        None,
        "PLINK 1 files of one study, a PREFIX a line, relative to FILE's folder",
        group="genotypes and filters",
        metavar="FILE",
        reads=files_of("--bfile-list"),
    )
    pfile: str | None = option(
        None,
        "PLINK 2 files PREFIX.pgen, .pvar and .psam; @ as in --bfile",
        group="genotypes and filters",
        metavar="PREFIX",
        reads=files_of("--pfile"),
    )
    pfile_list: str | None = option(
        None,
        "PLINK 2 files of one study, a PREFIX a line, relative to FILE's folder",
        group="genotypes and filters",
        metavar="FILE",
        reads=files_of("--pfile-list"),
    )
    bgen: str | None = option(
        None,
        "BGEN 1.2 or 1.3; @ as in --bfile",
        group="genotypes and filters",
        metavar="FILE",
        reads=files_of("--bgen"),
    )
    sample: str | None = option(
        None,
        "Oxford .sample of --bgen; default: the IDs in the .bgen",
        group="genotypes and filters",
        metavar="FILE",
        reads=the_file,
    )
    dosage: str = option(
        "auto",
        "auto: dosages where files have them; hard-call: hard calls all the same",
        group="genotypes and filters",
        choices=("auto", "hard-call"),
    )
    hard_call_threshold: float | None = option(
        None,
        "make hard calls of dosages anew: farther than X from a whole number is missing",
        group="genotypes and filters",
        metavar="X",
        check=between(0, 0.5),
    )
    sex: str | None = option(
        None,
        "table with columns FID IID SEX (1 or M, 2 or F); default: column 5 of the .fam",
        group="genotypes and filters",
        metavar="FILE",
        reads=the_file,
    )
    build: int | None = option(
        None,
        "build of the human genome, which says where X is pseudo-autosomal: 37 or 38",
        group="genotypes and filters",
        metavar="BUILD",
        check=Check("37 or 38", lambda value: value in PSEUDO_AUTOSOMAL),
    )
    x_model: int = option(
        2,
        "a man's copy of X counts 2 (dosage compensation) or 1",
        group="genotypes and filters",
        metavar="1|2",
        check=Check("1 or 2", lambda value: value in (1, 2)),
    )
    mind: float = option(
        1.0, "largest missing share of a sample", group="genotypes and filters", metavar="SHARE", check=between(0, 1)
    )
    chr: str | None = option(None, "chromosomes, such as 1-4,X", group="genotypes and filters", metavar="LIST")
    not_chr: str | None = option(None, "leave these chromosomes out", group="genotypes and filters", metavar="LIST")
    autosome: bool = flag("autosomes only", group="genotypes and filters")
    from_bp: int | None = option(
        None, "first position on the one chromosome of --chr", group="genotypes and filters", metavar="BP"
    )
    to_bp: int | None = option(None, "last position on it", group="genotypes and filters", metavar="BP")
    range: str | None = option(
        None,
        "analyse only these ranges (chromosome, first and last position a line)",
        group="genotypes and filters",
        metavar="FILE",
        reads=the_file,
    )
    extract: str | None = option(
        None,
        "analyse only these SNPs (IDs separated by white space or commas)",
        group="genotypes and filters",
        metavar="FILE",
        reads=the_file,
    )
    exclude: str | None = option(
        None, "leave these SNPs out", group="genotypes and filters", metavar="FILE", reads=the_file
    )
    exclude_negative_bp: bool = flag("leave out SNPs with a negative position", group="genotypes and filters")
    maf: float = option(
        0.0,
        "smallest minor allele frequency",
        group="genotypes and filters",
        metavar="FREQ",
        check=between(0, 0.5),
    )
    max_maf: float = option(
        0.5,
        "largest minor allele frequency",
        group="genotypes and filters",
        metavar="FREQ",
        check=between(0, 0.5),
    )
    mac: float = option(
        0.0, "fewest copies of the rarer allele", group="genotypes and filters", metavar="COPIES", check=at_least(0)
    )
    geno: float = option(
        1.0, "largest missing share of a SNP", group="genotypes and filters", metavar="SHARE", check=between(0, 1)
    )
    info: float = option(
        0.0,
        "smallest imputation quality of dosages, MaCH's r2",
        group="genotypes and filters",
        metavar="R2",
        check=between(0, 1),
    )
    hwe: float = option(
        0.0,
        "smallest p of the exact test of Hardy-Weinberg equilibrium, over all analysed samples",
        group="genotypes and filters",
        metavar="P",
        check=Check("from 0 to below 1", lambda value: 0 <= value < 1),
    )

    def check(self) -> None:
        super().check()
        _ = self.snps  # a list of chromosomes that is none
        _ = self.source  # none, or several
        if self.sample is not None and self.bgen is None:
            raise UsageError("--sample needs --bgen: the other formats have files of samples of their own")
        if self.hard_call_threshold is not None and self.dosage != "hard-call":
            raise UsageError("--hard-call-threshold needs --dosage hard-call: dosages are not rounded otherwise")

    @property
    def reading(self) -> Reading:
        """What is read of files with dosages."""
        return Reading(self.dosage, self.hard_call_threshold)

    @property
    def source(self) -> GenotypeSource:
        """Where the genotypes come from. Raises UsageError."""
        found = named_source(self)
        if found is None:
            raise UsageError(f"{self.command} needs genotypes: one of {', '.join(SOURCES)}")
        return found

    @property
    def sex_rule(self) -> SexRule:
        """What sex makes of genotypes."""
        return SexRule(self.sex, self.build, self.x_model)

    @property
    def snps(self) -> SnpFilter:
        """The filters of SNPs. Raises UsageError."""
        return SnpFilter(
            chromosomes=parse_chromosomes(self.chr) if self.chr is not None else (),
            not_chromosomes=parse_chromosomes(self.not_chr, "--not-chr") if self.not_chr is not None else (),
            autosomes=self.autosome,
            range=self.range,
            from_bp=self.from_bp,
            to_bp=self.to_bp,
            extract=self.extract,
            exclude=self.exclude,
            exclude_negative_bp=self.exclude_negative_bp,
            maf=self.maf,
            max_maf=self.max_maf,
            mac=self.mac,
            geno=self.geno,
            hwe=self.hwe,
            info=self.info,
        )
