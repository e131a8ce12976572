"""What is kept of tiles on a card: histograms and best SNPs stay there; hits, and dense estimates, come back.

The statistics are those of `model.epilogue`, which gets all of it in the end: x = R^2/d of R and d (module tiles).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mpgls.device.card import Card
from mpgls.model.epilogue import Epilogue
from mpgls.model.histograms import all_of_it


@dataclass(frozen=True, eq=False)
class StripOnCard:
    """A tile of some traits on its way: x and R on the card, the largest x of each trait; ``done`` marks its end.

    ``top`` (1,) is the largest x of all, on the host when it is done.
    """

    traits: slice
    x: Any
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
        self._bins = epilogue.bins.count
        self._counts = xp.zeros((t, self._bins + 1), dtype=np.uint32)  # the last column is not kept
        self._best_x = xp.full(t, -1.0, dtype=B.dtype)
        self._best_snp = xp.full(t, -1, dtype=np.int64)
        self._one = xp.ones(1, dtype=np.uint32)
        self._tests = xp.zeros(1, dtype=np.int64)
        self._tops = [card.host_array((1,), B.dtype) for _ in range(2)]

    def begin(self, D: Any, left_out: Any, snps: Any) -> None:
        """The SNPs (B,) of the next tiles: their ``D`` (r, B), which are ``left_out``, and their positions ``snps``."""
        self._D, self._left_out, self._snps = D, left_out, snps
        self._tests += (~left_out).sum()

    def add(self, traits: slice, R: Any, dense: dict[str, np.ndarray]) -> StripOnCard:
        """Begin to work on the tile ``R`` (some traits, B); ``dense`` (t, B), on the host, get its estimates."""
        xp, card = self.card.xp, self.card
        d = self._B[traits] @ self._D.astype(self.dtype)
        x = R * R
        x /= d
        x = xp.where(x >= all_of_it(self.dtype), 1.0, x).astype(self.dtype, copy=False)
        if dense:
            self._estimates(traits, R, d, x, dense)
        x = xp.where(self._untested[traits, None] | self._left_out, -1.0, x).astype(self.dtype, copy=False)
        largest = self._keep_best(traits, x)
        self._count(traits, x)
        top = self._tops.pop(0)
        self._tops.append(top)
        card.copy_out(largest.max().reshape(1), top)
        return StripOnCard(traits, x, R, largest, top, card.mark())

    def _keep_best(self, traits: slice, x: Any) -> Any:
        """The largest x of each trait."""
        xp = self.card.xp
        largest, snp = x.max(axis=1), self._snps[x.argmax(axis=1)]
        known, at = self._best_x[traits], self._best_snp[traits]
        better = (largest > known) | ((largest == known) & (snp < at))
        self._best_x[traits] = xp.where(better, largest, known)
        self._best_snp[traits] = xp.where(better, snp, at)
        return largest

    def _count(self, traits: slice, x: Any) -> None:
        """Each x in its bin; those that are left out in one more."""
        xp, width = self.card.xp, self._bins + 1
        codes = xp.where(x < 0, self._bins, self.epilogue.bins.of(x, xp))
        codes += xp.arange(0, len(x) * width, width, dtype=codes.dtype)[:, None]
        xp.add.at(self._counts[traits].reshape(-1), codes.reshape(-1), self._one)

    def _estimates(self, traits: slice, R: Any, d: Any, x: Any, dense: dict[str, np.ndarray]) -> None:
        """beta and se of a tile, NaN where there is no estimate; an untested trait has a NaN scale."""
        xp, card = self.card.xp, self.card
        made = self.epilogue.statistic.estimates(xp, R, d, x, self._scale[traits, None])
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
        row, column = xp.nonzero(strip.x[rows] >= threshold)
        trait = rows[row] + strip.traits.start
        R = strip.R[rows[row], column].astype(np.float64)
        d = (self._B[trait].astype(np.float64) * self._D[:, column].T).sum(axis=1)
        trait, snp, R, d = (card.to_host(one) for one in (trait, self._snps[column], R, d))
        self.epilogue.keep_hits(trait, snp, R, d, self.dtype)

    def settle(self) -> None:
        """Hand everything over that is still on the card."""
        epilogue, untested = self.epilogue, self.epilogue.untested
        counts = self.card.to_host(self._counts)[:, :-1].copy()
        counts[untested] = 0
        best_x, best_snp = self.card.to_host(self._best_x).astype(np.float64), self.card.to_host(self._best_snp)
        epilogue.absorb(best_x, best_snp, counts, int(self.card.to_host(self._tests)[0]))
