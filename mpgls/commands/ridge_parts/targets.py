"""The targets of mpgls ridge over the samples that have all of them, and the folds of these samples."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mpgls.errors import InputError
from mpgls.la.shared import SharedArray
from mpgls.model.covariates import explained, unit_residuals
from mpgls.model.folds import NestedFolds, nested_folds
from mpgls.model.trait_flags import flag_text
from mpgls.run.findings import count
from mpgls.run.inputs import Study
from mpgls.run.log import Log
from mpgls.run.trait_inputs import open_trait_study
from mpgls.run.world import World
from mpgls.study.fold_table import check_folds, read_folds
from mpgls.study.sample_labels import family_note, sample_groups, sample_labels
from mpgls.study.tables import SampleId
from mpgls.study.trait_groups import TraitGroup, TraitStudy, TraitUse
from mpgls.study.trait_matrix import TraitMatrix

if TYPE_CHECKING:
    from mpgls.commands.ridge_parts.options import Ridge


@dataclass(frozen=True)
class RidgeTargets:
    """What is predicted: ``traits`` (t,) positions in the matrix of those that vary, over the ``group``'s n samples.

    ``names`` are all that were asked for; ``reasons`` say why some are not analysed. ``blocks`` (n,) are labels of
    exchangeability blocks, if there are any.
    """

    matrix: TraitMatrix = field(repr=False)
    names: tuple[str, ...]
    reasons: dict[int, str]
    traits: np.ndarray
    group: TraitGroup
    ids: list[SampleId] = field(repr=False)
    folds: NestedFolds
    blocks: np.ndarray | None

    @property
    def n(self) -> int:
        """Samples."""
        return self.group.n

    @property
    def t(self) -> int:
        """Targets that are analysed."""
        return self.traits.size

    @property
    def analysed(self) -> list[str]:
        """Their names."""
        return [self.names[j] for j in self.traits]

    def read(self) -> np.ndarray:
        """All analysed targets in their own units, or on the scale of --rint: (n, t) float64."""
        return self.group.values(self.matrix, self.traits).T

    def residuals(self, Y_node: SharedArray, world: World) -> np.ndarray:
        """Fill ``Y_node`` (t, n) with what covariates leave of the targets, over its standard deviation (t,).

        The standard deviations are returned. Collective.
        """
        # in Fortran order (t, n) a sample's targets are contiguous: permuting samples copies whole runs
        left: np.ndarray | None = None

        def read() -> np.ndarray:
            nonlocal left
            left, scale = unit_residuals(self.read(), self.group.X_L)
            return scale

        with world.phase("read targets"):
            scale = world.on_root(read)
            Y_node.fill(world.comm, None if left is None else left.T)
        return scale


def open_targets(options: Ridge, pheno: str, study: Study, world: World) -> RidgeTargets:
    """Read the targets in the file ``pheno``, covariates and folds, over the samples that have all targets. Collective.

    Raises InputError, on all ranks, where no target varies, a fold cannot be made or the covariates are collinear
    within a training set.
    """
    log = world.log
    traits = open_trait_study(options, study, None, TraitUse("complete", options.transform, None), world, pheno)
    if not traits.groups:
        raise InputError(f"no target of {pheno} can be analysed: all are constant, missing or unknown")
    (group,) = traits.groups
    ids_all = study.fileset.samples.ids()
    ids = [ids_all[row] for row in group.rows]
    if group.n < traits.cohort.rows.size:
        log.info(f"samples: {group.n:,} of {traits.cohort.rows.size:,} have every target and are analysed")
    for given, alone in ((options.groups, True), (options.blocks, False)):
        if given is not None and (note := family_note(given, ids, alone)):
            log.info(note)
    found = world.on_root(lambda: _prepare(options, traits, group, ids, log))
    sizes = [fold.test.size for fold in found.folds.outer]
    log.info(
        f"folds: {len(sizes)} outer with {min(sizes)} to {max(sizes)} samples, {found.folds.inner_count} inner; "
        f"{count(found.t, 'target')} over {found.n:,} samples"
    )
    return found


def _prepare(options: Ridge, traits: TraitStudy, group: TraitGroup, ids: list[SampleId], log: Log) -> RidgeTargets:
    blocks = None
    if options.blocks:
        blocks = sample_labels(options.blocks, ids)
        log.info(f"{options.blocks}: {np.unique(blocks).size:,} blocks of {len(ids):,} samples")
    folds = _folds(options, ids, log)
    check_folds(folds, *group.covariates.columns())
    reasons = {j: flag_text(flags) for j, flags in enumerate(traits.flags.tolist()) if flags}
    kept = _varying(traits.matrix, group)
    for j in set(group.traits.tolist()) - set(kept.tolist()):
        reasons[j] = "collinear with covariates"
    if kept.size == 0:
        raise InputError("the covariates explain every target entirely: nothing is left to predict")
    return RidgeTargets(traits.matrix, traits.matrix.names, reasons, kept, group, ids, folds, blocks)


def _folds(options: Ridge, ids: list[SampleId], log: Log) -> NestedFolds:
    """Folds of a file, or dealt by keyed shuffles. Raises InputError."""
    if options.folds_file is not None:
        log.info(f"{options.folds_file}: outer and inner folds of {len(ids):,} samples")
        return read_folds(options.folds_file, ids)
    groups = None
    if options.groups:
        groups = sample_groups(options.groups, ids)
        log.info(f"{options.groups}: {np.unique(groups).size:,} groups of {len(ids):,} samples")
    return nested_folds(len(ids), options.outer_folds, options.inner_folds, options.seed, groups)


def _varying(matrix: TraitMatrix, group: TraitGroup) -> np.ndarray:
    """The traits of a group that the covariates do not explain entirely."""
    kept = []
    for start in range(0, group.traits.size, 256):
        traits = group.traits[start : start + 256]
        kept.append(traits[~explained(group.values(matrix, traits).T, group.X_L)])
    return np.concatenate(kept)
