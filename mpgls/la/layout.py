"""Index arithmetic of block-cyclic distributions: which process owns an element, and where. No MPI in here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True)
class BlockCyclic:
    """``range(n)`` dealt to ``parts`` processes in blocks of ``block``, starting with process 0."""

    n: int
    block: int
    parts: int

    def count(self, part: int) -> int:
        """Number of indices that process ``part`` owns (ScaLAPACK's NUMROC)."""
        full_blocks, rest = divmod(self.n, self.block)
        rounds, extra = divmod(full_blocks, self.parts)
        tail = self.block if part < extra else rest if part == extra else 0
        return rounds * self.block + tail

    def indices(self, part: int) -> np.ndarray:
        """The global indices that process ``part`` owns, ascending, int64."""
        local = np.arange(self.count(part), dtype=np.int64)
        return (local // self.block * self.parts + part) * self.block + local % self.block

    def owner(self, index: np.ndarray) -> np.ndarray:
        """The process that owns each global index."""
        return np.asarray(index) // self.block % self.parts

    def local(self, index: np.ndarray) -> np.ndarray:
        """The position of each global index within its owner's indices."""
        index = np.asarray(index)
        return index // (self.block * self.parts) * self.block + index % self.block


@dataclass(frozen=True)
class FoldedRows:
    """``range(n)`` dealt to ``parts`` processes so that the rows of a triangle weigh the same for each.

    Of 2 ``parts`` nearly equal intervals process r has the r-th from the top and the r-th from the bottom.
    """

    n: int
    parts: int

    def intervals(self, part: int) -> tuple[range, range]:
        """The rows of process ``part``, ascending."""
        cuts = [self.n * k // (2 * self.parts) for k in range(2 * self.parts + 1)]
        below = 2 * self.parts - 1 - part
        return range(cuts[part], cuts[part + 1]), range(cuts[below], cuts[below + 1])


class Block(NamedTuple):
    """Neighbouring rows and columns of a matrix."""

    rows: range
    cols: range


def blocks_of_triangle(rows: range, smallest: int) -> list[Block]:
    """Blocks that cover ``rows`` of a lower triangle, wide ones before narrow ones.

    What is left of the diagonal block of the rows is one block; that is halved until at most ``smallest`` rows are left
    of a square with zeros above its diagonal.
    """
    left = [Block(rows, range(rows.start))] if rows and rows.start else []
    return left + _halved(rows, smallest)


def _halved(rows: range, smallest: int) -> list[Block]:
    if len(rows) <= smallest:
        return [Block(rows, rows)] if rows else []
    top, bottom = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    return [Block(bottom, top), *_halved(top, smallest), *_halved(bottom, smallest)]


@dataclass(frozen=True)
class GridLayout:
    """[MC,MR]: element (i, j) lives on process (rows.owner(i), cols.owner(j)) of a process grid."""

    rows: BlockCyclic
    cols: BlockCyclic

    @classmethod
    def of(cls, shape: tuple[int, int], blocks: tuple[int, int], grid_shape: tuple[int, int]) -> GridLayout:
        """The layout of a ``shape`` matrix in ``blocks`` = (mb, nb) on a grid of ``grid_shape`` = (p_r, p_c)."""
        (m, n), (mb, nb), (p_r, p_c) = shape, blocks, grid_shape
        return cls(BlockCyclic(m, mb, p_r), BlockCyclic(n, nb, p_c))

    @property
    def shape(self) -> tuple[int, int]:
        """Global shape."""
        return self.rows.n, self.cols.n

    def local_shape(self, row: int, col: int) -> tuple[int, int]:
        """Shape of the local block of process (row, col)."""
        return self.rows.count(row), self.cols.count(col)


@dataclass(frozen=True)
class Slabs:
    """[*,VR] in bounded pieces: whole columns dealt in slabs of ``width`` to ``ranks``, slab s to rank s mod ranks.

    Round r is the set of slabs r*ranks .. (r+1)*ranks - 1, one for each rank, so a loop over rounds moves a matrix with
    buffers of one slab a rank.
    """

    n: int
    width: int
    ranks: int

    @property
    def rounds(self) -> int:
        """Number of rounds until every column was somebody's."""
        return math.ceil(self.n / (self.width * self.ranks))

    def columns(self, round_: int, rank: int) -> range:
        """The columns of ``rank`` in ``round_``: a range of at most ``width``, perhaps empty."""
        start = min(self.n, (round_ * self.ranks + rank) * self.width)
        return range(start, min(self.n, start + self.width))


def grid_shape(ranks: int) -> tuple[int, int]:
    """The most square (p_r, p_c) with p_r <= p_c: the panels of p?potrf are columns."""
    p_r = next(d for d in range(math.isqrt(ranks), 0, -1) if ranks % d == 0)
    return p_r, ranks // p_r
