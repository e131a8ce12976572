"""Parcels of images as the targets of mpgls ridge: their mean signals, and where they lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mpgls.engine.images import check_memory, extract, open_stack
from mpgls.errors import InputError
from mpgls.report.brain_maps import write_parcel_map
from mpgls.report.ridge_table import write_trait_file
from mpgls.run.inputs import Study, say_tables
from mpgls.run.job import Job
from mpgls.study.images import VoxelMatrix, open_voxels
from mpgls.study.nifti import Intent
from mpgls.study.parcels import parcel_means, parcellate
from mpgls.study.sample_ids import SampleId

if TYPE_CHECKING:
    from mpgls.commands.ridge_parts.options import Ridge


EXTRACTED, MEANS = ".voxels.h5", ".parcels.h5"
"""Endings of the voxel matrix made of images, and of the trait file of means."""


@dataclass(frozen=True, eq=False)
class Parcels:
    """``labels`` (v,) says of which parcel each of the ``voxels`` is, from 0. ``table`` is the trait file of means."""

    voxels: VoxelMatrix
    labels: np.ndarray
    table: Path

    def write_maps(self, job: Job, r2: np.ndarray) -> list[Path]:
        """Parcels, from 1, and the R2 of each as images; returns their paths. NaN for a parcel without a result."""
        place = {name: getattr(self.voxels, name) for name in ("shape", "affine", "coordinates")}
        paths = [job.path(".parcels.nii.gz"), job.path(".r2.nii.gz")]
        maps = ((np.arange(1.0, r2.size + 1), Intent.LABEL), (r2, Intent.NONE))
        for path, (values, intent) in zip(paths, maps, strict=True):
            write_parcel_map(path, values=values, labels=self.labels, intent=intent, **place)
        return paths


def open_parcels(options: Ridge, study: Study, job: Job) -> Parcels | None:
    """Make the parcels, and PREFIX.parcels.h5 of their means, that every command takes as --pheno. Collective.

    None where targets are traits. Raises InputError, on all ranks, for images that do not fit the study.
    """
    if options.parcels is None:
        return None
    world, count, table = job.world, options.parcels, job.path(MEANS)
    voxels = _open_voxels(options, study.fileset.samples.ids(), job)

    def make() -> Parcels:
        ids = study.fileset.samples.ids()
        genotyped = {ids[row] for row in study.samples}
        rows = np.array([k for k, name in enumerate(voxels.ids) if name in genotyped], dtype=np.int64)
        if rows.size == 0:
            raise InputError(f"no person of {voxels.path} is among the genotyped samples")
        labels = parcellate(voxels, count, rows)
        means = parcel_means(voxels, labels, rows)
        write_trait_file(table, means, [f"parcel{k + 1}" for k in range(count)], [voxels.ids[k] for k in rows])
        return Parcels(voxels, labels, table)

    with world.phase("parcels"):
        made = world.on_root(make)
    world.log.info(f"parcels: {count:,} of {voxels.v:,} voxels, by Ward's clustering; means in {table}")
    return made


def _open_voxels(options: Ridge, known: Sequence[SampleId], job: Job) -> VoxelMatrix:
    """The voxel matrix that is given, or that of the images; ``known`` samples give FIDs to people without."""
    if options.voxels is not None:
        path = options.voxels
        voxels = job.world.on_root(lambda: open_voxels(path, known))
        job.check_room({MEANS: _mean_bytes(options, len(voxels.ids))})
        say_tables(job.world.log, voxels)
        return voxels
    assert options.images is not None and options.mask is not None
    stack = open_stack(options.images, options.image_ids, options.mask, job.world, known)
    job.check_room({EXTRACTED: stack.nbytes, MEANS: _mean_bytes(options, stack.n)})
    check_memory(stack.held, job.machine(), job.world.log)
    return extract(stack, job.path(EXTRACTED), job.world)


def _mean_bytes(options: Ridge, people: int) -> int:
    """Of the means of all parcels."""
    return 8 * (options.parcels or 0) * people
