"""The stream of SNPs through one factor: [Elem] Algorithm 3, lines 5-12, on teams of ranks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mpgls.commands.inputs import read_snps
from mpgls.errors import agree
from mpgls.la.teams import Team, TeamOperator
from mpgls.model.gls import COLLINEAR_TOLERANCE, Note, NullSums, SnpFit, fit_snps
from mpgls.model.products import partial_products
from mpgls.runtime import Log, Progress, StopSignal, Timings
from mpgls.stream.store import RECORD_DTYPE, ResultStore, TraitPlace
from mpgls.stream.writer import BlockWriter
from mpgls.study.filters import SnpFilter, passes
from mpgls.study.genotypes import Decoder, SnpStats
from mpgls.study.plink import BedFile

if TYPE_CHECKING:
    from mpi4py import MPI


@dataclass(frozen=True)
class SnpModel:
    """What is the same for every SNP: the null model's sums, the test, and which SNPs count.

    ``F_rep`` (n, q+1) = L^-1 [X_L | y], all rows on every rank; ``rows`` (n,) the samples' positions in the .fam.
    """

    sums: NullSums
    F_rep: np.ndarray
    rows: np.ndarray
    test: str
    precision: str
    snp_filter: SnpFilter


class SnpSolver:
    """From packed genotypes to effects, one block at a time, with a team's factor."""

    def __init__(self, model: SnpModel, factor: TeamOperator, bed: BedFile, timings: Timings) -> None:
        self.model, self.factor, self.timings = model, factor, timings
        self.F = np.asfortranarray(model.F_rep[factor.rows], dtype=factor.panels[0].dtype)
        self.decoder = Decoder(bed.n, [model.rows[panel] for panel in factor.row_panels], self.F.dtype)

    def solve(self, packed: np.ndarray) -> tuple[SnpFit, SnpStats, np.ndarray]:
        """Effects, counts and whitened products of the SNPs ``packed`` (B, snp_bytes). Collective over a team."""
        B, (q, n) = packed.shape[0], (self.F.shape[1] - 1, self.model.sums.n)
        with self.timings.phase("decode", nbytes=packed.size):
            # X_cols: this rank's centred SNPs, cut into one panel for each process row
            stats = self.decoder.decode(packed, [panel[:, :B] for panel in self.factor.panels])
        with self.timings.phase("solve", flop=float(n) * n * B):
            X = self.factor.apply(B)  # X_grid = X_cols;  X~ = L^-1 X
        with self.timings.phase("statistics"):
            # p+1 numbers a SNP: S_BL = X_L~'x~, b_B = y~'x~, S_BR = x~'x~
            S = self.factor.sum_over_rows(partial_products(self.F, X))[:, :B]
            S_BL, b_B, S_BR = S[:q], S[q], S[q + 1]
            tolerance = COLLINEAR_TOLERANCE[self.model.precision]
            fit = fit_snps(self.model.sums, S_BL, S_BR, b_B, n * stats.variance, self.model.test, tolerance)
        return fit, stats, S


def scan(
    solver: SnpSolver,
    bed: BedFile,
    store: ResultStore,
    place: TraitPlace,
    wanted: np.ndarray,
    team: Team,
    comm: MPI.Comm,
    log: Log,
    stop: StopSignal,
    checkpoint: float,
    label: str | None = None,
) -> None:
    """Solve those of the blocks ``wanted`` of the store that are not done and write their records. Collective.

    In step s rank r reads, decodes and reports block s P + r of them, so all ranks of a team step together. Every
    ``checkpoint`` seconds what was written is synced and marked as done. ``label`` is what the log calls the scan.
    Raises Stopped, on all ranks, when a signal asked for it.
    """
    blocks = own_blocks(wanted, wanted[place.done[wanted] == 0], team, comm)
    index = store.index
    snps = [index[store.block_range(k).start : store.block_range(k).stop] if k >= 0 else index[:0] for k in blocks]
    writer, error = None, None
    try:
        record = RECORD_DTYPE.itemsize
        writer = BlockWriter(store.path, place.done_offset, store.block * record, checkpoint)
    except Exception as caught:
        error = caught
    agree(comm, error)
    assert writer is not None
    progress = Progress(log, f"scan of {label or place.name}", sum(map(len, snps)), "SNPs")
    timings, done, stopped = solver.timings, 0, False
    stream = iter(read_snps(bed, snps, comm))
    while not stopped:
        with timings.phase("read (waiting)") as reading:
            step = next(stream, None)
        if step is None:
            break
        k, packed = step
        reading.nbytes += packed.size
        fit, stats, _ = solver.solve(packed)
        if blocks[k] >= 0:
            with timings.phase("write") as writing:
                offset = place.records_offset + store.block_range(blocks[k]).start * record
                records = to_records(fit, stats, solver.model.snp_filter)
                writing.nbytes += records.nbytes
                writer.write(blocks[k], offset, records)
        done += packed.shape[0]
        progress.at(done)
        stopped = stop.requested if team.comm.size == 1 else team.comm.allreduce(stop.requested)
    with timings.phase("write"):
        writer.close()
    agree(comm, stop.problem())


def own_blocks(wanted: np.ndarray, left: np.ndarray, team: Team, comm: MPI.Comm) -> list[int]:
    """This rank's block in each step that its team takes; -1 where it has none, or none that is ``left``.

    ``wanted`` are dealt to ranks in turn whatever is done already: the columns of a block stand at the same place in
    the team's product in an interrupted run and in one that was not, and get the same bits.
    """
    first, undone = comm.rank - team.comm.rank, set(left.tolist())
    own = []
    for start in range(0, wanted.size, comm.size):
        step = wanted[start : start + comm.size].tolist()
        mine = step[comm.rank] if comm.rank < len(step) else -1
        if undone.intersection(step[first : first + team.comm.size]):
            own.append(mine if mine in undone else -1)
    return own


def to_records(fit: SnpFit, stats: SnpStats, snp_filter: SnpFilter) -> np.ndarray:
    """The stored form of a block: RECORD_DTYPE (B,)."""
    records = np.zeros(fit.beta.size, dtype=RECORD_DTYPE)
    records["beta"], records["se"] = fit.beta, fit.se
    records["eaf"], records["n"], records["note"] = stats.eaf, stats.n_obs, fit.note
    records["note"][stats.n_obs == 0] = Note.ALL_MISSING
    records["note"][~passes(stats, snp_filter)] = Note.FILTERED
    unusable = records["note"] != Note.OK
    records["beta"][unusable] = records["se"][unusable] = np.nan
    return records
