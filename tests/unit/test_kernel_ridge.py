"""Leave-out algebra and nested scores against scikit-learn, himalaya and the normal equations."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV

from mpgls.errors import NumericalError
from mpgls.model.folds import nested_folds
from mpgls.model.kernel_ridge import (
    Direct,
    LeaveOut,
    dual_coefficients,
    largest_eigenvalue,
    leave_out_is_safe,
    residual_operator,
)
from mpgls.model.nested_scores import Scatter, choose, correlations, score_penalty
from mpgls.model.work import Work

N, M, T = 83, 211, 4
ALPHAS = (0.01, 0.3, 2.0, 50.0)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(1)
    X = rng.standard_normal((N, M))
    X[:, 7] = 3.0 + 0.1 * X[:, 7]
    Y = X[:, :5] @ rng.standard_normal((5, T)) * 0.5 + rng.standard_normal((N, T)) + 4.0
    C = np.column_stack([np.ones(N), rng.standard_normal(N), rng.integers(0, 2, N)])
    return X, Y, C


def operators(cls, K, C, alpha, folds, dtype=np.float64):
    D = K.copy(order="F")
    residual_operator(D, C, alpha)
    made = cls(folds, np.empty(cls.size(folds), dtype=dtype))
    for o in range(len(folds.outer)):
        made.build(D, o)
    return made


def fitted_elsewhere(X, Y, C, alpha, training, test):
    """Predictions of ridge regression with unpenalised C by the normal equations of [C | X]."""
    A = np.column_stack([C, X])
    penalty = np.diag([0.0] * C.shape[1] + [alpha] * X.shape[1])
    return A[test] @ np.linalg.solve(A[training].T @ A[training] + penalty, A[training].T @ Y[training])


@pytest.mark.parametrize("cls", [LeaveOut, Direct])
@pytest.mark.parametrize("covariates", [1, 3])
def test_errors_of_every_fold(data, cls, covariates):
    X, Y, C = data
    C = C[:, :covariates]
    folds = nested_folds(N, 5, 3, seed=7)
    for alpha in ALPHAS:
        made = operators(cls, X @ X.T / M, C, alpha, folds)
        work = Work()
        outer, squares = made.outer_errors(Y, work), made.inner_squares(Y, work)
        for o, fold in enumerate(folds.outer):
            expected = Y[fold.test] - fitted_elsewhere(X, Y, C, alpha * M, folds.training(o), fold.test)
            np.testing.assert_allclose(outer[o], expected, rtol=0, atol=1e-10)
            for i, inner in enumerate(fold.inner):
                training = folds.training(5 + 3 * o + i)
                e = Y[inner] - fitted_elsewhere(X, Y, C, alpha * M, training, inner)
                np.testing.assert_allclose(squares[o, i], (e**2).sum(axis=0), rtol=1e-10)


def nested(X, Y, C, folds, cls=LeaveOut, dtype=np.float64):
    scatter, work = Scatter(folds, C, dtype), Work()
    Y = (Y - Y.mean(axis=0)).astype(dtype)
    of_Y = scatter(Y, work)
    found = [score_penalty(operators(cls, X @ X.T / M, C, alpha, folds, dtype), Y, of_Y, work) for alpha in ALPHAS]
    chosen, r2 = choose(np.stack([one.inner for one in found]), np.stack([one.outer for one in found]))
    return found, chosen, r2, scatter


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-10), (np.float32, 1e-4)])
@pytest.mark.parametrize("cls", [LeaveOut, Direct])
def test_nested_cross_validation_is_that_of_scikit_learn(data, cls, dtype, tolerance):
    X, Y, _ = data
    folds = nested_folds(N, 4, 3, seed=2)
    found, chosen, r2, _ = nested(X, Y, np.ones((N, 1)), folds, cls, dtype)
    penalties = [alpha * M for alpha in ALPHAS]
    for o, fold in enumerate(folds.outer):
        training = folds.training(o)
        cv = [(np.searchsorted(training, folds.training(4 + 3 * o + i)), np.searchsorted(training, inner))
              for i, inner in enumerate(fold.inner)]  # fmt: skip
        for j in range(T):
            search = GridSearchCV(Ridge(), {"alpha": penalties}, scoring="r2", cv=cv)
            search.fit(X[training], Y[training, j])
            assert penalties[chosen[o, j]] == search.best_params_["alpha"]
            predicted = search.predict(X[fold.test])
            errors = found[chosen[o, j]].errors[o][:, j]
            np.testing.assert_allclose(Y[fold.test, j] - errors, predicted, rtol=0, atol=tolerance * 5)
            assert abs(r2[o, j] - r2_score(Y[fold.test, j], predicted)) < tolerance
            inner = [one.inner[o, j] for one in found]
            np.testing.assert_allclose(inner, search.cv_results_["mean_test_score"], rtol=0, atol=tolerance)


def test_nested_cross_validation_is_that_of_himalaya(data):
    """Whose kernel form has no intercept in the folds: here D has none either."""
    from himalaya.kernel_ridge import KernelRidgeCV
    from himalaya.scoring import r2_score as himalaya_r2

    X, Y, _ = data
    Y = Y - Y.mean(axis=0)
    folds = nested_folds(N, 3, 4, seed=9)
    work, found = Work(), []
    of_Y = Scatter(folds, np.ones((N, 1)), np.float64)(Y, work)
    for alpha in ALPHAS:
        made = LeaveOut(folds, np.empty(LeaveOut.size(folds)))
        for o in range(3):
            made.build(alpha * np.linalg.inv(X @ X.T / M + alpha * np.eye(N)), o)
        found.append(score_penalty(made, Y, of_Y, work))
    chosen, r2 = choose(np.stack([one.inner for one in found]), np.stack([one.outer for one in found]))
    for o, fold in enumerate(folds.outer):
        training = folds.training(o)
        cv = [(np.searchsorted(training, folds.training(3 + 4 * o + i)), np.searchsorted(training, inner))
              for i, inner in enumerate(fold.inner)]  # fmt: skip
        penalties = np.array(ALPHAS) * M
        scoring = {"score_func": himalaya_r2, "local_alpha": True}
        model = KernelRidgeCV(alphas=penalties, kernel="linear", cv=cv, solver_params=scoring)
        model.fit(X[training], Y[training])
        np.testing.assert_allclose(model.best_alphas_, penalties[chosen[o]])
        predicted = model.predict(X[fold.test])
        errors = np.stack([found[chosen[o, j]].errors[o][:, j] for j in range(T)], axis=1)
        np.testing.assert_allclose(Y[fold.test] - errors, predicted, rtol=0, atol=1e-9)
        np.testing.assert_allclose(r2[o], r2_score(Y[fold.test], predicted, multioutput="raw_values"), atol=1e-9)


def test_coefficients_are_those_of_scikit_learn(data):
    X, Y, _ = data
    D = np.asfortranarray(X @ X.T / M)
    residual_operator(D, np.ones((N, 1)), 0.3)
    weights = X.T @ dual_coefficients(D, Y, 0.3) / M
    np.testing.assert_allclose(weights.T, Ridge(alpha=0.3 * M).fit(X, Y).coef_, rtol=0, atol=1e-12)


def test_r2_with_covariates_is_that_of_what_they_leave(data):
    X, Y, C = data
    folds = nested_folds(N, 4, 3, seed=2)
    found, _, _, scatter = nested(X, Y, C, folds)
    r = correlations(found[1].errors, Y, scatter)
    for o, fold in enumerate(folds.outer):
        training = folds.training(o)
        b = np.linalg.lstsq(C[training], Y[training], rcond=None)[0]
        left = Y[fold.test] - C[fold.test] @ b
        predicted = left - found[1].errors[o]
        np.testing.assert_allclose(found[1].outer[o], r2_score(left, predicted, multioutput="raw_values"), atol=1e-10)
        expected = [np.corrcoef(left[:, j], predicted[:, j])[0, 1] for j in range(T)]
        np.testing.assert_allclose(r[o], expected, atol=1e-10)
        for i, inner in enumerate(fold.inner):
            train = folds.training(4 + 3 * o + i)
            left = Y[inner] - C[inner] @ np.linalg.lstsq(C[train], Y[train], rcond=None)[0]
            squares = ((left - left.mean(axis=0)) ** 2).sum(axis=0)
            centred = Y - Y.mean(axis=0)
            np.testing.assert_allclose(scatter(centred, Work())[1][o, i], squares, rtol=1e-10)


def test_a_constant_fold_counts_as_nothing(data):
    X, Y, _ = data
    folds = nested_folds(N, 4, 3, seed=2)
    Y = Y.copy()
    Y[folds.outer[2].test, 1] = 0.25
    found, _, _, _ = nested(X, Y, np.ones((N, 1)), folds)
    assert all(one.outer[2, 1] == 0 for one in found)
    assert all((one.outer[2, [0, 2, 3]] != 0).all() for one in found)


def test_one_penalty_for_the_targets_of_a_permutation():
    rng = np.random.default_rng(3)
    inner, outer = rng.standard_normal((2, 5, 4, 6))
    chosen, r2 = choose(inner, outer, shared_over=3)
    for o in range(4):
        for p in range(2):
            best = inner[:, o, 3 * p : 3 * p + 3].mean(axis=1).argmax()
            assert (chosen[o, 3 * p : 3 * p + 3] == best).all()
            np.testing.assert_array_equal(r2[o, 3 * p : 3 * p + 3], outer[best, o, 3 * p : 3 * p + 3])


def test_when_leave_out_is_as_good_as_its_tolerance(data):
    """Small penalties on a kernel with one large eigenvalue: single precision needs the direct smoothers."""
    X, Y, _ = data
    X = X + 5.0 * np.outer(np.sign(X[:, 0]), np.ones(M))
    K, C = X @ X.T / M, np.ones((N, 1))
    largest = largest_eigenvalue(K, C)
    np.testing.assert_allclose(largest, np.linalg.eigvalsh(K - K.mean(axis=0))[-1], rtol=0.1)
    folds = nested_folds(N, 4, 3, seed=2)
    for alpha in (1e-3, 10.0):
        exact = operators(LeaveOut, K, C, alpha, folds).outer_errors(Y, Work())
        for cls in (LeaveOut, Direct):
            single = operators(cls, K, C, alpha, folds, np.float32).outer_errors(Y.astype(np.float32), Work())
            worst = max(abs(a - b).max() for a, b in zip(exact, single, strict=True))
            if cls is Direct or leave_out_is_safe(largest, alpha, np.float32):
                assert worst < 1e-4 * Y.std()
    assert not leave_out_is_safe(largest, 1e-3, np.float32)
    assert leave_out_is_safe(largest, 10.0, np.float32)
    assert leave_out_is_safe(largest, 1e-3, np.float64)


def test_a_kernel_that_is_not_positive_definite():
    V = np.asfortranarray(np.diag([1.0, -2.0, 1.0]))
    with pytest.raises(NumericalError, match="leading minor 2"):
        residual_operator(V, np.ones((3, 1)), 0.5)
