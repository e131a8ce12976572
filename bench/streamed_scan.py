"""The scan of ``mpgls single-trait`` on a .bed file, without its null model: what a benchmark of the scan repeats.

Reader, decoder, solver, statistics and writer are the program's own (``mpgls.engine.snp_scan``). The factor
L and the whitened columns [X_L~ | y~] are made up, because the cost of a triangular solve does not depend on the
numbers: L has a diagonal of ones and lower entries of N(0, 1/(16 n)), so that L L' is diagonally dominant in norm and
well conditioned like the covariance of a sample of distant relatives. No kinship, REML or Cholesky is needed.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np

from mpgls.engine.scan_plan import ScanSizes, plan_scan
from mpgls.engine.snp_scan import WhitenedSnps, left_blocks
from mpgls.la.grid import ProcessGrid
from mpgls.la.hold import hold_factor
from mpgls.la.matrix import GridMatrix
from mpgls.la.teams import split_teams
from mpgls.model.gls import COLLINEAR_TOLERANCE, NullSums, fit_snps
from mpgls.mpi import on_root
from mpgls.run.plan import Machine, grid_block
from mpgls.run.slots import ScanLedger
from mpgls.run.world import World
from mpgls.stream.mark import Mark
from mpgls.stream.store import StoreShape, block_edges, create_store
from mpgls.stream.writer import CHECKPOINT_SECONDS
from mpgls.study.filters import SnpFilter
from mpgls.study.plink import BedFile, open_fileset
from mpgls.study.reasons import Reasons

if TYPE_CHECKING:
    from mpi4py import MPI

READ_SNPS = "mpgls.engine.snp_stream.read_snps"
DTYPE = {"double": np.float64, "mixed": np.float32}


class GemmRate:
    """The rate of C = A X with A (rows x rows) and X (rows x width), all ranks at once, by the BLAS that solves."""

    def __init__(self, comm: MPI.Comm, rows: int, width: int, precision: str) -> None:
        from scipy.linalg import blas

        dtype = DTYPE[precision]
        self.comm, self.flop = comm, 2.0 * rows * rows * width
        self._gemm = blas.dgemm if dtype is np.float64 else blas.sgemm
        rng = np.random.default_rng(comm.rank)
        self._A, self._X = (rng.random((k, rows), dtype=dtype).T for k in (rows, width))
        self._C = np.zeros((rows, width), dtype=dtype, order="F")
        self.measured: list[float] = []

    def measure(self) -> float:
        """GFLOP/s, the sum over the ranks, of one product. Collective."""
        self.comm.Barrier()
        start = time.perf_counter()
        self._C = self._gemm(1.0, self._A, self._X, beta=0.0, c=self._C, overwrite_c=1)
        rate = self.comm.allreduce(self.flop / (time.perf_counter() - start) / 1e9)
        self.measured.append(rate)
        return rate

    def warm_up(self) -> None:
        """A product that does not count: it touches the memory for the first time. Collective."""
        self.measure()
        self.measured.clear()

    def median(self) -> float:
        """The median of everything measured so far."""
        return float(np.median(self.measured))


@dataclass(frozen=True)
class Pass:
    """One scan of all SNPs: wall seconds, GFLOP/s of the solve phase (sum over ranks), seconds of each phase."""

    seconds: float
    solve_gflops: float
    phases: dict[str, float]


class Problem:
    """The genotypes, a factor on the world's grid, and the null model's sums. Collective over ``comm``."""

    def __init__(self, comm: MPI.Comm, prefix: Path, columns: int, scratch: Path) -> None:
        self.comm, self.scratch = comm, scratch
        self.bed: BedFile = on_root(comm, lambda: open_fileset(prefix).bed)
        n = self.bed.n
        self.grid = ProcessGrid(comm)
        self.L_grid = made_up_factor(self.grid, n)
        self.F_tilde_rep = np.random.default_rng(1).standard_normal((n, columns))
        self.sums = NullSums.of_gram(self.F_tilde_rep.T @ self.F_tilde_rep, 0.0, n, 0.0)

    def block(self, team_size: int, precision: str, solver: str) -> int:
        """SNPs of a block, as the program plans it."""
        item, ranks = np.dtype(DTYPE[precision]).itemsize, self.comm.size
        sizes = ScanSizes(n=self.bed.n, m=self.bed.m, columns=4, snp_bytes=self.bed.snp_bytes, item=item)
        return plan_scan(Machine(ranks, ranks, None, 0), sizes, team_size, solver=solver).block


def made_up_factor(grid: ProcessGrid, n: int) -> GridMatrix:
    """L_grid [MC,MR]: see the module."""
    L_grid = GridMatrix.square(grid, n, grid_block(n, grid.shape))
    rng = np.random.default_rng(grid.comm.rank)
    rng.standard_normal(out=L_grid.local.T)
    L_grid.local *= 0.25 / np.sqrt(n)
    L_grid.local[L_grid.diagonal_positions] = 1.0
    return L_grid


class Scan:
    """A problem's scan with teams of one size in one precision; ``run`` may be repeated. Collective.

    ``solver`` says how teams of several hold the factor.
    """

    def __init__(self, problem: Problem, team_size: int, precision: str, solver: str = "inverse") -> None:
        comm = problem.comm
        self.problem, self.precision, self.block = problem, precision, problem.block(team_size, precision, solver)
        self.team = split_teams(comm, team_size, solver)
        self.L_team = hold_factor(problem.L_grid, self.team, self.block, DTYPE[precision])
        path, index = (
            problem.scratch / f"scan-{team_size}-{solver}-{precision}-{comm.size}.h5",
            np.arange(problem.bed.m),
        )
        covariates = {"trait": [f"covariate{k}" for k in range(problem.F_tilde_rep.shape[1] - 1)]}
        shape = StoreShape(index, self.block, block_edges(index.size, self.block), covariates)
        self.store = on_root(comm, lambda: create_store(path, shape, Mark({"command": "benchmark"}), {}))

    def run(self, packed: np.ndarray | None = None) -> Pass:
        """Scan every SNP: from the file, or from ``packed`` (m, snp_bytes) genotypes in memory. Collective."""
        problem, world = self.problem, World(self.problem.comm)
        snps = WhitenedSnps(self.L_team, problem.F_tilde_rep, np.arange(problem.bed.n), problem.bed, world)
        # looked up by the stream at each call, so that both ways share everything else
        reader: Any = mock.patch(READ_SNPS, _in_memory(packed)) if packed is not None else contextlib.nullcontext()
        if packed is None:
            _forget_cached(problem.bed.path)
        world.comm.Barrier()
        with reader:
            start = time.perf_counter()
            self._scan(snps, world)
            seconds = max(world.comm.allgather(time.perf_counter() - start))
        phases = world.clock.phases
        rate = world.comm.allreduce(phases["solve"].flop / phases["solve"].seconds / 1e9)
        return Pass(seconds, rate, {name: max(world.comm.allgather(phase.seconds)) for name, phase in phases.items()})

    def _scan(self, snps: WhitenedSnps, world: World) -> None:
        """The loop of ``mpgls single-trait``."""
        problem, tolerance = self.problem, COLLINEAR_TOLERANCE[self.precision]
        ledger = ScanLedger(self.store, Reasons(SnpFilter()), CHECKPOINT_SECONDS, world)
        blocks = np.arange(self.store.blocks)
        with ledger.slots([0]) as slots:
            for block in left_blocks(problem.bed, slots, blocks, self.team, world, "all SNPs"):
                stats = snps.decode(block.packed)
                S = snps.sums(stats, snps.whiten(len(block.packed)))
                with world.phase("statistics"):
                    fit = fit_snps(problem.sums, S.S_BL, S.S_BR, S.b_B, S.norm, "t", tolerance)
                slots.keep(block.number, stats, [fit])

    def statistics(self) -> np.ndarray:
        """beta / se of every SNP, as the last run wrote it."""
        records = self.store.read(0, 0, self.store.count)
        return records["beta"] / records["se"]

    def close(self) -> None:
        """Free the factor and remove the store. Collective."""
        self.L_team.close()
        self.team.comm.Free()
        on_root(self.problem.comm, self.store.path.unlink)


def read_packed(bed: BedFile) -> np.ndarray:
    """All genotypes, still packed: uint8 (m, snp_bytes)."""
    return np.fromfile(bed.path, dtype=np.uint8, offset=bed.HEADER).reshape(bed.m, bed.snp_bytes)


def _in_memory(packed: np.ndarray) -> Any:
    """A stand-in for ``read_snps`` that finds every block in memory."""

    def read_snps(bed: BedFile, blocks: Sequence[np.ndarray], comm: MPI.Comm) -> Iterator[tuple[int, np.ndarray]]:
        for k, index in enumerate(blocks):
            yield k, packed[index[0] : index[-1] + 1] if index.size else packed[:0]

    return read_snps


def _forget_cached(path: Path) -> None:
    """Ask the kernel to drop its cached pages of the file, so that reading means the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
