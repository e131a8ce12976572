"""The stream of SNPs through the operator of a team of GPUs: packed genotypes in, p+1 numbers a SNP out.

While a card multiplies the columns of one block, the next block is copied to it and counted, and the host fits the
block before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mpgls.device.card import COPIES, PRODUCTS, Card
from mpgls.device.decoder import DeviceDecoder
from mpgls.device.operator import Centring, DeviceOperator, team_blocks
from mpgls.device.parts import Double
from mpgls.device.products import aligned
from mpgls.engine.covariance import Whitener
from mpgls.engine.device_counts import CardCounter
from mpgls.engine.snp_scan import Block, SnpSums, Streamed, TestedBlock, decoded
from mpgls.la.teams import Closing, Team, sum_over_team
from mpgls.model.gls import NullSums
from mpgls.run.plan import GIB
from mpgls.run.world import World
from mpgls.study.genotype_files import Genotypes
from mpgls.study.snp_columns import ONE_COLUMN
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
class _Place:
    """Where a block of a team lies on its way: ``packed`` on the host and on the card, sums on the host.

    ``used`` are the small arrays on the card that its products read; ``done`` marks their end.
    """

    on_host: np.ndarray
    on_card: Any
    sums: np.ndarray
    stats: SnpStats | None = None
    used: tuple[Any, ...] = ()
    done: Any = None


class DeviceSnps(Closing):
    """From packed genotypes to the sums that a SNP's effect needs, on the cards of a team.

    ``L`` whitens, ``F_tilde_rep`` (n, q+1) = L^-1 [X_L | y]; ``rows`` (n,) are the samples' positions in the .fam.
    Making it is collective over the world, its methods over the team.
    """

    columns = ONE_COLUMN
    """Of each SNP."""

    def __init__(
        self,
        L: Whitener,
        F_tilde_rep: np.ndarray,
        rows: np.ndarray,
        bed: Genotypes,
        team: Team,
        at: OnCard,
        world: World,
    ) -> None:
        self.F_tilde_rep, self.rows, self.bed, self.world = F_tilde_rep, rows, bed, world
        self.card, self._width = at.card, at.width
        self._comm = team.comm.Dup()
        self.operator = _hold(L, F_tilde_rep, self._comm, at, world)
        self._decoder = DeviceDecoder(at.card, bed.n, rows, at.precision)
        self._counter = CardCounter(at.card, bed, rows)
        self.streamed = Streamed(f"{at.precision.name} precision on the GPU", "--device cpu")
        self._places = [self._place(F_tilde_rep.shape[1] + 1) for _ in range(2)]
        self._turn = 0
        at.card.settle()

    def _place(self, sums: int) -> _Place:
        B = aligned(self._comm.size * self._width)
        shape, dtype = self._counter.shape(B)
        with self.card.lane(COPIES):
            on_card = self.card.xp.zeros(shape, dtype=dtype)
        return _Place(self.card.host_array(shape, dtype), on_card, self.card.host_array((sums, B), np.float64))

    def text(self) -> str:
        """What lies on the card of this rank, for the log."""
        held, streamed = self.operator.resident_bytes, self.operator.streamed_bytes
        further = f"; {streamed / GIB:.2f} GiB more are copied to it for every block" if streamed else ""
        return f"{self.card.name}: {held / GIB:.2f} GiB of L^-1 in {self.operator.precision.text}{further}"

    def plain(self, packed: np.ndarray) -> np.ndarray:
        """The columns X (n, B) of the SNPs ``packed``, float64, before they are whitened."""
        return decoded(self.columns, packed, self.rows, self.bed)

    def sums_of(self, packed: np.ndarray) -> tuple[SnpStats, SnpSums]:
        """The counts of the SNPs of a block, and S_BL, b_B, S_BR."""
        return self._finish(self._start(packed))

    def stream(self, blocks: Iterable[Block]) -> Iterator[TestedBlock]:
        """The sums of each block; the one after it is on its way by then."""
        waiting: tuple[Block, _Place] | None = None
        for block in blocks:
            started = block, self._start(block.packed)
            if waiting is not None:
                yield TestedBlock(waiting[0].number, *self._finish(waiting[1]))
            waiting = started
        if waiting is not None:
            yield TestedBlock(waiting[0].number, *self._finish(waiting[1]))

    def _start(self, packed: np.ndarray) -> _Place:
        """Begin to work on a block, in the place whose turn it is."""
        card, place = self.card, self._places[self._turn]
        self._turn = 1 - self._turn
        with self.world.phase("decode", nbytes=packed.size):
            self._exchange(packed, place)
            with card.lane(COPIES):
                card.copy_in(place.on_host, place.on_card)
                first = self._comm.rank * self._width
                place.stats = self._counter.stats(packed, place.on_card[first : first + len(packed)])
                c, d, gaps = self._shares(place.stats)
                place.used = tuple(card.xp.asarray(one) for one in (c, d, _padded(gaps)))
                copied = card.mark()
        flop = float(self.rows.size) ** 2 * len(packed)
        with self.world.phase("solve", flop=flop), card.lane(PRODUCTS):
            card.follow(copied)
            card.copy_out(self._sums(place, gaps.size), place.sums)
            place.done = card.mark()
        return place

    def _sums(self, place: _Place, gaps: int) -> Any:
        """The sums of all columns of the team over this rank's rows."""
        packed, (c, d, of_gaps) = place.on_card, place.used
        decode = self._decoder.dosages if packed.dtype == np.float32 else self._decoder.genotypes
        missing = self._decoder.missing(packed[of_gaps]) if gaps else None
        return self.operator.sums(decode(packed, c), Centring(d, of_gaps[:gaps], missing))

    def _finish(self, place: _Place) -> tuple[SnpStats, SnpSums]:
        """The sums of this rank's SNPs, when they are there."""
        assert place.stats is not None
        with self.world.phase("solve"):
            self.card.wait(place.done)
        with self.world.phase("statistics"):
            R, B, q = self._comm.size, place.stats.n_obs.size, self.F_tilde_rep.shape[1] - 1
            S = place.sums[:, : R * self._width]
            S = (S.copy() if R == 1 else sum_over_team(S, self._comm))[:, :B]
            return place.stats, SnpSums(S[:q], S[q], S[q + 1], self.rows.size * place.stats.variance)

    def _exchange(self, packed: np.ndarray, place: _Place) -> None:
        """The packed genotypes of all ranks of the team, ``width`` rows each, to every rank."""
        from mpi4py import MPI

        here = place.on_host.view(np.uint8)
        first = self._comm.rank * self._width
        here[first : first + len(packed)] = packed
        if self._comm.size > 1:
            everyone = here[: self._comm.size * self._width]
            self._comm.Allgather(MPI.IN_PLACE, [everyone, MPI.BYTE])

    def _shares(self, stats: SnpStats) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """c and mean - c of all columns of the team, and which columns have missing genotypes."""
        R, width, n = self._comm.size, self._width, self.rows.size
        mine = np.zeros((2, width))
        mine[0, : stats.n_obs.size], mine[1, : stats.n_obs.size] = stats.mean, n - stats.n_obs
        of_ranks = np.empty((R, 2, width))
        self._comm.Allgather(mine, of_ranks)
        facts = np.zeros((2, aligned(R * width)))
        facts[:, : R * width] = of_ranks.swapaxes(0, 1).reshape(2, -1)
        mean, missing = facts
        c = np.rint(mean)
        return c, mean - c, np.flatnonzero(missing)

    def close(self) -> None:
        """Free the communicator. Collective over the team."""
        self._comm.Free()


def orthonormal(F_tilde_rep: np.ndarray, sums: NullSums) -> tuple[np.ndarray, NullSums]:
    """[Q | e] with Q an orthonormal basis of X_L~ and e what it leaves of y~, and their sums: S_TL = I, b_T = 0.

    A SNP's effect is the same; nothing is solved for it, so its last bits do not depend on the other SNPs of a block.
    """
    Q = np.linalg.qr(F_tilde_rep[:, :-1])[0]
    e = F_tilde_rep[:, -1]
    for _ in range(2):  # to the last digit
        e = e - Q @ (Q.T @ e)
    q = Q.shape[1]
    return np.column_stack([Q, e]), replace(sums, S_TL=np.eye(q), b_T=np.zeros(q), yy=float(e @ e))


def _hold(L: Whitener, F_tilde_rep: np.ndarray, comm: Any, at: OnCard, world: World) -> DeviceOperator:
    """This rank's rows of W = L^-1 on its card. Collective over the world."""
    places = world.comm.allgather((comm.size, comm.rank))
    wanted = team_blocks(places, len(F_tilde_rep), L.triangle)
    operator = DeviceOperator(at.card, at.precision, at.room)
    for W, block in zip(L.row_blocks(wanted), wanted[world.rank], strict=True):
        operator.take(W, F_tilde_rep[block.rows.start : block.rows.stop])
    return operator


def _padded(gaps: np.ndarray) -> np.ndarray:
    """``gaps`` and as many zeros as whole memory accesses take."""
    return np.concatenate([gaps, np.zeros(aligned(gaps.size) - gaps.size, dtype=gaps.dtype)])
