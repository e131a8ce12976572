"""The analysed samples: those that genotypes, trait, covariates and kinship have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from mpgls.errors import InputError, UsageError
from mpgls.model.deviations import deviations, in_range
from mpgls.model.transform import Transform
from mpgls.study.categories import Covariates
from mpgls.study.conditioning import ConditioningSnps
from mpgls.study.design import Design, named
from mpgls.study.tables import SampleId, Table, index_ids, show_sample

if TYPE_CHECKING:
    from mpgls.study.plink import Samples

EXPLAINED = 1e-10
"""Share of a trait's norm that covariates must leave, or they explain all of it."""
_ORDINARY = (2.0**-60, 2.0**60)
"""Standard deviations for which no product leaves the range of float32; other traits are divided by a power of two."""


@dataclass(frozen=True)
class Cohort:
    """The n analysed samples of one trait, in genotype order, and their null model's data.

    ``rows`` (n,) int64 are their positions in the .fam, ascending; ``y`` (n,) is the trait less its mean ``center``, in
    units of ``unit``, a power of two that is 1 for any ordinary trait; ``covariates`` are the user's and ``design`` the
    basis that is fitted; ``kinship_index`` (n,) int64 is the position of each sample in the kinship
    (empty if there is none). ``funnel`` says how many samples were left after each step, the genotypes' own number
    first and n last.
    """

    rows: np.ndarray
    ids: list[SampleId]
    y: np.ndarray
    center: float
    unit: float
    covariates: Covariates
    design: Design
    kinship_index: np.ndarray
    funnel: tuple[tuple[str, int], ...]

    @property
    def X_L(self) -> np.ndarray:
        """(n, p-1): orthonormal columns that span the intercept and the covariates."""
        return self.design.X_L

    @property
    def covariate_names(self) -> tuple[str, ...]:
        """The intercept and the covariates, as the user calls them."""
        return self.design.names

    def ordered(self, order: np.ndarray) -> Cohort:
        """The same samples in another order."""
        return replace(
            self,
            rows=self.rows[order],
            ids=[self.ids[k] for k in order],
            y=self.y[order],
            covariates=self.covariates.take(order),
            design=self.design.ordered(order),
            kinship_index=self.kinship_index[order],
        )

    def beside(self, snps: ConditioningSnps, trait: str) -> Cohort:
        """The same samples with ``snps`` among the covariates of the trait.

        Raises InputError where one does not vary, or depends on covariates, or too few samples are left for a SNP.
        """
        if not snps.ids:
            return self
        covariates = self.covariates.beside(snps, self.rows)
        design = Design.of(*covariates.columns())
        _check_trait(self.y, trait, columns=len(design.names) + 1)
        return replace(self, covariates=covariates, design=design)

    def transformed(self, transform: Transform, trait: str) -> Cohort:
        """The same samples with the trait, which is called ``trait``, on another scale."""
        if not transform.changes:
            return self
        (y,) = transform.of(self.y[None], self.X_L)
        values, center, unit = centred(y, trait)
        return replace(self, y=values, center=center, unit=unit)


def centred(y: np.ndarray, trait: str) -> tuple[np.ndarray, float, float]:
    """A trait (n,) less its mean and in a unit of an ordinary size; the mean and the unit.

    Raises InputError for a trait whose squares are no numbers of float64.
    """
    low, high = y.min(), y.max()
    if not in_range(low, high):
        raise InputError(
            f"trait {trait!r} goes from {low:.3g} to {high:.3g}: the squares of its deviations are beyond the range of "
            "numbers, give it in another unit"
        )
    D, size, mean = deviations(y)
    deviation = np.sqrt(np.square(D).mean()) * size[0]
    unit = 1.0 if _ORDINARY[0] <= deviation <= _ORDINARY[1] else 2.0 ** round(np.log2(deviation))
    return D * (size[0] / unit), float(mean[0] * size[0]), unit


def align(
    samples: Samples,
    phenotype: Table | None,
    trait: str,
    covariates: Table | None,
    kinship_ids: Sequence[SampleId] | None,
    keep: Iterable[SampleId] | None = None,
    remove: Iterable[SampleId] | None = None,
    keep_by: str = "--keep",
    remove_by: str = "--remove",
) -> Cohort:
    """Intersect all sources by (FID, IID) and check that the null model can be fitted.

    ``trait`` names a column of ``phenotype``, or only labels the .fam's own phenotype when ``phenotype`` is
    None. A sample stays if it is in every source that is given, is in ``keep``, is not in ``remove``, and
    has a trait value and every covariate. ``keep_by`` and ``remove_by`` are the options that made these lists.

    Raises InputError when two sources share no sample, a source lists a sample twice, no more samples than
    model columns remain, the trait is constant, or a covariate is constant or collinear with others; UsageError
    when ``phenotype`` has no column ``trait``.
    """
    funnel = _Funnel(samples.ids())
    if keep is not None:  # a repetition in a list to keep is harmless; dict.fromkeys drops it and keeps the order
        funnel.require(list(dict.fromkeys(keep)), f"the {keep_by} list", f"after {keep_by}")
    if remove is not None:
        funnel.drop(set(remove), f"after {remove_by}", f"no sample to analyse is left after {remove_by}")
    y = _trait_values(funnel, samples, phenotype, trait)
    everybodys = _covariates(funnel, covariates)
    kinship_position = np.empty(0, dtype=np.int64)
    if kinship_ids is not None:
        kinship_position = funnel.require(kinship_ids, "the kinship", "in the kinship")

    rows = np.flatnonzero(funnel.kept).astype(np.int64)
    y = np.ascontiguousarray(y[rows])
    cohorts_own = everybodys.take(rows)
    C, names = cohorts_own.columns()
    _check_trait(y, trait, columns=len(names) + 2)
    values, center, unit = centred(y, trait)
    return Cohort(
        rows=rows,
        ids=[funnel.ids[row] for row in rows],
        y=values,
        center=center,
        unit=unit,
        covariates=cohorts_own,
        design=Design.of(C, names),
        kinship_index=kinship_position[rows] if kinship_ids is not None else kinship_position,
        funnel=tuple(funnel.steps),
    )


def check_explained(cohort: Cohort, trait: str) -> None:
    """InputError when the covariates leave nothing of the trait."""
    X_L, y = cohort.X_L, cohort.y
    left = y - X_L @ (X_L.T @ y)
    if np.linalg.norm(left) <= EXPLAINED * np.linalg.norm(y):
        raise InputError(f"trait {trait!r} is explained entirely by the covariates {named(cohort.covariate_names[1:])}")


class _Funnel:
    """Which genotyped samples are still in, and how many were after each step."""

    def __init__(self, ids: list[SampleId]) -> None:
        self.ids = ids
        self.kept = np.ones(len(ids), dtype=bool)
        self.steps: list[tuple[str, int]] = []
        self.narrow(self.kept, "in the genotypes", "the genotypes have no samples")

    def require(self, listed: Sequence[SampleId], source: str, label: str) -> np.ndarray:
        """Keep the samples that ``listed`` has too; their positions in it (-1: absent), for all genotyped samples.

        InputError, with examples of both sides, if none is left.
        """
        index = index_ids(listed, source)
        position = np.fromiter((index.get(sample, -1) for sample in self.ids), np.int64, len(self.ids))
        found = position >= 0
        if not np.any(self.kept & found):
            raise InputError(self._nothing_in_common(listed, source))
        self.narrow(found, label, "")
        return position

    def drop(self, listed: set[SampleId], label: str, complaint: str) -> None:
        """Keep the samples that are not in ``listed``; InputError with ``complaint`` if none is left."""
        absent = np.fromiter((sample not in listed for sample in self.ids), bool, len(self.ids))
        self.narrow(absent, label, complaint)

    def narrow(self, condition: np.ndarray, label: str, complaint: str) -> None:
        """Keep the samples where ``condition`` holds; InputError with ``complaint`` if none is left."""
        self.kept = self.kept & condition
        count = int(np.count_nonzero(self.kept))
        if count == 0:
            raise InputError(complaint)
        self.steps.append((label, count))

    def _nothing_in_common(self, listed: Sequence[SampleId], source: str) -> str:
        if not listed:
            return f"{source} lists no samples"
        left = [self.ids[row] for row in np.flatnonzero(self.kept)[:3]]
        message = (
            f"the genotypes and {source} have no samples in common (FID IID): "
            f"the genotypes have {_examples(left)}; {source} has {_examples(listed[:3])}"
        )
        individuals = {iid for _, iid in listed}
        if any(self.ids[row][1] in individuals for row in np.flatnonzero(self.kept)):
            message += "; some IIDs agree, but their FIDs differ"
        return message


def _trait_values(funnel: _Funnel, samples: Samples, phenotype: Table | None, trait: str) -> np.ndarray:
    """The trait of every genotyped sample, NaN where it is missing; samples without it leave the funnel."""
    if phenotype is None:
        y = np.asarray(samples.phenotype, dtype=np.float64)
        source = samples.path
    else:
        if trait not in phenotype.names:
            raise UsageError(f"{phenotype.path} has no column {trait!r}; its columns are {', '.join(phenotype.names)}")
        source = phenotype.path
        position = funnel.require(phenotype.ids, source, "in the phenotype table")
        column = phenotype.names.index(trait)
        y = _take(phenotype.values[:, column], position)
    funnel.narrow(
        np.isfinite(y),
        "with a phenotype",
        f"every sample left after '{funnel.steps[-1][0]}' misses trait {trait!r} of {source}",
    )
    return y


def _covariates(funnel: _Funnel, covariates: Table | None) -> Covariates:
    """The covariates of every genotyped sample; incomplete samples leave the funnel."""
    if covariates is None:
        return Covariates.none(len(funnel.ids))
    position = funnel.require(covariates.ids, covariates.path, "in the covariate table")
    values = _take(covariates.values, position)
    funnel.narrow(
        np.isfinite(values).all(axis=1),
        "with all covariates",
        f"no sample with a phenotype has all covariates of {covariates.path} ({', '.join(covariates.names)})",
    )
    return Covariates(values, covariates.names, covariates.levels, covariates.further)


def _take(values: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Rows of ``values`` at ``position``, NaN where the position is -1."""
    taken = values[position]
    taken[position < 0] = np.nan
    return taken


def _check_trait(y: np.ndarray, trait: str, columns: int) -> None:
    if y.size <= columns:
        raise InputError(
            f"{y.size} samples are too few to test trait {trait!r} with {columns} columns in the model "
            "(intercept, covariates and SNP)"
        )
    if y.min() == y.max():
        raise InputError(f"trait {trait!r} is constant ({y[0]:g}) over the {y.size} analysed samples")


def _examples(ids: Sequence[SampleId]) -> str:
    return ", ".join(show_sample(sample) for sample in ids)
