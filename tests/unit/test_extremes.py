from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mpgls.model import extremes
from mpgls.model.extremes import EXCEEDANCES, FEWEST, Correction, Tail, corrected_p, fit_tail, tail_p


def test_corrected_p_counts_the_maxima_that_reach_a_value():
    maxima = np.array([3.0, 1.0, 2.0, 2.0])
    observed = np.array([0.5, 1.0, 2.0, 2.5, 3.0, 3.5, np.inf, np.nan])
    np.testing.assert_array_equal(corrected_p(observed, maxima), np.array([5, 5, 4, 2, 2, 1, 1, np.nan]) / 5)


def test_corrected_p_is_the_formula_on_random_maxima():
    rng = np.random.default_rng(0)
    maxima, observed = rng.integers(0, 40, 199).astype(float), rng.integers(0, 50, 67).astype(float)
    expected = [(1 + sum(m >= x for m in maxima)) / 200 for x in observed]
    np.testing.assert_allclose(corrected_p(observed, maxima), expected, rtol=1e-15)


@pytest.mark.parametrize(("shape", "scale"), [(0.0, 1.0), (0.15, 2.5), (0.3, 0.1)])
def test_a_generalised_pareto_tail_is_recovered(shape, scale):
    """Shape within four and scale within about four of their standard errors, in 40 samples of 1,000."""
    for seed in range(40):
        maxima = 5.0 + stats.genpareto.rvs(shape, scale=scale, size=1000, random_state=seed)
        tail = fit_tail(maxima)
        # above a threshold the shape is the same and the scale grows by shape (threshold - origin)
        there = scale + shape * (tail.threshold - 5.0)
        assert tail.shape == pytest.approx(shape, abs=4 * (1 + shape) / np.sqrt(tail.exceedances))
        assert tail.scale == pytest.approx(there, rel=6 / np.sqrt(tail.exceedances))
        assert tail.exceedances == np.count_nonzero(maxima > tail.threshold)
        assert tail.fraction == tail.exceedances / 1000
        assert tail.shape >= 0


def test_tail_p_follows_the_true_tail_of_minimal_p_values():
    """Maxima of 2,000 independent -log10 p: the tail through 999 of them against the exact 1 - (1 - p)^2000."""
    observed = np.array([4.5, 5.0, 6.0, 7.0])
    exact = -np.expm1(2000 * np.log1p(-(10.0**-observed)))
    ratios = []
    for seed in range(30):
        maxima = -np.log10(stats.beta.rvs(1, 2000, size=999, random_state=seed))
        tail = fit_tail(maxima)
        if tail.good:
            ratios.append(tail_p(observed, tail, maxima) / exact)
    assert len(ratios) >= 25
    assert np.all(np.abs(np.log10(np.median(ratios, axis=0))) < 0.5)


def test_a_larger_value_never_has_a_larger_p_and_never_zero():
    for seed in range(20):
        maxima = np.random.default_rng(seed).uniform(size=400)  # a bounded tail
        tail = fit_tail(maxima)
        p = tail_p(np.linspace(0, 3, 400), tail, maxima)
        assert np.all(np.diff(p) <= 0) and p[-1] > 0


def test_the_count_is_kept_where_ten_maxima_reach_the_value():
    maxima = np.random.default_rng(2).exponential(size=1000)
    tail = fit_tail(maxima)
    tenth, eleventh = np.sort(maxima)[[-10, -11]]
    observed = np.array([eleventh, tenth, np.nextafter(tenth, 9), np.nan])
    p = tail_p(observed, tail, maxima)
    np.testing.assert_array_equal(p[:2], corrected_p(observed[:2], maxima))
    survival = stats.genpareto.sf(observed[2] - tail.threshold, tail.shape, scale=tail.scale)
    assert p[2] == pytest.approx(min(tail.fraction * survival, 11 / 1001), rel=1e-12)
    assert np.isnan(p[3])
    both = Correction(maxima, tail), Correction(maxima)
    assert both[0].continued(observed).tolist() == [False, False, True, False]
    assert not both[1].continued(observed).any()
    np.testing.assert_array_equal(both[0].p(observed), p)
    np.testing.assert_array_equal(both[1].p(observed), corrected_p(observed, maxima))


def test_goodness_of_fit_is_uniform_for_a_right_model_and_small_for_a_wrong_one():
    right, wrong = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        right.append(extremes._fitted(rng.exponential(size=250), 0.0, 1000).p_fit)
        lumps = np.where(rng.uniform(size=250) < 0.5, rng.normal(1, 0.05, 250), rng.normal(3, 0.05, 250))
        wrong.append(extremes._fitted(np.abs(lumps), 0.0, 1000).p_fit)
    assert np.max(wrong) < 0.01
    assert stats.kstest(right, "uniform").pvalue > 1e-3


def test_the_anderson_darling_distance_is_that_of_its_integral():
    """n times the integral of (F_n - u)^2 / (u (1 - u)) du, by quadrature over u = F(x)."""
    rng = np.random.default_rng(4)
    excess = np.sort(rng.exponential(2.0, 50))
    shape, scale = 0.2, 1.7
    found = extremes._anderson_darling(excess[None], np.array([shape]), np.array([scale]))[0]
    u = stats.genpareto.cdf(excess, shape, scale=scale)
    grid = (np.arange(4_000_000) + 0.5) / 4_000_000
    empirical = np.searchsorted(u, grid, side="right") / 50
    expected = 50 * np.mean((empirical - grid) ** 2 / (grid * (1 - grid)))
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_bad_fit_takes_fewer_exceedances():
    rng = np.random.default_rng(5)
    body, far = rng.normal(3.0, 0.01, 900), 5.0 + rng.exponential(size=100)
    tail = fit_tail(np.concatenate([body, far]))
    assert tail.good and FEWEST <= tail.exceedances <= 110


@pytest.mark.parametrize(
    "maxima",
    [np.zeros(1000), np.arange(4 * FEWEST - 1.0), np.empty(0), np.repeat([1.0, 2.0], 500)],
    ids=["no entry", "few permutations", "none", "two values"],
)
def test_without_a_good_tail_the_count_remains(maxima):
    tail = fit_tail(maxima)
    assert not tail.good
    observed = np.array([0.0, 2.0, 1e3])
    np.testing.assert_array_equal(tail_p(observed, tail, maxima), corrected_p(observed, maxima))
    assert not Correction(maxima, tail).continued(observed).any()


def test_the_fit_is_the_same_every_time():
    maxima = np.random.default_rng(6).gumbel(size=2000)
    assert fit_tail(maxima) == fit_tail(maxima[::-1].copy())
    assert fit_tail(maxima).exceedances <= EXCEEDANCES


def test_density_is_the_slope_of_p():
    tail = Tail(2.0, 0.2, 1.5, 0.25, 0.3, 0.6, 250)
    x = np.array([2.5, 4.0, 9.0])
    slope = (tail.p(x + 1e-6) - tail.p(x - 1e-6)) / 2e-6
    np.testing.assert_allclose(tail.density(x), -slope, rtol=1e-6)
