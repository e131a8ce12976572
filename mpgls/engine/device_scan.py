"""The stream of SNPs through the operator of a team of GPUs: packed genotypes in, p+1 numbers a SNP out.

While a card multiplies the columns of one block, the next block is copied to it and counted, and the host fits the
block before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mpgls.device.card import PRODUCTS
from mpgls.device.operator import DeviceOperator, team_blocks
from mpgls.engine.covariance import Whitener
from mpgls.engine.device_blocks import BlocksOnCards, OnCard, Place
from mpgls.engine.snp_scan import Block, SnpSums, Streamed, TestedBlock, decoded
from mpgls.la.teams import Closing, Team, sum_over_team
from mpgls.model.gls import NullSums
from mpgls.run.plan import GIB
from mpgls.run.world import World
from mpgls.study.genotype_files import Genotypes
from mpgls.study.snp_columns import ONE_COLUMN
from mpgls.study.snp_stats import SnpStats


@dataclass(eq=False)
class _Started:
    """A block whose products have begun: its ``place``, its ``sums`` on their way to the host, ``done`` at the end."""

    place: Place
    sums: np.ndarray
    done: Any


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
        self._blocks = BlocksOnCards(bed, rows, team, at, world)
        self._comm = self._blocks.comm
        self.operator = _hold(L, F_tilde_rep, self._comm, at, world)
        self.streamed = Streamed(f"{at.precision.name} precision on the GPU", "--device cpu")
        shape = F_tilde_rep.shape[1] + 1, self._blocks.columns
        self._sums = [at.card.host_array(shape, np.float64) for _ in range(2)]
        at.card.settle()

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
        waiting: tuple[Block, _Started] | None = None
        for block in blocks:
            started = block, self._start(block.packed)
            if waiting is not None:
                yield TestedBlock(waiting[0].number, *self._finish(waiting[1]))
            waiting = started
        if waiting is not None:
            yield TestedBlock(waiting[0].number, *self._finish(waiting[1]))

    def _start(self, packed: np.ndarray) -> _Started:
        """Begin to work on a block."""
        card, sums = self.card, self._sums.pop(0)
        self._sums.append(sums)
        place = self._blocks.begin(packed)
        flop = float(self.rows.size) ** 2 * len(packed)
        with self.world.phase("solve", flop=flop), card.lane(PRODUCTS):
            card.copy_out(self.operator.sums(*self._blocks.decode(place)), sums)
            return _Started(place, sums, card.mark())

    def _finish(self, started: _Started) -> tuple[SnpStats, SnpSums]:
        """The sums of this rank's SNPs, when they are there."""
        stats = started.place.stats
        assert stats is not None
        with self.world.phase("solve"):
            self.card.wait(started.done)
        with self.world.phase("statistics"):
            R, B, q = self._comm.size, stats.n_obs.size, self.F_tilde_rep.shape[1] - 1
            S = started.sums[:, : R * self._width]
            S = (S.copy() if R == 1 else sum_over_team(S, self._comm))[:, :B]
            return stats, SnpSums(S[:q], S[q], S[q + 1], self.rows.size * stats.variance)

    def close(self) -> None:
        """Free the communicator. Collective over the team."""
        self._blocks.close()


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
