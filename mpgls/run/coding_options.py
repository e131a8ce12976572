"""Options that say how the genotypes of a SNP enter the model: by what code, and as how many columns."""

from __future__ import annotations

from dataclasses import dataclass

from mpgls.errors import UsageError
from mpgls.model.coding import ADDITIVE, BY_NAME, Coding
from mpgls.run.options import Options, option
from mpgls.run.study_options import CovariateOptions
from mpgls.study.align import Cohort
from mpgls.study.snp_columns import SnpColumns

CODINGS = ("additive", "dominant", "recessive", "genotypic")
"""additive: copies of the effect allele; dominant: 0 1 1; recessive: 0 0 1; genotypic: additive and 0 1 0 beside it."""


@dataclass(frozen=True, kw_only=True)
class CodingOptions(Options):
    """What of a SNP's genotypes is tested."""

    model: str = option(
        "additive",
        "what a SNP is: additive, copies of the effect allele; dominant, one copy is as good as two; recessive, two "
        "copies are needed; genotypic, additive and heterozygous side by side, with a joint test",
        group="model",
        choices=CODINGS,
    )

    @property
    def coding(self) -> Coding:
        """The numbers of a SNP's column; of the first of two."""
        return BY_NAME.get(self.model, ADDITIVE)


@dataclass(frozen=True, kw_only=True)
class ColumnOptions(CodingOptions):
    """Of commands in which a SNP is one column."""

    model: str = option(
        "additive",
        "what a SNP is: additive, copies of the effect allele; dominant, one copy is as good as two; recessive, two "
        "copies are needed",
        group="model",
        choices=CODINGS[:3],
    )


@dataclass(frozen=True, kw_only=True)
class InteractionOptions(CovariateOptions, CodingOptions):
    """Several columns of a SNP, and tests of them together."""

    interaction: tuple[str, ...] = option(
        (),
        "columns of --covar whose products with each SNP are tested beside it, chosen as by --covar-name; they are "
        "covariates, too",
        group="model",
        metavar="NAME",
    )
    robust: str = option(
        "none",
        "hc3: errors and tests of --interaction and --model genotypic that hold where samples differ in variance",
        group="model",
        choices=("none", "hc3"),
    )

    def check(self) -> None:
        super().check()
        if self.interaction and self.covar is None:
            raise UsageError("--interaction needs --covar")
        if self.robust != "none" and not self.several_columns:
            raise UsageError("--robust belongs to --interaction and --model genotypic")

    @property
    def several_columns(self) -> str:
        """The option that gives a SNP several columns, empty where none does."""
        return "--interaction" if self.interaction else "--model genotypic" if self.model == "genotypic" else ""

    def columns(self, cohort: Cohort) -> SnpColumns:
        """The columns of each SNP over the samples of a cohort; raises as `SnpColumns.of` does."""
        return SnpColumns.of(cohort, self.model == "genotypic", self.coding)

    @property
    def further_covar(self) -> tuple[str, ...]:
        """Columns of --covar that are read whatever --covar-name chooses."""
        return self.interaction
