"""The targets of mpgls ridge over the samples that have all of them, and the folds of these samples."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mpgls.commands.common.inputs import Study, StudyOptions
from mpgls.commands.common.session import Session
from mpgls.commands.common.trait_study import open_trait_study
from mpgls.commands.ridge_parts.config import FoldOptions, RidgeConfig
from mpgls.errors import InputError
from mpgls.la.shared import SharedArray
from mpgls.model.covariates import explained, unit_residuals
from mpgls.model.folds import NestedFolds, folds_of_labels, nested_folds
from mpgls.model.trait_flags import flag_text
from mpgls.mpi import on_root
from mpgls.run.identity import file_identity
from mpgls.run.world import World
from mpgls.study.design import Design
from mpgls.study.sample_labels import sample_labels
from mpgls.study.tables import SampleId, read_table, show_sample
from mpgls.study.trait_groups import TraitGroup
from mpgls.study.trait_matrix import TraitMatrix


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
    covariate_names: tuple[str, ...]
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

    def read(self) -> np.ndarray:
        """All analysed targets in their own units: (n, t) float64."""
        return self.matrix.read(self.traits)[:, self.group.matrix_rows].T

    def unit_residuals(self) -> tuple[np.ndarray, np.ndarray]:
        """Targets without what covariates explain, in units of their standard deviation, (n, t), and those units."""
        return unit_residuals(self.read(), self.group.X_L)


def open_targets(config: RidgeConfig, options: StudyOptions, study: Study, session: Session) -> RidgeTargets:
    """Read targets, covariates and folds, over the samples that have all targets. Collective.

    Raises InputError, on all ranks, where no target varies, a fold cannot be made or the covariates are collinear
    within a training set.
    """
    comm, log = session.comm, session.log
    traits = open_trait_study(options, study, None, "complete", comm, log)
    if not traits.groups:
        raise InputError(f"no target of {options.pheno} can be analysed: all are constant, missing or unknown")
    (group,) = traits.groups
    ids_all = study.fileset.samples.ids()
    ids = [ids_all[row] for row in group.rows]
    if group.n < traits.cohort.rows.size:
        log.info(f"samples: {group.n:,} of {traits.cohort.rows.size:,} have every target and are analysed")
    reasons = {j: flag_text(flags) for j, flags in enumerate(traits.flags.tolist()) if flags}
    names = traits.cohort.covariate_names

    def prepare() -> RidgeTargets:
        blocks = sample_labels(config.blocks, ids) if config.blocks else None
        folds = make_folds(config.folds, config.seed, ids)
        check_folds(folds, group.C, names)
        kept = varying(traits.matrix, group)
        for j in set(group.traits.tolist()) - set(kept.tolist()):
            reasons[j] = "collinear with covariates"
        if kept.size == 0:
            raise InputError("the covariates explain every target entirely: nothing is left to predict")
        return RidgeTargets(traits.matrix, traits.matrix.names, reasons, kept, group, ids, names, folds, blocks)

    found = on_root(comm, prepare)
    sizes = [fold.test.size for fold in found.folds.outer]
    log.info(
        f"folds: {len(sizes)} outer with {min(sizes)} to {max(sizes)} samples, {found.folds.inner_count} inner; "
        f"{found.t:,} targets over {found.n:,} samples"
    )
    return found


def make_folds(options: FoldOptions, seed: int, ids: list[SampleId]) -> NestedFolds:
    """Folds of a file, or dealt by keyed shuffles. Raises InputError."""
    if options.file is not None:
        return read_folds(options.file, ids)
    groups = sample_labels(options.groups, ids) if options.groups else None
    return nested_folds(len(ids), options.outer, options.inner, seed, groups)


def read_folds(path: str, ids: list[SampleId]) -> NestedFolds:
    """Folds from a table FID IID OUTER INNER_1 ... with one column of inner folds for each outer one, in their order.

    The inner label of a sample in its own outer fold's test set is not looked at. Raises InputError.
    """
    table = read_table(path)
    position = {name: k for k, name in enumerate(table.ids)}
    missing = [name for name in ids if name not in position]
    if missing:
        raise InputError(f"{path} has no fold for sample {show_sample(missing[0])} and {len(missing) - 1} others")
    values = table.values[[position[name] for name in ids]]
    outer, inner = values[:, 0], values[:, 1:]
    labels = np.unique(outer)
    if np.isnan(outer).any() or labels.size < 2 or inner.shape[1] != labels.size:
        raise InputError(
            f"{path}: expected FID IID OUTER and one column of inner folds for each of the {labels.size} outer folds "
            f"(at least 2) among the analysed samples, found {inner.shape[1]}"
        )
    counts = set()
    for o, label in enumerate(labels):
        column = inner[outer != label, o]
        if np.isnan(column).any():
            raise InputError(
                f"{path}, column {table.names[o + 1]!r}: a sample outside outer fold {label:g} has no fold"
            )
        counts.add(np.unique(column).size)
    if len(counts) > 1 or counts.pop() < 2:
        raise InputError(f"{path}: every outer fold needs the same number of inner folds, at least 2")
    return folds_of_labels(outer, inner)


def check_folds(folds: NestedFolds, C: np.ndarray, names: tuple[str, ...]) -> None:
    """InputError, naming the fold, if one has no R2 or the covariates are collinear or constant over a training set."""
    outer, inner = len(folds.outer), folds.inner_count
    for k in range(len(folds.tests)):
        training = folds.training(k)
        where = f"outer fold {k + 1}" if k < outer else f"inner fold {(k - outer) % inner + 1} of outer fold "
        where += "" if k < outer else str((k - outer) // inner + 1)
        if folds.tests[k].size < 2:
            raise InputError(f"{where} has a single sample, and R2 needs two: ask for fewer folds")
        if training.size <= len(names):
            raise InputError(f"{where} leaves {training.size} samples to train {len(names)} covariates on")
        try:
            Design.of(C[training], names[1:])
        except InputError as error:
            raise InputError(f"{where}, training samples: {error}") from None


def varying(matrix: TraitMatrix, group: TraitGroup) -> np.ndarray:
    """The traits of a group that the covariates do not explain entirely."""
    kept = []
    for start in range(0, group.traits.size, 256):
        traits = group.traits[start : start + 256]
        kept.append(traits[~explained(matrix.read(traits)[:, group.matrix_rows].T, group.X_L)])
    return np.concatenate(kept)


def share_targets(Y_node: SharedArray, targets: RidgeTargets, world: World) -> np.ndarray:
    """Fill ``Y_node`` (t, n) with the residuals of all targets; returns their standard deviations (t,). Collective."""
    # in Fortran order (t, n) a sample's targets are contiguous: permuting samples copies whole runs
    residuals: np.ndarray | None = None

    def read() -> np.ndarray:
        nonlocal residuals
        residuals, scale = targets.unit_residuals()
        return scale

    with world.phase("read targets"):
        scale = world.on_root(read)
        Y_node.fill(world.comm, None if residuals is None else residuals.T)
    return scale


def with_parcels(config: RidgeConfig, study: Study, session: Session) -> tuple[StudyOptions, dict[str, Any]]:
    """The study options with the means of parcels as phenotypes, and the parcels' geometry (rank 0). Collective.

    The means are written as a trait file, PREFIX.parcels.h5, that every command takes as --pheno.
    """
    if config.image.parcels is None:
        return config.study, {}
    from mpgls.engine.images import check_memory, extract, open_stack
    from mpgls.run.world import World
    from mpgls.study.images import open_voxels
    from mpgls.study.parcels import parcel_means, parcellate

    image, count = config.image, config.image.parcels
    if image.images is not None:
        assert image.mask is not None
        made = session.path(".voxels.h5")
        world = World(session.comm, session.log, session.timings, session.stop)
        stack = open_stack(image.images, image.image_ids, image.mask, world)
        check_memory(stack.held, session.machine(), world.log)
        voxels = extract(stack, made, world)
    else:
        path = image.voxels
        assert path is not None
        voxels = on_root(session.comm, lambda: open_voxels(path))
    table = session.path(".parcels.h5")
    geometry: dict[str, Any] = {}

    def make() -> None:
        ids = study.fileset.samples.ids()
        genotyped = {ids[row] for row in study.samples}
        rows = np.array([k for k, name in enumerate(voxels.ids) if name in genotyped], dtype=np.int64)
        if rows.size == 0:
            raise InputError(f"no person of {voxels.path} is among the genotyped samples")
        labels = parcellate(voxels, count, rows)
        means = parcel_means(voxels, labels, rows)
        _write_traits(table, means, [f"parcel{k + 1}" for k in range(count)], [voxels.ids[k] for k in rows])
        geometry.update(shape=voxels.shape, affine=voxels.affine, coordinates=voxels.coordinates, labels=labels)

    with session.timings.phase("parcels"):
        on_root(session.comm, make)
    session.log.info(f"parcels: {count:,} of {voxels.v:,} voxels, by Ward's clustering; means in {table}")
    identity = on_root(session.comm, lambda: file_identity(voxels.path))
    study.identities.append(identity)
    return replace(config.study, pheno=str(table)), geometry


def _write_traits(path: Path, values: np.ndarray, names: list[str], ids: list[SampleId]) -> None:
    from mpgls.report.ridge_table import write_trait_file

    write_trait_file(path, values, names, ids)
