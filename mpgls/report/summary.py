"""A small picture of all results: counts, best SNPs, lambda GC and what the plots need, in bounded memory.

Each rank adds its batches to a `Summary`; the summaries of all ranks are merged. The result does not depend on how
the SNPs were dealt out. At 10^8 SNPs it is some tens of MB in memory and a few MB sent.
"""

from __future__ import annotations

import zlib
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mpgls.model.pvalues import lambda_gc
from mpgls.report.pixels import UNPLACED, PixelMap, chromosome_key

if TYPE_CHECKING:
    from mpi4py import MPI

    from mpgls.study.plink import Variants

# Up to this many p values are kept as they are; beyond, they are counted in bins of -log10 p.
EXACT_LIMIT = 1_000_000
SMALLEST = 1000

# Bins of 2^-16 up to -log10 p = 4: the median chi-square is then known to 4e-5 (d chi2 = 2.44 d(-log10 p) at
# p = 1/2), lambda GC to 8e-5 without and far better with interpolation. Beyond 4, bins of 2^-6.
_FINE, _COARSE = 2.0**16, 2.0**6
_SPLIT, _END = 4.0, 1024.0
_FINE_BINS = int(_SPLIT * _FINE)
_EDGES_COARSE = int((_END - _SPLIT) * _COARSE)


class Hit(NamedTuple):
    """One SNP with its result."""

    chrom: str
    pos: int
    id: str
    a1: str
    a2: str
    eaf: float
    n: int
    beta: float
    se: float
    log10p: float

    def rank_key(self) -> tuple:
        """Best first; equal p values in genome order."""
        return (-self.log10p, chromosome_key(self.chrom), self.pos, self.id)


class Summary:
    """Mergeable summary of the results of one trait.

    ``top`` is how many best SNPs are kept with their figures. After all batches: ``counts`` (SNPs by note code),
    ``tested`` (SNPs with a p value), `top_hits`, `chromosome_hits`, `lambda_gc`, `qq_points`, ``pixels``.
    """

    def __init__(self, top: int = 20) -> None:
        self.top = top
        self.tested = 0
        self.counts: Counter[int] = Counter()
        self.pixels = PixelMap()
        self._hits: list[Hit] = []
        self._best: dict[str, Hit] = {}
        self._smallest = np.empty(0)
        self._exact: list[np.ndarray] | None = []
        self._histogram: np.ndarray | None = None

    def add(self, variants: Variants, records: np.ndarray, log10p: np.ndarray) -> None:
        """Count B SNPs: their rows of the .bim, records (B,) of RECORD_DTYPE and minus log10 p values (B,)."""
        self.counts.update(dict(zip(*_plain_counts(records["note"]), strict=True)))
        used = np.flatnonzero((records["note"] == 0) & ~np.isnan(log10p))
        if used.size == 0:
            return
        # -0.0 and 0.0 are the same p value
        values = np.maximum(np.asarray(log10p, dtype=np.float64)[used], 0.0)
        self.tested += used.size
        self._add_values([values.copy()])
        self._smallest = _largest(np.concatenate([self._smallest, values]), SMALLEST)
        self._add_hits(variants, records, used, values)

    def merge(self, other: Summary) -> Summary:
        """Add everything that ``other`` has seen to this summary, and return it."""
        self.tested += other.tested
        self.counts.update(other.counts)
        self._smallest = _largest(np.concatenate([self._smallest, other._smallest]), SMALLEST)
        self._hits = sorted([*self._hits, *other._hits], key=Hit.rank_key)[: self.top]
        for hit in other._best.values():
            self._keep_best(hit)
        self.pixels.merge(other.pixels)
        if other._exact is not None:
            self._add_values(other._exact)
        if other._histogram is not None:
            self._to_histogram()
            assert self._histogram is not None
            self._histogram += other._histogram
        return self

    @property
    def top_hits(self) -> list[Hit]:
        """The best SNPs, best first."""
        return list(self._hits)

    @property
    def chromosome_hits(self) -> list[Hit]:
        """The best SNP of each chromosome, best first; SNPs without a position count as one chromosome."""
        return sorted(self._best.values(), key=Hit.rank_key)

    @property
    def smallest(self) -> np.ndarray:
        """The largest values of -log10 p (at most 1000), in descending order."""
        return self._smallest

    @property
    def exact(self) -> bool:
        """Whether all p values are still held, so that lambda GC is exact."""
        return self._exact is not None

    def lambda_gc(self) -> float:
        """Genomic inflation factor: median chi-square over 0.4549; NaN without a p value.

        Exact up to 10^6 SNPs; beyond, to 1e-4 for factors up to about 2 (the median is interpolated in its bin).
        """
        if self._histogram is None:
            return lambda_gc(np.concatenate(self._exact)) if self._exact else float("nan")
        below = np.cumsum(self._histogram)
        middle = 0.5 * self.tested
        k = int(np.searchsorted(below, middle))
        before = float(below[k - 1]) if k else 0.0
        low, high = _bin_edges(np.array([k, k + 1]))
        return lambda_gc(np.array([low + (high - low) * (middle - before) / float(self._histogram[k])]))

    def qq_points(self) -> tuple[np.ndarray, np.ndarray]:
        """Expected and observed -log10 p in descending order: the 1000 smallest p values as they are, then bins.

        The expected value of rank i of m is -log10((i - 1/2) / m).
        """
        ranks = np.arange(1, self._smallest.size + 1)
        observed, rank = self._smallest, ranks - 0.5
        if self._histogram is None:
            values = np.sort(np.concatenate(self._exact or [np.empty(0)]))[::-1]
            rest = _thin(values, self._smallest.size)
            observed, rank = np.append(observed, values[rest]), np.append(rank, rest + 0.5)
        else:
            counts = self._histogram[::-1]
            seen = np.cumsum(counts)
            bins = np.flatnonzero((counts > 0) & (seen - counts >= self._smallest.size))
            bins = bins[_thin(_bin_edges(counts.size - 1 - bins), 0)]
            middle = _bin_edges(counts.size - 1 - bins + 0.5)
            observed, rank = np.append(observed, middle), np.append(rank, seen[bins] - 0.5 * counts[bins])
        return -np.log10(rank / max(self.tested, 1)), observed

    def __getstate__(self) -> dict:
        state = dict(self.__dict__)
        if self._histogram is not None:
            state["_histogram"] = zlib.compress(self._histogram.tobytes(), 1)
        if self._exact is not None:
            state["_exact"] = [np.concatenate(self._exact)] if self._exact else []
        return state

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        if isinstance(self._histogram, bytes):
            self._histogram = np.frombuffer(zlib.decompress(self._histogram), dtype=np.int64).copy()

    def _add_values(self, values: list[np.ndarray]) -> None:
        """Keep ``values``, or count them once there are more than EXACT_LIMIT."""
        if self._exact is not None:
            self._exact.extend(values)
            if self.tested > EXACT_LIMIT:
                self._to_histogram()
        else:
            self._count(values)

    def _to_histogram(self) -> None:
        if self._exact is None:
            return
        held, self._exact = self._exact, None
        self._histogram = np.zeros(_FINE_BINS + _EDGES_COARSE, dtype=np.int64)
        self._count(held)

    def _count(self, values: list[np.ndarray]) -> None:
        assert self._histogram is not None
        for part in values:
            fine = (np.minimum(part, _SPLIT) * _FINE).astype(np.int64)
            coarse = ((np.clip(part, _SPLIT, _END) - _SPLIT) * _COARSE).astype(np.int64)
            bins = np.minimum(fine + coarse, self._histogram.size - 1)
            where, counts = np.unique(bins, return_counts=True)
            self._histogram[where] += counts

    def _add_hits(self, variants: Variants, records: np.ndarray, used: np.ndarray, values: np.ndarray) -> None:
        cut = _largest(values, self.top)
        floor = cut[-1] if cut.size else np.inf
        if len(self._hits) == self.top and self.top:
            floor = max(floor, self._hits[-1].log10p)
        picked = np.flatnonzero(values >= floor) if self.top else np.empty(0, dtype=np.int64)
        found = [_hit(variants, records, int(used[k]), float(values[k])) for k in picked]
        self._hits = sorted([*self._hits, *found], key=Hit.rank_key)[: self.top]
        for chrom, rows in self.pixels.add(variants, used, values):
            best = rows[values[rows] == values[rows].max()]
            if chrom in self._best and values[best[0]] < self._best[chrom].log10p:
                continue
            for k in best:
                self._keep_best(_hit(variants, records, int(used[k]), float(values[k])))

    def _keep_best(self, hit: Hit) -> None:
        chrom = UNPLACED if hit.pos <= 0 or hit.chrom == "0" else hit.chrom
        held = self._best.get(chrom)
        if held is None or hit.rank_key() < held.rank_key():
            self._best[chrom] = hit


def reduce_summary(comm: MPI.Comm, summary: Summary) -> Summary | None:
    """All ranks' summaries merged on rank 0 (None elsewhere). Collective."""
    return comm.reduce(summary, op=_merged, root=0)


def _merged(a: Summary, b: Summary) -> Summary:
    return a.merge(b)


def _hit(variants: Variants, records: np.ndarray, row: int, log10p: float) -> Hit:
    record = records[row]
    text = (variants.chrom[row], int(variants.pos[row]), variants.id[row], variants.a1[row], variants.a2[row])
    return Hit(*text, float(record["eaf"]), int(record["n"]), float(record["beta"]), float(record["se"]), log10p)


def _plain_counts(notes: np.ndarray) -> tuple[list[int], list[int]]:
    codes, counts = np.unique(notes, return_counts=True)
    return codes.tolist(), counts.tolist()


def _largest(values: np.ndarray, k: int) -> np.ndarray:
    """The k largest values, descending."""
    if values.size > k > 0:
        values = values[np.argpartition(values, values.size - k)[values.size - k :]]
    return np.sort(values)[::-1][:k]


def _bin_edges(k: np.ndarray) -> np.ndarray:
    """-log10 p at (fractional) bin position ``k`` of the histogram."""
    return np.where(k <= _FINE_BINS, k / _FINE, _SPLIT + (k - _FINE_BINS) / _COARSE)


def _thin(values: np.ndarray, start: int, step: float = 1e-3) -> np.ndarray:
    """Indices from ``start`` on of a descending array, one for each interval of ``step``: more cannot be seen."""
    cells = np.floor(values[start:] / step)
    keep = np.ones(cells.size, dtype=bool)
    keep[1:] = np.diff(cells) != 0
    return start + np.flatnonzero(keep)
