"""The stream of SNPs through one factor: [Elem] Algorithm 3, lines 5-12, on teams of ranks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from mpgls.commands.common.inputs import read_snps
from mpgls.commands.mixed_model.records import Records
from mpgls.la.teams import Team, TeamOperator
from mpgls.model.gls import COLLINEAR_TOLERANCE, NullSums, SnpFit, fit_snps
from mpgls.model.products import partial_products
from mpgls.mpi import StopSignal, agree
from mpgls.run.clock import Clock
from mpgls.run.log import Log, Progress
from mpgls.study.genotypes import Decoder, SnpStats
from mpgls.study.plink import BedFile

if TYPE_CHECKING:
    from mpi4py import MPI


@dataclass(frozen=True)
class SnpModel:
    """What is the same for every SNP: the null model's sums and the test.

    ``F_rep`` (n, q+1) = L^-1 [X_L | y], all rows on every rank; ``rows`` (n,) the samples' positions in the .fam.
    """

    sums: NullSums
    F_rep: np.ndarray
    rows: np.ndarray
    test: str
    precision: str


class BlockSolver(Protocol):
    """From packed genotypes to effects: what `scan` asks of a solver."""

    timings: Clock

    def solve(self, packed: np.ndarray) -> tuple[SnpStats, list[SnpFit]]:
        """Counts of the SNPs ``packed`` (B, snp_bytes), and their effects on each trait. Collective over a team."""


class SnpSolver:
    """From packed genotypes to effects, one block at a time, with a team's factor."""

    def __init__(self, model: SnpModel, factor: TeamOperator, bed: BedFile, timings: Clock) -> None:
        self.model, self.factor, self.timings = model, factor, timings
        self.F = np.asfortranarray(model.F_rep[factor.rows], dtype=factor.panels[0].dtype)
        self.decoder = Decoder(bed.n, [model.rows[panel] for panel in factor.row_panels], self.F.dtype)

    def solve(self, packed: np.ndarray) -> tuple[SnpStats, list[SnpFit]]:
        """Counts of the SNPs ``packed`` (B, snp_bytes), and their effects. Collective over a team."""
        stats, S = self.sums(packed)
        with self.timings.phase("statistics"):
            q, n = self.F.shape[1] - 1, self.model.sums.n
            S_BL, b_B, S_BR = S[:q], S[q], S[q + 1]
            tolerance = COLLINEAR_TOLERANCE[self.model.precision]
            fit = fit_snps(self.model.sums, S_BL, S_BR, b_B, n * stats.variance, self.model.test, tolerance)
        return stats, [fit]

    def sums(self, packed: np.ndarray) -> tuple[SnpStats, np.ndarray]:
        """Counts, and S_BL (q rows), b_B and S_BR of the SNPs: (q+2, B). Collective over a team."""
        B, n = packed.shape[0], self.model.sums.n
        with self.timings.phase("decode", nbytes=packed.size):
            # X_cols: this rank's centred SNPs, cut into one panel for each process row
            stats = self.decoder.decode(packed, [panel[:, :B] for panel in self.factor.panels])
        with self.timings.phase("solve", flop=float(n) * n * B):
            X = self.factor.apply(B)  # X_grid = X_cols;  X~ = L^-1 X
        with self.timings.phase("statistics"):
            # p+1 numbers a SNP: S_BL = X_L~'x~, b_B = y~'x~, S_BR = x~'x~
            return stats, self.factor.sum_over_rows(partial_products(self.F, X))[:, :B]


def scan(
    solver: BlockSolver,
    bed: BedFile,
    records: Records,
    wanted: np.ndarray,
    team: Team,
    comm: MPI.Comm,
    log: Log,
    stop: StopSignal,
    label: str,
) -> None:
    """Solve those of the blocks ``wanted`` that ``records`` lack, and write them. Collective over ``comm``.

    In step s rank r reads, decodes and reports block s P + r of them, so all ranks of a team step together. ``label``
    is what the log calls the scan. Raises Stopped, on all ranks, when a signal asked for it.
    """
    blocks = own_blocks(wanted, records.left(wanted), team, comm)
    snps = [records.snps(block) for block in blocks]
    records.open(comm)
    progress = Progress(log, f"scan of {label}", sum(map(len, snps)), "SNPs")
    timings, done, stopped = solver.timings, 0, False
    stream = iter(read_snps(bed, snps, comm))
    while not stopped:
        with timings.phase("read (waiting)") as reading:
            step = next(stream, None)
        if step is None:
            break
        k, packed = step
        reading.nbytes += packed.size
        stats, fits = solver.solve(packed)
        if blocks[k] >= 0:
            with timings.phase("write") as writing:
                writing.nbytes += records.write(blocks[k], stats, fits)
        done += packed.shape[0]
        progress.at(done)
        stopped = stop.requested if team.comm.size == 1 else team.comm.allreduce(stop.requested)
    with timings.phase("write"):
        records.close()
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
