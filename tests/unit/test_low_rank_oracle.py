"""The two oracles of the low-rank model agree: neither of them is an arbiter that nobody checked."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
import low_rank_oracle
import oracle
from scipy import stats


def study(n, K, m, q, seed, missing=0.02):
    """Three chromosomes with a heritable trait; q covariates with the intercept; missing genotypes are NaN."""
    rng = np.random.default_rng(seed)
    frequency = rng.uniform(0.1, 0.5, K + m)
    snps = rng.binomial(2, frequency, (n, K + m)).astype(float)
    G = low_rank_oracle.standardised(snps[:, :K])
    X = np.column_stack([np.ones(n), 30 + 4 * rng.standard_normal((n, q - 1))])
    y = G @ rng.standard_normal(K) / np.sqrt(K) + 0.4 * snps[:, -1] + X @ rng.standard_normal(q)
    y += rng.standard_normal(n)
    snps[rng.random(snps.shape) < missing] = np.nan
    labels = np.array(["1", "1A", "X"])
    return snps[:, :K], labels[np.arange(K) * 3 // K], snps[:, K:], labels[np.arange(m) * 3 // m], y, X


@pytest.mark.parametrize("loco", [True, False])
@pytest.mark.parametrize(("n", "K", "q"), [(127, 31, 1), (127, 31, 4), (61, 97, 3), (60, 60, 2)])
def test_dense_and_svd_agree(n, K, q, loco):
    data = study(n, K, 13, q, seed=n + K + q)
    a, b = low_rank_oracle.dense(*data, loco=loco), low_rank_oracle.by_svd(*data, loco=loco)
    assert list(a.h2) == list(b.h2) == ["1", "1A", "X"]
    assert any(0.01 < h2 < 0.99 for h2 in a.h2.values())
    np.testing.assert_allclose(list(a.h2.values()), list(b.h2.values()), atol=1e-10)
    for name in ("beta", "se", "log10p"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-8, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("h2", [0.0, 0.37, 0.95])
def test_given_h2_is_used_and_ordinary_regression_is_its_limit(h2):
    data = study(83, 29, 7, 2, seed=5)
    given = dict.fromkeys(["1", "1A", "X"], h2)
    a, b = low_rank_oracle.dense(*data, h2=given), low_rank_oracle.by_svd(*data, h2=given)
    assert a.h2 == b.h2 == given
    for name in ("beta", "se", "log10p"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-10, err_msg=name)
    if h2 == 0.0:
        x, y, X = low_rank_oracle.imputed(data[2])[:, 3], data[4], data[5]
        residual = [z - X @ np.linalg.lstsq(X, z, rcond=None)[0] for z in (x, y)]
        r = np.corrcoef(*residual)[0, 1]
        t = r * np.sqrt((83 - 3) / (1 - r * r))
        assert a.log10p[3] == pytest.approx(-np.log10(2 * stats.t.sf(abs(t), 83 - 3)), rel=1e-10)


def test_h2_is_where_the_likelihood_is_largest():
    data = study(101, 41, 3, 2, seed=11)
    found = low_rank_oracle.by_svd(*data).h2
    for c, h2 in found.items():
        Phi = low_rank_oracle.similarity(low_rank_oracle.standardised(data[0][:, data[1] != c]))
        assert np.mean(np.diag(Phi)) == pytest.approx(1.0, rel=1e-14)
        assert oracle.find_h2(Phi, data[5], data[4]) == pytest.approx(h2, abs=1e-6)
    assert len(set(found.values())) == 3


def test_the_chromosome_is_left_out():
    G, labels, snps, chromosomes, y, X = study(97, 33, 9, 1, seed=2)
    one = low_rank_oracle.dense(G, labels, snps, chromosomes, y, X).beta[chromosomes == "X"]
    rest = labels != "X"
    without = low_rank_oracle.dense(G[:, rest], labels[rest], snps, chromosomes, y, X, loco=False)
    np.testing.assert_allclose(one, without.beta[chromosomes == "X"], rtol=1e-12)
