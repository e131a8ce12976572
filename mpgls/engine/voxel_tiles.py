"""Who looks for the pairs beyond the threshold: this rank, a tile at a time, or its card, which only nominates.

On a card the products of one permutation go on while the rank scores what the permutation before has nominated.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

import numpy as np

from mpgls.device.card import Card
from mpgls.device.nominate import Nominator, Place, Threshold
from mpgls.engine.voxels import Chunk
from mpgls.engine.voxelwise_plan import CardShare, VoxelwisePlan
from mpgls.model.mulm import Entries, Pairs, SnpBlock, TileScan
from mpgls.model.permute import Permutations
from mpgls.run.world import World

Searched = tuple[Chunk, int, Entries]
"""Some voxels, the index of a permutation, and the pairs that were found."""


class OnCard(NamedTuple):
    """The ``card`` of a rank, its ``share`` of the work, and the ``threads`` that score what it nominates."""

    card: Card
    share: CardShare
    threads: int


def on_the_card(card: Card | None, plan: VoxelwisePlan, threads: int) -> OnCard | None:
    """How a search that keeps to ``plan`` is made on the card, if there is one."""
    return None if card is None or plan.on_card is None else OnCard(card, plan.on_card, threads)


class Tiles(Protocol):
    """The search of a block of SNPs and a chunk of voxels."""

    def entries(self, snps: SnpBlock, chunk: Chunk, indices: range) -> Iterator[Searched]:
        """What is found under each of the permutations ``indices``, until a signal asks to stop."""


def tiles_of(scan: TileScan, permutations: Permutations, on_card: OnCard | None, world: World) -> Tiles:
    """The search on this rank, or on its card."""
    if on_card is None:
        return TilesOnRank(scan, permutations, world)
    return TilesOnCard(scan, permutations, on_card, world)


class TilesOnRank:
    """Products and scores of ``scan``."""

    def __init__(self, scan: TileScan, permutations: Permutations, world: World) -> None:
        self.scan, self.permutations, self.world = scan, permutations, world

    def entries(self, snps: SnpBlock, chunk: Chunk, indices: range) -> Iterator[Searched]:
        """All voxels of the chunk under each permutation."""
        testable, flop = chunk.lengths_team > 0, _flop(snps, chunk)
        for index in indices:
            if self.world.stop.requested:
                return
            with self.world.phase("tiles", flop=flop):
                found = self.scan.entries(snps, self.permutations[index], chunk.R_Y_team, testable)
            yield chunk, index, found


class TilesOnCard:
    """Products of the card, scores of ``scan``."""

    def __init__(self, scan: TileScan, permutations: Permutations, on: OnCard, world: World) -> None:
        self.scan, self.permutations, self.world, self.voxels = scan, permutations, world, on.share.voxels
        threshold = Threshold(scan.score.share, scan.n, scan.r)
        self.nominator = Nominator(on.card, threshold, on.share.tile, on.share.room)
        self._pool = ThreadPoolExecutor(on.threads) if on.threads > 1 else None
        self._held: np.ndarray | None = None

    def entries(self, snps: SnpBlock, chunk: Chunk, indices: range) -> Iterator[Searched]:
        """Each permutation of as many voxels as lie on the card together; these change after all permutations."""
        with self.world.phase("copy to the GPU", nbytes=snps.rows.nbytes):
            self.nominator.take_snps(snps.rows)
        for part in self._parts(chunk):
            ahead: tuple[int, np.ndarray, Place] | None = None
            for index in indices:
                if self.world.stop.requested:
                    return
                with self.world.phase("tiles", flop=_flop(snps, part)):
                    order = self.permutations[index]
                    started = self.nominator.start(order)
                if ahead is not None:
                    yield self._scored(snps, part, *ahead)
                ahead = index, order, started
            if ahead is not None:
                yield self._scored(snps, part, *ahead)

    def _parts(self, chunk: Chunk) -> Iterator[Chunk]:
        """The chunk in parts that lie on the card while they are worked on."""
        for start in range(0, len(chunk.R_Y_team), self.voxels):
            at = slice(start, start + self.voxels)
            part = Chunk(chunk.first + start, chunk.R_Y_team[at], chunk.lengths_team[at])
            whole = self.voxels >= len(chunk.R_Y_team)
            if not (whole and self._held is chunk.R_Y_team):
                with self.world.phase("copy to the GPU", nbytes=part.R_Y_team.nbytes):
                    self.nominator.take_voxels(part.R_Y_team, part.lengths_team > 0)
                self._held = chunk.R_Y_team if whole else None
            yield part

    def _scored(self, snps: SnpBlock, part: Chunk, index: int, order: np.ndarray, place: Place) -> Searched:
        with self.world.phase("tiles"):
            pairs = Pairs(*self.nominator.finish(place))
        with self.world.phase("scores"):
            return part, index, self.scan.scored(snps, order, part.R_Y_team, pairs, self._pool)


def _flop(snps: SnpBlock, chunk: Chunk) -> float:
    return 2.0 * snps.rows.shape[1] * snps.lengths.size * len(chunk.R_Y_team)
