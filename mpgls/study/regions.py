"""Ranges of positions on chromosomes, such as those that --range takes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mpgls.errors import InputError
from mpgls.study.chromosome_names import plain_chromosome
from mpgls.study.text import PathLike, TextRows


@dataclass(frozen=True, eq=False)
class Regions:
    """Ranges (k, 2) of positions, both ends included, ascending and apart, by the plain name of the chromosome."""

    path: str
    ranges: dict[str, np.ndarray]
    notes: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """One line for the log."""
        count = sum(map(len, self.ranges.values()))
        return "; ".join([f"{self.path}: {count:,} ranges on {len(self.ranges):,} chromosomes", *self.notes])

    def contain(self, chromosomes: Iterable[str], positions: np.ndarray) -> np.ndarray:
        """(B,) bool: which positions are in a range of any of these chromosomes, by plain names."""
        inside = np.zeros(positions.size, dtype=bool)
        for name in chromosomes:
            begins, ends = self.ranges[name].T
            at = np.searchsorted(begins, positions, side="right") - 1
            inside |= (at >= 0) & (positions <= ends[at])
        return inside


def read_regions(path: PathLike) -> Regions:
    """Ranges of a file, one a line: chromosome, first and last position, both included; further fields are not read.

    Ranges that overlap are joined. Raises InputError, naming the line, for a position that is no whole number and for
    a range that runs backwards; StorageError for an unreadable file.
    """
    rows = TextRows(path, least=3)
    found: dict[str, list[tuple[int, int]]] = {}
    for number, (name, *ends) in rows:
        if number == rows.line and name.startswith("#"):
            continue
        try:
            first, last = int(ends[0]), int(ends[1])
        except (ValueError, IndexError):
            raise InputError(
                f"{rows.path}, line {number}: expected a chromosome and two positions, found "
                f"{' '.join([name, *ends[:2]])!r}"
            ) from None
        if first > last:
            raise InputError(f"{rows.path}, line {number}: the range from {first} to {last} runs backwards")
        found.setdefault(plain_chromosome(name), []).append((first, last))
    if not found:
        raise InputError(f"{rows.path} lists no range")
    return Regions(rows.path, {name: _joined(ranges) for name, ranges in found.items()}, rows.lines.notes)


def _joined(ranges: list[tuple[int, int]]) -> np.ndarray:
    """The union, ascending."""
    apart: list[list[int]] = []
    for first, last in sorted(ranges):
        if apart and first <= apart[-1][1]:
            apart[-1][1] = max(apart[-1][1], last)
        else:
            apart.append([first, last])
    return np.array(apart, dtype=np.int64)
