"""Tiles of permuted targets through the operators of all folds and penalties, dealt to ranks.

A tile is some permutations of all targets, or one permutation of some targets. Its shape depends on the number of
targets only, so a tile is the same products, to the last bit, on any number of ranks and after any interruption.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mpgls.model.kernel_ridge import Operators
from mpgls.model.nested_scores import Scatter, choose, correlations, score_penalty
from mpgls.model.permute import permutation
from mpgls.model.work import Work

WIDTH = 1024
"""Columns of a tile: permutations times targets."""
TIE = {np.dtype(np.float64): 1e-12, np.dtype(np.float32): 1e-6}
"""A permuted R2 below the observed one by no more than this counts as equal: rounding must not decide."""


@dataclass(frozen=True)
class Tile:
    """Permutations ``first`` to ``last - 1`` of the targets ``start`` to ``stop - 1``."""

    first: int
    last: int
    start: int
    stop: int

    @property
    def width(self) -> int:
        """Columns."""
        return (self.last - self.first) * (self.stop - self.start)


def tiles_of(t: int, first: int, last: int, whole: bool) -> list[Tile]:
    """Tiles of the permutations first to last - 1 of t targets; ``whole`` keeps all targets of one together."""
    if t <= WIDTH or whole:
        several = max(1, WIDTH // t)
        return [Tile(p, min(p + several, last), 0, t) for p in range(first, last, several)]
    panels = -(-t // WIDTH)
    edges = [t * k // panels for k in range(panels + 1)]
    return [Tile(p, p + 1, a, b) for p in range(first, last) for a, b in itertools.pairwise(edges)]


@dataclass
class TileScores:
    """R2 of a tile by penalty: mean of the inner folds, and of each outer fold, (penalties, outer, width).

    Of the observed targets also r, and the errors of prediction (penalties, n, width) if they are to be kept.
    """

    inner: np.ndarray
    outer: np.ndarray
    r: np.ndarray | None = None
    errors: np.ndarray | None = None
    constant: np.ndarray | None = None


@dataclass
class Observed:
    """Of the unpermuted targets: R2 and chosen penalty of each outer fold, and the mean R2 by penalty.

    ``r2``, ``r``, ``chosen``, ``constant`` (outer, t); ``by_alpha`` (penalties, t); ``errors`` (n, t) or None.
    """

    r2: np.ndarray
    r: np.ndarray
    chosen: np.ndarray
    constant: np.ndarray
    by_alpha: np.ndarray
    errors: np.ndarray | None

    @property
    def mean(self) -> np.ndarray:
        """Mean R2 over the outer folds (t,): what permutations are compared with."""
        return self.r2.mean(axis=0)


@dataclass
class NullState:
    """What the run has so far. ``maxima`` (permutations,) of mean R2 over targets; ``counts`` (t,) of R2 as large."""

    maxima: np.ndarray
    counts: np.ndarray
    observed: Observed | None = None
    tiles_done: int = 0
    pending: dict[int, TileScores] = field(default_factory=dict)
    penalties_done: int = 0


class TileScanner:
    """Evaluates tiles of the targets ``Y`` (t, n), Fortran order, on this rank."""

    def __init__(
        self, Y: np.ndarray, scatter: Scatter, seed: int, blocks: np.ndarray | None, penalties: int, shared: bool,
        keep_errors: bool,
    ) -> None:  # fmt: skip
        self.Y, self.scatter, self.seed, self.blocks = Y.T, scatter, seed, blocks
        self.penalties, self.shared, self.keep_errors = penalties, shared, keep_errors
        self.work = Work()

    def columns(self, tile: Tile) -> np.ndarray:
        """The tile's permuted targets, (n, width)."""
        n, panel = self.Y.shape[0], tile.stop - tile.start
        Y = self.work.array("targets", (n, tile.width), self.Y.dtype)
        for k, index in enumerate(range(tile.first, tile.last)):
            order = permutation(self.seed, index, n, self.blocks)
            Y[:, k * panel : (k + 1) * panel] = self.Y[order, tile.start : tile.stop]
        return Y

    def score(self, tile: Tile, operators: Sequence[Operators], first: int, scores: TileScores | None) -> TileScores:
        """Add the penalties ``first``, first + 1, ... to the tile's scores."""
        Y = self.columns(tile)
        if scores is None:
            scores = self._empty(tile)
        scatter = self.scatter(Y, self.work)
        for a, one in enumerate(operators, first):
            found = score_penalty(one, Y, scatter, self.work)
            scores.inner[a], scores.outer[a] = found.inner, found.outer
            if scores.r is not None:
                scores.r[a] = correlations(found.errors, Y, self.scatter)
                scores.constant = scatter[0] == 0
            if scores.errors is not None:
                for fold, e in zip(self.scatter.folds.outer, found.errors, strict=True):
                    scores.errors[a, fold.test] = e
        return scores

    def _empty(self, tile: Tile) -> TileScores:
        shape = (self.penalties, len(self.scatter.folds.outer), tile.width)
        scores = TileScores(np.empty(shape), np.empty(shape))
        if tile.first == 0:
            scores.r = np.empty(shape)
            if self.keep_errors:
                scores.errors = np.empty((self.penalties, self.Y.shape[0], tile.width), dtype=self.Y.dtype)
        return scores

    def mean_r2(self, tile: Tile, scores: TileScores) -> np.ndarray:
        """Mean R2 over outer folds with the penalties that the inner folds choose: (permutations, targets)."""
        _, r2 = choose(scores.inner, scores.outer, self._together(tile))
        return r2.mean(axis=0).reshape(tile.last - tile.first, -1)

    def observed(self, tile: Tile, scores: TileScores) -> Observed:
        """What is reported of a tile of unpermuted targets."""
        assert scores.r is not None and scores.constant is not None
        chosen, r2 = choose(scores.inner, scores.outer, self._together(tile))
        r = np.take_along_axis(scores.r, chosen[None], axis=0)[0]
        errors = None
        if scores.errors is not None:
            of_sample = chosen[self.scatter.folds.labels()[0]]
            errors = np.take_along_axis(scores.errors, of_sample[None], axis=0)[0]
        return Observed(r2, r, chosen, scores.constant, scores.outer.mean(axis=1), errors)

    def _together(self, tile: Tile) -> int | None:
        return tile.stop - tile.start if self.shared else None


def join(parts: list[tuple[Tile, Observed]]) -> Observed:
    """The observed targets of all tiles, in order."""
    ordered = [one for _, one in sorted(parts, key=lambda part: part[0].start)]
    whole = {
        name: np.concatenate([getattr(one, name) for one in ordered], axis=1)
        for name in ("r2", "r", "chosen", "constant", "by_alpha")
    }
    kept = [one.errors for one in ordered if one.errors is not None]
    return Observed(**whole, errors=np.concatenate(kept, axis=1) if kept else None)


@dataclass(frozen=True)
class NullPart:
    """What one tile of permutations adds: maxima over its targets, and how many reach the observed R2 of each."""

    tile: Tile
    maxima: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, tile: Tile, r2: np.ndarray, observed: np.ndarray, dtype: np.dtype) -> NullPart:
        """From mean R2 (permutations, targets) and that of the unpermuted targets (t,)."""
        reached = r2 >= observed[tile.start : tile.stop] - TIE[dtype]
        return cls(tile, r2.max(axis=1), reached.sum(axis=0))

    def add_to(self, state: NullState) -> None:
        """The maximum and integer sums do not depend on the order of tiles."""
        at = slice(self.tile.first - 1, self.tile.last - 1)
        np.maximum(state.maxima[at], self.maxima, out=state.maxima[at])
        state.counts[self.tile.start : self.tile.stop] += self.counts
