"""What is done of a scan of many traits, pass by pass: joined over ranks, and saved for a run that resumes."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mpgls.engine.dense_tiles import DenseTiles
from mpgls.engine.tile_plan import Tiles
from mpgls.engine.tile_scan import ResidentPanel, gather_hits
from mpgls.model.trait_records import PanelTotals, Pass, TraitRecords
from mpgls.mpi import is_agreed
from mpgls.run.ledger import State
from mpgls.run.world import World
from mpgls.stream.histogram_file import Histograms
from mpgls.study.trait_groups import TraitStudy


@dataclass
class TraitLedger:
    """The finished passes, ``done``, and what they found of the traits ``names``.

    Rank 0 has the whole ``records`` and the file of ``histograms``. ``tiles`` are the sizes of the run, None before
    they are chosen; ``index`` the .bim rows of the selected SNPs; ``dense`` takes every estimate, if that is asked for.
    """

    names: Sequence[str]
    state: State
    done: set[Pass]
    records: TraitRecords
    histograms: Histograms
    world: World
    tiles: Tiles | None = None
    index: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    dense: DenseTiles | None = None

    def begin(self, index: np.ndarray, tiles: Tiles, dense: DenseTiles | None) -> None:
        """What is known once there is a plan."""
        self.index, self.tiles, self.dense = index, tiles, dense

    def left(self, passes: Sequence[Pass]) -> list[Pass]:
        """Those of the passes that are not finished."""
        return [one for one in passes if one not in self.done]

    def keep_nulls(self, part: int, traits: np.ndarray, nulls: np.ndarray) -> None:
        """The null models (k,) of ``traits`` (k,), neighbours in their group, for the SNPs of a part. Collective."""
        self.records.keep_nulls(part, traits, nulls)
        if self.dense is not None:
            self.dense.keep_nulls(part, int(traits[0]), nulls)

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
        facts = {"tiles": self.tiles, "histograms": self.histograms.facts()}
        self.state.save(facts, self.records.arrays())

    def __enter__(self) -> TraitLedger:
        """In the body passes are finished, and tiles written."""
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Close the dense store, unless this rank failed alone. Collective."""
        if self.dense is not None and (error is None or is_agreed(error)):
            self.dense.close()

    def nulls(self) -> np.ndarray:
        """The null models (parts, t), of `null_record.NULL_DTYPE`, on every rank. Collective."""
        return self.world.comm.bcast(self.records.nulls, root=0)


def open_trait_ledger(
    state: State,
    resume: bool,
    traits: TraitStudy,
    histograms: Path,
    parts: int,
    world: World,
    further: Sequence[str] = (),
) -> TraitLedger:
    """The ledger of ``traits`` on so many ``parts`` of the SNPs: of the run to resume, if there is one. Collective.

    ``histograms`` is where their file goes; ``further`` are the fields that a hit has beyond the usual ones. Raises
    InputError, on all ranks, where the run to resume was of other inputs or options.
    """
    ledger = TraitLedger(
        traits.matrix.names,
        state,
        set(),
        TraitRecords.empty(parts, traits.flags, further),
        Histograms(histograms),
        world,
    )

    def load() -> tuple[set[Pass], Tiles | None]:
        saved = state.load() if resume else None
        if saved is None:
            if resume:
                world.log.info(f"resume: there is no {state.path}, so the run starts anew")
            return set(), None
        ledger.records = TraitRecords.of_arrays(saved.arrays)
        ledger.histograms = Histograms.of_facts(histograms, saved.facts["histograms"])
        world.log.info(f"resume: {len(ledger.records.passes)} pass(es) are done")
        return ledger.records.passes, Tiles(*saved.facts["tiles"])

    ledger.done, ledger.tiles = world.on_root(load)
    return ledger
