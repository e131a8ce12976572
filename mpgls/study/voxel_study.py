"""The samples of a voxelwise study: who has voxels, confounds and a block to be permuted within."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mpgls.errors import InputError, UsageError
from mpgls.model.transform import AS_IT_IS, Transform
from mpgls.study.align import Cohort, align
from mpgls.study.conditioning import ConditioningSnps
from mpgls.study.coordinates import read_coordinates
from mpgls.study.images import VoxelMatrix, open_voxels, show_voxel
from mpgls.study.plink import Samples
from mpgls.study.tables import SampleId, Table, read_table, show_sample
from mpgls.study.trait_matrix import TraitMatrix, open_traits


@dataclass(frozen=True, eq=False)
class VoxelSource:
    """Where the values of voxels are: ``matrix``; ``coordinates`` (v, 3) say which are neighbours, None if unknown."""

    matrix: VoxelMatrix | TraitMatrix
    coordinates: np.ndarray | None

    @classmethod
    def of_matrix(cls, path: str, known: Sequence[SampleId] = ()) -> VoxelSource:
        """A voxel matrix; ``known`` samples give FIDs to people without. Raises InputError, StorageError."""
        matrix = open_voxels(path, known)
        return cls(matrix, matrix.coordinates)

    @classmethod
    def of_traits(
        cls,
        path: str,
        names: Sequence[str],
        coordinates: str | None,
        known: Sequence[SampleId] = (),
        missing_codes: Sequence[float] = (),
    ) -> VoxelSource:
        """Traits, all or those of ``names``, and the table of their places; see `open_traits` for the rest.

        Raises InputError, StorageError.
        """
        matrix = open_traits(path, tuple(names), known, missing_codes)
        return cls(matrix, None if coordinates is None else read_coordinates(coordinates, matrix.names))


@dataclass(frozen=True)
class Confounds:
    """Tables of a voxelwise study: ``covariates``; ``blocks``, a column of exchangeability blocks; None: not given."""

    covariates: Table | None = None
    blocks: Table | None = None

    @classmethod
    def read(
        cls,
        covar: str | None,
        names: Sequence[str],
        blocks: str | None,
        blocks_file: str | None,
        known: Sequence[SampleId] = (),
        missing_codes: Sequence[float] = (),
        categories: Sequence[str] = (),
    ) -> Confounds:
        """Columns ``names`` of the table ``covar``, and the column ``blocks`` of ``blocks_file``, else of ``covar``.

        The column of blocks, of numbers or words, is no covariate. See `read_table` for ``known``, ``missing_codes``
        and ``categories``. Raises InputError, StorageError; UsageError for a column that is missing.
        """
        table = read_table(covar, tuple(names), known, missing_codes, categories) if covar is not None else None
        if blocks is None:
            return cls(table)
        column = read_table(blocks_file or str(covar), (blocks,), known, missing_codes, categories=())
        if len(column.names) > 1:
            raise UsageError(f"--blocks must be one column of {column.path}, and {blocks!r} is {len(column.names)}")
        rows = np.flatnonzero(~np.isnan(column.values[:, 0]))
        groups = replace(column, ids=[column.ids[k] for k in rows], values=column.values[rows])
        if table is not None and blocks_file is None:
            others = [k for k, name in enumerate(table.names) if name != column.names[0]]
            levels = {name: of_name for name, of_name in table.levels.items() if name != column.names[0]}
            names = tuple(table.names[k] for k in others)
            table = replace(table, names=names, values=table.values[:, others], levels=levels)
        return cls(table, groups)

    def tables(self) -> list[Table]:
        """The tables that were read, each with a summary and warnings for the log."""
        return [table for table in (self.covariates, self.blocks) if table is not None]

    def blocks_of(self, ids: Sequence[SampleId]) -> np.ndarray | None:
        """The block of each sample, int64 from 0 on; None without blocks."""
        if self.blocks is None:
            return None
        value = dict(zip(self.blocks.ids, self.blocks.values[:, 0].tolist(), strict=True))
        return np.unique([value[name] for name in ids], return_inverse=True)[1].astype(np.int64)


@dataclass(frozen=True, eq=False)
class VoxelStudy:
    """v voxels of the n analysed samples. Picklable: rank 0 makes it and broadcasts.

    ``rows`` (n,) are the samples' positions in the voxels' file, ``Z`` (n, r) the confounds with the intercept,
    ``blocks`` (n,) their exchangeability blocks or None, ``coordinates`` (v, 3) or None; ``transform`` is the scale of
    voxels that are traits.
    """

    matrix: VoxelMatrix | TraitMatrix
    cohort: Cohort
    rows: np.ndarray
    blocks: np.ndarray | None
    coordinates: np.ndarray | None
    transform: Transform = AS_IT_IS

    @property
    def n(self) -> int:
        """Samples."""
        return self.rows.size

    @property
    def v(self) -> int:
        """Voxels."""
        return self.matrix.v if isinstance(self.matrix, VoxelMatrix) else len(self.matrix.names)

    @property
    def Z(self) -> np.ndarray:
        """Confounds (n, r)."""
        return self.cohort.X_L

    def name(self, voxel: int) -> str:
        """A voxel as messages show it."""
        return show_voxel(self.coordinates[voxel]) if self.coordinates is not None else f"column {voxel + 1}"

    def read(self, first: int, stop: int) -> np.ndarray:
        """Voxels first..stop of the analysed samples: (stop - first, n). InputError for a missing value."""
        if isinstance(self.matrix, VoxelMatrix):
            return self.matrix.columns(first, stop, self.rows).T
        values = self.matrix.read(np.arange(first, stop))[:, self.rows]
        missing = np.isnan(values)
        if missing.any():
            k, i = np.argwhere(missing)[0]
            raise InputError(
                f"{self.matrix.path}: voxel {self.matrix.names[first + k]!r} of sample "
                f"{show_sample(self.cohort.ids[i])} is missing: leave the voxel or the sample out"
            )
        return self.transform.of(values, self.Z)

    def describe(self) -> list[str]:
        """What the log says of it."""
        shown = {"in the phenotype table": f"in {self.matrix.path}"}
        # everybody in the voxels' file has them
        funnel = [step for step in self.cohort.funnel if step[0] != "with a phenotype"]
        where = "with coordinates" if self.coordinates is not None else "without coordinates: no cluster statistics"
        lines = [
            "samples: " + " > ".join(f"{count:,} {shown.get(label, label)}" for label, count in funnel),
            f"confounds: {', '.join(self.cohort.covariate_names)}",
            *self.cohort.covariates.lines(),
            f"voxels: {self.v:,}, {where}",
        ]
        if self.transform.changes:
            lines.append(f"voxels: {self.transform.text}")
        if self.blocks is not None:
            sizes = np.unique(self.blocks, return_counts=True)[1]
            lines.append(f"exchangeability blocks: {sizes.size:,}, of {sizes.min():,} to {sizes.max():,} samples")
        return lines


def align_voxels(
    samples: Samples,
    kept: np.ndarray,
    source: VoxelSource,
    confounds: Confounds,
    transform: Transform = AS_IT_IS,
    conditioning: ConditioningSnps | None = None,
) -> VoxelStudy:
    """Intersect the .fam rows ``kept`` with the people of the voxels, the covariates and the blocks.

    SNPs of ``conditioning`` are confounds.

    Raises InputError where nobody or too few are left, or where confounds are collinear or constant.
    """
    matrix, groups = source.matrix, confounds.blocks
    everyone = Table.of_everyone(matrix.path, matrix.ids, "voxels")
    ids = samples.ids()
    keep = [ids[row] for row in kept]
    if groups is not None:
        known = set(groups.ids)
        keep = [name for name in keep if name in known]
        if not keep:
            raise InputError(f"{groups.path}, column {groups.names[0]!r}: no analysed sample has a block")
    by = "--keep, --remove and --mind" + (" and with a block" if groups is not None else "")
    cohort = align(samples, everyone, "voxels", confounds.covariates, None, keep, keep_by=by)
    if conditioning is not None:
        cohort = cohort.beside(conditioning, "voxels")
    if cohort.rows.size < cohort.X_L.shape[1] + 3:
        raise InputError(f"{cohort.rows.size} samples are too few for {cohort.X_L.shape[1]} confounds and a SNP")
    position = {name: k for k, name in enumerate(matrix.ids)}
    rows = np.array([position[name] for name in cohort.ids], dtype=np.int64)
    return VoxelStudy(matrix, cohort, rows, confounds.blocks_of(cohort.ids), source.coordinates, transform)
