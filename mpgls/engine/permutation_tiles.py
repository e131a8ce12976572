"""Tiles of permuted targets through the operators of all folds and penalties, dealt to ranks.

A tile is some permutations of all targets, or one permutation of some targets. Its shape depends on the number of
targets only, so a tile is the same products, to the last bit, on any number of ranks and after any interruption.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mpgls.model.kernel_ridge import Operators
from mpgls.model.nested_scores import Scatter, choose, correlations, score_penalty
from mpgls.model.permute import permutation
from mpgls.model.work import Work

WIDTH = 1024
"""Columns of a tile: permutations times targets."""


@dataclass(frozen=True)
class Tile:
    """Permutations ``first`` to ``last - 1`` of the targets ``start`` to ``stop - 1``; 0 is the identity."""

    first: int
    last: int
    start: int
    stop: int

    @property
    def width(self) -> int:
        """Columns."""
        return (self.last - self.first) * (self.stop - self.start)

    @property
    def observed(self) -> bool:
        """Whether its targets are not permuted; then all are, because permutation 0 has tiles of its own."""
        return self.first == 0


def all_tiles(t: int, permutations: int, whole: bool) -> list[Tile]:
    """The tiles of the observed t targets, then of all permutations of them."""
    return [*tiles_of(t, 0, 1, whole), *tiles_of(t, 1, permutations + 1, whole)]


def tiles_of(t: int, first: int, last: int, whole: bool) -> list[Tile]:
    """Tiles of the permutations first to last - 1 of t targets; ``whole`` keeps all targets of one together."""
    if t <= WIDTH or whole:
        several = max(1, WIDTH // t)
        return [Tile(p, min(p + several, last), 0, t) for p in range(first, last, several)]
    panels = -(-t // WIDTH)
    edges = [t * k // panels for k in range(panels + 1)]
    return [Tile(p, p + 1, a, b) for p in range(first, last) for a, b in itertools.pairwise(edges)]


def tile_width(t: int, whole: bool) -> int:
    """Columns of the widest tile."""
    return max(WIDTH, t) if whole else WIDTH


@dataclass
class TileScores:
    """R2 of a tile by penalty: mean of the inner folds, and of each outer fold, (penalties, outer, width).

    Of the observed targets also r, the errors of prediction (penalties, n, width) if they are to be kept, and where a
    fold is constant.
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
    errors: np.ndarray | None = None

    @property
    def mean(self) -> np.ndarray:
        """Mean R2 over the outer folds (t,): what permutations are compared with."""
        return self.r2.mean(axis=0)


def join(parts: list[tuple[Tile, Observed]]) -> Observed:
    """The observed targets of all tiles, in order."""
    ordered = [one for _, one in sorted(parts, key=lambda part: part[0].start)]
    whole = {
        name: np.concatenate([getattr(one, name) for one in ordered], axis=1)
        for name in ("r2", "r", "chosen", "constant", "by_alpha")
    }
    kept = [one.errors for one in ordered if one.errors is not None]
    return Observed(**whole, errors=np.concatenate(kept, axis=1) if kept else None)


@dataclass(frozen=True, eq=False)
class Permutations:
    """Which permutations a tile holds: ``seed``, and exchangeability ``blocks`` (n,) if there are any."""

    seed: int
    blocks: np.ndarray | None = None


class TileScanner:
    """Evaluates tiles of the targets ``Y`` (t, n), Fortran order, on this rank, with so many ``penalties``.

    ``shared``: the penalty of an outer fold is the same for all targets. ``keep_errors`` of the observed targets.
    """

    def __init__(
        self,
        Y: np.ndarray,
        scatter: Scatter,
        permutations: Permutations,
        penalties: int,
        shared: bool = False,
        keep_errors: bool = False,
    ) -> None:
        self.Y, self.scatter, self.permutations = Y.T, scatter, permutations
        self.penalties, self.shared, self.keep_errors = penalties, shared, keep_errors
        self.work = Work()

    def columns(self, tile: Tile) -> np.ndarray:
        """The tile's permuted targets Y_pi, (n, width)."""
        n, panel = self.Y.shape[0], tile.stop - tile.start
        Y = self.work.array("targets", (n, tile.width), self.Y.dtype)
        for k, index in enumerate(range(tile.first, tile.last)):
            order = permutation(self.permutations.seed, index, n, self.permutations.blocks)
            Y[:, k * panel : (k + 1) * panel] = self.Y[order, tile.start : tile.stop]
        return Y

    def score(
        self, tile: Tile, operators: Sequence[Operators], first: int = 0, scores: TileScores | None = None
    ) -> TileScores:
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
        if tile.observed:
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
