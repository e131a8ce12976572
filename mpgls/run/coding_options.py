"""Options that say how the genotypes of a SNP enter the model: by what code, and as how many columns."""

from __future__ import annotations

from dataclasses import dataclass

from mpgls.model.coding import ADDITIVE, BY_NAME, Coding
from mpgls.run.options import Options, option

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
