"""Tiles of a multi-trait scan on their way to the dense store: each is written while the next one is computed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mpgls.stream.dense_store import RATIO_TILES, DenseStore, save_nulls
from mpgls.stream.store import OF_GENOTYPES
from mpgls.stream.writer import UnitWriter

if TYPE_CHECKING:
    from mpgls.model.trait_records import Pass
    from mpgls.run.world import World
    from mpgls.study.snp_stats import SnpStats
    from mpgls.study.trait_groups import TraitGroup


class TraitOrder:
    """The order of the traits in a dense store, in which those of a group are neighbours.

    ``traits`` are their positions among ``all_names``, the traits of the file; ``names`` and ``group`` say what each of
    them is called, and the number of its group.
    """

    def __init__(self, groups: Sequence[TraitGroup], all_names: Sequence[str]) -> None:
        self.traits = np.concatenate([group.traits for group in groups])
        self.group = np.repeat(np.arange(len(groups)), [group.traits.size for group in groups])
        self.names = [all_names[trait] for trait in self.traits]
        self.position = np.full(len(all_names), -1, dtype=np.int64)
        self.position[self.traits] = np.arange(self.traits.size)


def check_passes(
    store: DenseStore, order: TraitOrder, done: Iterable[Pass], blocks: Sequence[np.ndarray], world: World
) -> None:
    """Compare what the ``done`` passes wrote with its checksums; ``blocks`` are the numbers of each part's. Collective.

    The ranks share the passes. Raises StorageError, on all ranks, for a block that changed on disk: its pass is in the
    histograms and hits already, and cannot be made again alone.
    """
    with world.together():
        for one in sorted(done)[world.rank :: world.size]:
            first = int(np.searchsorted(order.group, one.group))
            for trait in range(first + one.first, first + one.stop):
                store.check(trait, blocks[one.part].tolist())


class DenseTiles:
    """Where the tiles of this rank go, of at most ``panel`` traits. Creating it is collective."""

    def __init__(self, store: DenseStore, order: TraitOrder, panel: int, checkpoint: float, world: World) -> None:
        self.store, self.order, self.world = store, order, world
        self._tiles = {name: np.full((panel, store.block), np.nan, dtype=np.float32) for name in store.tiles}
        with world.together():
            self._writer = UnitWriter(store.path, checkpoint)
            store.own.check()

    def keep_nulls(self, part: int, trait: int, nulls: np.ndarray) -> None:
        """The null models (k,) of the traits from ``trait`` (its position in the file) on, for a part. Collective."""
        first = int(self.order.position[trait])
        self.world.on_root(lambda: save_nulls(self.store, part, first, nulls))

    def room(self, traits: int, snps: int) -> dict[str, np.ndarray]:
        """Where the effects and standard errors of a tile belong, "beta" and "se", each (traits, snps) float32.

        And "h2", all NaN, of pairs that have their own, where the store keeps that.
        """
        for name in RATIO_TILES:
            if name in self._tiles:
                self._tiles[name][:] = np.nan
        return {name: tile[:traits, :snps] for name, tile in self._tiles.items()}

    def write(self, k: int, traits: np.ndarray, snps: int) -> None:
        """Start to write the tile that lies in ``room``: block ``k`` of so many SNPs, the traits at ``traits``.

        It is done when all its parts are on disk.
        """
        store, first = self.store, int(self.order.position[traits[0]])
        for tile in self._tiles.values():
            tile[:, snps:] = np.nan
        parts = [(store.tile_offset(name, k, first), tile[: traits.size]) for name, tile in self._tiles.items()]
        self._writer.write(parts, store.sum_offset(k, first))

    def write_snps(self, k: int, group: int, stats: SnpStats, note: np.ndarray) -> None:
        """What the SNPs of block ``k`` are over the samples of a group; before its first tile."""
        further = (getattr(stats, name) for name in OF_GENOTYPES if name in (self.store.dtype.names or ()))
        self.store.write_snps(group, k, stats.eaf, stats.n_obs, note, *further)

    def checkpoint(self) -> None:
        """Sync and mark what was written."""
        self._writer.checkpoint()

    def close(self) -> None:
        """Sync, mark and close; nobody writes afterwards. Collective."""
        with self.world.together():
            self._writer.close()
