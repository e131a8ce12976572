"""Errors of prediction of all folds of a penalty on a card, as batches of products of one shape.

    z = D Y                    residuals of all samples, or z = Y for smoothers
    e_k = A_k z_(rows k)       of leave-out;     e_k = Y_(test k) - A_k z_(rows k)     of smoothers

The matrices of a batch are padded with zeros to the largest, and the rows that they are multiplied with by a row of
zeros, the last of z and of Y. Which matrices, and why, is in `mpgls.model.kernel_ridge`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpgls.device.card import Card


def batch_shape(tests: Sequence[np.ndarray], rows: Sequence[np.ndarray]) -> tuple[int, int, int]:
    """(matrices, rows, columns) of a batch that predicts the samples ``tests`` from ``rows``."""
    return len(tests), max(one.size for one in tests), max(one.size for one in rows)


class Batch:
    """Zeros at first in place of the matrices that predict ``tests``, positions of samples, from those of ``rows``.

    ``subtracted``: what they give is subtracted from Y. To be made and used in the lane of products.
    """

    def __init__(
        self, card: Card, tests: Sequence[np.ndarray], rows: Sequence[np.ndarray], dtype: type, n: int, subtracted: bool
    ) -> None:
        xp = card.xp
        self.card = card
        self.A = xp.zeros(batch_shape(tests, rows), dtype=dtype)
        self._rows = xp.asarray(_padded(rows, n))
        self._tests = xp.asarray(_padded(tests, n)) if subtracted else None

    def put(self, k: int, A: Any) -> None:
        """Matrix ``k``, of the host or the card."""
        self.A[k, : A.shape[0], : A.shape[1]] = self.card.xp.asarray(A)

    def errors(self, z: Any, Y: Any, at: slice = slice(None)) -> Any:
        """e_k (matrices, rows, w) of those ``at``, of z and Y (n + 1, w), whose last rows are zeros."""
        xp = self.card.xp
        e = xp.matmul(self.A[at], xp.take(z, self._rows[at], axis=0))
        return e if self._tests is None else xp.take(Y, self._tests[at], axis=0) - e

    def squares(self, z: Any, Y: Any, work: int) -> Any:
        """|e_k|^2, float64 (matrices, w); ``work``: numbers that are made at a time, of a matrix at least."""
        found = self.card.xp.empty((len(self.A), z.shape[1]))
        for at in self._parts(z.shape[1], work):
            e = self.errors(z, Y, at)
            e *= e
            found[at] = e.sum(axis=1, dtype=np.float64)
        return found

    def _parts(self, width: int, work: int) -> Iterator[slice]:
        step = max(1, work // numbers_of_errors(self.A.shape, width))
        return (slice(start, start + step) for start in range(0, len(self.A), step))


@dataclass(frozen=True)
class FoldErrors:
    """Of one penalty: ``D`` (n, n), None for smoothers, and the matrices of the ``outer`` and ``inner`` folds."""

    D: Any
    outer: Batch
    inner: Batch

    def put(self, k: int, A: Any) -> None:
        """The matrix of fold ``k``; inner folds come after the outer ones."""
        outer = len(self.outer.A)
        if k < outer:
            self.outer.put(k, A)
        else:
            self.inner.put(k - outer, A)

    def residuals(self, xp: Any, Y: Any) -> Any:
        """z (n + 1, w) of Y (n + 1, w)."""
        if self.D is None:
            return Y
        z = xp.zeros(Y.shape, dtype=Y.dtype)
        z[:-1] = self.D @ Y[:-1]
        return z


def numbers_of_errors(shape: tuple[int, ...], width: int) -> int:
    """Numbers that one matrix of a batch of this ``shape`` makes of ``width`` columns."""
    _, rows, columns = shape
    return (2 * rows + columns) * width


def _padded(positions: Sequence[np.ndarray], n: int) -> np.ndarray:
    """Positions (matrices, largest), with ``n`` beyond their ends."""
    whole = np.full((len(positions), max(one.size for one in positions)), n)
    for row, one in zip(whole, positions, strict=True):
        row[: one.size] = one
    return whole
