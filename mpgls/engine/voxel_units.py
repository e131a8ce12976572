"""Units of a voxelwise GWAS, a block of SNPs under a range of permutations: cutting, keeping and joining them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from mpgls.model.clusters import RECORD_DTYPE

ENTRY_DTYPE = np.dtype([("index", "<i4"), ("snp", "<i4"), ("voxel", "<i4"), ("t", "<f8"), ("beta", "<f8")])
"""A pair beyond the threshold: permutation, SNP of the block, voxel, t, and the effect of an allele."""
_OF_MAXIMA = "maxima/"


class Unit(NamedTuple):
    """SNPs ``start``..``stop`` (positions among the selected ones) under the permutations ``first``..``last`` - 1."""

    start: int
    stop: int
    first: int
    last: int

    @property
    def work(self) -> int:
        """SNPs times permutations."""
        return (self.stop - self.start) * (self.last - self.first)


def cut_units(m: int, indices: range, block: int, permutations: int) -> list[Unit]:
    """All units of m SNPs under the permutations ``indices``, those of a block in turn."""
    return [
        Unit(start, min(start + block, m), first, min(first + permutations, indices.stop))
        for start in range(0, m, block)
        for first in range(indices.start, indices.stop, permutations)
    ]


@dataclass(frozen=True, eq=False)
class Unpermuted:
    """Of a block under index 0: ``records`` of its SNPs (RECORD_DTYPE) and ``entries`` sorted by SNP and voxel."""

    records: np.ndarray
    entries: np.ndarray


@dataclass(frozen=True, eq=False)
class UnitResult:
    """Of one unit: ``maxima`` (last - first,) of each statistic over its SNPs, and the voxels that are ``constant``;
    with index 0 also the ``data`` as is."""

    maxima: dict[str, np.ndarray]
    constant: np.ndarray
    data: Unpermuted | None = None

    def arrays(self) -> dict[str, np.ndarray]:
        """The result as named arrays, for a log of units."""
        named = {_OF_MAXIMA + name: values for name, values in self.maxima.items()} | {"constant": self.constant}
        if self.data is not None:
            named |= {"records": self.data.records, "entries": self.data.entries}
        return named

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> UnitResult:
        """The result that `arrays` took apart."""
        maxima = {name[len(_OF_MAXIMA) :]: values for name, values in arrays.items() if name.startswith(_OF_MAXIMA)}
        data = Unpermuted(arrays["records"], arrays["entries"]) if "records" in arrays else None
        return cls(maxima, arrays["constant"], data)


@dataclass(eq=False)
class JoinedUnits:
    """What all ``units`` of m SNPs under the permutations ``indices`` add up to, once `blocks` has been read through.

    ``maxima``: for each statistic (len(indices),); ``records`` (m,) RECORD_DTYPE; ``constant``: voxels not tested.
    """

    units: Sequence[Unit]
    indices: range
    m: int
    maxima: dict[str, np.ndarray] = field(init=False, default_factory=dict)
    records: np.ndarray = field(init=False)
    constant: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.records, self.constant = np.zeros(self.m, dtype=RECORD_DTYPE), np.empty(0, dtype=np.int32)

    def blocks(self, read: Callable[[Unit], Mapping[str, np.ndarray]]) -> Iterator[tuple[Unit, np.ndarray]]:
        """(unit, its pairs beyond the threshold) of the data as they are, a block at a time, in the order of the SNPs.

        ``read`` gives the arrays of a unit's result.
        """
        for unit in self.units:
            result = UnitResult.of(read(unit))
            at = slice(unit.first - self.indices.start, unit.last - self.indices.start)
            for name, values in result.maxima.items():
                of_run = self.maxima.setdefault(name, np.zeros(len(self.indices)))
                of_run[at] = np.maximum(of_run[at], values)
            self.constant = result.constant
            if result.data is not None:
                self.records[unit.start : unit.stop] = result.data.records
                yield unit, result.data.entries
