"""A pass of many traits on the cards of a team: X~ = Z'X, tiles, and what is kept of them.

The cards of a team each have rows of Z', and exchange X~: then each has all rows for its own SNPs, and meets every
trait of the pass alone.

    X~       = Z'X                            in the parts of the scan's precision, see `device.operator`
    R        = (W o E~)'X~                    rows of traits as one more operator, X~ split into the same parts
    D        = x~'P(h2)x~ at r nodes          float64
    x        = R^2 / B'D                      histograms and best SNPs stay on the card until the pass ends

Only pairs beyond the threshold come back, or beta and se of the whole tile for the dense store. A pass rotates the SNPs
anew: on a card that takes less time than reading X~ from a disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mpgls.device.card import PRODUCTS, Card
from mpgls.device.operator import DeviceOperator, row_panels, row_strips, team_blocks
from mpgls.device.parts import Double, split_in_strips
from mpgls.engine.device_blocks import BlocksOnCards, OnCard, Place
from mpgls.engine.eigenbasis import Eigenbasis
from mpgls.engine.epilogue_on_card import EpilogueOnCard, StripOnCard
from mpgls.engine.snp_stream import SnpStream
from mpgls.engine.tile_scan import OwnBlocks, ResidentPanel, RotatedBlock
from mpgls.la.teams import Closing, Team
from mpgls.model.products import ROWS
from mpgls.model.tiles import TraitPanel
from mpgls.run.plan import GIB
from mpgls.run.world import World
from mpgls.study.genotype_files import Genotypes
from mpgls.study.reasons import Reasons
from mpgls.study.snp_stats import SnpStats

if TYPE_CHECKING:
    from mpgls.engine.dense_tiles import DenseTiles


class RotatedOnCard(Closing):
    """The blocks of this rank, rotated on the cards of its team, anew in every pass.

    ``samples`` (n,) are the .fam rows of the analysis. Making it is collective over the world, and so is the first step
    of an iteration; the others are over the team.
    """

    def __init__(
        self,
        basis: Eigenbasis,
        bed: Genotypes,
        blocks: OwnBlocks,
        samples: np.ndarray,
        team: Team,
        at: OnCard,
        world: World,
    ) -> None:
        self.bed, self.blocks, self.samples, self.world = bed, blocks, samples, world
        self.card, self.n = at.card, samples.size
        self._width, self._dtype = at.width, at.precision.sums
        self._on_cards = BlocksOnCards(bed, samples, team, at, world)
        self._comm = self._on_cards.comm
        self._panels = row_panels(self.n, self._comm.size, triangle=False)
        self.operator = DeviceOperator(at.card, at.precision, at.room)
        places = world.comm.allgather((self._comm.size, self._comm.rank))
        wanted = team_blocks(places, self.n, triangle=False)
        for Z_rows in basis.row_blocks(wanted):
            self.operator.take(Z_rows, np.zeros((len(Z_rows), 0)))
        if self._comm.size > 1:
            self._all_rows = at.card.host_array((self.n, at.width), self._dtype)
        at.card.settle()

    def text(self) -> str:
        """What lies on the card of this rank, for the log."""
        held, streamed = self.operator.resident_bytes, self.operator.streamed_bytes
        further = f"; {streamed / GIB:.2f} GiB more are copied to it for every block" if streamed else ""
        return f"{self.card.name}: {held / GIB:.2f} GiB of Z' in {self.operator.precision.text}{further}"

    def __iter__(self) -> Iterator[RotatedBlock]:
        return self.rotate(packed for _, packed in SnpStream(self.bed, self.blocks.rows, self.world))

    def rotate(self, of_blocks: Iterator[np.ndarray]) -> Iterator[RotatedBlock]:
        """The blocks, of which the packed genotypes come one by one: while a block is rotated, the next one is copied
        to the card and counted.
        """
        of, step, packed = self.blocks, 0, next(of_blocks, None)
        ahead = None if packed is None else self._on_cards.begin(packed)
        while packed is not None and ahead is not None:
            B, stats = len(packed), ahead.stats
            assert stats is not None
            with self.world.phase("rotate SNPs", flop=2.0 * self.n**2 * B):
                X_tilde = self._rotate(ahead)
            packed = next(of_blocks, None)
            ahead = None if packed is None else self._on_cards.begin(packed)
            yield RotatedBlock(of.numbers[step], of.first[step], of.rows[step], stats, X_tilde[:, :B])
            step += 1

    def rotated(self, packed: np.ndarray) -> tuple[SnpStats, Any]:
        """The counts of some SNPs, and their X~, all rows, on the card; between two iterations."""
        place = self._on_cards.begin(packed)
        assert place.stats is not None
        return place.stats, self._rotate(place)[:, : len(packed)]

    def _rotate(self, place: Place) -> Any:
        """X~ = Z'X of this rank's SNPs, all rows, on its card."""
        with self.card.lane(PRODUCTS):
            products = self.operator.apply(*self._on_cards.decode(place))
            if self._comm.size > 1:
                return self._exchanged(products)
            X_tilde = self.card.xp.empty((self.n, self._on_cards.columns), dtype=self._dtype)
            for (rows, _), (_, product) in zip(self._panels[0], products, strict=True):
                X_tilde[rows.start : rows.stop] = product
            return X_tilde

    def _exchanged(self, products: Iterator[tuple[Any, Any]]) -> Any:
        """All rows of this rank's SNPs, of the rows that each card of the team has made for all of its SNPs."""
        comm, width = self._comm, self._width
        for step in range(max(map(len, self._panels))):
            rows_of = [of_rank[step].rows if step < len(of_rank) else range(0) for of_rank in self._panels]
            product = next(products, None)
            mine = np.empty((0, comm.size * width), dtype=self._dtype)
            if product is not None:
                mine = self.card.to_host(product[1])[:, : comm.size * width]
            sent = np.ascontiguousarray(mine.reshape(len(mine), comm.size, width).swapaxes(0, 1))
            counts = [len(rows) * width for rows in rows_of]
            received = np.empty(sum(counts), dtype=self._dtype)
            comm.Alltoallv([sent, [len(mine) * width] * comm.size], [received, counts])
            for rows, theirs in zip(rows_of, np.split(received, np.cumsum(counts)[:-1]), strict=True):
                self._all_rows[rows.start : rows.stop] = theirs.reshape(len(rows), width)
        X_tilde = self.card.xp.empty(self._all_rows.shape, dtype=self._dtype)
        self.card.copy_in(self._all_rows, X_tilde)
        return X_tilde

    def close(self) -> None:
        """Free the communicator. Collective over the team."""
        self._on_cards.close()


@dataclass(frozen=True, eq=False)
class PanelOnCard:
    """A panel of traits whose rows are on the card, in ``strips`` of them; ``A`` as in `TraitPanel`, on the host.

    ``nodes`` of h2 are those of its basis.
    """

    strips: list[slice]
    A: np.ndarray
    nodes: int


class TraitRows:
    """(W o E~)' of the traits of a pass, one operator on ``card``; ``room``: bytes of it."""

    def __init__(self, card: Card, precision: Double, room: int) -> None:
        self.card, self.precision = card, precision
        self.operator = DeviceOperator(card, precision, room)

    def take(self, panel: TraitPanel) -> PanelOnCard:
        """The next panel."""
        strips = row_strips(panel.t)
        for strip in strips:
            self.operator.take(panel.WE.T[strip].astype(np.float64), np.zeros((strip.stop - strip.start, 0)))
        return PanelOnCard(strips, panel.A, len(panel.basis.nodes))

    def tile(self, panel: TraitPanel, on_card: PanelOnCard, X_tilde: Any, x_norm_sq: np.ndarray) -> tuple[Any, Any]:
        """R and d (t, B), float64 on the host, of the first panel and a few SNPs, before there are others."""
        card, xp = self.card, self.card.xp
        with card.lane(PRODUCTS):
            (nodes,) = NodesOnCard.of(xp, [on_card]).sums(xp, X_tilde)
            D, _ = panel.at_nodes(nodes, xp.asarray(x_norm_sq), xp)
            products = self.operator.apply_any(*split_in_strips(xp, self.precision, X_tilde))
            R = [card.to_host(one)[:, : len(x_norm_sq)].astype(np.float64) for _, one in products]
            return np.vstack(R), card.to_host(xp.asarray(panel.B).astype(np.float64) @ D)


@dataclass(frozen=True, eq=False)
class NodesOnCard:
    """The columns of `TraitPanel.A` of all panels of a pass on the card, float64: those for x o x, and those for x."""

    W: Any
    Q: Any
    of_panels: list[tuple[slice, slice]]
    """Of each panel, its columns of both."""

    @classmethod
    def of(cls, xp: Any, panels: Sequence[PanelOnCard]) -> NodesOnCard:
        """Of the panels of a pass."""
        W: list[np.ndarray] = []
        Q: list[np.ndarray] = []
        of_panels = []
        for one in panels:
            A, r = one.A.astype(np.float64).T, one.nodes
            firsts = sum(map(len, W)), sum(map(len, Q))
            W.append(A[:r])
            Q.append(A[r:])
            of_panels.append((slice(firsts[0], firsts[0] + r), slice(firsts[1], firsts[1] + len(Q[-1]))))
        return cls(xp.asarray(np.vstack(W)), xp.asarray(np.vstack(Q)), of_panels)

    def sums(self, xp: Any, X: Any) -> list[Any]:
        """The node sums of each panel, as `Partial.nodes` has them, of X~ (n, B)."""
        squares, products = xp.zeros((len(self.W), X.shape[1])), xp.zeros((len(self.Q), X.shape[1]))
        for start in range(0, X.shape[0], ROWS):
            rows = slice(start, start + ROWS)
            X_part = X[rows].astype(np.float64)
            products += self.Q[:, rows] @ X_part
            X_part *= X_part
            squares += self.W[:, rows] @ X_part
        return [xp.concatenate([squares[w], products[q]]) for w, q in self.of_panels]


class TilesOnCard:
    """The tiles of a pass whose traits are ``rows`` on the card of each rank, which has all rows of its own SNPs' X~.

    ``reasons`` are why SNPs have no estimate; ``dense`` takes every one, if that is asked for.
    """

    def __init__(
        self,
        panels: Sequence[ResidentPanel],
        rows: TraitRows,
        reasons: Reasons,
        dense: DenseTiles | None,
        world: World,
    ) -> None:
        self.panels, self.reasons, self.dense, self.world = panels, reasons, dense, world
        self._rows, self.card = rows, rows.card
        with self.card.lane(PRODUCTS):
            self._nodes = NodesOnCard.of(self.card.xp, [one.local for one in panels])
            self._epilogues = [EpilogueOnCard(self.card, one.epilogue, one.panel.B) for one in panels]
        self._strips = [(k, strip) for k, one in enumerate(panels) for strip in one.local.strips]

    def take(self, block: RotatedBlock) -> np.ndarray:
        """A block against every panel; returns the notes of its SNPs."""
        B, stats, n = len(block.rows), block.stats, self.panels[0].panel.n
        notes = self.reasons.notes(np.zeros(B, dtype=np.uint8), stats, block.rows)
        if B:
            flop = 2.0 * n * B * sum(one.panel.t for one in self.panels)
            with self.world.phase("tiles", flop=flop), self.card.lane(PRODUCTS):
                self._tiles(block, n * stats.variance, notes)
        return notes

    def _tiles(self, block: RotatedBlock, x_norm_sq: np.ndarray, notes: np.ndarray) -> None:
        """All strips of traits, one after the other; what a strip found is looked at while the next is multiplied."""
        xp, X_tilde, B = self.card.xp, block.X_tilde_team, len(block.rows)
        norm, left_out, snps = xp.asarray(x_norm_sq), xp.asarray(notes != 0), xp.asarray(block.snps)
        nodes = self._nodes.sums(xp, X_tilde)
        products = self._rows.operator.apply_any(*split_in_strips(xp, self._rows.precision, X_tilde))
        behind: tuple[EpilogueOnCard, StripOnCard] | None = None
        for (_, R), (k, strip) in zip(products, self._strips, strict=True):  # R = (W o E~)'X~
            one, kept = self.panels[k], self._epilogues[k]
            if strip.start == 0:
                D, note = one.panel.at_nodes(nodes[k], norm, xp)
                kept.begin(D, (note != 0) | left_out, snps)
                room = {} if self.dense is None else self.dense.room(one.panel.t, B)
            begun = kept.add(strip, R[:, :B], room)
            if self.dense is not None and strip.stop == one.panel.t:
                one.write(block, self.reasons.notes(self.card.to_host(note), block.stats, block.rows), self.dense)
            if behind is not None:
                behind[0].look(behind[1])
            behind = kept, begun
        if behind is not None:
            behind[0].look(behind[1])
        for one in self.panels:
            one.keep(block, one.epilogue.take_hits())

    def finish(self) -> None:
        """Histograms and best SNPs go to the panels' epilogues."""
        with self.card.lane(PRODUCTS):
            for kept in self._epilogues:
                kept.settle()
