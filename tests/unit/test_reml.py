from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
import oracle

from mpgls.errors import NumericalError
from mpgls.model.gls import NullSums
from mpgls.model.reml import FAILED, UPPER, RemlPoint, derivative_grams, maximise_reml, reml_point

TOLERANCE = 1e-7


class Spectral:
    """A mixed model in the eigenvectors' coordinates: Phi = diag(lam), mean 1."""

    def __init__(self, kind, n, h2, seed, q=3, noise=3e-3):
        rng = np.random.default_rng(seed)
        self.lam, self.n, self.q, self.noise, self.rng = spectrum(kind, n, rng), n, q, noise, rng
        X = rng.standard_normal((n, q))
        y = np.sqrt(h2 * self.lam + 1 - h2) * rng.standard_normal(n) + X @ rng.standard_normal(q)
        self.columns = np.column_stack([X, y])
        self.fine_at: list[float] = []
        self.coarse_at: list[float] = []

    def sums(self, h2, log_det_error=0.0, scale=1.0):
        q, v = self.q, h2 * self.lam + 1 - h2
        solved = self.columns / v[:, None]
        S = scale * (self.columns.T @ solved)
        D, D_V_D = (solved.T @ (w[:, None] * solved) for w in (self.lam - 1, (self.lam - 1) ** 2 / v))
        log_det = np.sum(np.log(v)) + log_det_error
        return NullSums(S[:q, :q], S[:q, q], S[q, q], log_det, self.n), D, D_V_D

    def fine(self, h2):
        self.fine_at.append(h2)
        return reml_point(*self.sums(h2))

    def coarse(self, h2):
        self.coarse_at.append(h2)
        error = self.noise * self.rng.standard_normal()
        return reml_point(*self.sums(h2, error, 1 + 1e-7 * self.rng.standard_normal()))

    def slope(self, h2):
        return reml_point(*self.sums(h2)).slope - 0.5 * np.sum((self.lam - 1) / (h2 * self.lam + 1 - h2))

    def information(self, h2):
        """-l'' in the eigenbasis, see ``oracle.reml_information``."""
        X, y = self.columns[:, :-1], self.columns[:, -1]
        W, D = 1.0 / (h2 * self.lam + 1 - h2), self.lam - 1
        S, WX = X.T @ (W[:, None] * X), W[:, None] * X
        Py = W * y - WX @ np.linalg.solve(S, WX.T @ y)
        DPy, df = D * Py, self.n - self.q
        PDPy = W * DPy - WX @ np.linalg.solve(S, WX.T @ DPy)
        # tr(PDPD) with P = W - W X S^-1 X'W
        A, B = (np.linalg.solve(S, WX.T @ (K[:, None] * WX)) for K in (D, D * D * W))
        trace = np.sum((W * D) ** 2) - 2 * np.trace(B) + np.trace(A @ A)
        first, second = Py @ DPy / (y @ Py), DPy @ PDPy / (y @ Py)
        return 0.5 * (df * (2 * second - first**2) - trace)

    def optimum(self):
        grid = np.append(np.linspace(0, 0.999, 400), UPPER)
        k = int(np.argmax([reml_point(*self.sums(h)).log_likelihood for h in grid]))
        low, high = grid[max(k - 1, 0)], grid[min(k + 1, grid.size - 1)]
        if self.slope(low) <= 0 and low == 0:
            return 0.0
        while high - low > 1e-13:
            middle = 0.5 * (low + high)
            low, high = (middle, high) if self.slope(middle) > 0 else (low, middle)
        return 0.5 * (low + high)

    def maximise(self, **options):
        return maximise_reml(self.coarse, self.fine, n=self.n, **options)


def spectrum(kind, n, rng):
    if kind == "family":
        eigenvalues = np.linalg.eigvalsh(0.5 + 0.5 * np.eye(5))
        lam = np.resize(eigenvalues, n) * rng.uniform(0.95, 1.05, n)
    elif kind == "population":
        A = rng.standard_normal((150, 1200))
        lam = np.interp(np.linspace(0, 1, n), np.linspace(0, 1, 150), np.linalg.eigvalsh(A @ A.T))
        lam[-3:] += lam.mean() * n * np.array([0.003, 0.01, 0.02])
    else:
        lam = np.arange(1, n + 1) ** -0.9
    return lam / lam.mean()


@pytest.mark.parametrize("kind", ["family", "population", "decay"])
@pytest.mark.parametrize("h2", [0.0, 0.1, 0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize(("n", "noise"), [(417, 1e-3), (1501, 1e-2), (4000, 1e-3)])
def test_finds_the_optimum_with_few_evaluations(kind, h2, n, noise):
    model = Spectral(kind, n, h2, seed=n + int(100 * h2), noise=noise)
    expected = model.optimum()
    found = model.maximise()
    assert abs(found.h2 - expected) < TOLERANCE
    assert found.evaluations_single == len(model.coarse_at) <= 8
    assert found.evaluations_double == sum(x > 0 for x in model.fine_at) <= 8
    assert found.h2 == 0.0 or model.fine_at[-1] == found.h2
    assert found.log_likelihood == reml_point(*model.sums(found.h2)).log_likelihood
    assert found.at_boundary == (expected == 0.0 or expected > UPPER - 1e-9)


def test_typical_cost():
    cost = []
    for seed in range(8):
        found = Spectral("family", 801, 0.5, seed).maximise()
        cost.append(found.evaluations_single + 2 * found.evaluations_double)
    assert np.mean(cost) <= 13


@pytest.mark.parametrize("kind", ["family", "population", "decay"])
@pytest.mark.parametrize("h2", [0.05, 0.3, 0.45, 0.6, 0.9])
@pytest.mark.parametrize(("n", "noise"), [(417, 1e-3), (1200, 3e-3), (1501, 1e-2)])
def test_standard_error_is_that_of_the_information(kind, h2, n, noise):
    model = Spectral(kind, n, h2, seed=n + int(100 * h2), noise=noise)
    found = model.maximise()
    information = model.information(found.h2)
    if found.h2 >= UPPER or information <= 0.0:
        assert np.isnan(found.h2_se)
    else:
        assert found.h2_se == pytest.approx(information**-0.5, rel=1e-6)


def test_zero_needs_no_fine_factorisation():
    model = Spectral("decay", 500, 0.0, 4)
    assert model.slope(0.0) < 0
    found = model.maximise()
    assert found.h2 == 0.0 and found.at_boundary and found.evaluations_double == 0


def test_upper_end_is_flagged():
    rng = np.random.default_rng(8)
    model = Spectral("family", 500, 0.9, 2)
    model.columns[:, -1] = model.lam**2 * rng.standard_normal(500)  # more than heritable
    found = model.maximise()
    assert found.h2 == UPPER and found.at_boundary


@pytest.mark.parametrize("seed", range(6))
def test_singular_kinship_near_the_upper_end(seed):
    model = Spectral("decay", 301, 0.99, seed)
    model.lam[-1] = 0.0
    model.lam /= model.lam.mean()
    found = model.maximise()
    best = max(reml_point(*model.sums(h)).log_likelihood for h in 1 - np.geomspace(1e-6, 0.5, 300))
    assert found.log_likelihood > best - 10 * model.noise
    assert found.h2 == model.fine_at[-1]
    if not found.at_boundary:
        assert abs(model.slope(found.h2)) * found.h2_se < 1e-3


def test_second_maximum_is_not_taken_for_the_first():
    model = Spectral("decay", 300, 0.0, 1)
    values = np.linspace(0, 0.99, 199)
    rng = np.random.default_rng(0)
    for _ in range(40):  # traits that mix two kinds of spectrum, so that several maxima occur
        weight = rng.uniform(0, 1)
        scale = np.where(model.lam > np.quantile(model.lam, 0.97), weight, 1.0)
        model.columns[:, -1] = scale * np.sqrt(0.7 * model.lam + 0.3) * rng.standard_normal(300)
        found = model.maximise()
        best = max(reml_point(*model.sums(h)).log_likelihood for h in values)
        assert found.log_likelihood > best - 0.05


def test_without_slopes_at_zero():
    model = Spectral("population", 700, 0.4, 9)
    fine = model.fine

    def blind(h2):
        point = fine(h2)
        return point if h2 > 0 else RemlPoint(point.log_likelihood, point.log_det)

    found = maximise_reml(model.coarse, blind, n=model.n)
    assert abs(found.h2 - model.optimum()) < TOLERANCE


def test_coarse_failures_leave_the_search_to_fine():
    model = Spectral("population", 600, 0.85, 6)
    coarse = model.coarse
    found = maximise_reml(lambda h2: coarse(h2) if h2 < 0.6 else FAILED, model.fine, n=model.n)
    assert abs(found.h2 - model.optimum()) < TOLERANCE
    found = maximise_reml(lambda h2: FAILED, model.fine, n=model.n)
    assert abs(found.h2 - model.optimum()) < TOLERANCE


def test_indefinite_kinship_is_an_error():
    model = Spectral("population", 600, 0.95, 6)
    with pytest.raises(NumericalError, match="not positive semidefinite"):
        maximise_reml(
            lambda h2: model.coarse(h2) if h2 < 0.5 else FAILED,
            lambda h2: model.fine(h2) if h2 < 0.5 else FAILED,
            n=model.n,
        )


def test_slopes_and_optimum_against_the_dense_oracle():
    rng = np.random.default_rng(11)
    n, q = 73, 3
    A = rng.standard_normal((n, 150))
    Phi = oracle.scaled(A @ A.T)
    X = np.column_stack([np.ones(n), rng.standard_normal((n, q - 1))])
    y = np.linalg.cholesky(oracle.covariance(0.8, Phi)) @ rng.standard_normal(n)
    columns = np.column_stack([X, y])
    moved = (Phi - np.eye(n)) @ columns
    start = columns.T @ moved, moved.T @ moved

    def evaluate(h2):
        L = np.linalg.cholesky(oracle.covariance(h2, Phi))
        white = np.linalg.solve(L, columns)
        solved = np.linalg.solve(L.T, white)
        S = white.T @ white
        twice = np.linalg.solve(L, solved)
        grams = derivative_grams(h2, S, solved.T @ solved, twice.T @ twice) if h2 > 0 else start
        log_det = 2 * np.sum(np.log(np.diag(L)))
        constant = np.linalg.slogdet(X.T @ X)[1]
        return reml_point(NullSums(S[:q, :q], S[:q, q], S[q, q], log_det, n, constant), *grams)

    for h2 in (0.0, 0.01, 0.5, 0.93):
        D = np.linalg.solve(oracle.covariance(h2, Phi), Phi - np.eye(n))
        point = evaluate(h2)
        assert point.log_likelihood == pytest.approx(oracle.reml(h2, Phi, X, y), rel=1e-12)
        assert point.slope - 0.5 * np.trace(D) == pytest.approx(oracle.reml_slope(h2, Phi, X, y), abs=1e-8)
    found = maximise_reml(evaluate, evaluate, n=n)
    assert abs(found.h2 - oracle.sharp_h2(Phi, X, y)) < TOLERANCE
    assert abs(found.h2 - oracle.find_h2(Phi, X, y)) < 1e-5
