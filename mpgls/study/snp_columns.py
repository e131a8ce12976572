"""The columns that a SNP has in the model: one, or products with covariates and a column for heterozygotes beside it.

With interactions the k columns of a SNP x are x, x o E_1, x o E_2, ..., each followed by that of heterozygotes where
these are asked for. x is centred and 0 where missing before it is multiplied, and E is the basis of [1 | E] that
`study.design` makes: neither changes a test of an interaction or of all columns, and ``T`` gives the effects of the
user's columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from mpgls.errors import InputError
from mpgls.model.coding import ADDITIVE, Coding
from mpgls.model.deviations import in_range
from mpgls.model.gls import degrees_of_freedom
from mpgls.model.joint_fit import JointModel, joint_products
from mpgls.model.products import partial_products
from mpgls.study.align import Cohort
from mpgls.study.design import Design
from mpgls.study.genotypes import HAPLOID, ON_Y, split_rows

MOST_COLUMNS = 64
"""Columns of a SNP, at most: each SNP has a matrix as wide."""
SNP, DOMINANCE = "SNP", "DOMDEV"
_LOW = np.uint8(0b01010101)


@dataclass(frozen=True, eq=False)
class SnpColumns:
    """The k columns of each SNP over n samples: the ``codings`` of its genotypes times the columns ``E`` (n, e).

    ``codings`` are 1, the genotypes by their ``coding``, or 2, heterozygotes beside them; k is codings times e. A plain
    SNP has no ``model`` of several columns, and no ``E``.
    """

    model: JointModel | None = None
    codings: int = 1
    E: np.ndarray = field(default_factory=lambda: np.ones((0, 1)))
    coding: Coding = ADDITIVE

    @classmethod
    def of(cls, cohort: Cohort, genotypic: bool, coding: Coding = ADDITIVE) -> SnpColumns:
        """Those of a cohort: products with the covariates that interact, and heterozygotes if it is ``genotypic``.

        Raises InputError for too many columns.
        """
        if not (cohort.covariates.interacting or genotypic):
            return cls(coding=coding)
        E, T, names = _basis(cohort)
        codings = 1 + genotypic
        own = (SNP, DOMINANCE)[:codings]
        columns = tuple(f"{one}x{name}" if name else one for name in names for one in own)
        if len(columns) > MOST_COLUMNS:
            raise InputError(f"--interaction makes {len(columns)} columns of each SNP, and {MOST_COLUMNS} are the most")
        model = JointModel(columns, np.kron(T, np.eye(codings)), np.arange(len(columns)) >= codings)
        return cls(model, codings, E, coding)

    @property
    def names(self) -> tuple[str, ...]:
        """What the table calls the k columns."""
        return self.model.names if self.model is not None else (SNP,)

    @property
    def count(self) -> int:
        """k."""
        return len(self.names)

    @property
    def text(self) -> str:
        """For the log."""
        return f"each SNP has {self.count} columns: {', '.join(self.names)}"

    def sources(self, packed: np.ndarray, n_file: int) -> np.ndarray:
        """From the genotypes (B, bytes) of SNPs those of their columns (B k, bytes), side by side."""
        if self.count == 1:
            return packed
        coded = [packed] if self.codings == 1 else [packed, heterozygotes(packed, n_file)]
        return np.stack(coded * self.E.shape[1], axis=1).reshape(-1, packed.shape[1])

    def multiply(self, X: np.ndarray, samples: np.ndarray) -> None:
        """Multiply decoded columns X (r, B k), Fortran order, by those of E, in place; their rows are ``samples``."""
        of_snps = X.T.reshape(X.shape[1] // self.count, self.count, X.shape[0])
        for j in range(self.codings, self.count):
            of_snps[:, j] *= self.E[samples, j // self.codings].astype(X.dtype)

    def products(self, F: np.ndarray, X: np.ndarray) -> np.ndarray:
        """F'X (f, B k), and below it the k rows of products of the columns of a SNP with one another, in float64."""
        return partial_products(F, X) if self.model is None else joint_products(F, X, self.count)


ONE_COLUMN = SnpColumns()
"""A SNP is a column of its own."""


def columns_of_all(cohorts: Mapping[str, Cohort], columns: Callable[[Cohort], SnpColumns]) -> SnpColumns:
    """Those of the first of the ``cohorts``, by trait; the others have the same.

    Raises InputError where the samples of traits have other levels or another base of a category, where they are too
    few for all columns, and where one sample alone has its value of a covariate of two; and what ``columns`` does.
    """
    found = {trait: columns(cohort) for trait, cohort in cohorts.items()}
    first, *others = found
    for trait in others:
        if found[trait].names != found[first].names:
            one, other = (", ".join(found[name].names) for name in (first, trait))
            raise InputError(
                f"--interaction: the samples of {first!r} and {trait!r} have other levels of a category, or another "
                f"base, the level of most samples: {one} and {other}. "
                "Their tables would have other columns: scan them one by one, with --pheno-name"
            )
    for trait, cohort in cohorts.items():
        (n, q), k = cohort.X_L.shape, found[trait].count
        if k > 1 and degrees_of_freedom(n, q, k) < 1:
            raise InputError(
                f"{n} samples are too few to test trait {trait!r} with {q} covariates and {k} columns a SNP"
            )
        _check_interacting(trait, cohort)
    return found[first]


def _check_interacting(trait: str, cohort: Cohort) -> None:
    """A column that sets one sample apart has products that are combinations of it and the SNP.

    In a unit whose squares are no numbers, the effects of products have no covariance.
    """
    columns, names = cohort.covariates.of_interaction().columns()
    for name, column in zip(names, columns.T, strict=True):
        if not in_range(column.min(), column.max()):
            raise InputError(
                f"--interaction: covariate {name!r} goes from {column.min():.3g} to {column.max():.3g}: the squares of "
                "effects of its products are beyond the range of numbers, give it in another unit"
            )
        counts = np.unique(column, return_counts=True)[1]
        if counts.size == 2 and counts.min() == 1:
            raise InputError(
                f"--interaction: one sample of {trait!r} differs from all others in {name!r}, so no product with a SNP "
                "can be tested: leave out that sample or that covariate"
            )


def _basis(cohort: Cohort) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """[1 | E] as columns of mean square 1 (n, e), the T of the user's columns, and their names, the first empty."""
    C, names = cohort.covariates.of_interaction().columns()
    design, root = Design.of(C, names), np.sqrt(cohort.rows.size)
    return root * design.X_L, root * design.T, ("", *names)


def heterozygotes(packed: np.ndarray, n_file: int) -> np.ndarray:
    """Genotypes ``packed`` (B, bytes) with 1 for heterozygotes and 0 for all others, missing ones left as they are.

    A dosage x counts as 1 - |x - 1|, as plink2 has it. Whoever has one copy is no heterozygote.
    """
    made = packed.copy()
    rows, kinds = split_rows(packed, n_file)
    haploid = np.zeros((len(packed), 1), dtype=bool) if kinds is None else np.isin(kinds, (ON_Y, HAPLOID))[:, None]
    if rows.dtype == np.float32:
        one = np.where(haploid, np.float32(0), 1 - np.abs(rows - 1))
        made.view(np.float32)[:, :n_file] = np.where(rows < 0, rows, one)
        return made
    low, high = rows & _LOW, rows >> 1 & _LOW
    both = ~(low | high) & _LOW  # 00, two copies, becomes 11, none
    made[:, : rows.shape[1]] = rows | both | both << 1 | np.where(haploid, high & ~low & _LOW, np.uint8(0))
    return made
