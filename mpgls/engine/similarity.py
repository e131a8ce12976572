"""G, the standardised genotypes of the similarity SNPs: packed once a node, decoded where products need them.

Column k of G is (g_k - mean_k) / sd_k, both over its observed genotypes, and 0 where the genotype is missing
(FaST-LMM's standardisation). What is decoded is D, with

    G = (D - 1 (mean - shift)') diag(1/sd)

In double precision shift = mean. In mixed precision shift is a short binary fraction near the mean: D's products are
exact in float32, and the mean and scale are put right in float64 (`Similarity.correct`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from mpgls.engine.snp_stream import SnpStream
from mpgls.errors import InputError
from mpgls.la.shared import SharedArray, split_node
from mpgls.model.gls import Note
from mpgls.run.log import Log
from mpgls.run.world import World
from mpgls.study.count_filters import Dropped, dropped_by
from mpgls.study.filters import SnpFilter
from mpgls.study.genotype_files import Genotypes
from mpgls.study.genotypes import Decoder
from mpgls.study.similarity import SimilaritySnps, exact_shift
from mpgls.study.snp_stats import SnpStats

if TYPE_CHECKING:
    from mpi4py import MPI

PANEL = 512
"""Similarity SNPs that are decoded at a time."""
READ_BYTES = 1 << 26
SLAB = 4096
"""Samples whose genotypes are in float64 at a time."""


class PackedSnps:
    """The packed genotypes of chosen SNPs, one copy a node: ``rows`` uint8 (K, snp_bytes). Creating is collective."""

    def __init__(self, bed: Genotypes, index: np.ndarray, world: World) -> None:
        self.bed, self._node = bed, split_node(world.comm)
        self._rows_node = SharedArray(self._node, (bed.snp_bytes, index.size), np.uint8, "similarity SNPs")
        self.rows = self._rows_node.array.T
        mine = np.array_split(np.arange(index.size), self._node.size)[self._node.rank]
        mine = mine[np.argsort(index[mine], kind="stable")]  # a reader wants ascending rows
        step = max(1, READ_BYTES // bed.snp_bytes)
        parts = [mine[start : start + step] for start in range(0, mine.size, step)]
        stream = SnpStream(bed, [index[part] for part in parts], world, "read similarity SNPs")
        with world.together():
            for k, packed in stream:
                self.rows[parts[k]] = packed
        self._rows_node.fence()

    def close(self) -> None:
        """Free the memory. Collective over the node."""
        del self.rows
        self._rows_node.close()
        self._node.Free()


def count_snps(packed: PackedSnps, rows: np.ndarray, comm: MPI.Comm) -> SnpStats:
    """The counts of every SNP over the samples ``rows``; the SNPs are dealt to ranks. Collective."""
    mine = np.array_split(np.arange(packed.rows.shape[0]), comm.size)[comm.rank]
    first, last = (int(mine[0]), int(mine[-1]) + 1) if mine.size else (0, 0)
    stats = Decoder(packed.bed.n, [rows], np.float64, packed.bed.males).stats(packed.rows[first:last])
    parts = comm.allgather((stats.n_obs, stats.a1_sum, stats.sum_sq))
    n_obs, a1_sum, sum_sq = (np.concatenate(part) for part in zip(*parts, strict=True))
    return SnpStats(n_obs, a1_sum, sum_sq, rows.size)


def usable(stats: SnpStats, snp_filter: SnpFilter, log: Log) -> np.ndarray:
    """(K,) bool: SNPs that vary and pass the filters. Raises InputError when none does."""
    notes, dropped = dropped_by(stats, snp_filter), Dropped()
    dropped.add(notes)
    if dropped.text:
        log.info(f"similarity: {dropped.text}")
    kept = (notes == Note.OK) & ~stats.monomorphic & (stats.n_obs > 0)
    if not kept.any():
        raise InputError("no similarity SNP is left: all are monomorphic or filtered among the analysed samples")
    return kept


class Similarity:
    """G (n, K) over the samples ``rows`` of the similarity genotypes, in the analysis' order.

    ``dtype`` is that of D: float64, or float32 for mixed precision. ``stats`` are the counts of its K SNPs. With
    ``resident`` D is decoded once into memory that the node shares; otherwise panels of it are decoded each time.
    Creating and closing it are collective.
    """

    def __init__(
        self,
        snps: SimilaritySnps,
        packed: PackedSnps,
        at: np.ndarray,
        stats: SnpStats,
        rows: np.ndarray,
        dtype: type,
        resident: bool,
        comm: MPI.Comm,
    ) -> None:
        self.snps, self.packed, self.stats = snps, packed, stats
        self.dtype: np.dtype = np.dtype(dtype)
        self.n, self.K = rows.size, snps.index.size
        self._at, self._rows = at, rows  # of each SNP among the packed ones; of each sample in the .fam
        mixed = self.dtype == np.float32
        self.shift = exact_shift(stats.mean, stats.n_obs == stats.n, self.n) if mixed else stats.mean
        self.off_center = stats.mean - self.shift
        self.sd = np.sqrt(stats.variance * stats.n / stats.n_obs)  # over the observed genotypes
        self.exact = mixed and bool((stats.n_obs == stats.n).all()) and not packed.bed.dosages
        self._decoder = Decoder(packed.bed.n, [rows], self.dtype, packed.bed.males)
        self._buffer: np.ndarray = np.empty((0, 0), dtype=dtype)
        self._node = split_node(comm)
        self._D_node = SharedArray(self._node, (self.n, self.K), dtype, "similarity matrix") if resident else None
        if self._D_node is not None:
            for run in _dealt(self.K, self._node):
                self.decode(np.arange(run.start, run.stop), self._D_node.array[:, run])
            self._D_node.fence()

    @property
    def products(self) -> str:
        """How they are made, for the log."""
        return "exact in float32" if self.exact else "in float32" if self.dtype == np.float32 else "in float64"

    def in_double(self, comm: MPI.Comm) -> Similarity:
        """The same G from float64 panels. Collective."""
        return Similarity(self.snps, self.packed, self._at, self.stats, self._rows, np.float64, False, comm)

    def decode(self, which: np.ndarray, out: np.ndarray) -> None:
        """Columns ``which`` of D into ``out`` (n, len(which)), Fortran order."""
        stats = SnpStats(self.stats.n_obs[which], self.stats.a1_sum[which], self.stats.sum_sq[which], self.n)
        self._decoder.decode(self.packed.rows[self._at[which]], [out], stats, self.shift[which])

    def panels(self, run: slice) -> Iterator[tuple[slice, np.ndarray]]:
        """D's columns ``run``, as (columns, D[:, columns]); a panel is valid until the next one."""
        if self._D_node is not None:
            yield run, self._D_node.array[:, run]
            return
        if self._buffer.size == 0:
            self._buffer = np.empty((self.n, min(PANEL, self.K)), dtype=self.dtype, order="F")
        for start in range(run.start, run.stop, PANEL):
            columns = slice(start, min(start + PANEL, run.stop))
            out = self._buffer[:, : columns.stop - start]
            self.decode(np.arange(start, columns.stop), out)
            yield columns, out

    def correct(self, product: np.ndarray, columns: slice | np.ndarray, total: np.ndarray) -> np.ndarray:
        """G'A in float64 from ``product`` = D'A (k, B) of the SNPs ``columns`` and ``total`` = A'1 (B,)."""
        inverse_sd = 1.0 / self.sd[columns, None]
        exact = product * inverse_sd
        exact -= self.off_center[columns, None] * inverse_sd * total
        return exact

    def gram(self, rows: np.ndarray, cols: np.ndarray, world: World) -> Iterator[tuple[slice, np.ndarray]]:
        """Rows of G_rows' G_cols, float64, in panels: their places among ``rows``, and the numbers."""
        widths = cols.size, min(PANEL, rows.size)
        D_cols, D_rows = (np.empty((self.n, width), dtype=self.dtype, order="F") for width in widths)
        with world.phase("decode", nbytes=self.n * cols.size / 4):
            self.decode(cols, D_cols)
        total = self.n * self.off_center[cols]  # D'1: missing genotypes count as the mean
        for start in range(0, rows.size, PANEL):
            part = rows[start : start + PANEL]
            D = D_rows[:, : part.size]
            with world.phase("decode", nbytes=self.n * part.size / 4):
                self.decode(part, D)
            with world.phase("G'G", flop=2.0 * self.n * part.size * cols.size):
                yield slice(start, start + part.size), self.correct(D.T @ D_cols, part, total) / self.sd[cols]

    def project(self, A: np.ndarray, comm: MPI.Comm) -> np.ndarray:
        """G'A (K, k) in float64 for a few columns A (n, k); the SNPs are dealt to ranks. Collective."""
        total = A.sum(axis=0)
        mine = np.array_split(np.arange(self.K), comm.size)[comm.rank]
        part = np.empty((mine.size, A.shape[1]))
        if mine.size:
            for columns, D in self.panels(slice(int(mine[0]), int(mine[-1]) + 1)):
                here = slice(columns.start - int(mine[0]), columns.stop - int(mine[0]))
                part[here] = self.correct(_wide_product(D, A), columns, total)
        return np.concatenate(comm.allgather(part))

    def combine(self, B: np.ndarray, comm: MPI.Comm) -> np.ndarray:
        """G B (n, k) in float64 for a few columns B (K, k); the SNPs are dealt to ranks. Collective."""
        scaled = B / self.sd[:, None]
        mine = np.array_split(np.arange(self.K), comm.size)[comm.rank]
        part = np.zeros((self.n, B.shape[1])) - self.off_center[mine] @ scaled[mine]
        if mine.size:
            for columns, D in self.panels(slice(int(mine[0]), int(mine[-1]) + 1)):
                for rows in range(0, self.n, SLAB):
                    part[rows : rows + SLAB] += D[rows : rows + SLAB].astype(np.float64, copy=False) @ scaled[columns]
        whole = np.empty_like(part)
        comm.Allreduce(part, whole)
        return whole

    def close(self) -> None:
        """Free what is shared. Collective over the node."""
        if self._D_node is not None:
            self._D_node.close()
        self._node.Free()


def _wide_product(D: np.ndarray, A: np.ndarray, step: int = SLAB) -> np.ndarray:
    """D'A in float64 whatever the precision of D, a slab of samples at a time."""
    total = np.zeros((D.shape[1], A.shape[1]))
    for start in range(0, D.shape[0], step):
        total += D[start : start + step].T.astype(np.float64, copy=False) @ A[start : start + step]
    return total


def _dealt(count: int, comm: MPI.Comm) -> Iterator[slice]:
    """This rank's share of ``count`` columns, in panels."""
    share = np.array_split(np.arange(count), comm.size)[comm.rank]
    for start in range(0, share.size, PANEL):
        part = share[start : start + PANEL]
        yield slice(int(part[0]), int(part[-1]) + 1)
