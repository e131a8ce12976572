from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from mpgls.errors import NumericalError
from mpgls.model.histograms import Bins, Statistic, lambda_gc_of_counts, qq_points
from mpgls.model.pvalues import lambda_gc

STATISTICS = [Statistic.of(n, 3, test) for n in (23, 1411, 90_001) for test in ("t", "wald")]


def name(statistic):
    return f"{statistic.test}-{statistic.df}"


@pytest.mark.parametrize("statistic", STATISTICS, ids=name)
def test_p_of_x_is_scipys(statistic):
    x = np.array([0.0, 1e-9, 1e-4, 0.03, 0.4])
    if statistic.test == "t":
        p = stats.t.logsf(np.sqrt(statistic.df * x / (1 - x)), statistic.df) + np.log(2)
    else:
        p = stats.chi2.logsf(statistic.df * x, 1)
    finite = p > -600
    np.testing.assert_allclose(statistic.log10_p(x)[finite], -p[finite] / np.log(10), rtol=1e-9, atol=1e-12)
    assert np.isinf(Statistic("t", 20).log10_p(1.0))


@pytest.mark.parametrize("statistic", STATISTICS, ids=name)
@pytest.mark.parametrize("p", [0.9, 0.05, 5e-8, 1e-30, 1e-250])
def test_threshold_is_where_p_is(statistic, p):
    x = statistic.x_at(p)
    if x <= 1:
        assert x < 1 or statistic.df < 40
        if x < 1 - 1e-6:
            np.testing.assert_allclose(statistic.log10_p(x), -np.log10(p), rtol=1e-9, atol=1e-12)
            assert statistic.log10_p(x * (1 - 1e-7)) < -np.log10(p)
    else:
        assert statistic.test == "wald"  # no test of so few samples reaches that p


def test_thresholds_at_the_ends():
    statistic = Statistic.of(100, 2)
    assert statistic.x_at(1.0) == 0.0 and statistic.x_at(2.0) == 0.0
    assert statistic.x_at(0.0) == np.inf and statistic.x_at(-1.0) == np.inf


def test_degrees_of_freedom():
    assert Statistic.of(100, 3) == Statistic("t", 96)
    assert Statistic.of(100, 3, "wald") == Statistic("wald", 97)
    with pytest.raises(NumericalError):
        Statistic.of(4, 3)
    with pytest.raises(ValueError):
        Statistic.of(100, 3, "score")


@pytest.mark.parametrize("statistic", STATISTICS, ids=name)
def test_bins_lie_between_their_edges(statistic):
    bins = Bins(statistic)
    edges = bins.edges()
    assert edges.shape == (bins.count + 1,) and edges[0] == 0.0 and edges[-1] == 1.0
    assert np.all(np.diff(edges) > 0)
    assert np.max(edges[2:] / edges[1:-1]) <= 1 + 1 / 32
    assert edges[1] * statistic.df < 1.01e-3
    inner = np.float32(edges[1:-1])
    assert np.array_equal(bins.of(inner), np.arange(1, bins.count))
    assert np.array_equal(bins.of(np.nextafter(inner, np.float32(0))), np.arange(bins.count - 1))
    assert list(bins.of([0.0, 1.0, 1.0000001, -1.0, 1e-42])) == [0, bins.count - 1, bins.count - 1, 0, 0]


@pytest.mark.parametrize(("tests", "tolerance"), [(400_001, 1e-3), (20_001, 3e-3), (1000, 1e-2)])
@pytest.mark.parametrize("inflation", [0.5, 1.0, 1.3])
@pytest.mark.parametrize("statistic", STATISTICS[2:], ids=name)
def test_lambda_is_that_of_the_p_values(statistic, inflation, tests, tolerance):
    rng = np.random.default_rng(8)
    square = inflation * rng.standard_normal((3, tests)) ** 2
    x = square / statistic.df if statistic.test == "wald" else square / (square + statistic.df)
    bins = Bins(statistic)
    counts = np.array([np.bincount(bins.of(row), minlength=bins.count) for row in x])
    exact = [lambda_gc(statistic.log10_p(row)) for row in x]
    np.testing.assert_allclose(lambda_gc_of_counts(counts, bins), exact, rtol=tolerance)
    assert lambda_gc_of_counts(counts[0], bins).shape == (1,)


def test_lambda_of_no_test_is_unknown():
    bins = Bins(Statistic.of(100, 2))
    counts = np.zeros((2, bins.count), dtype=np.uint32)
    counts[1, bins.count // 2] = 1
    got = lambda_gc_of_counts(counts, bins)
    assert np.isnan(got[0]) and got[1] > 0
    assert lambda_gc_of_counts(counts[:0], bins).shape == (0,)


def test_qq_points_follow_the_sorted_p_values():
    statistic = Statistic.of(1411, 3)
    bins = Bins(statistic)
    x = stats.beta(0.5, statistic.df / 2).rvs(50_000, random_state=4)  # x under the null hypothesis
    expected, observed = qq_points(np.bincount(bins.of(x), minlength=bins.count).astype(np.uint32), bins)
    assert np.all(np.diff(expected) < 0) and np.all(np.diff(observed) < 0)
    exact = np.sort(statistic.log10_p(x))[::-1]
    at = np.interp(-expected, np.log10((np.arange(x.size) + 0.5) / x.size), exact)
    np.testing.assert_allclose(observed, at, rtol=0.03, atol=2e-3)
    assert expected[0] > 4
