"""Pairs of SNP and voxel whose score may be beyond the threshold, found by a float16 product on a card.

    [Gamma; beta] = [P'Z_w; P'R_X] R_Y'         float16 factors, float32 sums, a tile at a time
    nominated:  |beta| >= bound(|Gamma| + sqrt(r) error) - error

All rows have length 1, so the error of a product of any two is bounded (`half_error`), and no pair beyond the threshold
is lost. What is nominated is scored anew on the ranks, from the residuals that they hold, and that score decides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpgls.device.card import COPIES, PRODUCTS, Card
from mpgls.device.products import ALIGNED, aligned, half_product
from mpgls.device.threshold import Found, add_beyond

SCALE = 2.0**15
"""What numbers of at most 1 in size are multiplied by: float16 ends at 65,504, and loses digits below 2^-14."""
UNIT, LEAST = 2.0**-11 * (1 + 2.0**-12), 2.0**-25 / SCALE
"""A number's rounding to float16, by way of float32: relative, and of what is below 2^-14 / SCALE."""
TERMS = 8192
"""Samples whose products are added up in float32 before they are added to the others."""
SUM_UNIT = 2.0**-23
"""An addition in float32; matrix units cut digits off."""
UPLOAD = 1 << 22
"""Numbers that are copied to the card together."""
PLACES, SNP_COPIES = 2, 2
"""Permutations on their way; SNPs in their own order and in that of a permutation."""


def half_error(n: int) -> float:
    """The largest error of x'y, of length-1 float32 or float64 rows of n samples, by float16 factors and float32 sums.

    With x + e the rounded x, |e| <= E = UNIT + LEAST sqrt(n), by Cauchy and Schwarz (x + e)'(y + f) - x'y is at most
    2 E + E^2, and a sum of K products, in any order, is off by at most K SUM_UNIT (1 + E)^2. Lengths that are 1 but for
    rounding, and terms of higher order, add less than a 512th.
    """
    E = UNIT + LEAST * math.sqrt(n)
    K = min(n, TERMS) + -(-n // TERMS)
    return (2 * E + E * E + K * SUM_UNIT * (1 + E) ** 2) * (1 + 2.0**-9)


@dataclass(frozen=True)
class Threshold:
    """beta^2 >= share (1 - Gamma^2) is beyond the threshold, for n samples and r confounds."""

    share: float
    n: int
    r: int

    def lowered(self, xp: Any, Gamma: Any, testable: Any) -> Any:
        """The bound of float32 products times SCALE^2, (w,), from those of Z_w and R_Y, (r, w); infinite where not
        ``testable``."""
        error = half_error(self.n)
        # a rank adds its Gamma up in float32
        of_Gamma = math.sqrt(self.r) * (error + self.n * SUM_UNIT)
        squares = xp.square(Gamma.astype(np.float64) / SCALE**2).sum(axis=0)
        left = xp.maximum(1.0 - xp.square(xp.sqrt(squares) + of_Gamma), 0.0)
        bound = xp.sqrt(self.share * left) - error - SUM_UNIT  # which is rounded to float32
        return xp.where(testable, bound * SCALE**2, np.inf).astype(np.float32)


@dataclass(eq=False)
class Place:
    """A permutation on its way: ``order`` on the host and on the card, and what was ``found``; ``done`` is its end."""

    on_host: np.ndarray
    order: Any
    found: Found
    count: np.ndarray
    done: Any = None


class Nominator:
    """Nominates pairs of the SNPs and the voxels that were taken last; two permutations are on their way at most.

    ``tile``: numbers of the products that are compared together; ``room``: pairs of a permutation, more where needed.
    """

    def __init__(self, card: Card, threshold: Threshold, tile: int, room: int) -> None:
        self.card, self.threshold, self.tile = card, threshold, tile
        self._k = aligned(threshold.n)
        self._places = [self._place(room) for _ in range(PLACES)]
        self._turn = 0
        self._ZX: Any = None
        self._R_Y: Any = None
        self._testable: Any = None
        card.settle()

    def _place(self, room: int) -> Place:
        card, xp = self.card, self.card.xp
        on_host = card.host_array((self._k,), np.int64)
        on_host[...] = np.arange(self._k)
        with card.lane(PRODUCTS):
            return Place(on_host, xp.arange(self._k), Found.empty(xp, room), card.host_array((1,), np.uint64))

    def take_voxels(self, R_Y: np.ndarray, testable: np.ndarray) -> None:
        """The rows ``R_Y`` (v, n) of length 1 or, where not ``testable`` (v,), of zeros."""
        self._R_Y = None
        with self.card.lane(PRODUCTS):
            self._R_Y = self._half(R_Y, aligned(len(R_Y)))
            self._testable = self.card.xp.asarray(np.pad(testable, (0, len(self._R_Y) - len(R_Y))))

    def take_snps(self, ZX: np.ndarray) -> None:
        """[Z_w; R_X] (r + B, n), in the order of the samples; SNPs that are not tested are zeros."""
        self._ZX = None
        with self.card.lane(PRODUCTS):
            self._ZX = self._half(ZX, len(ZX))

    def _half(self, values: np.ndarray, rows: int) -> Any:
        """``values`` (k, n) times SCALE in float16, with zeros up to ``rows`` and to whole memory accesses."""
        xp, n = self.card.xp, values.shape[1]
        half = xp.zeros((rows, self._k), dtype=np.float16)
        step = max(1, UPLOAD // n)
        for start in range(0, len(values), step):
            part = xp.asarray(np.ascontiguousarray(values[start : start + step])).astype(np.float32)
            half[start : start + len(part), :n] = (part * np.float32(SCALE)).astype(np.float16)
        return half

    def start(self, order: np.ndarray) -> Place:
        """Begin with the permutation that puts sample k in the place of sample ``order[k]`` (n,)."""
        card, place = self.card, self._places[self._turn]
        self._turn = (self._turn + 1) % PLACES
        place.on_host[: order.size] = order
        with card.lane(PRODUCTS):
            card.copy_in(place.on_host, place.order)
            self._search(place)
        return place

    def finish(self, place: Place) -> tuple[np.ndarray, np.ndarray]:
        """(SNP, voxel), int64 (k,) each, of the pairs that are nominated under the permutation, in no order."""
        card = self.card
        card.wait(place.done)
        if place.count[0] > place.found.places.size:
            with card.lane(PRODUCTS):
                place.found = Found.empty(card.xp, int(place.count[0]))
                self._search(place)
            card.wait(place.done)
        with card.lane(COPIES):  # beside the products of the next permutation
            places = card.to_host(place.found.places[: int(place.count[0])])
        snp, voxel = np.divmod(places, len(self._R_Y))
        return snp, voxel

    def _search(self, place: Place) -> None:
        """All tiles of the permutation; in the lane of products."""
        card, xp, r, v = self.card, self.card.xp, self.threshold.r, len(self._R_Y)
        place.found.count[...] = 0
        ZX = xp.take(self._ZX, place.order, axis=1)
        height = min(len(ZX), max(r + 1, self.tile // ALIGNED))
        width = min(v, max(1, self.tile // height // ALIGNED) * ALIGNED)
        for first in range(0, v, width):
            Y, testable = self._R_Y[first : first + width], self._testable[first : first + width]
            bound = None
            for top in range(0, len(ZX), height):
                T = _product(xp, ZX[top : top + height], Y)
                if bound is None:
                    bound, T, above = self.threshold.lowered(xp, T[:r], testable), T[r:], 0
                else:
                    above = top - r
                add_beyond(xp, T, bound, above * v + first, v, place.found)
        card.copy_out(place.found.count, place.count)
        place.done = card.mark()


def _product(xp: Any, A: Any, G: Any) -> Any:
    """A G' in float32, TERMS samples at a time."""
    total = None
    for start in range(0, A.shape[1], TERMS):
        total = half_product(xp, A[:, start : start + TERMS], G[:, start : start + TERMS], 1.0, total)
    return total
