"""Whether the rows of a table, which ranks make in parts, are sorted by chromosome and position."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np


class Run(NamedTuple):
    """Rows beside one another on one chromosome: positions of the first and the last, and whether they ascend.

    ``at`` orders the runs of a table.
    """

    at: tuple[int, int]
    chrom: str
    first: int
    last: int
    ascends: bool


def runs_of(chrom: Sequence[str], pos: np.ndarray, at: int) -> list[Run]:
    """The runs of a part of a table that begins at ``at``; ``pos`` (rows,)."""
    names = np.array(chrom, dtype=object)
    begins = np.flatnonzero(np.append(True, names[1:] != names[:-1])) if names.size else np.empty(0, dtype=int)
    found = []
    for number, rows in enumerate(np.split(np.arange(names.size), begins[1:]) if names.size else []):
        of_run = pos[rows]
        ascends = bool(np.all(np.diff(of_run) >= 0))
        found.append(Run((at, number), str(names[rows[0]]), int(of_run[0]), int(of_run[-1]), ascends))
    return found


def why_unsorted(runs: Iterable[Run]) -> str | None:
    """What stands in another order in a table of these ``runs``, None if nothing does.

    Chromosomes may stand in any order, but each only once.
    """
    seen: dict[str, int] = {}
    before = None
    for run in sorted(runs):
        if run.chrom != before and run.chrom in seen:
            return f"chromosome {run.chrom} begins twice"
        if not run.ascends or run.first < seen.get(run.chrom, run.first):
            return f"positions of chromosome {run.chrom} do not ascend"
        seen[run.chrom], before = run.last, run.chrom
    return None


def in_genome_order(runs: Sequence[Run]) -> bool:
    """Whether a table of these ``runs``, whose chromosomes are numbers, ascends by chromosome, then by position."""
    numbers = [int(run.chrom) for run in sorted(runs)]
    return why_unsorted(runs) is None and numbers == sorted(numbers)


def places_of(text: bytes) -> tuple[list[str], np.ndarray]:
    """Chromosome and position, int64 (rows,), of lines whose first two columns they are."""
    places = [line.split("\t", 2)[:2] for line in text.decode().split("\n")[:-1]]
    return [place[0] for place in places], np.array([place[1] for place in places], dtype=np.int64)
