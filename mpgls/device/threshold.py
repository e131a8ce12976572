"""Which numbers of a tile on a card reach the bound of their column: compared where they lie, without a copy of them.

A kernel reads the tile once and appends the places of what it finds, in no order. NumPy in its place compacts.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mpgls.device import kernels
from mpgls.device.products import has_cublas


class Found(NamedTuple):
    """Of numbers that were found on a card: ``places``, int64 (room,), and their ``count``, uint64 (1,).

    Those beyond the room are counted only.
    """

    places: Any
    count: Any

    @classmethod
    def empty(cls, xp: Any, room: int) -> Found:
        """With room for so many."""
        return cls(xp.zeros(room, dtype=np.int64), xp.zeros(1, dtype=np.uint64))


def add_beyond(xp: Any, tile: Any, bound: Any, first: int, stride: int, found: Found) -> None:
    """Add to ``found`` the places of |tile| >= bound, both float32: element (i, j) has ``first`` + i ``stride`` + j.

    ``tile`` (r, w), rows one after the other in memory; ``bound`` (w,); in the lane of the body.
    """
    if has_cublas(xp):
        kernels.beyond(xp, tile, bound, first, stride, *found)
        return
    rows, columns = xp.nonzero(xp.abs(tile) >= bound)
    begin, count = int(found.count[0]), found.count
    fit = max(0, min(rows.size, found.places.size - begin))
    found.places[begin : begin + fit] = (first + rows * stride + columns)[:fit]
    count += rows.size
