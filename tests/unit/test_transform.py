"""Traits by ranks to normal scores, and in standard deviations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mpgls.model.transform import AS_IT_IS, DIRECT, NONE, RESIDUAL, Transform, normal_scores


def blom(y: np.ndarray) -> np.ndarray:
    """The definition: scipy's mean ranks, Blom's offset."""
    return stats.norm.ppf((stats.rankdata(y) - 3 / 8) / (y.size + 1 / 4))


@pytest.mark.parametrize("n", [1, 2, 7, 200])
def test_scores_are_bloms_with_mean_ranks_for_ties(n: int) -> None:
    y = np.random.default_rng(n).integers(0, max(2, n // 2), n).astype(float)
    np.testing.assert_allclose(normal_scores(y), blom(y), rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(normal_scores(1e9 + 1e-3 * y), blom(y), rtol=1e-13, atol=1e-15)


def test_scores_of_three() -> None:
    """Phi^-1(0.1923), Phi^-1(0.5), Phi^-1(0.8077)."""
    np.testing.assert_allclose(normal_scores(np.array([5.0, -1.0, 7.0])), [0.0, -0.869424, 0.869424], atol=1e-6)


def test_missing_values_stay_missing_and_do_not_count() -> None:
    rng = np.random.default_rng(3)
    Y, X_L = rng.normal(size=(4, 50)), np.column_stack([np.ones(50), rng.normal(size=50)])
    Y[1, ::7] = np.nan
    for transform in (Transform(DIRECT), Transform(RESIDUAL, True), Transform(NONE, True)):
        made = transform.of(Y, X_L)
        there = ~np.isnan(Y[1])
        np.testing.assert_array_equal(np.isnan(made), np.isnan(Y))
        np.testing.assert_array_equal(made[1, there], transform.of(Y[1:2, there], X_L[there])[0])
    assert AS_IT_IS.of(Y, X_L) is Y


def test_residuals_of_equal_samples_are_ties() -> None:
    """Rounding differs from sample to sample, but must not part what is the same."""
    rng = np.random.default_rng(5)
    group, trait = rng.integers(0, 3, 301), rng.integers(0, 4, 301)
    C = np.column_stack([np.ones(301), group == 1, group == 2, 1e6 + 1e3 * group**2]).astype(float)[:, :3]
    y = 0.1 * trait + 7.3
    means = np.array([y[group == g].mean() for g in range(3)])
    made = Transform(RESIDUAL).of(y[None], C)[0]
    np.testing.assert_allclose(made, blom(np.round(y - means[group], 12)), rtol=1e-12, atol=1e-14)
    pairs = {(g, t): set(made[(group == g) & (trait == t)].tolist()) for g in range(3) for t in range(4)}
    assert all(len(values) <= 1 for values in pairs.values())


def test_standard_deviations() -> None:
    y = 1e9 + 5.0 * np.random.default_rng(2).normal(size=90)
    np.testing.assert_allclose(
        Transform(NONE, True).of(y[None], np.ones((90, 1)))[0], stats.zscore(y, ddof=1), rtol=0, atol=1e-6
    )
    scores = Transform(DIRECT, True).of(y[None], np.ones((90, 1)))[0]
    np.testing.assert_allclose(scores, stats.zscore(blom(y), ddof=1), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("rint", [NONE, DIRECT, RESIDUAL])
def test_a_constant_trait_becomes_zero(rint: str) -> None:
    np.testing.assert_array_equal(Transform(rint, True).of(np.full((1, 9), 3.7), np.ones((9, 1))), np.zeros((1, 9)))
