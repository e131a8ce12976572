"""Tiles of permuted targets on the card of this rank: errors of all folds, and R2 of each fold and penalty.

As `mpgls.engine.permutation_tiles`, in other orders of summation. A card has the operators of the penalties that are
held, the targets, and what the scatter of the folds takes; two numbers a penalty, outer fold and column come back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mpgls.device.card import PRODUCTS, Card
from mpgls.engine.permutation_tiles import Tile, TileScanner, TileScores
from mpgls.model.nested_scores import CONSTANT, Scatter, correlations
from mpgls.model.permute import permutation


class ScatterOnCard:
    """The sums of squares of `Scatter`, all test sets together; in the lane of products."""

    def __init__(self, card: Card, scatter: Scatter) -> None:
        xp, folds = card.xp, scatter.folds
        self.card, self.outer, self.inner = card, len(folds.outer), folds.inner_count
        self.indicators, self.sums = xp.asarray(scatter.indicators), xp.asarray(scatter.sums)
        self.gram, self.solve = xp.asarray(np.stack(scatter.gram)), xp.asarray(np.stack(scatter.solve))
        self.sizes = xp.asarray(np.array([float(test.size) for test in folds.tests]))[:, None]
        self.least = CONSTANT[scatter.indicators.dtype] * self.sizes

    def __call__(self, Y: Any) -> Any:
        """Float64 (sets, w) of Y (n, w), 0 where constant: of the outer folds, then of the inner ones."""
        xp, (sets, q, n) = self.card.xp, self.sums.shape
        total = (self.indicators @ (Y * Y)).astype(np.float64)
        Z = (self.sums.reshape(sets * q, n) @ Y).reshape(sets, q, -1).astype(np.float64)
        mean = Z[:, 0]
        if q > 1:
            of_outer = Z[: self.outer]
            left_out = Z.copy()
            left_out[self.outer :] += xp.repeat(of_outer, self.inner, axis=0)
            b = xp.matmul(self.solve, of_outer.sum(axis=0) - left_out)
            mean = mean - xp.matmul(self.gram[:, :1, 1:], b)[:, 0]
            total += (b * (xp.matmul(self.gram[:, 1:, 1:], b) - 2.0 * Z[:, 1:])).sum(axis=1)
        total -= mean * mean / self.sizes
        return xp.where(total <= self.least, 0.0, total)


class TileScannerOnCard(TileScanner):
    """`TileScanner` on ``card``; ``work``: numbers that the folds of a penalty make at a time."""

    def __init__(self, card: Card, work: int, *given: Any) -> None:
        super().__init__(*given)
        self.card, self._numbers = card, work
        with card.lane(PRODUCTS):
            self._Y = card.xp.asarray(np.ascontiguousarray(self.Y))
            self._scatter = ScatterOnCard(card, self.scatter)

    def score(
        self, tile: Tile, operators: Sequence[Any], first: int = 0, scores: TileScores | None = None
    ) -> TileScores:
        """Add the penalties ``first``, first + 1, ... to the tile's scores; ``operators`` are `FoldErrors`."""
        card, xp, outer = self.card, self.card.xp, len(self.scatter.folds.outer)
        scores = self._empty(tile) if scores is None else scores
        with card.lane(PRODUCTS):
            Y = self._columns_on_card(tile)
            scatter = self._scatter(Y[:-1])
            found = []
            for a, one in enumerate(operators, first):
                z = one.residuals(xp, Y)
                e = one.outer.errors(z, Y)
                inner = _r2(xp, one.inner.squares(z, Y, self._numbers), scatter[outer:])
                squares = xp.square(e).sum(axis=1, dtype=np.float64)
                found += [inner.reshape(outer, -1, Y.shape[1]).mean(axis=1), _r2(xp, squares, scatter[:outer])]
                if tile.observed:
                    self._keep_errors(tile, a, card.to_host(e), scores)
            R2 = card.to_host(xp.stack(found)).reshape(len(operators), 2, outer, -1)
            if tile.observed:
                scores.constant = card.to_host(scatter[:outer]) == 0
        scores.inner[first : first + len(operators)], scores.outer[first : first + len(operators)] = R2[:, 0], R2[:, 1]
        return scores

    def _columns_on_card(self, tile: Tile) -> Any:
        """The tile's permuted targets (n + 1, width), the last row zeros."""
        xp, (n, _) = self.card.xp, self.Y.shape
        seed, blocks = self.permutations.seed, self.permutations.blocks
        orders = np.stack([permutation(seed, index, n, blocks) for index in range(tile.first, tile.last)], axis=1)
        Y = xp.zeros((n + 1, tile.width), dtype=self.Y.dtype)
        Y[:-1] = xp.take(self._Y[:, tile.start : tile.stop], xp.asarray(orders), axis=0).reshape(n, tile.width)
        return Y

    def _keep_errors(self, tile: Tile, a: int, e: np.ndarray, scores: TileScores) -> None:
        """r, and the errors if they are to be kept, of the observed targets under penalty ``a``."""
        assert scores.r is not None
        folds = self.scatter.folds.outer
        errors = [of_fold[: fold.test.size] for of_fold, fold in zip(e, folds, strict=True)]
        scores.r[a] = correlations(errors, self.columns(tile), self.scatter)
        if scores.errors is not None:
            for fold, of_fold in zip(folds, errors, strict=True):
                scores.errors[a, fold.test] = of_fold


def _r2(xp: Any, squares: Any, scatter: Any) -> Any:
    """1 - squared errors / scatter, and 0 where there is no scatter."""
    there = scatter > 0
    return 1.0 - xp.where(there, squares / xp.where(there, scatter, 1.0), 1.0)
