"""Tiles of permuted targets on a stand-in for CuPy against those of a rank."""

from __future__ import annotations

import numpy as np
import pytest
import strict_lanes
from strict_card import StrictCard

from mpgls.device.card import PRODUCTS
from mpgls.device.fold_operators import leave_out, smoothers
from mpgls.device.fold_operators import residual_operator as on_card
from mpgls.engine.fold_operators_on_card import copied
from mpgls.engine.permutation_tiles import Permutations, Tile, TileScanner
from mpgls.engine.permutations_on_card import TileScannerOnCard
from mpgls.model.folds import folds_of_labels, nested_folds
from mpgls.model.kernel_ridge import Direct, LeaveOut, residual_operator
from mpgls.model.nested_scores import Scatter

N, T = 71, 5
ALPHAS = (0.5, 20.0)


def uneven():
    """Folds of very different sizes."""
    outer = np.repeat([0, 1, 2], [9, 22, 40])
    inner = np.stack([np.where(outer == o, -1, np.arange(N) % 7 > 4) for o in range(3)], axis=1)
    return folds_of_labels(outer, inner)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(4)
    X, Y = rng.standard_normal((N, 150)), rng.standard_normal((T, N))
    Y[:, :9] += 3.0
    C = np.column_stack([np.ones(N), rng.standard_normal(N), rng.integers(0, 2, N)])
    return X @ X.T / 150, np.asfortranarray(Y), C


def operators(kind, K, C, folds, dtype):
    for alpha in ALPHAS:
        D = K.copy(order="F")
        residual_operator(D, C, alpha)
        made = kind(folds, np.empty(kind.size(folds), dtype=dtype))
        for o in range(len(folds.outer)):
            made.build(D, o)
        yield made


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-11), (np.float32, 2e-4)])
@pytest.mark.parametrize(("kind", "covariates"), [(LeaveOut, 3), (LeaveOut, 1), (Direct, 3)])
def test_scores_of_a_tile_are_those_of_a_rank(data, kind, covariates, dtype, tolerance):
    K, Y, C = data
    strict_lanes.begin_anew()
    Y, C = Y.astype(dtype), C[:, :covariates]
    Y[2] = 1.0  # a target without scatter
    for folds in (nested_folds(N, 4, 3, seed=1), uneven()):
        given = (Y, Scatter(folds, C, dtype), Permutations(3), len(ALPHAS), False, True)
        rank, card = TileScanner(*given), TileScannerOnCard(StrictCard(), 3000, *given)
        made = list(operators(kind, K, C, folds, dtype))
        with card.card.lane(PRODUCTS):
            held = [copied(card.card, one, folds) for one in made]
        for tile in (Tile(0, 1, 0, T), Tile(1, 4, 0, T), Tile(2, 3, 1, 4)):
            found, expected = card.score(tile, held), rank.score(tile, made)
            for name in ("inner", "outer", "r", "errors"):
                mine, theirs = getattr(found, name), getattr(expected, name)
                assert (mine is None) == (theirs is None)
                if theirs is not None:
                    np.testing.assert_allclose(mine, theirs, rtol=0, atol=tolerance, err_msg=name)
            assert np.array_equal(found.constant, expected.constant)
            assert np.ptp(found.outer) > 0.1


@pytest.mark.parametrize("kind", [LeaveOut, Direct])
def test_operators_of_a_card_are_those_of_a_rank(data, kind):
    K, _, C = data
    strict_lanes.begin_anew()
    card = StrictCard()
    for folds in (nested_folds(N, 4, 3, seed=1), uneven()):
        of_outer = [(fold.test, fold.inner) for fold in folds.outer]
        for alpha, expected in zip(ALPHAS, operators(kind, K, C, folds, np.float64), strict=True):
            with card.lane(PRODUCTS):
                D = on_card(card, card.xp.asarray(K), card.xp.asarray(C), alpha)
                if kind is LeaveOut:
                    np.testing.assert_allclose(card.to_host(D), expected.D, rtol=0, atol=1e-12)
                    matrices = leave_out(card, D, of_outer)
                else:
                    matrices = smoothers(card, D, of_outer, kind.rows(folds))
                found = {k: card.to_host(A) for k, A in matrices}
            theirs = expected.A if kind is Direct else [*expected.N, *(M for some in expected.M for M in some)]
            assert sorted(found) == list(range(len(theirs)))
            for k, A in enumerate(theirs):
                np.testing.assert_allclose(found[k], A, rtol=0, atol=1e-10)


def test_a_kernel_that_is_not_positive_definite_is_refused_on_a_card(data):
    card, K = StrictCard(), data[0] - 2.0 * np.eye(N)
    with pytest.raises(np.linalg.LinAlgError), card.lane(PRODUCTS):
        on_card(card, card.xp.asarray(K), card.xp.ones((N, 1)), 0.5)
