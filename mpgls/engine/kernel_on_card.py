"""The products of the kernel of ridge regression on the card of this rank, in float64; ranks decode."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mpgls.device.card import PRODUCTS, Card
from mpgls.engine.kernel import KernelTiles
from mpgls.la.shared import SharedArray

if TYPE_CHECKING:
    from mpi4py import MPI

EDGE = 2048
"""Rows and columns of a tile of K on a card."""


class KernelTilesOnCard(KernelTiles):
    """`KernelTiles` that lie on ``card`` until they are shared."""

    edge = EDGE

    def __init__(self, n: int, comm: MPI.Comm, card: Card) -> None:
        super().__init__(n, comm)
        self.card = card
        with card.lane(PRODUCTS):
            self._on_card: dict[int, Any] = {k: card.xp.zeros(tile.shape) for k, tile in self.mine.items()}

    def add(self, X: np.ndarray) -> None:
        """K += X X' for X (n, B)."""
        with self.card.lane(PRODUCTS):
            X_T = self.card.xp.asarray(np.ascontiguousarray(X.T))
            for k, tile in self._on_card.items():
                rows, cols = self.places[k]
                tile += X_T[:, rows].T @ X_T[:, cols]

    def share(self, K_node: SharedArray, divisor: float) -> None:
        """Bring all tiles to every node, divided: both triangles of ``K_node``. Collective."""
        with self.card.lane(PRODUCTS):
            for k in self.mine:
                self.mine[k] = self.card.to_host(self._on_card.pop(k))
        super().share(K_node, divisor)


def kernel_tiles(n: int, comm: MPI.Comm, card: Card | None) -> KernelTiles:
    """This rank's tiles of the lower triangle of K (n, n), on the rank or on its card."""
    return KernelTiles(n, comm) if card is None else KernelTilesOnCard(n, comm, card)


def kernel_bytes(n: int, ranks: int, width: int) -> int:
    """Bytes of the card that adds most tiles, for blocks of ``width`` SNPs."""
    edges = -(-n // EDGE)
    tile = 8 * min(n, EDGE) ** 2
    return (-(-edges * (edges + 1) // 2 // ranks) + 1) * tile + 8 * n * width
