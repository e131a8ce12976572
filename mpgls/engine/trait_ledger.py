"""What is done of a scan of many traits, pass by pass: joined over ranks, and saved for a run that resumes."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mpgls.engine.tile_scan import ResidentPanel, gather_hits
from mpgls.model.trait_records import PanelTotals, Pass, TraitRecords, flags_of

if TYPE_CHECKING:
    from mpgls.engine.dense_tiles import DenseTiles
    from mpgls.engine.eigenbasis import TraitNulls
    from mpgls.model.tiles import TraitPanel
    from mpgls.run.world import World
    from mpgls.stream.histogram_file import Histograms


class State(Protocol):
    """Where the ledger is saved."""

    def save(self, facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Replace what was saved before, at once and synced. Call on one rank."""


@dataclass
class TraitLedger:
    """The finished passes over ``done``, and what they found.

    ``names`` of all traits; ``index`` the .bim rows of the selected SNPs. Rank 0 has the ``records`` and the file of
    ``histograms``; those of other ranks stay empty. ``dense`` takes every estimate, if that is asked for.
    """

    names: Sequence[str]
    index: np.ndarray
    done: set[Pass]
    records: TraitRecords
    histograms: Histograms
    state: State
    dense: DenseTiles | None
    world: World

    def left(self, passes: Sequence[Pass]) -> list[Pass]:
        """Those of the passes that are not finished."""
        return [one for one in passes if one not in self.done]

    def keep_nulls(self, part: int, traits: np.ndarray, nulls: TraitNulls, panel: TraitPanel, df: int) -> None:
        """The null models of the ``traits`` (k,), neighbours in their group, for the SNPs of a part. Collective.

        ``df`` are the degrees of freedom of a SNP's test.
        """
        known = {name: np.where(panel.testable, getattr(nulls, name), np.nan) for name in _ESTIMATED}
        known["s2"] = panel.rss / (panel.n - panel.q)
        self.records.keep_nulls(part, traits, known, flags_of(panel.testable, nulls.at_boundary))
        if self.dense is not None:
            columns = {name: known[name] for name in ("h2", "h2_se", "s2")}
            self.dense.keep_nulls(int(traits[0]), columns | {"df": np.full(traits.size, df)})

    def finish(self, one: Pass, panels: Sequence[ResidentPanel]) -> None:
        """The panels saw all SNPs of the pass: join the ranks' accumulators on rank 0 and save them. Collective.

        Raises StorageError on all ranks.
        """
        world = self.world
        with world.together():
            if self.dense is not None:
                self.dense.checkpoint()
        for panel in panels:
            world.on_root(functools.partial(self._absorb, one.part, panel.totals(self.index, world.comm)))
        hits = gather_hits(panels, world.comm)
        self.done.add(one)
        world.on_root(lambda: self._save(hits))

    def _absorb(self, part: int, totals: PanelTotals | None) -> None:
        assert totals is not None
        self.records.absorb(part, totals)
        self.histograms.add([self.names[trait] for trait in totals.traits], totals.counts, totals.bins)

    def _save(self, hits: np.ndarray | None) -> None:
        assert hits is not None
        self.records.keep_hits(hits)
        self.records.passes = self.done
        self.state.save({"histograms": self.histograms.facts()}, self.records.arrays())


_ESTIMATED = ("h2", "h2_se", "log_likelihood")
