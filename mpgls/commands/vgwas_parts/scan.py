"""Units of a voxelwise GWAS: a block of SNPs against all voxels under a range of permutations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mpgls.commands.common.inputs import Study, read_snps
from mpgls.commands.vgwas_parts.voxels import Chunk, TeamVoxels, VoxelStudy
from mpgls.la.teams import Team
from mpgls.model.clusters import RECORD_DTYPE, STATISTICS, Neighbours, snp_statistics
from mpgls.model.gls import Note
from mpgls.model.mulm import Score, SnpBlock, TileScan
from mpgls.model.permute import permutation
from mpgls.mpi import agree
from mpgls.run.log import Progress
from mpgls.stream.unit_log import UnitLog
from mpgls.study.filters import SnpFilter, passes
from mpgls.study.genotypes import Decoder, SnpStats

if TYPE_CHECKING:
    from mpgls.commands.common.session import Session

ENTRY_DTYPE = np.dtype([("index", "<i4"), ("snp", "<i4"), ("voxel", "<i4"), ("t", "<f8"), ("beta", "<f8")])
"""A pair beyond the threshold: permutation, SNP of the block, voxel, t, and the effect of an allele."""
TOGETHER = 1 << 18
"""Entries whose clusters are found together."""


class Unit(NamedTuple):
    """SNPs ``start``..``stop`` (positions among the selected ones) under the permutations ``first``..``last`` - 1."""

    start: int
    stop: int
    first: int
    last: int


@dataclass(frozen=True)
class UnitResult:
    """Of one unit: ``maxima`` (last - first,) of each statistic over its SNPs, and the voxels that are ``constant``;
    with index 0 also the ``data`` as is."""

    maxima: dict[str, np.ndarray]
    constant: np.ndarray
    data: Unpermuted | None = None


@dataclass(frozen=True)
class Unpermuted:
    """Of a block under index 0: ``records`` of its SNPs (RECORD_DTYPE) and ``entries`` sorted by SNP and voxel."""

    records: np.ndarray
    entries: np.ndarray


def cut_units(m: int, indices: range, block: int, permutations: int) -> list[Unit]:
    """All units, those of a block in turn."""
    return [
        Unit(start, min(start + block, m), first, min(first + permutations, indices.stop))
        for start in range(0, m, block)
        for first in range(indices.start, indices.stop, permutations)
    ]


@dataclass(frozen=True)
class Inference:
    """How entries become statistics of a SNP."""

    score: Score
    neighbours: Neighbours | None
    tfce_step: float

    def statistics(self, group: np.ndarray, entries: np.ndarray, groups: int) -> dict[str, np.ndarray]:
        """The decision statistics of each of ``groups`` groups, from its entries sorted by (group, voxel)."""
        log10p = self.score.log10_p(entries["t"])
        return snp_statistics(
            group, entries["voxel"], entries["t"], log10p, groups, self.neighbours,
            step=self.tfce_step, start=self.score.t_threshold,
        )  # fmt: skip


class BlockOfSnps:
    """A decoded block: counts, notes, and the residuals of those SNPs that can be tested, ``tested`` (k,)."""

    def __init__(self, stats: SnpStats, X: np.ndarray, Z_w: np.ndarray, dtype: type, snp_filter: SnpFilter) -> None:
        self.stats = stats
        self.note = np.full(stats.n_obs.size, Note.OK, dtype=np.int32)
        self.note[stats.monomorphic] = Note.MONOMORPHIC
        self.note[stats.n_obs == 0] = Note.ALL_MISSING
        self.note[~passes(stats, snp_filter)] = Note.FILTERED
        self.tested = np.flatnonzero(self.note == Note.OK)
        self.residuals = SnpBlock(X[self.tested], Z_w, dtype)
        self.note[self.tested[self.residuals.lengths == 0]] = Note.COLLINEAR

    def entries(self, tiles: TileScan, chunk: Chunk, index: int, order: np.ndarray) -> np.ndarray:
        """Entries of the block and a chunk of voxels under the permutation ``order``, ENTRY_DTYPE, in no order."""
        found = tiles.entries(self.residuals, order, chunk.R_Y, chunk.lengths > 0)
        entries = np.empty(len(found), dtype=ENTRY_DTYPE)
        entries["index"], entries["snp"] = index, self.tested[found.snp]
        entries["voxel"], entries["t"] = chunk.first + found.voxel, found.t
        # the effect of an allele on the voxel, in the voxel's unit
        entries["beta"] = found.beta * chunk.lengths[found.voxel] / self.residuals.lengths[found.snp]
        return entries


class UnitScan:
    """Works on units; everything that all units of this rank share."""

    def __init__(
        self,
        study: Study,
        voxels: VoxelStudy,
        share: TeamVoxels,
        inference: Inference,
        seed: int,
        snp_filter: SnpFilter,
        team: Team,
        session: Session,
    ) -> None:
        self.study, self.voxels, self.share, self.inference = study, voxels, share, inference
        self.seed, self.snp_filter, self.team, self.session = seed, snp_filter, team, session
        self.decoder = Decoder(study.fileset.bed.n, [voxels.cohort.rows], np.float64)
        self.tiles = TileScan(inference.score, len(share.Z_w), voxels.n, share.dtype)

    def run(self, units: Sequence[Unit], index: np.ndarray, log: UnitLog | None) -> None:
        """Do the units of this rank's team and append each result to ``log`` on the team's first rank. Collective.

        Raises Stopped, or what went wrong on any rank, on all ranks.
        """
        session, comm = self.session, self.session.comm
        stream = iter(read_snps(self.study.fileset.bed, [index[unit.start : unit.stop] for unit in units], comm))
        work = sum((unit.stop - unit.start) * (unit.last - unit.first) for unit in units)
        progress, done = Progress(session.log, "vgwas", work, "SNP permutations"), 0
        for unit in units:
            with session.timings.phase("read SNPs (waiting)") as reading:
                packed = next(stream)[1]
                reading.nbytes += packed.size
            result = self._unit(unit, packed)
            if result is None:
                break
            if log is not None:
                log.append(tuple(unit), result)
            done += (unit.stop - unit.start) * (unit.last - unit.first)
            progress.at(done)
        agree(comm, session.stop.problem())

    def _unit(self, unit: Unit, packed: np.ndarray) -> UnitResult | None:
        """The result of a unit, on the first rank of the team; None to stop. Collective over the team."""
        timings, comm = self.session.timings, self.team.comm
        with timings.phase("decode", nbytes=packed.size):
            block = self._block(packed)
        entries = self._search(unit, block)
        stopped = self.session.stop.requested
        if stopped if comm.size == 1 else comm.allreduce(stopped):
            return None
        with timings.phase("combine in team", nbytes=entries.nbytes):
            entries = to_owners(self.team, entries, unit.first)
        with timings.phase("clusters"):
            mine = np.arange(unit.first + comm.rank, unit.last, comm.size)
            maxima, records, found = self._statistics(unit, block, entries, mine)
        maxima, constant = self._join(maxima)
        data = Unpermuted(records, found) if records is not None and found is not None else None
        return UnitResult(maxima, constant, data)

    def _block(self, packed: np.ndarray) -> BlockOfSnps:
        X = np.empty((len(packed), self.voxels.n))
        stats = self.decoder.decode(packed, [X.T])
        return BlockOfSnps(stats, X, self.share.Z_w, self.share.dtype, self.snp_filter)

    def _search(self, unit: Unit, block: BlockOfSnps) -> np.ndarray:
        """Entries of this rank's voxels under all the unit's permutations, which are the inner loop."""
        found = [np.empty(0, dtype=ENTRY_DTYPE)]
        n, timings = self.voxels.n, self.session.timings
        for chunk in self.share:
            flop = 2.0 * n * block.tested.size * len(chunk.R_Y)
            for index in range(unit.first, unit.last):
                if self.session.stop.requested:
                    return found[0]
                with timings.phase("tiles", flop=flop):
                    order = permutation(self.seed, index, n, self.voxels.blocks)
                    found.append(block.entries(self.tiles, chunk, index, order))
        return np.concatenate(found)

    def _statistics(
        self, unit: Unit, block: BlockOfSnps, entries: np.ndarray, mine: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray | None, np.ndarray | None]:
        """Maxima of the permutations ``mine`` (0 elsewhere); records and entries where index 0 is among them."""
        B = unit.stop - unit.start
        entries = in_order(entries, B, self.voxels.v)
        maxima = {name: np.zeros(unit.last - unit.first) for name in self.statistics}
        records = data = None
        for part, indices in batches(entries, mine):
            group = (np.searchsorted(indices, part["index"]) * B + part["snp"]).astype(np.int64)
            figures = self.inference.statistics(group, part, indices.size * B)
            for name, values in figures.items():
                maxima[name][indices - unit.first] = values.reshape(indices.size, B).max(axis=1)
            if indices[0] == 0:
                data = part[part["index"] == 0]
                records = make_records(block, data, {name: values[:B] for name, values in figures.items()})
        return maxima, records, data

    @property
    def statistics(self) -> tuple[str, ...]:
        """The statistics that are taken."""
        return STATISTICS if self.inference.neighbours is not None else STATISTICS[:3]

    def _join(self, maxima: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Maxima and constant voxels of the team, on its first rank, which has index 0 of every unit that has it."""
        comm, constant = self.team.comm, self.share.constant()
        if comm.size == 1:
            return maxima, constant
        parts = comm.gather((maxima, constant), root=0) or [(maxima, constant)]
        joined = {name: np.max([part[name] for part, _ in parts], axis=0) for name in maxima}
        return joined, np.concatenate([voxels for _, voxels in parts])


def in_order(entries: np.ndarray, B: int, v: int) -> np.ndarray:
    """The entries sorted by permutation, SNP and voxel."""
    key = (entries["index"].astype(np.int64) * B + entries["snp"]) * v + entries["voxel"]
    return entries[np.argsort(key, kind="stable")]


def batches(entries: np.ndarray, indices: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(entries, permutations) of consecutive ``indices``, about TOGETHER entries at a time; entries are sorted."""
    edges = np.searchsorted(entries["index"], np.append(indices, indices[-1:] + 1))
    first = 0
    while first < indices.size:
        last = max(first + 1, int(np.searchsorted(edges, edges[first] + TOGETHER, side="right")) - 1)
        last = min(last, indices.size)
        yield entries[edges[first] : edges[last]], indices[first:last]
        first = last


def make_records(block: BlockOfSnps, entries: np.ndarray, figures: Mapping[str, np.ndarray]) -> np.ndarray:
    """RECORD_DTYPE of the SNPs of a block, from their statistics and sorted ``entries``."""
    records = np.zeros(block.note.size, dtype=RECORD_DTYPE)
    for name, values in figures.items():
        records[name] = values
    records["note"], records["n"], records["eaf"] = block.note, block.stats.n_obs, block.stats.eaf
    records["peak_voxel"], records["t"] = -1, np.nan
    # the first of the largest |t| of each SNP
    order = np.lexsort((entries["voxel"], -np.abs(entries["t"]), entries["snp"]))
    snps, first = np.unique(entries["snp"][order], return_index=True)
    records["peak_voxel"][snps] = entries["voxel"][order[first]]
    records["t"][snps] = entries["t"][order[first]]
    return records


def to_owners(team: Team, entries: np.ndarray, first: int) -> np.ndarray:
    """Entries of this rank's permutations, dealt to the team in turn from ``first`` on. Collective over the team."""
    comm = team.comm
    if comm.size == 1:
        return entries
    from mpi4py import MPI

    owner = (entries["index"] - first) % comm.size
    order = np.argsort(owner, kind="stable")
    counts = np.bincount(owner, minlength=comm.size)
    arriving = np.array(comm.alltoall(counts.tolist()))
    received = np.empty(int(arriving.sum()), dtype=ENTRY_DTYPE)
    kind = MPI.BYTE.Create_contiguous(ENTRY_DTYPE.itemsize).Commit()
    comm.Alltoallv([entries[order], (counts, None), kind], [received, (arriving, None), kind])
    kind.Free()
    return received
