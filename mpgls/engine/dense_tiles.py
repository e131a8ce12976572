"""Tiles of a multi-trait scan on their way to the dense store: each is written while the next one is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mpgls.stream.dense_store import DenseStore, save_trait_values
from mpgls.stream.writer import BlockWriter

if TYPE_CHECKING:
    from mpgls.engine.tile_scan import ResidentPanel, RotatedBlock
    from mpgls.run.world import World
    from mpgls.study.trait_groups import TraitGroup


class TraitOrder:
    """The order of the traits in a dense store, in which those of a group are neighbours.

    ``traits`` are their positions in the file of ``count`` traits, ``group`` the number of each one's group.
    """

    def __init__(self, groups: Sequence[TraitGroup], count: int) -> None:
        self.traits = np.concatenate([group.traits for group in groups])
        self.group = np.repeat(np.arange(len(groups)), [group.traits.size for group in groups])
        self.position = np.full(count, -1, dtype=np.int64)
        self.position[self.traits] = np.arange(self.traits.size)


class DenseTiles:
    """Where the tiles of this rank go; ``panel`` is the largest number of traits of one. Creating it is collective."""

    def __init__(self, store: DenseStore, order: TraitOrder, panel: int, checkpoint: float, world: World) -> None:
        self.store, self.order, self.world = store, order, world
        self._tile = tuple(np.full((panel, store.block), np.nan, dtype=np.float32) for _ in range(2))
        with world.together():
            self._writer = BlockWriter(store.path, store.offsets["done"], 4 * panel * store.block, checkpoint)

    def keep_nulls(self, trait: int, columns: Mapping[str, np.ndarray]) -> None:
        """h2, h2_se, s2 and df of the traits from ``trait`` (its position in the file) on. Collective."""
        first = int(self.order.position[trait])
        self.world.on_root(lambda: save_trait_values(self.store.path, first, **columns))

    def keep_means(self, columns: Mapping[str, np.ndarray]) -> None:
        """Values (t,) of all traits, in the order of their file. Call on one rank."""
        save_trait_values(self.store.path, **{name: values[self.order.traits] for name, values in columns.items()})

    def room(self, traits: int, snps: int) -> tuple[np.ndarray, np.ndarray]:
        """Where the effects and standard errors of a tile belong, each (traits, snps) float32."""
        beta, se = self._tile
        return beta[:traits, :snps], se[:traits, :snps]

    def write(self, one: ResidentPanel, block: RotatedBlock, note: np.ndarray) -> None:
        """Start to write the tile that lies in ``room``; it is marked done when both its parts are on disk."""
        store, k = self.store, block.number
        first = int(self.order.position[one.traits[0]])
        panel = int(np.searchsorted(store.panels[:, 1], first, side="right"))
        if one.first == 0:
            store.write_snps(one.group, k, block.stats.eaf, block.stats.n_obs, note)
        for name, mark, tile in zip(("beta", "se"), (None, store.mark(panel, k)), self._tile, strict=True):
            tile[:, len(block.rows) :] = np.nan
            self._writer.write(mark, store.tile_offset(name, k, first), tile[: one.panel.t])

    def checkpoint(self) -> None:
        """Sync and mark what was written."""
        self._writer.checkpoint()

    def close(self) -> None:
        """Sync, mark and close; nobody writes afterwards. Collective."""
        with self.world.together():
            self._writer.close()
