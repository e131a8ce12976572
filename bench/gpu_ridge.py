"""Ridge regression in nested cross-validation on a card: fits a second, and that R2 is that of a rank.

1,500 samples, 1,000 targets, 5 penalties, 10 x 5 folds, float64: the size of bench/ridge.py, whose permutation is
300,000 fits. ``measure`` is called by bench/gpu.py. Alone this file tries it with NumPy in place of a card, on a tiny
problem, and times nothing.
"""

from __future__ import annotations

import time

import numpy as np

from mpgls.device.card import PRODUCTS, Card
from mpgls.device.fold_errors import FoldErrors
from mpgls.device.fold_operators import leave_out, residual_operator
from mpgls.engine.fold_operators_on_card import empty_errors
from mpgls.engine.permutation_tiles import Permutations, Tile, TileScanner
from mpgls.engine.permutations_on_card import TileScannerOnCard
from mpgls.model import kernel_ridge
from mpgls.model.folds import NestedFolds, nested_folds
from mpgls.model.kernel_ridge import LeaveOut
from mpgls.model.nested_scores import Scatter

FULL = {"n": 1500, "targets": 1000, "outer": 10, "inner": 5, "permutations": 20}
TINY = {"n": 90, "targets": 12, "outer": 4, "inner": 3, "permutations": 2}
ALPHAS = (0.1, 1.0, 10.0, 100.0, 1000.0)
SAMPLED, TOLERATED = 8, 1e-9
"""Targets of the comparison with a rank, and the largest difference of R2."""
WORK = 1 << 28


def measure(card: Card, quick: bool) -> dict[str, float | str]:
    """ridge_fits_per_s of permutations, and the seconds in which the operators of all penalties are made.

    Raises ValueError where R2 of a sample is not that of a rank.
    """
    sizes = TINY if quick else FULL
    n, t = sizes["n"], sizes["targets"]
    rng = np.random.default_rng(7)
    X, C = rng.standard_normal((n, 2 * n)), np.column_stack([np.ones(n), rng.standard_normal(n)])
    K, Y = X @ X.T / (2 * n), np.asfortranarray(rng.standard_normal((t, n)))
    folds = nested_folds(n, sizes["outer"], sizes["inner"], seed=1)
    making = time.perf_counter()
    operators = [made(card, K, C, alpha, folds) for alpha in ALPHAS]
    card.settle()
    making = time.perf_counter() - making
    given = Scatter(folds, C, np.float64), Permutations(1), len(ALPHAS)
    check(TileScannerOnCard(card, WORK, Y[:SAMPLED], *given), operators, K, C)
    scanner = TileScannerOnCard(card, WORK, Y, *given)
    tiles = [Tile(k, k + 1, 0, t) for k in range(1, sizes["permutations"] + 1)]
    scanner.score(tiles[0], operators)
    begin = time.perf_counter()
    for tile in tiles:
        scanner.score(tile, operators)
    seconds = time.perf_counter() - begin
    fits = len(tiles) * t * len(ALPHAS) * len(folds.tests)
    return {
        "ridge_fits_per_s": 0.0 if quick else fits / seconds,
        "ridge_operators_seconds": 0.0 if quick else making,
    }


def made(card: Card, K: np.ndarray, C: np.ndarray, alpha: float, folds: NestedFolds) -> FoldErrors:
    """The operators of a penalty, on the card."""
    xp = card.xp
    with card.lane(PRODUCTS):
        D = residual_operator(card, xp.asarray(K.copy()), xp.asarray(C), alpha)
        errors = empty_errors(card, LeaveOut, folds, np.float64, D)
        for k, A in leave_out(card, D, [(fold.test, fold.inner) for fold in folds.outer]):
            errors.put(k, A)
    return errors


def check(on_card: TileScannerOnCard, operators: list[FoldErrors], K: np.ndarray, C: np.ndarray) -> None:
    """ValueError where R2 of some targets under a permutation is not that of a rank."""
    tile, folds = Tile(1, 2, 0, SAMPLED), on_card.scatter.folds
    on_rank = TileScanner(on_card.Y.T, on_card.scatter, on_card.permutations, len(ALPHAS))
    theirs = []
    for alpha in ALPHAS:
        D = K.copy(order="F")
        kernel_ridge.residual_operator(D, C, alpha)
        theirs.append(LeaveOut(folds, np.empty(LeaveOut.size(folds))))
        for o in range(len(folds.outer)):
            theirs[-1].build(D, o)
    found, expected = on_card.score(tile, operators), on_rank.score(tile, theirs)
    off = max(np.abs(found.inner - expected.inner).max(), np.abs(found.outer - expected.outer).max())
    if not off < TOLERATED:
        raise ValueError(f"R2 of the card differs from that of a rank by {off:.2g}")
