from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from mpgls.model.pvalues import lambda_gc, log10_p_chi2_1, log10_p_t, p_from_log10

LN10 = np.log(10.0)

# -log10 p to 20 digits, from 60-digit quadrature of the densities
EXACT_T = [
    (0.3, 2.5, 0.10383637600445118654),
    (2.5, 2.5, 0.9805930453229566352),
    (50.0, 2.5, 4.0898830083888101201),
    (1000000.0, 2.5, 14.842035963357284878),
    (1.0, 29.0, 0.48733962934042620466),
    (3.0, 29.0, 2.2597011064253522631),
    (40.0, 29.0, 26.197439895499888672),
    (0.01, 1406.0, 0.0034783873314307687319),
    (1.96, 1406.0, 1.2993563087568661861),
    (2.999, 1406.0, 2.5596778328775582145),
    (3.1, 1406.0, 2.7047349162318340618),
    (5.5, 1406.0, 7.3462284521193754447),
    (11.9, 1406.0, 30.454229621729743744),
    (37.0, 1406.0, 209.09921600315138421),
    (1.0, 100000.0, 0.49851223405972301692),
    (3.0, 100000.0, 2.5685621090541003955),
    (6.0, 100000.0, 8.7033502832681013973),
    (60.0, 100000.0, 769.85642340892858185),
    (400.0, 100000.0, 20751.160035596735874),
    (2.0, 1000000.0, 1.3419835077973500174),
    (4.0, 1000000.0, 4.1982737145330982891),
    (200.0, 1000000.0, 8519.0602336199425475),
]
EXACT_Z = [
    (0.001, 0.00034665511795786366027),
    (0.5, 0.20966199360125957926),
    (1.96, 1.3010665622238701215),
    (6.0, 8.704834331812723014),
    (38.0, 315.2387597082985267),
    (200.0, 8688.2887388558991567),
    (10000.0, 21714728.193222534241),
]


@pytest.mark.parametrize(("t", "df", "expected"), EXACT_T)
def test_t_against_high_precision(t, df, expected):
    error = abs(float(log10_p_t(t, df)) - expected)
    assert error * LN10 < 1e-12 or error < 1e-15 * expected * 4


@pytest.mark.parametrize(("z", "expected"), EXACT_Z)
def test_normal_against_high_precision(z, expected):
    error = abs(float(log10_p_chi2_1(z)) - expected)
    assert error * LN10 < 1e-12 or error < 1e-15 * expected * 4


@pytest.mark.parametrize("df", [1, 2, 3.5, 17, 29.5, 31, 403])
def test_t_agrees_with_scipy_where_p_is_representable(df):
    t = np.concatenate([np.linspace(0.01, 12.0, 501), [2.9999999, 3.0, 3.6, 5.0, 8.0, 14.0, 30.0]])
    np.testing.assert_allclose(p_from_log10(log10_p_t(t, df)), 2 * stats.t.sf(t, df), rtol=3e-11)
    np.testing.assert_array_equal(log10_p_t(-t, df), log10_p_t(t, df))


def test_one_and_two_degrees_of_freedom_have_closed_forms():
    t = np.array([0.5, 1.0, 3.0, 10.0, 1e4, 1e9])
    np.testing.assert_allclose(p_from_log10(log10_p_t(t, 1)), 2 / np.pi * np.arctan(1 / t), rtol=1e-13)
    tail = 1.0 / (np.sqrt(2 + t**2) * (np.sqrt(2 + t**2) + t) / 2)  # 1 - t / sqrt(2 + t^2)
    np.testing.assert_allclose(p_from_log10(log10_p_t(t, 2)), tail, rtol=1e-13)


def test_branches_join():
    for df in (30.0, 1406.0, 1e5):
        for edge in (3.0, 3.6, 5.0, 8.0, 14.0, 30.0):
            low, high = log10_p_t([edge * (1 - 1e-14), edge], df)
            assert abs(high - low) < 1e-12 * max(high, 1)


def test_large_df_is_normal_far_out():
    np.testing.assert_allclose(log10_p_t([1.0, 6.0], 1e13), log10_p_chi2_1([1.0, 6.0]), rtol=1e-10)
    z = 200.0
    asymptotic = z**2 / 2 + np.log(z * np.sqrt(np.pi / 2)) + 1 / z**2  # Mills ratio, to z^-2
    assert abs(log10_p_chi2_1(z) * LN10 - asymptotic) < 1e-7


def test_monotone_and_finite_far_below_the_smallest_float():
    t = np.linspace(0.01, 500.0, 20001)
    assert np.all(np.diff(log10_p_t(t, 9997.0)) > 0)
    assert np.all(np.diff(log10_p_chi2_1(t)) > 0)
    assert np.isfinite(log10_p_t(1e140, 5.0))


def test_special_values_and_shapes():
    values = np.array([[np.nan, 0.0, np.inf], [-np.inf, 1.0, -1.0]])
    for result in (log10_p_t(values, 77.0), log10_p_chi2_1(values)):
        assert result.shape == (2, 3)
        assert np.isnan(result[0, 0]) and result[0, 1] == 0 and result[0, 2] == np.inf
        assert result[1, 0] == np.inf and result[1, 1] == result[1, 2]
    assert log10_p_t(np.empty(0), 5.0).shape == (0,)
    with pytest.raises(ValueError, match="degrees of freedom"):
        log10_p_t(1.0, 0.0)


def test_p_from_log10():
    np.testing.assert_array_equal(p_from_log10([0.0, 400.0, np.inf]), [1.0, 0.0, 0.0])
    assert p_from_log10(3.0) == pytest.approx(1e-3, rel=1e-15)
    assert np.isnan(p_from_log10(np.nan))


def test_lambda_gc():
    z = special.ndtri(np.linspace(0, 1, 2003)[1:-1] / 2)  # p uniform
    assert lambda_gc(log10_p_chi2_1(z)) == pytest.approx(1.0, rel=1e-9)
    assert lambda_gc(log10_p_chi2_1(np.append(1.1 * z, [np.nan] * 3000))) == pytest.approx(1.21, rel=1e-9)
    assert lambda_gc([4000.0]) == pytest.approx((4000 * 2 * LN10) / 0.454936, rel=1e-2)
    assert np.isnan(lambda_gc([np.nan]))
