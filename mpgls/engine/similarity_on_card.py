"""The two large products of the low-rank model on the cards of the ranks: G'G, and G'X of the tested SNPs.

Genotypes go to the card packed and are counts there, so both are exact integer products (`mpgls.device.cross`), divided
by the standard deviations in float64; dosages are five digits. F'X, of the covariates and traits, is made there as
well, of F in int8 parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mpgls.device.card import PRODUCTS, Card
from mpgls.device.cross import Counted, centred_product, counted
from mpgls.device.decoder import DeviceDecoder
from mpgls.device.operator import Centring, DeviceOperator, row_panels
from mpgls.device.parts import PRECISIONS
from mpgls.engine.device_counts import CardCounter
from mpgls.engine.low_rank import LowRankFactor
from mpgls.engine.low_rank_card import room_for_factors, room_for_similarity
from mpgls.engine.low_rank_nulls import SimilarityPart
from mpgls.engine.low_rank_scan import HeldTrait, TestedBlock, TestedSnps
from mpgls.engine.similarity import PANEL, PackedSnps, Similarity
from mpgls.engine.snp_scan import Streamed
from mpgls.errors import UsageError
from mpgls.la.teams import Closing, Team
from mpgls.run.plan import GIB
from mpgls.run.world import World
from mpgls.study.genotype_files import Genotypes
from mpgls.study.genotypes import split_rows
from mpgls.study.similarity import SimilaritySnps
from mpgls.study.snp_columns import SnpColumns
from mpgls.study.snp_stats import SnpStats

if TYPE_CHECKING:
    from mpi4py import MPI

EXACT = PRECISIONS["exact"]


def check_for_cards(dense: bool) -> None:
    """UsageError for the n x n form, which is not on GPUs."""
    if dense:
        raise UsageError("--device gpu has no n x n form of low-rank: give --form low-rank")


class SimilarityOnCard(Similarity):
    """`Similarity` whose large products are made on ``card``; packed SNPs stay there where they fit."""

    def __init__(
        self,
        snps: SimilaritySnps,
        packed: PackedSnps,
        at: np.ndarray,
        stats: SnpStats,
        rows: np.ndarray,
        dtype: type,
        card: Card,
        comm: MPI.Comm,
    ) -> None:
        super().__init__(snps, packed, at, stats, rows, dtype, False, comm)
        self.card, self._has_gaps = card, stats.n_obs < stats.n
        self._decode_counts = DeviceDecoder(card, packed.bed.n, rows, EXACT)
        resident = at.size * packed.bed.snp_bytes <= room_for_similarity(card.limit)
        self._resident = self._copied(at) if resident else None
        card.settle()

    @property
    def products(self) -> str:
        """How they are made, for the log."""
        resident = 0 if self._resident is None else self._resident.nbytes
        return f"exact on the GPU, {self.card.name}, with {resident / GIB:.2f} GiB of packed SNPs"

    def counted(self, which: np.ndarray) -> Counted:
        """SNPs ``which`` on the card. To be called in the lane of products."""
        xp = self.card.xp
        if self._resident is None:
            packed = xp.asarray(self._numbers(self._at[which]))
        else:
            packed = self._resident[xp.asarray(which)]
        gaps = np.flatnonzero(self._has_gaps[which])
        return counted(self.card, self._decode_counts, packed, self.stats.mean[which], gaps)

    def _copied(self, at: np.ndarray) -> Any:
        """The SNPs ``at`` on the card, a panel at a time: each copy goes through as much memory of the host again."""
        xp, none = self.card.xp, self._numbers(at[:0])
        on_card = xp.empty((at.size, none.shape[1]), dtype=none.dtype)
        for start in range(0, at.size, PANEL):
            on_card[start : start + PANEL] = xp.asarray(self._numbers(at[start : start + PANEL]))
        return on_card

    def _numbers(self, at: np.ndarray) -> np.ndarray:
        """The SNPs ``at`` some places among the packed ones: genotypes, or dosages in float32."""
        return split_rows(self.packed.rows[at], self.packed.bed.n)[0]

    def cross(self, which: np.ndarray, X: Counted) -> Any:
        """G'X (k, B), float64 on the card, of the SNPs ``which`` and centred columns on the card."""
        with self.card.lane(PRODUCTS):
            product = centred_product(self.card.xp, self.counted(which), X, self.n)
            product /= self.card.xp.asarray(self.sd[which, None])
            return product

    def gram(self, rows: np.ndarray, cols: np.ndarray, world: World) -> Iterator[tuple[slice, np.ndarray]]:
        """Rows of G_rows' G_cols, float64, in panels: their places among ``rows``, and the numbers."""
        if not (rows.size and cols.size):
            return
        with world.phase("decode", nbytes=self.n * cols.size / 4), self.card.lane(PRODUCTS):
            X = self.counted(cols)
        for start in range(0, rows.size, PANEL):
            part = rows[start : start + PANEL]
            with world.phase("G'G", flop=2.0 * self.n * part.size * cols.size):
                with self.card.lane(PRODUCTS):
                    product = self.card.to_host(self.cross(part, X))
                yield slice(start, start + part.size), product / self.sd[cols]


@dataclass(frozen=True)
class BlockOnCard(TestedBlock):
    """A block whose ``counts`` are on the card; X is not made."""

    counts: Counted


class TestedOnCard(TestedSnps):
    """`TestedSnps` that are decoded on the card of ``G``, where F'X and G'X are made."""

    streamed = Streamed("products on the GPU", "--device cpu")
    on_card = True

    def __init__(
        self, bed: Genotypes, rows: np.ndarray, F_rep: np.ndarray, G: SimilarityOnCard, width: int, world: World
    ) -> None:
        super().__init__(bed, rows, F_rep, G, width, world)
        self.card, self._similarity = G.card, G
        self._decode_counts = DeviceDecoder(G.card, bed.n, rows, EXACT)
        self._counter = CardCounter(G.card, bed, rows)
        self._precision, self._room = PRECISIONS["mixed" if self.mixed else "double"], room_for_factors(G.card.limit)
        self._F = DeviceOperator(G.card, EXACT, G.card.limit)
        self._F.take(np.ascontiguousarray(F_rep.T), np.zeros((F_rep.shape[1], 0)))
        G.card.settle()

    def _memory(self, columns: int) -> tuple[np.ndarray, np.ndarray]:
        """None on the host."""
        return np.empty((0, 0)), np.empty((0, 0))

    def decode(self, packed: np.ndarray) -> BlockOnCard:
        """B SNPs on the card, their counts, and F'x."""
        with self.world.phase("decode", nbytes=packed.size), self.card.lane(PRODUCTS):
            on_card = self.card.xp.asarray(split_rows(packed, self.bed.n)[0])
            stats = self._counter.stats(packed, on_card)
            gaps = np.flatnonzero(stats.n_obs < stats.n)
            columns = counted(self.card, self._decode_counts, on_card, stats.mean, gaps)
        with self.world.phase("covariate product"), self.card.lane(PRODUCTS):
            FX = self.card.to_host(self._covariates(columns))
        XX = (stats.n * stats.variance)[None]
        return BlockOnCard(stats, np.empty((0, packed.shape[0])), np.zeros(0), FX, XX, columns)

    def _covariates(self, columns: Counted) -> Any:
        """F'X of the centred SNPs (q+T, B)."""
        xp, B = self.card.xp, columns.d.size
        d = xp.zeros(columns.a.parts[0].shape[0])
        d[:B] = columns.d
        (FX,) = self._F.apply(columns.a, Centring(d, columns.gaps, columns.m))
        return FX[1][:, :B]

    def begin(self, part: SimilarityPart) -> None:
        """H is made anew for every block."""

    def cross(self, part: SimilarityPart, block: TestedBlock) -> Any:
        """H (K, B) = G_c'X on the card for the similarity SNPs of the part; the other rows are zero."""
        assert isinstance(block, BlockOnCard)
        B = block.X.shape[1]
        with self.card.lane(PRODUCTS):
            H = self.card.xp.zeros((self.G.K, B))
        for run in part.runs:
            for start in range(run.start, run.stop, PANEL):
                which = np.arange(start, min(start + PANEL, run.stop))
                with self.world.phase("cross product", flop=2.0 * self.n * which.size * B), self.card.lane(PRODUCTS):
                    H[which[0] : which[-1] + 1] = self._similarity.cross(which, block.counts)
        return H

    def hold(self, L: LowRankFactor, F_tilde_rep: np.ndarray, team: Team) -> CardFactor:
        """L_c^-1 on the card of each rank. Collective."""
        K = len(F_tilde_rep)
        (panels,) = row_panels(K, 1, triangle=True)
        operator = DeviceOperator(self.card, self._precision, self._room)
        for W, (rows, _) in zip(L.row_blocks([panels] * self.world.size), panels, strict=True):
            operator.take(W, F_tilde_rep[rows.start : rows.stop])
        self.card.settle()
        self._room -= operator.resident_bytes
        return CardFactor(operator, K, self)

    def give_back(self, nbytes: int) -> None:
        """Room of the card for further factors."""
        self._room += nbytes

    def through_factor(self, trait: HeldTrait, H: Any) -> np.ndarray:
        """F~'L_c^-1 H and, below, the squares of L_c^-1 H."""
        assert isinstance(trait.L_team, CardFactor)
        with self.world.phase("solve", flop=float(H.shape[0]) ** 2 * H.shape[1]), self.card.lane(PRODUCTS):
            return self.card.to_host(trait.L_team.operator.sums_of_any(H)).copy()


class CardFactor(Closing):
    """L_c^-1 (K, K) of a trait, as ``operator`` on the card of this rank."""

    def __init__(self, operator: DeviceOperator, K: int, owner: TestedOnCard) -> None:
        self.operator, self._owner = operator, owner
        self.rows, self.dtype = np.arange(K), np.dtype(np.float64)

    def close(self) -> None:
        """Give the room back."""
        self._owner.give_back(self.operator.resident_bytes)
        del self.operator


def tested_snps(
    bed: Genotypes,
    rows: np.ndarray,
    F_rep: np.ndarray,
    G: Similarity,
    width: int,
    world: World,
    columns: SnpColumns,
) -> TestedSnps:
    """The tested SNPs of a run: on the card where G is there."""
    if isinstance(G, SimilarityOnCard):
        return TestedOnCard(bed, rows, F_rep, G, width, world)
    return TestedSnps(bed, rows, F_rep, G, width, world, columns)
