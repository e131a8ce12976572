"""What a run over permutations has so far: the observed targets, maxima and counts of the permutations that are done.

It is the same on every rank, but for the scores that wait for further penalties, which the rank that owns the tile has.
Maxima and whole numbers do not depend on the order in which tiles are joined.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from mpgls.engine.permutation_tiles import Observed, Tile, TileScanner, TileScores, join

if TYPE_CHECKING:
    from mpi4py import MPI

TIE = {np.dtype(np.float64): 1e-12, np.dtype(np.float32): 1e-6}
"""A permuted R2 below the observed one by no more than this counts as equal: rounding must not decide."""
PENDING_BYTES = 1 << 30
"""Scores of all ranks that wait for the next penalties, where memory does not hold the operators of all at once."""

Arrays = TypeVar("Arrays")
Numbered = tuple[int, Tile]


@dataclass
class NullState:
    """``maxima`` (permutations,) of mean R2 over targets; ``counts`` (t,) of permutations whose R2 is as large.

    ``tiles_done`` are joined; of the tiles after them ``pending`` has, by number, what the first ``penalties_done``
    penalties found.
    """

    maxima: np.ndarray
    counts: np.ndarray
    observed: Observed | None = None
    tiles_done: int = 0
    penalties_done: int = 0
    pending: dict[int, TileScores] = field(default_factory=dict)

    @classmethod
    def start(cls, permutations: int, t: int) -> NullState:
        """Of a run that has nothing yet."""
        return cls(np.full(permutations, -np.inf), np.zeros(t, dtype=np.int64))

    # -- tiles --------------------------------------------------------------------------------------------------------

    def next_batch(self, tiles: Sequence[Tile], ranks: int, waiting: int | None) -> list[Numbered]:
        """The tiles to do next, with their numbers: the observed targets alone, or one tile a rank.

        ``waiting`` are the bytes of scores of a column, if operators come and go: then as many tiles as fit.
        """
        first, observed = self.tiles_done, sum(tile.observed for tile in tiles)
        if waiting is not None:
            count = max(1, observed, PENDING_BYTES // (waiting * max(tile.width for tile in tiles)))
        else:
            count = ranks if first else observed
        return list(enumerate(tiles[first : first + count], first))

    def join(self, batch: Sequence[Numbered], scanner: TileScanner, comm: MPI.Comm) -> None:
        """Choose penalties and join what all ranks found of a batch that is dealt to them. Collective."""
        from mpi4py import MPI

        mine = [(tile, self.pending[number]) for number, tile in batch[comm.rank :: comm.size]]
        if batch[0][1].observed:
            parts = [(tile, scanner.observed(tile, scores)) for tile, scores in mine if tile.observed]
            self.observed = join([part for theirs in comm.allgather(parts) for part in theirs])
        assert self.observed is not None
        reaches = self.observed.mean - TIE[scanner.Y.dtype]
        maxima, counts = np.full_like(self.maxima, -np.inf), np.zeros_like(self.counts)
        for tile, scores in mine:
            if not tile.observed:
                r2 = scanner.mean_r2(tile, scores)
                of_tile = maxima[tile.first - 1 : tile.last - 1]
                np.maximum(of_tile, r2.max(axis=1), out=of_tile)
                counts[tile.start : tile.stop] += (r2 >= reaches[tile.start : tile.stop]).sum(axis=0)
        comm.Allreduce(MPI.IN_PLACE, maxima, op=MPI.MAX)
        comm.Allreduce(MPI.IN_PLACE, counts, op=MPI.SUM)
        np.maximum(self.maxima, maxima, out=self.maxima)
        self.counts += counts
        self.tiles_done, self.penalties_done = batch[-1][0] + 1, 0
        self.pending.clear()

    def p_values(self, dtype: np.dtype | type) -> tuple[np.ndarray, np.ndarray]:
        """p of each target, and p of it among all targets (t,); NaN without permutations.

        The counts include the observed order itself: (1 + as large) / (1 + permutations).
        """
        P = self.maxima.size
        if P == 0:
            return np.full(self.counts.size, np.nan), np.full(self.counts.size, np.nan)
        assert self.observed is not None
        reached = self.observed.mean - TIE[np.dtype(dtype)]
        p_fwe = (1.0 + P - np.searchsorted(np.sort(self.maxima), reached)) / (P + 1.0)
        return (1.0 + self.counts) / (P + 1.0), p_fwe

    # -- restart ------------------------------------------------------------------------------------------------------

    def gather(self, comm: MPI.Comm) -> NullState | None:
        """The state with what waits on every rank, on rank 0. Collective."""
        # after a resume a rank has all that waited then: its own tiles are newest here
        own = {k: scores for k, scores in self.pending.items() if (k - self.tiles_done) % comm.size == comm.rank}
        everyone = comm.gather(own, root=0)
        if everyone is None:
            return None
        return dataclasses.replace(self, pending={k: one for theirs in everyone for k, one in theirs.items()})

    def pack(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Facts and arrays, from which `unpack` makes it again."""
        facts = {"tiles_done": self.tiles_done, "penalties_done": self.penalties_done, "pending": sorted(self.pending)}
        arrays = {"maxima": self.maxima, "counts": self.counts, **_arrays("observed", self.observed)}
        for number, scores in self.pending.items():
            arrays |= _arrays(f"tile {number}", scores)
        return facts, arrays

    @classmethod
    def unpack(cls, facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> NullState:
        """The counterpart of `pack`."""
        pending = {number: _from_arrays(TileScores, f"tile {number}", arrays) for number in facts["pending"]}
        observed = _from_arrays(Observed, "observed", arrays) if facts["tiles_done"] else None
        done = facts["tiles_done"], facts["penalties_done"]
        return cls(arrays["maxima"], arrays["counts"], observed, *done, pending)


def _arrays(name: str, one: Observed | TileScores | None) -> dict[str, np.ndarray]:
    """The arrays that an object holds, by its name and theirs."""
    return {f"{name}: {key}": value for key, value in vars(one).items() if value is not None} if one else {}


def _from_arrays(cls: type[Arrays], name: str, arrays: Mapping[str, np.ndarray]) -> Arrays:
    prefix = f"{name}: "
    return cls(**{key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)})
