"""Genotypes as they are read to counts and centred dosages, on one rank, in cache-sized steps.

A SNP is a row of bytes: a row of a .bed, or dosages (`mpgls.study.dosages`); its length says which.

A .bed row holds one SNP: four samples a byte, two bits a sample, the first sample in the lowest bits. The codes are
00 two copies of A1, 01 missing, 10 one copy, 11 none (Chang et al. 2015, the PLINK 1 binary format).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import DTypeLike

from mpgls.model.coding import ADDITIVE, Coding
from mpgls.study.dosages import DosagePanels, as_slice
from mpgls.study.snp_stats import AlleleCounts, ColumnSums, SnpStats

SAMPLES_PER_BYTE = 4
TWO_COPIES, ON_X, ON_Y, HAPLOID = range(4)
"""Kinds of chromosomes: everybody has two copies; males have one; males alone have one; everybody has one."""
ON_X_SINGLE = 4
"""X, of dosages of males that go from 0 to 1."""
CODE_NONE = 0b11

# the four codes of every byte, first sample first: (256, 4)
_CODES = (np.arange(256)[:, None] >> np.array([0, 2, 4, 6])) & 0b11
# per genotype: whether it is observed; flattened so that row b is byte b
_OBSERVED = np.array([1.0, 0.0, 1.0, 1.0])[_CODES].ravel()

# how many of the four samples of a byte have two copies, none known, one copy: three fields in one word
_FIELD_BITS = 21
_FIELD_MASK = (1 << _FIELD_BITS) - 1
_COUNTS = np.array([1, 1 << _FIELD_BITS, 1 << 2 * _FIELD_BITS, 0], dtype=np.uint64)[_CODES].sum(axis=1, dtype=np.uint64)
# bytes whose counts fit into a field when added up
_FIELD_RUN = 1 << (_FIELD_BITS - 3)

# working memory of a step: about the second-level cache of a core
_STEP_BYTES = 1 << 20
_STEP_SNPS = 64


def bytes_per_snp(n_file: int) -> int:
    """The length in bytes of one .bed row of ``n_file`` samples."""
    return (n_file + SAMPLES_PER_BYTE - 1) // SAMPLES_PER_BYTE


def bytes_per_dosages(n_file: int) -> int:
    """The length in bytes of a SNP's dosages of ``n_file`` samples."""
    return np.dtype(np.float32).itemsize * n_file


def keep_bytes(rows: np.ndarray, n_file: int) -> np.ndarray:
    """The mask of a .bed row, uint8 (bytes_per_snp,): both bits set for the samples ``rows``, zero elsewhere."""
    kept = np.zeros(bytes_per_snp(n_file) * SAMPLES_PER_BYTE, dtype=np.uint8)
    kept[rows] = CODE_NONE
    quads = kept.reshape(-1, SAMPLES_PER_BYTE)
    return quads[:, 0] | quads[:, 1] << 2 | quads[:, 2] << 4 | quads[:, 3] << 6


def split_rows(rows: np.ndarray, n_file: int) -> tuple[np.ndarray, np.ndarray | None]:
    """What ``rows`` of bytes hold, and the kinds (B,) of their chromosomes if each row ends in it, else None.

    These are rows of a .bed, uint8 (B, bytes_per_snp), or dosages, float32 (B, n_file). Raises ValueError for anything
    else.
    """
    bed, dosages = bytes_per_snp(n_file), bytes_per_dosages(n_file)
    width = rows.shape[1] if rows.ndim == 2 and rows.dtype == np.uint8 else -1
    if width in (bed, bed + 1):
        return rows[:, :bed], rows[:, -1] if width > bed else None
    if width in (dosages, bytes_per_dosages(n_file + 1)):
        numbers = rows.view(np.float32)
        return numbers[:, :n_file], numbers[:, -1].astype(np.uint8) if width > dosages else None
    raise ValueError(
        f"genotypes of {n_file} samples are uint8 of shape (SNPs, {bed}), or {dosages} bytes a SNP, or with the "
        f"kind of a chromosome, not {rows.dtype} of shape {rows.shape}"
    )


def missing_per_sample(packed: np.ndarray, n_file: int) -> np.ndarray:
    """How many of the B SNPs of ``packed`` (B, snp_bytes) are missing in each sample: int64 (n_file,)."""
    packed = split_rows(packed, n_file)[0]
    if packed.dtype == np.float32:
        return (packed < 0).sum(axis=0)
    row_bytes = packed.shape[1]
    missing = np.zeros((row_bytes, SAMPLES_PER_BYTE), dtype=np.int64)
    # at most 255 SNPs a step, so that a count fits into one byte
    step = min(255, max(1, _STEP_BYTES // max(1, 2 * row_bytes)))
    for start in range(0, packed.shape[0], step):
        block = packed[start : start + step]
        # code 01: the low bit set and the high bit not
        flags = block & ~(block >> 1) & 0b01010101
        for j in range(SAMPLES_PER_BYTE):
            missing[:, j] += (flags >> (2 * j) & 1).sum(axis=0, dtype=np.uint8)
    return missing.ravel()[:n_file]


class Decoder:
    """Counts and decodes SNPs for a fixed choice of samples, reusing its working memory (one caller at a time).

    Parameters
    ----------
    n_file : samples of the .fam, so of a .bed row.
    panels : for each destination the positions in the .fam of the samples it receives, in its order. Together the
        panels are the analysed samples; no sample is in two of them.
    dtype : float64 or float32, of the decoded dosages.
    males : (n_file,) bool, where rows end in the kind of their chromosome.
    coding : what a column has for each number of copies.

    Raises
    ------
    ValueError : a position outside the .fam or given twice, or another dtype.
    """

    def __init__(
        self,
        n_file: int,
        panels: Sequence[np.ndarray],
        dtype: DTypeLike,
        males: np.ndarray | None = None,
        coding: Coding = ADDITIVE,
    ) -> None:
        self.n_file, self.coding = n_file, coding
        self.dtype = np.dtype(dtype)
        if self.dtype not in (np.dtype(np.float64), np.dtype(np.float32)):
            raise ValueError(f"dosages are float64 or float32, not {self.dtype}")
        indices = [np.asarray(panel, dtype=np.intp) for panel in panels]
        self._sizes = [index.size for index in indices]
        self._sources = [as_slice(index) for index in indices]
        analysed = np.concatenate([np.empty(0, dtype=np.intp), *indices])
        _check_rows(analysed, n_file)
        self.n = analysed.size
        self._males = None if males is None else Decoder(n_file, [analysed[males[analysed]]], np.float64)
        # samples that are not analysed, and the bits after the last sample, are read as code 11: no copies, observed
        self._mask = ~keep_bytes(analysed, n_file)
        # one panel of every sample, in order, and no padding bits: decoded in place
        in_order = len(indices) == 1 and isinstance(self._sources[0], slice) and self.n == n_file
        self._direct = in_order and n_file % SAMPLES_PER_BYTE == 0
        self._allocate()
        self._dosages = DosagePanels(indices, coding)
        none, one, two = coding.codes
        self._columns = np.array([two, 0.0, one, none])[_CODES].ravel()

    def _allocate(self) -> None:
        row_bytes, item = self._mask.size, self.dtype.itemsize
        per_snp = row_bytes * (8 + SAMPLES_PER_BYTE * item) + _OBSERVED.size * (8 + item)
        self._step = min(_STEP_SNPS, max(1, _STEP_BYTES // per_snp))
        self._lookup = np.empty((self._step, row_bytes), dtype=np.intp)
        self._values = np.empty((self._step, row_bytes * SAMPLES_PER_BYTE), dtype=self.dtype)
        # counting ends before decoding begins, so both use the same memory
        self._words = self._values.reshape(-1).view(np.uint64)[: self._step * row_bytes].reshape(self._lookup.shape)
        self._shift = np.empty((self._step, _OBSERVED.size))
        self._table = np.empty((self._step, _OBSERVED.size), dtype=self.dtype)
        self._table_start = 256 * np.arange(self._step, dtype=np.intp)[:, None]

    @property
    def scratch_bytes(self) -> int:
        """The working memory that the decoder holds, in bytes."""
        return self._lookup.nbytes + self._values.nbytes + self._shift.nbytes + self._table.nbytes

    def stats(self, packed: np.ndarray) -> SnpStats:
        """The counts of the SNPs ``packed``, uint8 (B, snp_bytes), over the analysed samples."""
        rows, kinds = split_rows(packed, self.n_file)
        return self._by_sex(self._of_columns(self._sums(rows), rows), rows, kinds)

    def _of_columns(self, stats: SnpStats, rows: np.ndarray) -> SnpStats:
        """The counts with those of columns, where these are no copies."""
        if self.coding.counts_copies:
            return stats
        if rows.dtype == np.float32:
            return replace(stats, column=ColumnSums(*self._dosages.column_sums(rows)))
        return replace(stats, column=ColumnSums(*self.coding.sums(stats.n_obs, stats.a1_sum, stats.sum_sq)))

    def _sums(self, rows: np.ndarray) -> SnpStats:
        """Over the analysed samples, of rows of a .bed or of dosages."""
        stats = _empty_stats(rows.shape[0], self.n)
        if rows.dtype == np.float32:
            self._dosages.sums(rows, stats.n_obs, stats.a1_sum, stats.sum_sq)
            return stats
        for part in self._steps(rows.shape[0]):
            self._count(self._load(rows[part]), stats, part)
        return stats

    def decode(
        self,
        packed: np.ndarray,
        outs: Sequence[np.ndarray],
        stats: SnpStats | None = None,
        shift: np.ndarray | None = None,
    ) -> SnpStats:
        """Write the centred columns, 0 where missing, of the SNPs ``packed`` into ``outs``: x - mean, or as coded.

        Parameters
        ----------
        packed : uint8 (B, snp_bytes).
        outs : outs[k] is (len(panels[k]), B), of the decoder's dtype, in contiguous Fortran order.
        stats : what :meth:`stats` returned for ``packed``, to save the counting.
        shift : (B,), to be subtracted instead of the mean.

        Returns
        -------
        SnpStats : the counts; the mean that was subtracted is the one over all analysed samples.

        Raises
        ------
        ValueError : a shape, dtype or memory order does not fit.
        """
        self._check_outs(outs, packed.shape[0])
        rows, kinds = split_rows(packed, self.n_file)
        if rows.dtype == np.float32:
            counted = self.stats(packed) if stats is None else stats
            self._dosages.centre(rows, counted.mean if shift is None else shift, outs)
            return counted
        counted = _empty_stats(rows.shape[0], self.n) if stats is None else stats
        for part in self._steps(rows.shape[0]):
            lookup = self._load(rows[part])
            if stats is None:
                self._count(lookup, counted, part)
            center = self._mean(counted, part) if shift is None else shift[part]
            self._write(lookup, center, [out.T[part] for out in outs])
        return self._by_sex(self._of_columns(counted, rows), rows, kinds) if stats is None else counted

    def _mean(self, stats: SnpStats, part: slice) -> np.ndarray:
        """The columns' means of the SNPs of a step, hard calls."""
        n_obs = stats.n_obs[part]
        return self.coding.sums(n_obs, stats.a1_sum[part], stats.sum_sq[part])[0] / np.maximum(n_obs, 1)

    def _by_sex(self, stats: SnpStats, rows: np.ndarray, kinds: np.ndarray | None) -> SnpStats:
        """The counts with those of alleles, where some SNPs are on a chromosome that not everybody has twice."""
        if kinds is None or self._males is None or not kinds.any():
            return stats
        copies, chromosomes, able = stats.a1_sum.copy(), 2.0 * stats.n_obs, np.full(kinds.size, self.n)
        two, one, none = stats.genotypes
        single = np.flatnonzero(kinds)
        of_males = self._males._sums(rows[single])
        here, on_x = kinds[single], np.isin(kinds[single], (ON_X, ON_X_SINGLE))
        # a male with x = 2 has one copy; whose x is 1 has one copy, too
        both = of_males.a1_sum / 2 if rows.dtype == np.float32 else of_males.genotypes[0]
        copies[single] -= np.where(here == ON_X, both, 0)
        chromosomes[single] -= np.where(on_x, of_males.n_obs, stats.n_obs[single])
        able[single] = np.where(here == ON_Y, self._males.n, self.n)
        for people, males in zip((two, one, none), of_males.genotypes, strict=True):
            people[single] = np.where(on_x, people[single] - males, 0)
        return replace(stats, alleles=AlleleCounts(copies, chromosomes, able, (two, one, none)))

    def _steps(self, snps: int) -> Iterator[slice]:
        return (slice(start, min(start + self._step, snps)) for start in range(0, snps, self._step))

    def _load(self, packed: np.ndarray) -> np.ndarray:
        """The bytes of a step as table indices, everything that is not analysed set to code 11."""
        return np.bitwise_or(packed, self._mask, out=self._lookup[: packed.shape[0]])

    def _count(self, lookup: np.ndarray, stats: SnpStats, part: slice) -> None:
        words = np.take(_COUNTS, lookup, out=self._words[: lookup.shape[0]], mode="clip")
        two = missing = one = np.zeros(lookup.shape[0], dtype=np.int64)
        for start in range(0, words.shape[1], _FIELD_RUN):
            fields = words[:, start : start + _FIELD_RUN].sum(axis=1).view(np.int64)
            two = two + (fields & _FIELD_MASK)
            missing = missing + (fields >> _FIELD_BITS & _FIELD_MASK)
            one = one + (fields >> 2 * _FIELD_BITS)
        stats.n_obs[part] = self.n - missing
        stats.a1_sum[part] = one + 2 * two
        stats.sum_sq[part] = one + 4 * two

    def _write(self, lookup: np.ndarray, center: np.ndarray, targets: Sequence[np.ndarray]) -> None:
        """Fill ``targets[k]``, (SNPs of the step, samples of panel k), through one table of centred values a SNP."""
        snps = lookup.shape[0]
        # table = column - center where observed, 0 where missing
        shift = np.multiply(center[:, None], _OBSERVED, out=self._shift[:snps])
        table = np.subtract(self._columns, shift, out=self._table[:snps], casting="same_kind")
        lookup += self._table_start[:snps]
        values = targets[0] if self._direct else self._values[:snps]
        quads = values.reshape(*lookup.shape, SAMPLES_PER_BYTE)
        np.take(table.reshape(-1, SAMPLES_PER_BYTE), lookup, axis=0, out=quads, mode="clip")
        if self._direct:
            return
        for source, target in zip(self._sources, targets, strict=True):
            if isinstance(source, slice):
                target[...] = values[:, source]
            else:
                np.take(values, source, axis=1, out=target, mode="clip")

    def _check_outs(self, outs: Sequence[np.ndarray], snps: int) -> None:
        if len(outs) != len(self._sizes):
            raise ValueError(f"{len(self._sizes)} panels need as many outputs, not {len(outs)}")
        for k, (out, size) in enumerate(zip(outs, self._sizes, strict=True)):
            if out.shape != (size, snps) or out.dtype != self.dtype or not out.flags.f_contiguous:
                raise ValueError(
                    f"output {k} must be a Fortran-ordered {self.dtype} array of shape {(size, snps)}, "
                    f"not {out.dtype} of shape {out.shape} with strides {out.strides}"
                )


def _empty_stats(snps: int, n: int) -> SnpStats:
    return SnpStats(np.zeros(snps, dtype=np.int32), np.zeros(snps), np.zeros(snps), n)


def _check_rows(rows: np.ndarray, n_file: int) -> None:
    if rows.size == 0:
        return
    if rows.min() < 0 or rows.max() >= n_file:
        raise ValueError(f"a panel names a sample outside the {n_file} of the .fam")
    if np.bincount(rows).max() > 1:
        raise ValueError("the panels name a sample twice")
