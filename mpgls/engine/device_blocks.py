"""Blocks of packed genotypes on their way to the cards of a team, and the columns that they become there.

The ranks of a team exchange packed genotypes, n/4 bytes a SNP; each card decodes all of them. Two blocks can be on
their way: one is copied and counted while the columns of the other are multiplied.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mpgls.device.card import COPIES, Card
from mpgls.device.decoder import DeviceDecoder
from mpgls.device.operator import Centring
from mpgls.device.parts import Columns, Double
from mpgls.device.products import aligned
from mpgls.engine.device_counts import CardCounter
from mpgls.la.teams import Closing, Team
from mpgls.run.world import World
from mpgls.study.genotype_files import Genotypes
from mpgls.study.snp_stats import SnpStats


@dataclass(frozen=True)
class OnCard:
    """That a scan is made on the ``card`` of each rank, in ``precision``, in blocks of at most ``width`` SNPs.

    ``room``: bytes of the card for the operator; ``null_card``: where factors of V are made, None: on the grid.
    """

    card: Card
    precision: Double
    width: int
    room: int
    null_card: Card | None = None


@dataclass(eq=False)
class Place:
    """Where a block of a team lies on its way: ``packed`` on the host and on the card, and the counts of this rank's.

    ``used`` are the small arrays on the card that its products read, ``gaps`` SNPs have missing genotypes; ``copied``
    marks that all of it is there.
    """

    on_host: np.ndarray
    on_card: Any
    stats: SnpStats | None = None
    used: tuple[Any, ...] = ()
    gaps: int = 0
    copied: Any = None


class BlocksOnCards(Closing):
    """The blocks of a team of ranks, ``at.width`` SNPs each, of the samples ``rows`` (n,) of the .fam.

    Making it is collective over the team, and so are its methods.
    """

    def __init__(self, bed: Genotypes, rows: np.ndarray, team: Team, at: OnCard, world: World) -> None:
        self.rows, self.world = rows, world
        self.card, self._width = at.card, at.width
        self.comm = team.comm.Dup()
        self.columns = aligned(self.comm.size * at.width)
        """Of the cards: those of all ranks of the team, and some that mean nothing."""
        self._decoder = DeviceDecoder(at.card, bed.n, rows, at.precision)
        self._counter = CardCounter(at.card, bed, rows)
        self._places = [self._place() for _ in range(2)]

    def _place(self) -> Place:
        shape, dtype = self._counter.shape(self.columns)
        with self.card.lane(COPIES):
            on_card = self.card.xp.zeros(shape, dtype=dtype)
        return Place(self.card.host_array(shape, dtype), on_card)

    def begin(self, packed: np.ndarray) -> Place:
        """Begin to copy a block, in the place whose turn it is; its counts are known when this returns.

        The products of the block before the last must be done.
        """
        card, place = self.card, self._places.pop(0)
        self._places.append(place)
        with self.world.phase("decode", nbytes=packed.size):
            self._exchange(packed, place)
            with card.lane(COPIES):
                card.copy_in(place.on_host, place.on_card)
                first = self.comm.rank * self._width
                place.stats = self._counter.stats(packed, place.on_card[first : first + len(packed)])
                c, d, gaps = self._shares(place.stats)
                place.used = tuple(card.xp.asarray(one) for one in (c, d, _padded(gaps)))
                place.gaps, place.copied = gaps.size, card.mark()
        return place

    def decode(self, place: Place) -> tuple[Columns, Centring]:
        """The columns of all ranks of the team, when they are there; to be called in the lane of products."""
        self.card.follow(place.copied)
        packed, (c, d, of_gaps) = place.on_card, place.used
        made = self._decoder.dosages if packed.dtype == np.float32 else self._decoder.genotypes
        missing = self._decoder.missing(packed[of_gaps]) if place.gaps else None
        return made(packed, c), Centring(d, of_gaps[: place.gaps], missing)

    def _exchange(self, packed: np.ndarray, place: Place) -> None:
        """The packed genotypes of all ranks of the team, ``width`` rows each, to every rank."""
        from mpi4py import MPI

        here = place.on_host.view(np.uint8)
        first = self.comm.rank * self._width
        here[first : first + len(packed)] = packed
        if self.comm.size > 1:
            everyone = here[: self.comm.size * self._width]
            self.comm.Allgather(MPI.IN_PLACE, [everyone, MPI.BYTE])

    def _shares(self, stats: SnpStats) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """c and mean - c of all columns of the team, and which columns have missing genotypes."""
        R, width, n = self.comm.size, self._width, self.rows.size
        mine = np.zeros((2, width))
        mine[0, : stats.n_obs.size], mine[1, : stats.n_obs.size] = stats.mean, n - stats.n_obs
        of_ranks = np.empty((R, 2, width))
        self.comm.Allgather(mine, of_ranks)
        facts = np.zeros((2, self.columns))
        facts[:, : R * width] = of_ranks.swapaxes(0, 1).reshape(2, -1)
        mean, missing = facts
        c = np.rint(mean)
        return c, mean - c, np.flatnonzero(missing)

    def close(self) -> None:
        """Free the communicator. Collective over the team."""
        self.comm.Free()


def _padded(gaps: np.ndarray) -> np.ndarray:
    """``gaps`` and as many zeros as whole memory accesses take."""
    return np.concatenate([gaps, np.zeros(aligned(gaps.size) - gaps.size, dtype=gaps.dtype)])
