"""The tables of synthetic samples as lines of text: who they are, their traits, covariates and causal SNPs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from mpgls.study.synthetic_haplotypes import Families
from mpgls.study.synthetic_traits import Traits


class SampleNames:
    """FID and IID of every sample, and what else the .fam says of it."""

    def __init__(self, families: Families, seed: int) -> None:
        pairs = zip(families.family.tolist(), families.member.tolist(), strict=True)
        self.ids = [(f"F{family + 1}", f"F{family + 1}_{member + 1}") for family, member in pairs]
        self.sexes = families.sexes(seed).tolist()
        self.parents = [
            [self.ids[p][1] if p >= 0 else "0" for p in pair]
            for pair in zip(families.father.tolist(), families.mother.tolist(), strict=True)
        ]

    def header(self, names: Sequence[str]) -> str:
        """The first line of a table with these columns."""
        return "\t".join(["FID", "IID", *names]) + "\n"

    def row(self, k: int, texts: Sequence[str]) -> str:
        """The row of sample k in a table."""
        return "\t".join([*self.ids[k], *texts]) + "\n"

    def fam(self, k: int, trait: str) -> str:
        """The line of sample k in the .fam."""
        return " ".join([*self.ids[k], *self.parents[k], str(self.sexes[k]), trait]) + "\n"


def trait_rows(traits: Traits) -> Iterator[tuple[int, list[str]]]:
    """(sample, its trait values as text)."""
    for start, values in traits.slabs():
        for k, row in enumerate(values.tolist(), start=start):
            yield k, [f"{value:.8g}" for value in row]


def covariate_lines(names: SampleNames, table: np.ndarray) -> Iterator[str]:
    """The table of covariates (n, count)."""
    yield names.header([f"covar{k + 1}" for k in range(table.shape[1])])
    for k, row in enumerate(table.tolist()):
        yield names.row(k, [f"{value:.6g}" for value in row])


def causal_lines(traits: Traits) -> Iterator[str]:
    """The table of causal SNPs and their effects."""
    yield "trait\tSNP\teffect\n"
    for j, snp, effect in traits.causal_rows():
        yield f"trait{j + 1}\trs{snp + 1}\t{effect:.8g}\n"
