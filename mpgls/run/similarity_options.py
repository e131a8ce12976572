"""Options that say which SNPs measure similarity."""

from __future__ import annotations

from dataclasses import dataclass

from mpgls.errors import UsageError
from mpgls.run.genotype_options import files_of
from mpgls.run.options import Options, at_least, flag, option, the_file

SIMILARITY = "similarity SNPs (one of the first three)"


@dataclass(frozen=True, kw_only=True)
class SimilarityOptions(Options):
    """Which SNPs measure similarity."""

    all_chromosomes: bool = flag(
        "X, Y, XY and MT measure similarity too; default: only where --chr of kinship or --similarity-snps names them",
        group="genotypes and filters",
    )


@dataclass(frozen=True, kw_only=True)
class SimilaritySnpOptions(SimilarityOptions):
    """K SNPs instead of a kinship; exactly one of ``similarity_snps``, ``_every`` and ``_count`` is given."""

    similarity_snps: str | None = option(
        None, "these SNPs (IDs separated by white space or commas)", group=SIMILARITY, metavar="FILE", reads=the_file
    )
    similarity_every: int | None = option(None, "every K-th SNP", group=SIMILARITY, metavar="K", check=at_least(1))
    similarity_count: int | None = option(
        None, "K SNPs at equal distances in the .bim", group=SIMILARITY, metavar="K", check=at_least(1)
    )
    similarity_bfile: str | None = option(
        None,
        "PLINK 1 files that they are taken from; default: the tested ones",
        group=SIMILARITY,
        metavar="PREFIX",
        reads=files_of("--bfile"),
    )
    similarity_bfile_list: str | None = option(
        None,
        "several such files, a PREFIX a line",
        group=SIMILARITY,
        metavar="FILE",
        reads=files_of("--bfile-list"),
    )
    similarity_pfile: str | None = option(
        None,
        "PLINK 2 files that they are taken from",
        group=SIMILARITY,
        metavar="PREFIX",
        reads=files_of("--pfile"),
    )
    similarity_pfile_list: str | None = option(
        None, "several such files, a PREFIX a line", group=SIMILARITY, metavar="FILE", reads=files_of("--pfile-list")
    )
    similarity_bgen: str | None = option(
        None, "BGEN that they are taken from", group=SIMILARITY, metavar="FILE", reads=files_of("--bgen")
    )
    similarity_sample: str | None = option(
        None, "Oxford .sample of --similarity-bgen", group=SIMILARITY, metavar="FILE", reads=the_file
    )
    no_loco: bool = flag("do not leave out the similarity SNPs of a SNP's chromosome", group=SIMILARITY)

    def check(self) -> None:
        super().check()
        ways = (self.similarity_snps, self.similarity_every, self.similarity_count)
        if sum(way is not None for way in ways) != 1:
            raise UsageError(
                f"{self.command} needs one of --similarity-snps, --similarity-every and --similarity-count: "
                "the SNPs that measure similarity"
            )
