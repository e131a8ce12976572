"""What a scan of many traits knows of each: null models, tests, best SNP, flags, hits, and which passes are done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from mpgls.model import null_record
from mpgls.model.histograms import Bins
from mpgls.model.hits import merge_hits, no_hits
from mpgls.model.null_record import NullFlag
from mpgls.model.trait_flags import Flag


class Pass(NamedTuple):
    """The traits ``first`` to ``stop - 1`` of a group against the SNPs of a part."""

    part: int
    group: int
    first: int
    stop: int


class PanelTotals(NamedTuple):
    """What all ranks saw of the traits at positions ``traits`` (k,): ``tested`` SNPs of each, the best one and its p.

    ``best_row`` (k,) .bim rows, -1 without a test; ``counts`` (k, bins.count) of all tests.
    """

    traits: np.ndarray
    tested: np.ndarray
    best_row: np.ndarray
    best_log10p: np.ndarray
    counts: np.ndarray
    bins: Bins


@dataclass
class TraitRecords:
    """The records of t traits over C parts of the SNPs; positions of traits are those in their file.

    ``nulls`` (C, t) of `null_record.NULL_DTYPE` are those of each part; ``tested`` (C, t) its SNPs with a p value;
    ``log10p_max`` and ``best_row`` (t,) the best SNP over all parts; ``flags`` (t,) uint8 bits of `Flag`; ``hits``
    of a `hit_dtype`; ``passes`` the finished ones.
    """

    nulls: np.ndarray
    tested: np.ndarray
    log10p_max: np.ndarray
    best_row: np.ndarray
    flags: np.ndarray
    hits: np.ndarray = field(default_factory=no_hits)
    passes: set[Pass] = field(default_factory=set)

    @classmethod
    def empty(cls, parts: int, flags: np.ndarray, further: Sequence[str] = ()) -> TraitRecords:
        """Nothing but the traits' ``flags`` is known, and the ``further`` fields that a hit has."""
        return cls(
            nulls=null_record.unknown(parts, flags.size),
            tested=np.zeros((parts, flags.size), dtype=np.int64),
            log10p_max=np.full(flags.size, np.nan),
            best_row=np.full(flags.size, -1, dtype=np.int64),
            flags=flags.copy(),
            hits=no_hits(further),
        )

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray]) -> TraitRecords:
        """The records that `arrays` described."""
        passes = {Pass(*row) for row in arrays["passes"].tolist()}
        return cls(**{name: arrays[name] for name in _COLUMNS}, passes=passes)

    def arrays(self) -> dict[str, np.ndarray]:
        """All records as plain arrays, for a file."""
        passes = np.array(sorted(self.passes), dtype=np.int64).reshape(-1, len(Pass._fields))
        return {**{name: getattr(self, name) for name in _COLUMNS}, "passes": passes}

    def keep_nulls(self, part: int, traits: np.ndarray, nulls: np.ndarray) -> None:
        """The null models (k,) of the ``traits`` (k,) for the SNPs of a part; without s2 a trait cannot be tested."""
        self.nulls[part, traits] = nulls
        of_h2 = np.where(nulls["flag"] & NullFlag.BOUNDARY, Flag.BOUNDARY, 0)
        of_h2 |= np.where(nulls["flag"] & NullFlag.UNIDENTIFIED, Flag.UNIDENTIFIED, 0)
        self.flags[traits] |= np.where(np.isnan(nulls["s2"]), Flag.COLLINEAR, of_h2).astype(np.uint8)

    def absorb(self, part: int, totals: PanelTotals) -> None:
        """Tests of some traits: their number in a part, and their best SNP if none of another part is better.

        Of equally good SNPs the first of the .bim counts.
        """
        at, row, log10p = totals.traits, totals.best_row, totals.best_log10p
        self.tested[part, at] = totals.tested
        known, known_row = self.log10p_max[at], self.best_row[at]
        better = (row >= 0) & ((known_row < 0) | (log10p > known) | ((log10p == known) & (row < known_row)))
        self.log10p_max[at[better]], self.best_row[at[better]] = log10p[better], row[better]

    def keep_hits(self, hits: np.ndarray) -> None:
        """Further hits, merged with those that are known."""
        self.hits = merge_hits([self.hits, hits])

    def mean(self, name: str) -> np.ndarray:
        """A figure of the null models (t,): its mean over the parts, each weighted by its tested SNPs."""
        return mean_over_parts(self.nulls[name], self.tested)


_COLUMNS = ("nulls", "tested", "log10p_max", "best_row", "flags", "hits")


def mean_over_parts(values: np.ndarray, tested: np.ndarray) -> np.ndarray:
    """The mean of ``values`` (C, t) over the parts, each weighted by its SNPs ``tested`` (C, t): (t,)."""
    if len(values) == 1:
        return values[0]
    with np.errstate(invalid="ignore"):
        return (values * tested).sum(axis=0) / tested.sum(axis=0)
