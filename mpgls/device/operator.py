"""The operator of a team of GPUs: each holds rows of W = L^-1 or Z', and gives p+1 numbers a SNP.

The ranks of a team exchange packed genotypes; each decodes all of them on its card, multiplies its rows of W, and sums
over these rows; what the team adds up is p+1 numbers a SNP:

    X~       = s o sum_pq u_p v_q A_p B_q'  -  (W 1) d'  +  (W M) diag(d)       d = mean - c,  M = missing
    S_BL, b_B, S_BR = F~'X~, x~'x~

Rows come in panels of a fixed height. A panel of a triangle has its leading columns only. Panels that do not fit on the
card stay in the memory of the host, and are copied one ahead of the product.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mpgls.device import kernels
from mpgls.device.card import COPIES, PRODUCTS, Card
from mpgls.device.parts import Columns, Double
from mpgls.device.products import aligned, has_cublas
from mpgls.la.layout import Block, FoldedRows

HEIGHT = 1024
"""Rows of a panel."""


class Centring(NamedTuple):
    """What makes shifted counts of B SNPs centred: d (B,) on the card; the ``gaps``, SNPs with missing genotypes, and
    ``missing`` genotypes of those, first, None where there are none.
    """

    d: Any
    gaps: Any
    missing: Columns | None


def panel_height(n: int) -> int:
    """Rows of the highest panel of W, n x n."""
    return min(HEIGHT, n)


def row_strips(count: int) -> list[slice]:
    """Some rows in panels of a fixed height, in their order."""
    return [slice(first, min(first + HEIGHT, count)) for first in range(0, count, HEIGHT)]


def row_panels(n: int, ranks: int, triangle: bool) -> list[list[Block]]:
    """The panels of W, n x n, of each rank of a team; every row once, the triangle dealt evenly."""
    return [
        [
            Block(rows[first : first + HEIGHT], range(rows[first : first + HEIGHT].stop if triangle else n))
            for rows in FoldedRows(n, ranks).intervals(rank)
            for first in range(0, len(rows), HEIGHT)
        ]
        for rank in range(ranks)
    ]


@dataclass(eq=False)
class Panel:
    """Some rows of W: ``parts`` (count, r, k) on the card or, until they are needed, on the host."""

    parts: Any
    scale: Any
    W_one: Any
    """W 1 (r,)."""
    F_tilde: Any
    """Their rows of L^-1 [X_L | y]."""
    resident: bool


class DeviceOperator:
    """This rank's rows of W on ``card``, in ``precision``; ``take`` gives it its panels, in the order of `row_panels`.

    ``room``: bytes of the card for them.
    """

    def __init__(self, card: Card, precision: Double, room: int) -> None:
        self.card, self.precision = card, precision
        self._panels: list[Panel] = []
        self._left = room
        self._buffers: list[Any] = []
        self._free: list[Any] = [None, None]
        self._turn = 0

    def take(self, W: Any, F_tilde: np.ndarray) -> None:
        """The next panel: ``W`` (r, k) float64, zero above the diagonal of a triangle, and its rows of L^-1 [X_L|y].

        W lies on the host or on the card.
        """
        card, xp = self.card, self.card.xp
        r, k = W.shape
        with card.lane(PRODUCTS):
            padded = xp.zeros((r, aligned(k)))
            padded[:, :k] = xp.asarray(W)
            parts, scale = self.precision.split(xp, padded)
            W_one = ordered_sums(padded.T)
            F = xp.asarray(np.ascontiguousarray(F_tilde))
            resident = parts.nbytes <= self._left
            if not resident:
                on_host = card.host_array(parts.shape, parts.dtype)
                on_host[...] = card.to_host(parts)
                parts = on_host
            else:
                self._left -= parts.nbytes
            self._panels.append(Panel(parts, scale, W_one, F, resident))

    @property
    def resident_bytes(self) -> int:
        """Bytes of W that stay on the card."""
        return sum(panel.parts.nbytes for panel in self._panels if panel.resident)

    @property
    def streamed_bytes(self) -> int:
        """Bytes of W that are copied to the card for every block."""
        return sum(panel.parts.nbytes for panel in self._panels if not panel.resident)

    def sums(self, X: Columns, centring: Centring) -> Any:
        """F~'X~ and, last, x~'x~ of B SNPs over this rank's rows: float64 (q+2, B) on the card.

        To be called in the lane of products.
        """
        return self._sums(X, centring)

    def sums_of_any(self, H: Any) -> Any:
        """`sums` of columns of any numbers H (n, B), float64 on the card; in the lane of products."""
        X, scale = self.precision.split_columns(self.card.xp, H)
        none = Centring(self.card.xp.zeros(X.parts[0].shape[0]), None, None)
        total = self._sums(X, none) * scale
        total[-1] *= scale
        return total[:, : H.shape[1]]

    def _sums(self, X: Columns, centring: Centring) -> Any:
        total = None
        for panel, parts in self._in_turn():
            product = self._uncentred(panel, parts, X, centring)
            partial = panel_sums(self.card.xp, product, panel, centring.d)
            total = partial if total is None else total + partial
        return total

    def apply_any(self, X: Columns, scale: Any) -> Iterator[tuple[Panel, Any]]:
        """Rows of W times columns of any numbers, in parts and with the scale of each, as `Double.split_columns` gives.

        (r, B) of each panel in turn; in the lane of products.
        """
        for panel, parts in self._in_turn():
            product = self.precision.product(self.card.xp, parts, X.leading(parts.shape[2]))
            product *= panel.scale[:, None].astype(product.dtype)
            product *= scale.astype(product.dtype)
            yield panel, product

    def apply(self, X: Columns, centring: Centring) -> Iterator[tuple[Panel, Any]]:
        """Rows of W times B centred SNPs, (r, B) of each panel in turn; in the lane of products."""
        for panel, parts in self._in_turn():
            yield panel, centred(self.card.xp, self._uncentred(panel, parts, X, centring), panel, centring.d)

    def _uncentred(self, panel: Panel, parts: Any, X: Columns, centring: Centring) -> Any:
        """Rows of W (X + M diag(d)), in the precision of sums, before they are scaled."""
        xp, precision = self.card.xp, self.precision
        product = precision.product(xp, parts, X.leading(parts.shape[2]))
        if centring.missing is not None:
            gaps = centring.gaps
            of_missing = precision.product(xp, parts, centring.missing.leading(parts.shape[2]))[:, : gaps.size]
            product[:, gaps] += of_missing * centring.d[gaps].astype(product.dtype)
        return product

    def _in_turn(self) -> Iterator[tuple[Panel, Any]]:
        """Each panel with its parts on the card; those of the host are copied while the one before is multiplied."""
        card = self.card
        streamed = iter([panel for panel in self._panels if not panel.resident])
        ahead = self._begin_copy(next(streamed, None))
        for panel in self._panels:
            if panel.resident:
                yield panel, panel.parts
                continue
            assert ahead is not None
            turn, parts, copied = ahead
            ahead = self._begin_copy(next(streamed, None))
            card.follow(copied)
            yield panel, parts
            self._free[turn] = card.mark()

    def _begin_copy(self, panel: Panel | None) -> tuple[int, Any, Any] | None:
        """Begin to copy a panel into the buffer whose turn it is: its number, the parts, and the mark of their end."""
        if panel is None:
            return None
        card, xp = self.card, self.card.xp
        with card.lane(COPIES):
            if not self._buffers:
                largest = max(one.parts.size for one in self._panels if not one.resident)
                self._buffers = [xp.empty(largest, dtype=self.precision.kind) for _ in range(2)]
            turn, self._turn = self._turn, 1 - self._turn
            card.follow(self._free[turn])
            parts = self._buffers[turn][: panel.parts.size].reshape(panel.parts.shape)
            card.copy_in(panel.parts, parts)
            return turn, parts, card.mark()


def centred(xp: Any, product: Any, panel: Panel, d: Any) -> Any:
    """X~ = s o product - (W 1) d' (r, B), in the type of ``product``, which is overwritten."""
    product *= panel.scale[:, None].astype(product.dtype)
    product -= xp.multiply(panel.W_one[:, None], d).astype(product.dtype)
    return product


def panel_sums(xp: Any, product: Any, panel: Panel, d: Any) -> Any:
    """F~'X~ and, last, x~'x~ of each column of a panel of X~ = s o product - (W 1) d': float64 (k+1, B).

    Numbers are added in an order that depends on nothing but r. ``product`` is overwritten.
    """
    F = panel.F_tilde
    if has_cublas(xp):
        sums = kernels.panel_sums(xp, product, panel.scale, panel.W_one, d, F)
    else:
        X = centred(xp, product, panel, d).astype(np.float64)
        sums = xp.concatenate([f[:, None] * X for f in F.T] + [X * X], axis=1)
    return ordered_sums(sums).reshape(F.shape[1] + 1, -1)


def ordered_sums(values: Any) -> Any:
    """The sum of each column of ``values`` (r, B), float64, which are overwritten: halves are added until one is left.

    Only pairs of numbers are added, so every array module rounds alike, and no column looks at another.
    """
    r = values.shape[0]
    while r > 1:
        half = (r + 1) // 2
        values[: r - half] += values[half:r]
        r = half
    return values[0].copy()


def team_blocks(places: Sequence[tuple[int, int]], n: int, triangle: bool) -> list[list[Block]]:
    """The panels of every rank of a grid; ``places`` are the size of its team and its rank in it."""
    return [row_panels(n, ranks, triangle)[rank] for ranks, rank in places]
