"""The traits of a study, grouped by the samples that have them: a group shares one eigendecomposition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from mpgls.errors import InputError
from mpgls.model.deviations import deviations, in_range
from mpgls.model.trait_flags import NOT_ANALYSED, Flag
from mpgls.model.transform import AS_IT_IS, Transform
from mpgls.study.align import Cohort, align
from mpgls.study.categories import Covariates
from mpgls.study.conditioning import ConditioningSnps
from mpgls.study.design import Design
from mpgls.study.plink import Samples
from mpgls.study.tables import SampleId, Table
from mpgls.study.trait_matrix import MaskGroup, TraitMatrix, group_traits, impute


class ModelSamples(NamedTuple):
    """The samples of the model of covariance: those of a kinship, from which every group takes its own.

    Or those of the eigendecomposition in the file ``fixed_by``, which every group must have, in its order.
    """

    ids: Sequence[SampleId]
    fixed_by: str | None = None


@dataclass(frozen=True)
class TraitUse:
    """What traits are read for: grouped by ``policy`` (one of trait_matrix.POLICIES), on the scale of ``transform``.

    ``effects`` is the type in which effects on a trait are kept, None where there are none.
    """

    policy: str
    transform: Transform = AS_IT_IS
    effects: type | None = np.float64


@dataclass(frozen=True)
class TraitGroup:
    """Traits that are analysed over the same n samples.

    ``traits`` are positions in the matrix, those that can be analysed; ``rows`` (n,) .fam rows in the order of the
    analysis, ``matrix_rows`` and ``kinship_index`` (n,) the same samples in the traits' file and in the kinship;
    ``covariates`` are the user's and ``X_L`` (n, q) the orthonormal columns that span them with the intercept. Without
    a kinship ``kinship_index`` is empty. ``imputed`` (len(traits),) says which traits have filled gaps, ``transform``
    on which scale all are.
    """

    traits: np.ndarray
    rows: np.ndarray
    matrix_rows: np.ndarray
    kinship_index: np.ndarray
    covariates: Covariates
    X_L: np.ndarray
    imputed: np.ndarray
    transform: Transform

    @property
    def n(self) -> int:
        """Samples."""
        return self.rows.size

    def read(self, matrix: TraitMatrix, first: int, stop: int) -> np.ndarray:
        """Traits first..stop over the group's samples, less their means: (n, stop-first) float64, Fortran, no gaps."""
        values = self.values(matrix, self.traits[first:stop])
        if self.imputed[first:stop].any():
            values = impute(values, self.X_L)
        D, size, _ = deviations(values, axis=1)
        D *= size
        return D.T

    def values(self, matrix: TraitMatrix, traits: np.ndarray) -> np.ndarray:
        """Traits at positions (k,) of the matrix over the group's samples, on their scale: (k, n); NaN: missing."""
        return self.transform.of(matrix.read(traits)[:, self.matrix_rows], self.X_L)


@dataclass(frozen=True)
class TraitStudy:
    """All traits: the matrix, the groups that are analysed, and what to say of each trait beside its results.

    ``samples`` (t,) is the number of samples that a trait has; ``flags`` (t,) uint8 are bits of `Flag`, and those of a
    trait of no group say why.
    """

    matrix: TraitMatrix
    cohort: Cohort
    groups: tuple[TraitGroup, ...]
    flags: np.ndarray = field(repr=False)
    samples: np.ndarray = field(repr=False)

    def kinship_samples(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The .fam rows (of ``count``) of the samples of any group, ascending, and their positions in the kinship."""
        position = np.full(count, -1, dtype=np.int64)
        for group in self.groups:
            position[group.rows] = group.kinship_index
        samples = np.flatnonzero(position >= 0)
        return samples, position[samples]

    def lines(self) -> list[str]:
        """What the log says of samples, covariates and groups."""
        steps = " > ".join(f"{count:,} {label}" for label, count in self.cohort.funnel)
        left_out = np.count_nonzero(self.flags & NOT_ANALYSED)
        return [
            f"samples: {steps}",
            f"covariates: {', '.join(self.cohort.covariate_names)}",
            *self.cohort.covariates.lines(),
            f"traits: {len(self.matrix.names):,}, {left_out:,} cannot be analysed; {len(self.groups)} group(s) by "
            "samples",
        ]


def group_study(
    matrix: TraitMatrix,
    covariates: Table | None,
    samples: Samples,
    kept: np.ndarray,
    model: ModelSamples | None,
    use: TraitUse,
    conditioning: ConditioningSnps | None = None,
) -> TraitStudy:
    """Intersect the samples of all sources, and group the traits for their ``use``.

    ``samples`` are those of the .fam, ``kept`` the rows that --keep, --remove and --mind leave; the SNPs of
    ``conditioning`` are covariates of every trait. Raises InputError when no sample or too few are left, or a group's
    samples are not those of a given eigendecomposition.
    """
    cohort = _common_samples(matrix, covariates, samples, kept, model)
    if conditioning is not None:
        cohort = cohort.beside(conditioning, "any")
    position = {name: k for k, name in enumerate(matrix.ids)}
    matrix_rows = np.array([position[name] for name in cohort.ids], dtype=np.int64)
    flags = np.zeros(len(matrix.names), dtype=np.uint8)
    counts = np.zeros(len(matrix.names), dtype=np.int64)
    groups = []
    for mask in group_traits(matrix, matrix_rows, use.policy):
        counts[mask.traits] = mask.samples.size
        flags[mask.traits] = found = _flags(mask, cohort, use)
        usable = found & NOT_ANALYSED == 0
        if usable.any():
            groups.append(_trait_group(mask, usable, cohort, matrix_rows, model, use.transform))
    return TraitStudy(matrix, cohort, tuple(groups), flags, counts)


def _common_samples(
    matrix: TraitMatrix, covariates: Table | None, samples: Samples, kept: np.ndarray, model: ModelSamples | None
) -> Cohort:
    """Samples with genotypes, covariates and kinship that are in the traits' file; missing values come later."""
    everyone = Table.of_everyone(matrix.path, matrix.ids, "any")
    ids = samples.ids()
    keep = [ids[row] for row in kept] if kept.size < len(ids) else None
    model_ids = None if model is None else model.ids
    return align(samples, everyone, "any", covariates, model_ids, keep, keep_by="--keep, --remove and --mind")


def _flags(mask: MaskGroup, cohort: Cohort, use: TraitUse) -> np.ndarray:
    """Bits of `Flag` of the traits of a mask: why they cannot be analysed, and whether they are imputed."""
    flags = np.where(mask.missing > 0, Flag.IMPUTED, 0)
    if mask.samples.size == 0:
        return flags | Flag.ALL_MISSING
    if mask.samples.size <= cohort.X_L.shape[1] + 1:
        return flags | Flag.TOO_FEW
    try:
        Design.of(*cohort.covariates.take(mask.samples).columns())
    except InputError:
        return flags | Flag.COLLINEAR
    if use.effects is not None and not use.transform.changes:
        flags |= np.where(in_range(mask.ends[:, 0], mask.ends[:, 1], use.effects), 0, Flag.RANGE)
    return np.where(mask.constant, flags & ~Flag.RANGE | Flag.CONSTANT, flags)


def _trait_group(
    mask: MaskGroup,
    usable: np.ndarray,
    cohort: Cohort,
    matrix_rows: np.ndarray,
    model: ModelSamples | None,
    transform: Transform,
) -> TraitGroup:
    order = mask.samples
    if model is not None and model.fixed_by is not None:
        if order.size != len(model.ids):
            raise InputError(
                f"{model.fixed_by} is the eigendecomposition of {len(model.ids):,} samples, but {mask.traits.size:,} "
                f"trait(s) have {order.size:,} of them: give --grm instead, or use --missing impute or mpgls eigen "
                "--keep"
            )
        order = order[np.argsort(cohort.kinship_index[order])]
    covariates = cohort.covariates.take(order)
    return TraitGroup(
        traits=mask.traits[usable],
        rows=cohort.rows[order],
        matrix_rows=matrix_rows[order],
        kinship_index=cohort.kinship_index[order] if cohort.kinship_index.size else cohort.kinship_index,
        covariates=covariates,
        X_L=Design.of(*covariates.columns()).X_L,
        imputed=mask.missing[usable] > 0,
        transform=transform,
    )
