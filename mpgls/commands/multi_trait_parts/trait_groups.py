"""The traits of a multi-trait scan, grouped by the samples that have them: a group shares one eigendecomposition."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mpgls.commands.common.inputs import Study, StudyOptions
from mpgls.errors import InputError
from mpgls.mpi import on_root
from mpgls.report.trait_table import Flag
from mpgls.study.align import Cohort, align, check_design
from mpgls.study.tables import Table, read_table
from mpgls.study.trait_matrix import MaskGroup, TraitMatrix, group_traits, impute, open_traits

if TYPE_CHECKING:
    from mpi4py import MPI

    from mpgls.run.log import Log
    from mpgls.stream.eigen_file import EigenFile


@dataclass(frozen=True)
class TraitGroup:
    """Traits that are analysed over the same n samples.

    ``traits`` are positions in the matrix, those that can be analysed; ``rows`` (n,) .fam rows in the order of the
    analysis, ``matrix_rows`` and ``kinship_index`` (n,) the same samples in the traits' file and in the kinship;
    ``X_L`` (n, q). Without a kinship ``kinship_index`` is empty. ``imputed`` (len(traits),) says which traits have
    filled gaps.
    """

    traits: np.ndarray
    rows: np.ndarray
    matrix_rows: np.ndarray
    kinship_index: np.ndarray
    X_L: np.ndarray
    imputed: np.ndarray

    @property
    def n(self) -> int:
        """Samples."""
        return self.rows.size

    def read(self, matrix: TraitMatrix, first: int, stop: int) -> np.ndarray:
        """Traits first..stop of the group over its samples: (n, stop-first) float64, Fortran order, no gaps."""
        values = matrix.read(self.traits[first:stop])[:, self.matrix_rows]
        if self.imputed[first:stop].any():
            values = impute(values, self.X_L)
        return values.T


@dataclass(frozen=True)
class TraitStudy:
    """All traits: the matrix, the groups that are analysed, and what to say of each trait beside its results.

    ``samples`` (t,) is the number of samples that a trait has; traits of no group have a flag that says why.
    """

    matrix: TraitMatrix
    cohort: Cohort
    groups: tuple[TraitGroup, ...]
    flags: tuple[tuple[Flag, ...], ...] = field(repr=False)
    samples: np.ndarray = field(repr=False)


def open_trait_study(
    options: StudyOptions, study: Study, eigen: EigenFile | None, policy: str, comm: MPI.Comm, log: Log
) -> TraitStudy:
    """Open the traits, intersect the samples, and group. Collective; raises what is wrong on all ranks.

    With ``eigen`` every group's samples must be those of the eigendecomposition, in its order.
    """
    assert options.pheno is not None
    pheno = options.pheno
    matrix = on_root(comm, lambda: open_traits(pheno, options.pheno_name))
    made = on_root(comm, lambda: _group(options, study, matrix, eigen, policy))
    steps = " > ".join(f"{count:,} {label}" for label, count in made.cohort.funnel)
    log.info(f"samples: {steps}")
    log.info(f"covariates: {', '.join(made.cohort.covariate_names)}")
    left_out = sum(1 for flags in made.flags if any(flag in NOT_ANALYSED for flag in flags))
    log.info(f"traits: {len(matrix.names):,}, {left_out:,} cannot be analysed; {len(made.groups)} group(s) by samples")
    return made


NOT_ANALYSED = (Flag.CONSTANT, Flag.ALL_MISSING, Flag.COLLINEAR, Flag.TOO_FEW)


def _group(
    options: StudyOptions, study: Study, matrix: TraitMatrix, eigen: EigenFile | None, policy: str
) -> TraitStudy:
    cohort = _common_samples(options, study, matrix, eigen)
    position = {name: k for k, name in enumerate(matrix.ids)}
    matrix_rows = np.array([position[name] for name in cohort.ids], dtype=np.int64)
    flags: list[list[Flag]] = [[] for _ in matrix.names]
    samples = np.zeros(len(matrix.names), dtype=np.int64)
    groups = []
    for mask in group_traits(matrix, matrix_rows, policy):
        samples[mask.traits] = mask.samples.size
        usable = _flag(mask, cohort, flags)
        if usable.any():
            groups.append(_trait_group(mask, usable, cohort, matrix_rows, eigen))
    return TraitStudy(matrix, cohort, tuple(groups), tuple(map(tuple, flags)), samples)


def _common_samples(options: StudyOptions, study: Study, matrix: TraitMatrix, eigen: EigenFile | None) -> Cohort:
    """Samples with genotypes, covariates and kinship that are in the traits' file; missing values come later."""
    everyone = Table.of_everyone(matrix.path, matrix.ids, "any")
    covariates = read_table(options.covar, options.covar_name) if options.covar else None
    ids = study.fileset.samples.ids()
    keep = [ids[row] for row in study.samples] if study.samples.size < len(ids) else None
    kinship_ids = eigen.ids if eigen is not None else study.kinship.ids if study.kinship is not None else None
    return align(
        study.fileset.samples, everyone, "any", covariates, kinship_ids, keep, keep_by="--keep, --remove and --mind"
    )


def _flag(mask: MaskGroup, cohort: Cohort, flags: list[list[Flag]]) -> np.ndarray:
    """Which traits of a mask can be analysed; the others, and imputed ones, get their flags."""
    usable = ~mask.constant
    reason: Flag | None = None
    if mask.samples.size == 0:
        reason = Flag.ALL_MISSING
    elif mask.samples.size <= cohort.X_L.shape[1] + 1:
        reason = Flag.TOO_FEW
    else:
        try:
            check_design(cohort.X_L[mask.samples], cohort.covariate_names)
        except InputError:
            reason = Flag.COLLINEAR
    for k, trait in enumerate(mask.traits):
        if reason is not None:
            flags[trait].append(reason)
        elif mask.constant[k]:
            flags[trait].append(Flag.CONSTANT)
        if mask.missing[k]:
            flags[trait].append(Flag.IMPUTED)
    return usable & (reason is None)


def _trait_group(
    mask: MaskGroup, usable: np.ndarray, cohort: Cohort, matrix_rows: np.ndarray, eigen: EigenFile | None
) -> TraitGroup:
    order = mask.samples
    if eigen is not None:
        if order.size != eigen.n:
            raise InputError(
                f"{eigen.path} is the eigendecomposition of {eigen.n:,} samples, but {mask.traits.size:,} trait(s) "
                f"have {order.size:,} of them: give --grm instead, or use --missing impute or mpgls eigen --keep"
            )
        order = order[np.argsort(cohort.kinship_index[order])]
    return TraitGroup(
        traits=mask.traits[usable],
        rows=cohort.rows[order],
        matrix_rows=matrix_rows[order],
        kinship_index=cohort.kinship_index[order] if cohort.kinship_index.size else cohort.kinship_index,
        X_L=np.asfortranarray(cohort.X_L[order]),
        imputed=mask.missing[usable] > 0,
    )
