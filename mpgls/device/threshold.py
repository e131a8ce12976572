"""Which numbers of a tile on a card reach the bound of their column: compared where they lie, without a copy of them.

A kernel reads the tile once and appends the places of what it finds, in no order. NumPy in its place compacts.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from mpgls.device.products import has_cublas

THREADS = 256
"""Columns of a block of threads."""
ROWS = 16
"""Rows that a thread looks at."""
SOURCE = r"""
extern "C" __global__ void beyond(const float* tile, const float* bound, long long rows, long long width,
                                  long long first, long long stride,
                                  long long* places, unsigned long long* count, unsigned long long room)
{
    const long long column = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= width) return;
    const float least = bound[column];
    for (long long row = blockIdx.y; row < rows; row += gridDim.y) {
        if (fabsf(tile[row * width + column]) >= least) {
            const unsigned long long at = atomicAdd(count, 1ULL);
            if (at < room) places[at] = first + row * stride + column;
        }
    }
}
"""


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
    r, width = tile.shape
    if not has_cublas(xp):
        rows, columns = xp.nonzero(xp.abs(tile) >= bound)
        begin, count = int(found.count[0]), found.count
        fit = max(0, min(rows.size, found.places.size - begin))
        found.places[begin : begin + fit] = (first + rows * stride + columns)[:fit]
        count += rows.size
        return
    blocks = -(-width // THREADS), -(-r // ROWS)
    sizes = (np.int64(r), np.int64(width), np.int64(first), np.int64(stride))
    room = np.uint64(found.places.size)
    _kernel(xp)(blocks, (THREADS,), (tile, bound, *sizes, found.places, found.count, room))


@functools.cache
def _kernel(cupy: Any) -> Any:
    return cupy.RawKernel(SOURCE, "beyond")
