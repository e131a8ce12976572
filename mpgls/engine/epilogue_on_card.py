"""What is kept of tiles on a card: histograms and best SNPs stay there; hits, and dense estimates, come back.

The statistics are those of `model.epilogue`, which gets all of it in the end: x = R^2/d of R and d (module tiles).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mpgls.device.card import Card
from mpgls.device.tiles import Bins, count_tile, shares
from mpgls.model.epilogue import Epilogue
from mpgls.model.histograms import SHIFT, all_of_it


@dataclass(frozen=True, eq=False)
class StripOnCard:
    """A tile of some traits on its way: R on the card, the largest x of each trait; ``done`` marks its end.

    ``top`` (1,) is the largest x of all, on the host when it is done.
    """

    traits: slice
    R: Any
    largest: Any
    top: np.ndarray
    done: Any


class EpilogueOnCard:
    """What is kept of the tiles of a panel, for ``epilogue``; ``B`` (t, r) as in `TraitPanel`.

    Its methods are to be called in the lane of products.
    """

    def __init__(self, card: Card, epilogue: Epilogue, B: np.ndarray) -> None:
        xp, t = card.xp, epilogue.rss.size
        self.card, self.epilogue, self.dtype = card, epilogue, B.dtype
        self._B, self._scale = xp.asarray(B), xp.asarray(epilogue.scale.astype(B.dtype))
        self._untested = xp.asarray(epilogue.untested)
        bins = epilogue.bins
        self._bins = Bins(SHIFT, bins.base, bins.count, all_of_it(B.dtype))
        self._counts = xp.zeros((t, bins.count + 1), dtype=np.uint32)  # the last column is not kept
        self._best_x = xp.full(t, -1.0, dtype=B.dtype)
        self._best_snp = xp.full(t, -1, dtype=np.int64)
        self._tests = xp.zeros(1, dtype=np.int64)
        self._tops = [card.host_array((1,), B.dtype) for _ in range(2)]

    def begin(self, D: Any, left_out: Any, snps: Any) -> None:
        """The SNPs (k,) of the next tiles: their ``D`` (r, k), which are ``left_out``, and their positions ``snps``."""
        self._D, self._left_out, self._snps = D, left_out, snps
        self._D_of_tiles = D.astype(self.dtype, copy=False)
        self._tests += (~left_out).sum()

    def add(self, traits: slice, R: Any, dense: dict[str, np.ndarray]) -> StripOnCard:
        """Begin to work on the tile ``R`` (some traits, k); ``dense`` (t, k), on the host, get its estimates."""
        tile = R, self._B[traits], self._D_of_tiles
        if dense:
            self._estimates(traits, tile, dense)
        left_out = self._untested[traits], self._left_out
        largest, column = count_tile(self.card.xp, tile, left_out, self._counts[traits], self._bins)
        self._keep_best(traits, largest, self._snps[column])
        top = self._tops.pop(0)
        self._tops.append(top)
        self.card.copy_out(largest.max().reshape(1), top)
        return StripOnCard(traits, R, largest, top, self.card.mark())

    def _keep_best(self, traits: slice, largest: Any, snp: Any) -> None:
        """The largest x of each trait, and the first SNP that has it."""
        xp = self.card.xp
        known, at = self._best_x[traits], self._best_snp[traits]
        better = (largest > known) | ((largest == known) & (snp < at))
        self._best_x[traits] = xp.where(better, largest, known)
        self._best_snp[traits] = xp.where(better, snp, at)

    def _estimates(self, traits: slice, tile: tuple[Any, Any, Any], dense: dict[str, np.ndarray]) -> None:
        """beta and se of a tile, NaN where there is no estimate; an untested trait has a NaN scale."""
        xp, card = self.card.xp, self.card
        x, d = shares(xp, *tile, self._bins.whole)
        made = self.epilogue.statistic.estimates(xp, tile[0], d, x, self._scale[traits, None])
        for name, values in zip(("beta", "se"), made, strict=True):
            dense[name][traits] = card.to_host(xp.where(self._left_out, np.nan, values).astype(np.float32))

    def look(self, strip: StripOnCard) -> None:
        """The hits of a tile go to the epilogue."""
        self.card.wait(strip.done)
        threshold = self.epilogue.threshold
        if float(strip.top[0]) < threshold:
            return
        xp, card = self.card.xp, self.card
        (rows,) = xp.nonzero(strip.largest >= threshold)
        traits, R = rows + strip.traits.start, strip.R[rows]
        x, _ = shares(xp, R, self._B[traits], self._D_of_tiles, self._bins.whole)
        row, column = xp.nonzero(xp.where(self._left_out, -1.0, x) >= threshold)
        d = (self._B[traits[row]].astype(np.float64) * self._D[:, column].T).sum(axis=1)
        of_hits = traits[row], self._snps[column], R[row, column].astype(np.float64), d
        trait, snp, R, d = (card.to_host(one) for one in of_hits)
        self.epilogue.keep_hits(trait, snp, R, d, self.dtype)

    def settle(self) -> None:
        """Hand everything over that is still on the card."""
        epilogue, untested = self.epilogue, self.epilogue.untested
        counts = self.card.to_host(self._counts)[:, :-1].copy()
        counts[untested] = 0
        best_x, best_snp = self.card.to_host(self._best_x).astype(np.float64), self.card.to_host(self._best_snp)
        epilogue.absorb(best_x, best_snp, counts, int(self.card.to_host(self._tests)[0]))
