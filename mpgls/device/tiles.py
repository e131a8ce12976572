"""Tiles of many rows and columns: x = R^2 / d for d = B D, counted in bins of its bits, and the largest of each row.

On a GPU one kernel reads R once; elsewhere array operations say the same.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mpgls.device import kernels
from mpgls.device.products import has_cublas


class Bins(NamedTuple):
    """x is in bin (bits of its float32 >> ``shift``) - ``base`` of a ``number`` of bins; from ``whole`` on it is 1."""

    shift: int
    base: int
    number: int
    whole: float


def shares(xp: Any, R: Any, B: Any, D: Any, whole: float) -> tuple[Any, Any]:
    """x and d (t, k) of R (t, k), B (t, r) and D (r, k), all of one type."""
    d = B @ D
    x = R * R
    x /= d
    return xp.where(x >= whole, 1.0, x).astype(R.dtype, copy=False), d


def count_tile(xp: Any, tile: tuple[Any, Any, Any], left_out: tuple[Any, Any], counts: Any, bins: Bins) -> Any:
    """Add each x of the ``tile`` R, B, D to ``counts`` (t, number + 1) uint32, whose last column is not kept.

    ``left_out`` are rows (t,) and columns (k,) that have no x. Returns the largest x of each row and its column, the
    first of equal ones; -1 in a row without any.
    """
    R, B, D = tile
    rows, columns = left_out
    if has_cublas(xp):
        top, at = kernels.tile(xp, R, B, D, rows, columns, counts, bins)
        largest = top.max(axis=1)
        return largest, xp.where(top == largest[:, None], at, R.shape[1]).min(axis=1) % R.shape[1]
    x, _ = shares(xp, R, B, D, bins.whole)
    x = xp.where(rows[:, None] | columns, -1.0, x).astype(R.dtype, copy=False)
    bits = xp.ascontiguousarray(x, dtype=np.float32).view(np.int32)
    codes = xp.where(x < 0, bins.number, xp.clip((bits >> bins.shift) - bins.base, 0, bins.number - 1))
    codes += xp.arange(0, counts.size, bins.number + 1, dtype=codes.dtype)[:, None]
    xp.add.at(counts.reshape(-1), codes.reshape(-1), xp.ones(1, dtype=np.uint32))
    return x.max(axis=1), x.argmax(axis=1)
