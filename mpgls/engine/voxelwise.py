"""The search of a voxelwise GWAS: blocks of SNPs against all voxels of a team, under permutations of the samples.

    for every permutation P of a unit:
        beta    = (P'R_X)' R_Y                             one matrix product, a tile at a time
        Gamma^2 = column sums of ((P'Z_w)' R_Y)^2
        keep the pairs with p(F) <= the sparsity threshold, while the tile is in cache
    statistics of each SNP and permutation: smallest p, volume, sum of -log10 p, clusters, TFCE; their maxima over SNPs

([vGWAS] Da Mota et al., Algorithm 2.1.) In a team the ranks search their own voxels; then each gets the pairs of its
share of the permutations, so that clusters are found where a whole brain is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mpgls.engine.snp_stream import SnpStream
from mpgls.engine.voxel_tiles import OnCard, tiles_of
from mpgls.engine.voxel_units import ENTRY_DTYPE, Unit, UnitResult, Unpermuted
from mpgls.engine.voxels import Chunk, TeamVoxels
from mpgls.engine.voxelwise_plan import VoxelwiseSizes
from mpgls.la.teams import Team
from mpgls.model.clusters import RECORD_DTYPE, STATISTICS, Heights, Neighbours, snp_statistics
from mpgls.model.coding import ADDITIVE, Coding
from mpgls.model.gls import Note
from mpgls.model.mulm import Entries, Score, SnpBlock, TileScan
from mpgls.model.permute import Permutations
from mpgls.study.genotype_files import Genotypes
from mpgls.study.genotypes import Decoder
from mpgls.study.reasons import Reasons
from mpgls.study.snp_stats import SnpStats
from mpgls.study.voxel_study import VoxelStudy

TOGETHER = 1 << 18
"""Entries whose clusters are found together."""


@dataclass(frozen=True)
class Inference:
    """How entries become statistics of a SNP."""

    score: Score
    neighbours: Neighbours | None
    heights: Heights

    @classmethod
    def of(cls, voxels: VoxelStudy, threshold: float, connectivity: int, tfce_step: float) -> Inference:
        """With p ``threshold``; clusters and TFCE where the coordinates of the voxels are known."""
        neighbours = None if voxels.coordinates is None else Neighbours.of(voxels.coordinates, connectivity)
        score = Score(voxels.n - voxels.Z.shape[1] - 1, threshold)
        return cls(score, neighbours, Heights(score.t_threshold, tfce_step))

    @property
    def names(self) -> tuple[str, ...]:
        """The statistics that are taken."""
        return STATISTICS if self.neighbours is not None else STATISTICS[:3]

    def statistics(self, group: np.ndarray, entries: np.ndarray, groups: int) -> dict[str, np.ndarray]:
        """The decision statistics of each of ``groups`` groups, from its entries sorted by (group, voxel)."""
        log10p = self.score.log10_p(entries["t"])
        return snp_statistics(group, entries["voxel"], entries["t"], log10p, groups, self.neighbours, self.heights)


@dataclass(frozen=True, eq=False)
class Search:
    """What is searched: SNPs, the rows ``index_rep`` (m,) of the .bim, against ``voxels``, under ``permutations``."""

    bed: Genotypes
    index_rep: np.ndarray
    reasons: Reasons
    voxels: VoxelStudy
    permutations: Permutations
    inference: Inference
    coding: Coding = ADDITIVE

    @property
    def m(self) -> int:
        """SNPs."""
        return self.index_rep.size

    def sizes(self, permutations: int, dtype: type, card: int | None = None) -> VoxelwiseSizes:
        """What a plan must know: for so many permutations, index 0 among them, residuals of type ``dtype``, and
        products on ``card`` bytes of a GPU."""
        voxels, neighbours = self.voxels, self.inference.neighbours
        return VoxelwiseSizes(
            n=voxels.n,
            m=self.m,
            v=voxels.v,
            r=voxels.Z.shape[1],
            permutations=permutations,
            threshold=self.inference.score.p_threshold,
            snp_bytes=self.bed.snp_bytes,
            neighbours=0 if neighbours is None else neighbours.table.shape[1],
            dtype=dtype,
            card=card,
        )


class SnpsOfUnit:
    """The decoded block of a unit: counts, notes, and the residuals of the SNPs that can be ``tested`` (k,)."""

    def __init__(self, stats: SnpStats, note: np.ndarray, X: np.ndarray, Z_w: np.ndarray, dtype: type) -> None:
        self.stats, self.note = stats, note
        self.tested = np.flatnonzero(self.note == Note.OK)
        self.residuals = SnpBlock(X[self.tested], Z_w, dtype)
        self.note[self.tested[self.residuals.lengths == 0]] = Note.COLLINEAR

    def entries(self, found: Entries, chunk: Chunk, index: int) -> np.ndarray:
        """What was ``found`` of the block and a chunk of voxels under permutation ``index``, as ENTRY_DTYPE."""
        entries = np.empty(len(found), dtype=ENTRY_DTYPE)
        entries["index"], entries["snp"] = index, self.tested[found.snp]
        entries["voxel"], entries["t"] = chunk.first + found.voxel, found.t
        # the effect of an allele on the voxel, in the voxel's unit
        entries["beta"] = found.beta * chunk.lengths_team[found.voxel] / self.residuals.lengths[found.snp]
        return entries

    def records(self, entries: np.ndarray, figures: Mapping[str, np.ndarray]) -> np.ndarray:
        """RECORD_DTYPE of the SNPs of the block, from their statistics and sorted ``entries``."""
        records = np.zeros(self.note.size, dtype=RECORD_DTYPE)
        for name, values in figures.items():
            records[name] = values
        records["note"], records["n"], records["eaf"] = self.note, self.stats.n_obs, self.stats.eaf
        records["peak_voxel"], records["t"] = -1, np.nan
        # the first of the largest |t| of each SNP
        order = np.lexsort((entries["voxel"], -np.abs(entries["t"]), entries["snp"]))
        snps, first = np.unique(entries["snp"][order], return_index=True)
        records["peak_voxel"][snps] = entries["voxel"][order[first]]
        records["t"][snps] = entries["t"][order[first]]
        return records


class UnitScan:
    """Works on units of a search; everything that all units of this rank share."""

    def __init__(self, search: Search, R_Y_team: TeamVoxels, on_card: OnCard | None = None) -> None:
        self.search, self.share, self.n = search, R_Y_team, search.voxels.n
        self.team, self.world = R_Y_team.team, R_Y_team.world
        self.decoder = Decoder(search.bed.n, [search.voxels.cohort.rows], np.float64, search.bed.males, search.coding)
        scan = TileScan(search.inference.score, len(R_Y_team.Z_w_rep), self.n, R_Y_team.dtype)
        self.tiles = tiles_of(scan, search.permutations, on_card, self.world)

    def results(self, units: Sequence[Unit]) -> Iterator[tuple[Unit, UnitResult]]:
        """(unit, result) of each of the ``units``, those of this rank's team; whole on the team's first rank.

        Opening and ending are collective over the world: at the end all ranks raise Stopped if a signal came, which
        ends the units of a team early. What goes wrong with a unit is raised on its ranks alone.
        """
        world, index_rep = self.world, self.search.index_rep
        stream = SnpStream(self.search.bed, [index_rep[unit.start : unit.stop] for unit in units], world)
        progress, done = world.progress("vgwas", sum(unit.work for unit in units), "SNP permutations"), 0
        for unit, (_, packed) in zip(units, stream, strict=True):
            result = self.unit(unit, packed)
            if result is None:
                break
            yield unit, result
            done += unit.work
            progress.at(done)
        world.raise_if_stopped()

    def unit(self, unit: Unit, packed: np.ndarray) -> UnitResult | None:
        """The result of a unit, whole on the first rank of the team; None to stop. Collective over the team."""
        world, comm = self.world, self.team.comm
        with world.phase("decode", nbytes=packed.size):
            block = self._block(packed, self.search.index_rep[unit.start : unit.stop])
        entries = self._search(unit, block)
        stopped = world.stop.requested
        if stopped if comm.size == 1 else comm.allreduce(stopped):
            return None
        with world.phase("combine in team", nbytes=entries.nbytes):
            entries = to_owners(self.team, entries, unit.first)
        with world.phase("clusters"):
            return self._joined(*self._statistics(unit, block, entries))

    def _block(self, packed: np.ndarray, rows: np.ndarray) -> SnpsOfUnit:
        X = np.empty((len(packed), self.n))
        stats = self.decoder.decode(packed, [X.T])
        note = self.search.reasons.notes(np.where(stats.monomorphic, Note.MONOMORPHIC, Note.OK), stats, rows)
        return SnpsOfUnit(stats, note, X, self.share.Z_w_rep, self.share.dtype)

    def _search(self, unit: Unit, block: SnpsOfUnit) -> np.ndarray:
        """Entries of this rank's voxels under all the unit's permutations, which are the inner loop."""
        found = [np.empty(0, dtype=ENTRY_DTYPE)]
        for chunk in self.share:
            for part, index, entries in self.tiles.entries(block.residuals, chunk, range(unit.first, unit.last)):
                found.append(block.entries(entries, part, index))
            if self.world.stop.requested:
                return found[0]
        return np.concatenate(found)

    def _statistics(
        self, unit: Unit, block: SnpsOfUnit, entries: np.ndarray
    ) -> tuple[dict[str, np.ndarray], Unpermuted | None]:
        """Maxima of this rank's permutations (0 elsewhere); the data as they are where index 0 is among them."""
        B, comm = unit.stop - unit.start, self.team.comm
        entries = in_order(entries, B, self.search.voxels.v)
        maxima = {name: np.zeros(unit.last - unit.first) for name in self.search.inference.names}
        data = None
        for part, indices in batches(entries, np.arange(unit.first + comm.rank, unit.last, comm.size)):
            group = (np.searchsorted(indices, part["index"]) * B + part["snp"]).astype(np.int64)
            figures = self.search.inference.statistics(group, part, indices.size * B)
            for name, values in figures.items():
                maxima[name][indices - unit.first] = values.reshape(indices.size, B).max(axis=1)
            if indices[0] == 0:
                found = part[part["index"] == 0]
                records = block.records(found, {name: values[:B] for name, values in figures.items()})
                data = Unpermuted(records, found)
        return maxima, data

    def _joined(self, maxima: dict[str, np.ndarray], data: Unpermuted | None) -> UnitResult:
        """Maxima and constant voxels of the team, on its first rank, which has index 0 of every unit that has it."""
        comm, constant = self.team.comm, self.share.constant()
        if comm.size == 1:
            return UnitResult(maxima, constant, data)
        parts = comm.gather((maxima, constant), root=0) or [(maxima, constant)]
        joined = {name: np.max([part[name] for part, _ in parts], axis=0) for name in maxima}
        return UnitResult(joined, np.concatenate([voxels for _, voxels in parts]), data)


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
