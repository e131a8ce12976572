"""Which SNPs are analysed by their counts of genotypes over the analysed samples."""

from __future__ import annotations

import numpy as np

from mpgls.model.gls import FILTERS, NOTE_TEXT, Note
from mpgls.model.hwe import fails_hwe
from mpgls.study.filters import SnpFilter
from mpgls.study.snp_stats import SnpStats


class Dropped:
    """How many SNPs each of FILTERS has dropped: ``counts``, int64."""

    def __init__(self) -> None:
        self.counts = np.zeros(len(FILTERS), dtype=np.int64)

    def add(self, notes: np.ndarray) -> None:
        """The ``notes`` (B,) of `dropped_by` for some more SNPs."""
        self.counts += [np.count_nonzero(notes == note) for note in FILTERS]

    @property
    def text(self) -> str:
        """What the log says of them, empty if there are none."""
        counts = zip(FILTERS, self.counts.tolist(), strict=True)
        return ", ".join(f"{count:,} {NOTE_TEXT[note]}" for note, count in counts if count)


def passes(stats: SnpStats, snp_filter: SnpFilter) -> np.ndarray:
    """(B,) bool: the SNPs that the options of counts keep, see `dropped_by`."""
    return dropped_by(stats, snp_filter) == Note.OK


def dropped_by(stats: SnpStats, snp_filter: SnpFilter) -> np.ndarray:
    """(B,) uint8: the note of the first option that drops a SNP by its counts over the analysed samples, or Note.OK.

    A SNP at the threshold is kept. Without ``--maf`` and ``--mac`` a SNP that is missing in every sample passes, and
    keeps its row in the results; so does one that does not vary whatever ``--info`` is.
    """
    # one correctly rounded division each, so that a frequency of exactly 0.05 compares equal to --maf 0.05
    minor = np.minimum(stats.copies, stats.chromosomes - stats.copies)
    maf = minor / np.maximum(stats.chromosomes, 1)
    missing = (stats.able - stats.n_obs) / np.maximum(stats.able, 1)
    notes = np.zeros(maf.size, dtype=np.uint8)
    failing = {
        Note.MAF: maf < snp_filter.maf,
        Note.MAX_MAF: maf > snp_filter.max_maf,
        Note.MAC: minor < snp_filter.mac,
        Note.GENO: missing > snp_filter.geno,
    }
    if snp_filter.info > 0:
        failing[Note.INFO] = stats.info < snp_filter.info  # not where there is none
    for note, fails in failing.items():
        notes[fails & (notes == Note.OK)] = note
    if snp_filter.hwe > 0:
        left, (two, one, none) = np.flatnonzero(notes == Note.OK), stats.genotypes
        notes[left[fails_hwe(two[left], one[left], none[left], snp_filter.hwe)]] = Note.HWE
    return notes
