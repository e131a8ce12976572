"""Sums of outer products of columns on a card: a rank's part of X diag(w) X', exact in its integers.

    whole      S_ij += sum_k a_ik a_jk                          a small whole numbers: int8 products, int32 sums
    weighted   S_ij += sum_k l_ik (a_jk - d_k + d_k m_jk)       l = w x centred, split into seven int8 parts

S stays on the card in float64. Only its strips on or below the diagonal of the whole matrix are added to.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mpgls.device.card import PRODUCTS, Card
from mpgls.device.operator import HEIGHT
from mpgls.device.parts import BASE, PRECISIONS, Columns, digits
from mpgls.device.products import INT8, add_integer_product, aligned, integer_product

EXACT = PRECISIONS["exact"]
DIGITS = 4
"""Of a sum of counts in base 256."""


class OuterSums:
    """S for rows and columns ``row_indices`` and ``col_indices``, ascending, of the whole matrix; zeros at first.

    Its other methods are to be called in the lane of products.
    """

    def __init__(self, card: Card, row_indices: np.ndarray, col_indices: np.ndarray) -> None:
        self.card = card
        with card.lane(PRODUCTS):
            self.S = card.xp.zeros((row_indices.size, col_indices.size))
        starts = range(0, row_indices.size, HEIGHT)
        strips = [slice(start, min(start + HEIGHT, row_indices.size)) for start in starts]
        leading = [int(np.searchsorted(col_indices, row_indices[rows][-1], "right")) for rows in strips]
        self._strips = [strip for strip in zip(strips, leading, strict=True) if strip[1]]  # CUDA takes no empty ones
        self.flop = sum(2.0 * (rows.stop - rows.start) * leading for rows, leading in self._strips)
        """Operations of a SNP."""

    def add_whole(self, A: Any, B: Any, largest: int) -> None:
        """S += A B' for int8 A (rows, k) and B (columns, k), B of at most ``largest`` in size.

        B has rows that mean nothing up to whole memory accesses, A may have.
        """
        for rows, leading in self._strips:
            add_integer_product(self.card.xp, self.S[rows, :leading], A[rows], B[: aligned(leading)], largest)

    def add_weighted(self, L: Any, X: Columns, d: Any, missing: Columns | None, gaps: Any) -> None:
        """S += L (X - 1 d' + M diag(d))' for float64 L (rows, k) and X of columns (columns, k), d (k,).

        X has rows that mean nothing up to whole memory accesses, L may have. ``missing`` are the columns ``gaps`` of M,
        the others are zero; None where all are.
        """
        for rows, leading in self._strips:
            self.S[rows, :leading] += self._product(L[rows], X, leading) - (L[rows] @ d)[:, None]
            if missing is not None:
                L_d = self.card.xp.zeros((rows.stop - rows.start, missing.parts[0].shape[1]))
                L_d[:, : gaps.size] = L[rows][:, gaps] * d[gaps]
                self.S[rows, :leading] += self._product(L_d, missing, leading)

    def _product(self, L: Any, X: Columns, leading: int) -> Any:
        parts, scale = EXACT.split(self.card.xp, L)
        columns = Columns([part[: aligned(leading)] for part in X.parts], X.counts)
        return EXACT.product(self.card.xp, parts, columns)[:, :leading] * scale[:, None]

    def times(self, A: Any, s: Any) -> Any:
        """A s (rows,) of int8 A (rows, k) and float64 whole numbers ``s`` (k,) below 2^31 in size: exact."""
        xp = self.card.xp
        rows_of_digits = xp.zeros((aligned(DIGITS), A.shape[1]), dtype=np.int8)
        rows_of_digits[:DIGITS] = xp.stack(digits(xp, s, DIGITS))
        return integer_product(xp, A, rows_of_digits, INT8)[:, :DIGITS] @ xp.asarray(float(BASE) ** np.arange(DIGITS))

    def give(self, into: np.ndarray) -> None:
        """Copy S ``into`` memory of the host, and begin anew with zeros."""
        into[...] = self.card.to_host(self.S)
        self.S[...] = 0.0
