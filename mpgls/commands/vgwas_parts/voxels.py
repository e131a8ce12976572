"""The voxels of a voxelwise GWAS: who is analysed, and the residuals R_Y, resident or streamed."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mpgls.commands.common.inputs import Study, StudyOptions
from mpgls.commands.vgwas_parts.config import VgwasConfig
from mpgls.errors import InputError
from mpgls.la.shared import SharedArray, split_node
from mpgls.la.teams import Team
from mpgls.model.mulm import CONSTANT_VOXEL, unit_residuals
from mpgls.mpi import agree, on_root
from mpgls.study.align import Cohort, align
from mpgls.study.coordinates import read_coordinates
from mpgls.study.images import VoxelMatrix, open_voxels, show_voxel
from mpgls.study.tables import Table, read_table, show_sample
from mpgls.study.trait_matrix import TraitMatrix, open_traits

if TYPE_CHECKING:
    from mpi4py import MPI

    from mpgls.commands.common.session import Session
    from mpgls.commands.vgwas_parts.plan import VgwasPlan

READ_BYTES = 32 << 20
"""Values that are read together while residuals are made."""


@dataclass(frozen=True)
class VoxelStudy:
    """v voxels of the n analysed samples. Picklable: rank 0 makes it and broadcasts.

    ``rows`` (n,) are the samples' positions in the voxels' file, ``Z`` (n, r) the confounds with the intercept,
    ``blocks`` (n,) their exchangeability blocks or None, ``coordinates`` (v, 3) or None.
    """

    matrix: VoxelMatrix | TraitMatrix
    cohort: Cohort
    rows: np.ndarray
    blocks: np.ndarray | None
    coordinates: np.ndarray | None

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
        return values


def open_voxel_study(config: VgwasConfig, study: Study, path: str | None, session: Session) -> VoxelStudy:
    """Open the voxels at ``path`` (None: the traits) and intersect the samples. Collective."""
    made = on_root(session.comm, lambda: _open(config, study, path))
    shown = {"in the phenotype table": f"in {made.matrix.path}"}
    # everybody in the voxels' file has them
    funnel = [step for step in made.cohort.funnel if step[0] != "with a phenotype"]
    steps = " > ".join(f"{count:,} {shown.get(label, label)}" for label, count in funnel)
    session.log.info(f"samples: {steps}")
    session.log.info(f"confounds: {', '.join(made.cohort.covariate_names)}")
    where = "with coordinates" if made.coordinates is not None else "without coordinates: no cluster statistics"
    session.log.info(f"voxels: {made.v:,}, {where}")
    if made.blocks is not None:
        sizes = np.unique(made.blocks, return_counts=True)[1]
        session.log.info(f"exchangeability blocks: {sizes.size:,}, of {sizes.min():,} to {sizes.max():,} samples")
    return made


def _open(config: VgwasConfig, study: Study, path: str | None) -> VoxelStudy:
    options = config.study
    coordinates = None
    matrix: VoxelMatrix | TraitMatrix
    if path is not None:
        matrix = open_voxels(path)
        coordinates = matrix.coordinates
    else:
        assert options.pheno is not None
        matrix = open_traits(options.pheno, options.pheno_name)
        if config.coordinates is not None:
            coordinates = read_coordinates(config.coordinates, matrix.names)
    covariates, groups = _covariates(options, config)
    everyone = Table.of_everyone(matrix.path, matrix.ids, "voxels")
    ids = study.fileset.samples.ids()
    keep = [ids[row] for row in study.samples]
    if groups is not None:
        known = set(groups.ids)
        keep = [name for name in keep if name in known]
        if not keep:
            raise InputError(f"{groups.path}, column {config.blocks!r}: no analysed sample has a block")
    by = "--keep, --remove and --mind" + (" and with a block" if groups is not None else "")
    cohort = align(study.fileset.samples, everyone, "voxels", covariates, None, keep, keep_by=by)
    if cohort.rows.size < cohort.X_L.shape[1] + 3:
        raise InputError(f"{cohort.rows.size} samples are too few for {cohort.X_L.shape[1]} confounds and a SNP")
    position = {name: k for k, name in enumerate(matrix.ids)}
    rows = np.array([position[name] for name in cohort.ids], dtype=np.int64)
    return VoxelStudy(matrix, cohort, rows, _blocks_of(cohort, groups), coordinates)


def _covariates(options: StudyOptions, config: VgwasConfig) -> tuple[Table | None, Table | None]:
    """The covariates without the column of the exchangeability blocks, and that column, without missing values."""
    groups = None
    if config.blocks is not None:
        table = read_table(config.blocks_file or str(options.covar), (config.blocks,))
        known = np.flatnonzero(~np.isnan(table.values[:, 0]))
        groups = Table(table.path, [table.ids[k] for k in known], table.names, table.values[known])
    covariates = read_table(options.covar, options.covar_name) if options.covar else None
    if covariates is None or config.blocks is None or config.blocks_file is not None:
        return covariates, groups
    others = [k for k, name in enumerate(covariates.names) if name != config.blocks]
    names = tuple(covariates.names[k] for k in others)
    return Table(covariates.path, covariates.ids, names, covariates.values[:, others]), groups


def _blocks_of(cohort: Cohort, groups: Table | None) -> np.ndarray | None:
    if groups is None:
        return None
    value = dict(zip(groups.ids, groups.values[:, 0].tolist(), strict=True))
    return np.unique([value[name] for name in cohort.ids], return_inverse=True)[1].astype(np.int64)


class Chunk(NamedTuple):
    """Voxels from ``first`` on: unit residuals R_Y (w, n) and their lengths before scaling (w,)."""

    first: int
    R_Y: np.ndarray
    lengths: np.ndarray


class TeamVoxels:
    """This rank's share of the voxels of its team, as chunks of unit residuals; iterating is no communication.

    Resident voxels are one chunk, made once; in teams of one rank the ranks of a node share it. Streamed voxels are
    read and made anew in each pass, the next chunk being read by a thread while this one is worked on.
    """

    def __init__(self, voxels: VoxelStudy, Z_w: np.ndarray, plan: VgwasPlan, team: Team, session: Session) -> None:
        self.voxels, self.Z_w, self.dtype, self.session = voxels, Z_w, plan.dtype, session
        self.first = voxels.v * team.comm.rank // team.comm.size
        self.stop = voxels.v * (team.comm.rank + 1) // team.comm.size
        self.chunk = plan.chunk
        self._untestable = np.zeros(self.stop - self.first, dtype=bool)
        self._shared: list[SharedArray] = []
        self._resident: Chunk | None = None
        if not plan.streamed:
            self._resident = self._load(team, session.comm)

    def __iter__(self) -> Iterator[Chunk]:
        if self._resident is not None:
            self._untestable[:] = self._resident.lengths == 0
            yield self._resident
            return
        R_Y: np.ndarray = np.empty((self.chunk, self.voxels.n), dtype=self.dtype)
        for first, values in self._stream(self.first, self.stop, self.chunk):
            here = R_Y[: len(values)]
            with self.session.timings.phase("residuals of voxels"):
                lengths = unit_residuals(values, self.Z_w, here, CONSTANT_VOXEL)
            self._untestable[first - self.first : first - self.first + len(values)] = lengths == 0
            yield Chunk(first, here, lengths)

    def _stream(self, start: int, stop: int, step: int) -> Iterator[tuple[int, np.ndarray]]:
        """(first, voxels (w, n)) of consecutive chunks, read one ahead."""
        ranges = [(first, min(first + step, stop)) for first in range(start, stop, step)]
        with ThreadPoolExecutor(1) as reader:
            ahead = [reader.submit(self.voxels.read, *one) for one in ranges[:1]]
            for k, (first, _) in enumerate(ranges):
                with self.session.timings.phase("read voxels (waiting)") as reading:
                    values = ahead.pop().result()
                    reading.nbytes += values.nbytes
                ahead = [reader.submit(self.voxels.read, *one) for one in ranges[k + 1 : k + 2]]
                yield first, values

    def _load(self, team: Team, comm: MPI.Comm) -> Chunk:
        """The whole share; the ranks of a node make it together where they share it. Collective."""
        size, n = self.stop - self.first, self.voxels.n
        node = split_node(comm) if team.comm.size == 1 else team.comm.Split(team.comm.rank)
        shape: tuple[tuple[int, ...], ...] = ((n, size), (size,))
        kinds: tuple[type, ...] = (self.dtype, np.float64)
        self._shared = [SharedArray(node, one, dtype, "voxel matrix") for one, dtype in zip(shape, kinds, strict=True)]
        R_Y, lengths = (one.array.T for one in self._shared)
        start, stop = (size * k // node.size for k in (node.rank, node.rank + 1))
        step = max(1, READ_BYTES // (4 * n))
        error: BaseException | None = None
        try:
            for first, values in self._stream(self.first + start, self.first + stop, step):
                at = slice(first - self.first, first - self.first + len(values))
                with self.session.timings.phase("residuals of voxels"):
                    lengths[at] = unit_residuals(values, self.Z_w, R_Y[at], CONSTANT_VOXEL)
        except Exception as caught:
            error = caught
        agree(comm, error)
        self._shared[0].fence()
        return Chunk(self.first, R_Y, lengths)

    def constant(self) -> np.ndarray:
        """int32: this rank's voxels that do not vary beside the confounds, once all have been seen."""
        return (self.first + np.flatnonzero(self._untestable)).astype(np.int32)

    def close(self) -> None:
        """Give shared memory back. Collective over the node."""
        self._resident = None
        for one in self._shared:
            one.close()
