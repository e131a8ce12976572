from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
import oracle

from mpgls.errors import NumericalError
from mpgls.model.gls import (
    NOTE_TEXT,
    Note,
    NullSums,
    degrees_of_freedom,
    fit_null,
    fit_snps,
    profile_reml,
)


def study(n=61, q=3, snps=17, seed=5):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((n, n + 7))
    Phi = oracle.scaled(A @ A.T)
    X = np.column_stack([np.ones(n), 30 + 4 * rng.standard_normal((n, q - 1))])
    x = rng.integers(0, 3, (n, snps)).astype(float)
    y = X @ rng.standard_normal(q) + 0.4 * x[:, 0] + rng.standard_normal(n)
    return Phi, X, y, x - x.mean(axis=0)


def whitened_sums(h2, Phi, X, y, x):
    L = np.linalg.cholesky(oracle.covariance(h2, Phi))
    Xt, yt, xt = (np.linalg.solve(L, z) for z in (X, y, x))
    log_det = 2 * np.sum(np.log(np.diag(L)))
    sums = NullSums(Xt.T @ Xt, Xt.T @ yt, yt @ yt, log_det, len(y), np.linalg.slogdet(X.T @ X)[1])
    return sums, (Xt.T @ xt, np.sum(xt**2, axis=0), xt.T @ yt, np.sum(x**2, axis=0))


@pytest.mark.parametrize(("n", "q", "h2"), [(61, 3, 0.37), (40, 1, 0.0), (83, 5, 0.95)])
def test_null_model_is_the_dense_one(n, q, h2):
    Phi, X, y, x = study(n, q)
    sums, _ = whitened_sums(h2, Phi, X, y, x)
    fit = fit_null(h2, sums)
    beta, XtViX, rss = oracle.gls(X, y, oracle.covariance(h2, Phi))
    np.testing.assert_allclose(fit.beta, beta, rtol=1e-9)
    np.testing.assert_allclose(fit.rss, rss, rtol=1e-11)
    np.testing.assert_allclose(fit.s2, rss / (n - q), rtol=1e-11)
    np.testing.assert_allclose(fit.beta_se, np.sqrt(fit.s2 * np.diag(np.linalg.inv(XtViX))), rtol=1e-9)
    np.testing.assert_allclose(fit.log_likelihood, oracle.reml(h2, Phi, X, y), rtol=1e-12)
    np.testing.assert_allclose(fit.root @ fit.root.T, sums.S_TL, rtol=1e-12)
    assert profile_reml(sums) == fit.log_likelihood
    assert (fit.n, fit.q, fit.h2) == (n, q, h2)


@pytest.mark.parametrize("test", ["t", "wald"])
@pytest.mark.parametrize(("n", "q", "snps"), [(61, 3, 17), (40, 1, 1), (83, 5, 33)])
def test_snps_are_the_full_normal_equations(test, n, q, snps):
    Phi, X, y, x = study(n, q, snps)
    sums, columns = whitened_sums(0.43, Phi, X, y, x)
    fit = fit_snps(sums, *columns, test=test)
    beta, se, _, _ = oracle.scan(0.43, Phi, X, y, x, test)
    np.testing.assert_allclose(fit.beta, beta, rtol=1e-9)
    np.testing.assert_allclose(fit.se, se, rtol=1e-9)
    assert fit.note.dtype == np.uint8 and not fit.note.any()


def test_t_re_estimates_the_variance_and_wald_does_not():
    Phi, X, y, x = study()
    sums, columns = whitened_sums(0.43, Phi, X, y, x)
    t, wald = (fit_snps(sums, *columns, test=name) for name in ("t", "wald"))
    np.testing.assert_array_equal(t.beta, wald.beta)
    assert np.all(np.abs(t.se / wald.se - 1) > 1e-6)


def test_notes():
    Phi, X, y, x = study()
    x[:, 2] = 0.0
    x[:, 5] = X[:, 1] - X[:, 1].mean()
    x[:, 8] = X[:, 2] - X[:, 2].mean() + 1e-7 * x[:, 1]
    sums, columns = whitened_sums(0.2, Phi, X, y, x)
    fit = fit_snps(sums, *columns)
    wanted = np.zeros(17, dtype=np.uint8)
    wanted[[2, 5, 8]] = [Note.MONOMORPHIC, Note.COLLINEAR, Note.COLLINEAR]
    np.testing.assert_array_equal(fit.note, wanted)
    np.testing.assert_array_equal(np.isnan(fit.beta), wanted != 0)
    np.testing.assert_array_equal(np.isnan(fit.se), wanted != 0)
    assert set(NOTE_TEXT) == set(Note) and NOTE_TEXT[Note(0)] == ""


def test_tolerance_decides_what_is_collinear():
    Phi, X, y, x = study()
    x[:, 4] = X[:, 1] - X[:, 1].mean() + 1e-2 * x[:, 1]
    sums, columns = whitened_sums(0.2, Phi, X, y, x)
    assert fit_snps(sums, *columns, tolerance=1e-10).note[4] == Note.OK
    assert fit_snps(sums, *columns, tolerance=1e-2).note[4] == Note.COLLINEAR


def test_nan_sums_give_a_note_and_inputs_stay():
    Phi, X, y, x = study()
    sums, columns = whitened_sums(0.2, Phi, X, y, x)
    columns[1][3] = np.nan
    before = [c.copy() for c in columns]
    fit = fit_snps(sums, *columns)
    assert fit.note[3] == Note.COLLINEAR and np.isnan(fit.beta[3]) and np.isfinite(fit.beta[4])
    for now, then in zip(columns, before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_single_precision_sums_are_widened():
    Phi, X, y, x = study()
    sums, columns = whitened_sums(0.2, Phi, X, y, x)
    fit = fit_snps(sums, *(c.astype(np.float32) for c in columns), tolerance=1e-5)
    assert fit.beta.dtype == fit.se.dtype == np.float64
    np.testing.assert_allclose(fit.se, fit_snps(sums, *columns).se, rtol=1e-4)


def test_errors():
    Phi, X, y, x = study()
    sums, columns = whitened_sums(0.2, Phi, X, y, x)
    with pytest.raises(ValueError, match="'t' or 'wald'"):
        fit_snps(sums, *columns, test="score")
    singular = NullSums(np.ones((2, 2)), np.ones(2), 9.0, 0.0, 30)
    with pytest.raises(NumericalError, match="linearly dependent"):
        fit_null(0.1, singular)
    with pytest.raises(NumericalError, match="no residual variance"):
        fit_null(0.1, NullSums(np.eye(1), np.ones(1), 1.0, 0.0, 30))
    with pytest.raises(NumericalError, match="degree of freedom"):
        fit_null(0.1, NullSums(np.eye(2), np.ones(2), 9.0, 0.0, 2))
    with pytest.raises(NumericalError, match="degree of freedom"):
        one = np.ones(1)
        fit_snps(NullSums(np.eye(2), np.ones(2), 9.0, 0.0, 3), np.zeros((2, 1)), one, one, one)
    assert degrees_of_freedom(100, 4) == 95
