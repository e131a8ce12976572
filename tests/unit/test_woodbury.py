"""The low-rank covariance through K x K matrices equals the n x n one."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
from low_rank_oracle import similarity, standardised

from mpgls.model.gls import profile_reml
from mpgls.model.woodbury import inner_products, inverse_power, kernel_weight, null_sums

N = 67


def model(K, h2, seed=1):
    """G, F = [X_L | y], V(h2), the scale s, and F~ and U of the K x K route."""
    rng = np.random.default_rng(seed)
    G = standardised(rng.integers(0, 3, (N, K)).astype(float))
    F = np.column_stack([np.ones(N), 40 + 9 * rng.standard_normal((N, 2)), G @ rng.standard_normal(K)])
    F[:, -1] += rng.standard_normal(N)
    s = np.sum(G**2) / N
    w = kernel_weight(h2, s)
    L = np.linalg.cholesky(np.eye(K) + w * G.T @ G)
    F_tilde = np.linalg.solve(L, np.sqrt(w) * G.T @ F)
    return G, F, oracle.covariance(h2, similarity(G)), L, F_tilde, np.linalg.solve(L.T, F_tilde)


@pytest.mark.parametrize("K", [1, 23, 67, 101])
@pytest.mark.parametrize("h2", [0.0, 0.3, 0.9, 0.999999])
def test_products_with_the_inverse_equal_the_dense_ones(K, h2):
    _, F, V, L, F_tilde, U = model(K, h2)
    direct, through_G = F.T @ F, F_tilde.T @ F_tilde
    once, twice, thrice = (F.T @ np.linalg.matrix_power(np.linalg.inv(V), k) @ F for k in (1, 2, 3))
    # relative to the columns' lengths: digits are lost as V's condition 1/(1-h2) says, and no faster
    length = np.sqrt(np.outer(np.diag(once), np.diag(once)))
    found = inner_products(h2, direct, through_G)
    assert np.abs(found - once).max() < 1e-13 * np.linalg.cond(V) * length.max()
    np.testing.assert_allclose(found / length, once / length, atol=1e-9)
    deeper = np.linalg.solve(L, U)
    through = (through_G, U.T @ U, deeper.T @ deeper)
    for k, expected in ((2, twice), (3, thrice)):
        power = inverse_power(h2, direct, *through[:k])
        length = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
        np.testing.assert_allclose(power / length, expected / length, atol=1e-8)


@pytest.mark.parametrize("K", [5, 101])
@pytest.mark.parametrize("h2", [0.0, 0.45, 0.97])
def test_the_sums_give_the_dense_likelihood(K, h2):
    G, F, V, L, F_tilde, _ = model(K, h2)
    X, y = F[:, :-1], F[:, -1]
    log_det = 2 * np.log(np.diag(L)).sum()
    sums = null_sums(h2, N, F.T @ F, F_tilde.T @ F_tilde, log_det, np.linalg.slogdet(X.T @ X)[1])
    assert sums.n == N
    assert sums.log_det == pytest.approx(np.linalg.slogdet(V)[1], rel=1e-11, abs=1e-10)
    np.testing.assert_allclose(sums.S_TL, X.T @ np.linalg.solve(V, X), rtol=1e-9)
    np.testing.assert_allclose(sums.b_T, X.T @ np.linalg.solve(V, y), rtol=1e-9)
    assert sums.yy == pytest.approx(y @ np.linalg.solve(V, y), rel=1e-10)
    assert profile_reml(sums) == pytest.approx(oracle.reml(h2, similarity(G), X, y), rel=1e-11)


def test_the_weight_is_the_ratio_of_variances():
    assert kernel_weight(0.0, 7.0) == 0.0
    assert kernel_weight(0.5, 4.0) == 0.25
    assert kernel_weight(0.75, 1.0) == 3.0
