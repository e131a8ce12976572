"""On a card: voxels and folds, with the results of a rank. Run where one is: pytest -m gpu tests/unit."""

from __future__ import annotations

import numpy as np
import pytest

from mpgls.device.card import PRODUCTS
from mpgls.device.fold_operators import leave_out, residual_operator
from mpgls.device.nominate import Nominator, Threshold
from mpgls.engine.fold_operators_on_card import empty_errors
from mpgls.engine.permutation_tiles import Permutations, Tile, TileScanner
from mpgls.engine.permutations_on_card import TileScannerOnCard
from mpgls.model import kernel_ridge
from mpgls.model.folds import nested_folds
from mpgls.model.mulm import CONSTANT_VOXEL, Pairs, Score, SnpBlock, TileScan, unit_residuals, whiten
from mpgls.model.nested_scores import Scatter

pytestmark = pytest.mark.gpu

N, SNPS, VOXELS, R = 740, 300, 9001, 5


def test_pairs_that_a_card_nominates_are_those_of_a_rank(card):
    rng = np.random.default_rng(2)
    Z_w = whiten(np.column_stack([np.ones(N), rng.standard_normal((N, R - 1))]))
    R_Y = np.empty((VOXELS, N), dtype=np.float32)
    unit_residuals(rng.standard_normal((VOXELS, N)), Z_w, R_Y, CONSTANT_VOXEL)
    X = rng.binomial(2, 0.3, (SNPS, N)).astype(float)
    snps, order = SnpBlock(X - X.mean(axis=1, keepdims=True), Z_w, np.float32), rng.permutation(N)
    scan, everyone = TileScan(Score(N - R - 1, 1e-3), R, N, np.float32), np.ones(VOXELS, dtype=bool)
    nominator = Nominator(card, Threshold(scan.score.share, N, R), 1 << 18, 100)
    nominator.take_voxels(R_Y, everyone)
    nominator.take_snps(snps.rows)
    pairs = Pairs(*nominator.finish(nominator.start(order)))
    found, expected = scan.scored(snps, order, R_Y, pairs), scan.entries(snps, order, R_Y, everyone)
    found, expected = (
        sorted(zip(one.snp.tolist(), one.voxel.tolist(), one.t.tolist(), strict=True)) for one in (found, expected)
    )
    assert found == expected and len(pairs.snp) < 1.3 * len(found)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-10), (np.float32, 1e-4)])
def test_scores_of_folds_on_a_card_are_those_of_a_rank(card, dtype, tolerance):
    rng = np.random.default_rng(3)
    n, t, alpha = 300, 40, 2.0
    X, C = rng.standard_normal((n, 500)), np.column_stack([np.ones(n), rng.standard_normal(n)])
    K, folds, Y = X @ X.T / 500, nested_folds(n, 10, 5, seed=1), np.asfortranarray(rng.standard_normal((t, n)), dtype)
    on_rank = kernel_ridge.LeaveOut(folds, np.empty(kernel_ridge.LeaveOut.size(folds), dtype=dtype))
    D = K.copy(order="F")
    kernel_ridge.residual_operator(D, C, alpha)
    for o in range(10):
        on_rank.build(D, o)
    with card.lane(PRODUCTS):
        D = residual_operator(card, card.xp.asarray(K), card.xp.asarray(C), alpha)
        made = empty_errors(card, kernel_ridge.LeaveOut, folds, dtype, D.astype(dtype))
        for k, A in leave_out(card, D, [(fold.test, fold.inner) for fold in folds.outer]):
            made.put(k, A)
    given = (Y, Scatter(folds, C, dtype), Permutations(3), 1)
    for tile in (Tile(0, 1, 0, t), Tile(1, 9, 0, t)):
        found = TileScannerOnCard(card, 1 << 20, *given).score(tile, [made])
        expected = TileScanner(*given).score(tile, [on_rank])
        np.testing.assert_allclose(found.inner, expected.inner, rtol=0, atol=tolerance)
        np.testing.assert_allclose(found.outer, expected.outer, rtol=0, atol=tolerance)


def test_a_kernel_that_is_not_positive_definite_is_noticed(card):
    with pytest.raises(np.linalg.LinAlgError), card.lane(PRODUCTS):
        residual_operator(card, -card.xp.eye(64), card.xp.ones((64, 1)), 0.5)
