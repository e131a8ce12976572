"""The state of a run over permutations in its file, and the rounds in which its tiles are dealt."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from mpgls.engine.null_state import NullState, Numbered
from mpgls.errors import Stopped
from mpgls.run.ledger import State
from mpgls.run.world import World


class NullLedger:
    """Keeps a `NullState` in the file of ``state``, every ``checkpoint`` seconds. All methods are collective."""

    def __init__(self, state: State, checkpoint: float, world: World) -> None:
        self.state, self.checkpoint, self.world = state, checkpoint, world
        self._saved = time.perf_counter()

    def load(self, groups: Sequence[range]) -> NullState | None:
        """What an earlier run has done, None where there is no file. Scores begun with other ``groups`` are left out.

        Raises InputError, on all ranks, when the file was made from others.
        """
        found = self.world.on_root(self.state.load)
        if found is None:
            return None
        null = NullState.unpack(*found)
        self.world.log.info(f"resume: {null.tiles_done:,} tiles are done, {len(null.pending):,} begun")
        if null.penalties_done not in [group.stop for group in groups]:
            null.penalties_done = 0
        return null

    def keep(self, null: NullState) -> None:
        """Replace the file."""
        with self.world.phase("save"):
            whole = null.gather(self.world.comm)
            self.world.on_root(lambda: self.state.save(*whole.pack()) if whole is not None else None)
        self._saved = time.perf_counter()

    def keep_if_due(self, null: NullState) -> None:
        """Replace the file when it is time to, or a signal asks the run to stop: then Stopped is raised."""
        try:
            self.world.raise_if_stopped()
        except Stopped:
            self.keep(null)
            raise
        if self.world.comm.bcast(time.perf_counter() - self._saved > self.checkpoint, root=0):
            self.keep(null)


class Rounds:
    """Deals batches of tiles to ranks, a tile each in a round, and says how many of all ``fits`` are done."""

    def __init__(self, world: World, fits: int) -> None:
        self.world, self.done = world, 0
        self._progress = world.progress("permutations", fits, "fits")

    def own(self, batch: Sequence[Numbered], fits: int) -> Iterator[Numbered]:
        """This rank's tiles; ``fits`` of each column. Raises Stopped, on all ranks, between two rounds. Collective."""
        for start in range(0, len(batch), self.world.size):
            if start:
                self.world.raise_if_stopped()
            of_round = batch[start : start + self.world.size]
            yield from of_round[self.world.rank :: self.world.size]
            self.done += fits * sum(tile.width for _, tile in of_round)
            self._progress.at(self.done)
