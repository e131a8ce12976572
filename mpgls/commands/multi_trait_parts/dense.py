"""The dense store of a multi-trait scan: every effect and standard error, written tile by tile as they are computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from mpgls.errors import StorageError
from mpgls.mpi import agree, on_root
from mpgls.stream.dense_store import DenseStore, create_dense, open_dense, save_trait_values
from mpgls.stream.writer import BlockWriter

if TYPE_CHECKING:
    from mpgls.commands.common.inputs import Study
    from mpgls.commands.common.session import Session
    from mpgls.commands.multi_trait_parts.config import MultiTraitConfig
    from mpgls.commands.multi_trait_parts.plan import TilePlan
    from mpgls.commands.multi_trait_parts.tile_scan import ResidentPanel, RotatedBlock
    from mpgls.commands.multi_trait_parts.trait_groups import TraitGroup, TraitStudy


class DenseTiles:
    """Where tiles go. Its traits are in the order of the groups. Creating it is collective.

    ``index`` are the .bim rows of the SNPs, in blocks between ``edges``; ``resumed`` opens the store of an earlier run
    with the same ``mark``.
    """

    def __init__(
        self,
        config: MultiTraitConfig,
        study: Study,
        traits: TraitStudy,
        plan: TilePlan,
        index: np.ndarray,
        edges: np.ndarray,
        mark: str,
        resumed: bool,
        session: Session,
    ) -> None:
        self._comm = session.comm
        self._order = np.concatenate([group.traits for group in traits.groups])
        self._position = np.full(len(traits.matrix.names), -1, dtype=np.int64)
        self._position[self._order] = np.arange(self._order.size)
        of_group = np.repeat(np.arange(len(traits.groups)), [group.traits.size for group in traits.groups])
        names = [traits.matrix.names[trait] for trait in self._order]
        path = session.path(".h5")

        def make() -> DenseStore:
            if resumed:
                return open_dense(path, mark)
            return create_dense(
                path, index, plan.block, names, mark, config.test, of_group, plan.panel, study.genotypes(), edges
            )

        self.store = on_root(session.comm, make)
        self._tile = tuple(np.full((plan.panel, plan.block), np.nan, dtype=np.float32) for _ in range(2))
        writer, error = None, None
        try:
            nbytes = 4 * plan.panel * plan.block
            writer = BlockWriter(self.store.path, self.store.offsets["done"], nbytes, session.options.checkpoint)
        except StorageError as caught:
            error = caught
        agree(session.comm, error)
        assert writer is not None
        self._writer = writer

    def keep_null_models(self, trait: int, columns: Mapping[str, np.ndarray]) -> None:
        """h2, h2_se, s2 and df of the traits from ``trait`` on. Collective."""
        first = int(self._position[trait])
        on_root(self._comm, lambda: save_trait_values(self.store.path, first, **columns))

    def keep_means(self, columns: Mapping[str, np.ndarray]) -> None:
        """Values (t,) of all traits, in the order of their file. Call on one rank."""
        save_trait_values(self.store.path, **{name: values[self._order] for name, values in columns.items()})

    def room(self, traits: int, snps: int) -> tuple[np.ndarray, np.ndarray]:
        """Where the effects and standard errors of a tile belong, each (traits, snps) float32."""
        beta, se = self._tile
        return beta[:traits, :snps], se[:traits, :snps]

    def write(self, one: ResidentPanel, group: TraitGroup, g: int, block: RotatedBlock, note: np.ndarray) -> None:
        """Start to write the tile that lies in ``room``; it is marked done when both its parts are on disk."""
        first = int(self._position[group.traits[one.first]])
        panel = int(np.searchsorted(self.store.panels[:, 1], first, side="right"))
        if one.first == 0:
            self.store.write_snps(g, block.k, block.stats.eaf, block.stats.n_obs, note)
        for name, mark, tile in zip(("beta", "se"), (None, self.store.mark(panel, block.k)), self._tile, strict=True):
            tile[:, block.snps.size :] = np.nan
            self._writer.write(mark, self.store.tile_offset(name, block.k, first), tile[: one.panel.t])

    def checkpoint(self) -> None:
        """Sync and mark what was written."""
        self._writer.checkpoint()

    def close(self) -> None:
        """Sync, mark and close; nobody writes afterwards. Collective."""
        self._writer.close()
        self._comm.Barrier()
