"""R2 of nested cross-validation: what the covariates leave of a target, and how much of that is predicted.

For a test set S and its training set T, with b_T the ordinary least squares coefficients of the target on C in T,

    u_S  = y_S - C_S b_T                              the target without what the covariates predict
    R2_S = 1 - |e_S|^2 / sum (u_S - mean u_S)^2       0 where u is constant

which without covariates is scikit-learn's r2_score. The penalty of an outer fold maximises the mean R2 of its inner
folds (scikit-learn's GridSearchCV with scoring "r2"), for each target, or on average over the targets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mpgls.model.folds import NestedFolds
from mpgls.model.kernel_ridge import Operators
from mpgls.model.work import Work

CONSTANT = {np.dtype(np.float64): 1e-12, np.dtype(np.float32): 1e-6}
"""Scatter per sample, relative to the variance of the whole target, below which a fold counts as constant."""


class Scatter:
    """Sums of squares of u around its mean for every test set, from a few products with indicators of the folds.

    ``C`` (n, q): covariates, the intercept first. With Z_S = C_S'y_S all that is needed are C_S'C_S and y_S'y_S.
    Of every test set: ``indicators`` (sets, n), ``sums`` C_S' (sets, q, n), ``gram`` C_S'C_S, ``solve`` the rows of
    (C_T'C_T)^-1 but for the intercept.
    """

    def __init__(self, folds: NestedFolds, C: np.ndarray, dtype: type) -> None:
        self.folds = folds
        # orthogonal covariates of mean square 1, the first the intercept
        Q = np.linalg.qr(C)[0] * np.sqrt(C.shape[0])
        self.C = C = np.column_stack([np.ones(C.shape[0]), Q[:, 1:]])
        n, q = C.shape
        self.indicators: np.ndarray = np.zeros((len(folds.tests), n), dtype=dtype)
        self.sums: np.ndarray = np.zeros((len(folds.tests), q, n), dtype=dtype)
        self.gram, self.solve = [], []
        for k, test in enumerate(folds.tests):
            self.indicators[k, test] = 1.0
            self.sums[k][:, test] = C[test].T
            self.gram.append(C[test].T @ C[test])
            C_T = C[folds.training(k)]
            # b_T but for the intercept, which the mean of u takes away
            self.solve.append(np.linalg.inv(C_T.T @ C_T)[1:])

    def slopes(self, Y: np.ndarray) -> list[np.ndarray]:
        """For each test set b_T (q-1, w) beside the intercept."""
        return self._slopes(self._products(Y))

    def __call__(self, Y: np.ndarray, work: Work) -> tuple[np.ndarray, np.ndarray]:
        """Sums of squares of each outer (outer, w) and inner fold (outer, inner, w), float64, 0 where constant."""
        squares = np.multiply(Y, Y, out=work.array("squares", Y.shape, Y.dtype))
        total = (self.indicators @ squares).astype(np.float64)
        Z = self._products(Y)
        for k, (b, G) in enumerate(zip(self._slopes(Z), self.gram, strict=True)):
            n_S = self.folds.tests[k].size
            mean = (Z[k, 0] - G[0, 1:] @ b) / n_S
            if b.size:
                total[k] += np.einsum("jw,jw->w", b, G[1:, 1:] @ b - 2.0 * Z[k, 1:])
            total[k] -= n_S * mean**2
            total[k][total[k] <= CONSTANT[Y.dtype] * n_S] = 0.0
        outer = len(self.folds.outer)
        return total[:outer], total[outer:].reshape(outer, self.folds.inner_count, -1)

    def _products(self, Y: np.ndarray) -> np.ndarray:
        """Z_S = C_S'y_S of every test set: (sets, q, w)."""
        sets, q, n = self.sums.shape
        return (self.sums.reshape(sets * q, n) @ Y).reshape(sets, q, -1).astype(np.float64)

    def _slopes(self, Z: np.ndarray) -> list[np.ndarray]:
        outer, inner = len(self.folds.outer), self.folds.inner_count
        whole = Z[:outer].sum(axis=0)
        found = []
        for k, solve in enumerate(self.solve):
            left_out = Z[k] if k < outer else Z[k] + Z[(k - outer) // inner]
            found.append(solve @ (whole - left_out))
        return found


@dataclass(frozen=True, eq=False)
class PenaltyScores:
    """What one penalty gives for w targets: R2 of each outer fold, and the mean of its inner folds, (outer, w) each.

    ``errors`` are those of each outer fold's samples.
    """

    inner: np.ndarray
    outer: np.ndarray
    errors: list[np.ndarray]


def score_penalty(
    operators: Operators, Y: np.ndarray, scatter: tuple[np.ndarray, np.ndarray], work: Work
) -> PenaltyScores:
    """Predict every fold of Y (n, w) with one penalty; ``scatter`` is what `Scatter` found for Y."""
    errors = operators.outer_errors(Y, work)
    squares = np.stack([np.einsum("ij,ij->j", e, e) for e in errors])
    inner = r2(operators.inner_squares(Y, work), scatter[1]).mean(axis=1)
    return PenaltyScores(inner, r2(squares, scatter[0]), errors)


def r2(squares: np.ndarray, scatter: np.ndarray) -> np.ndarray:
    """1 - squared errors / scatter, and 0 where there is no scatter; float64."""
    share = np.divide(squares, scatter, out=np.ones(scatter.shape), where=scatter > 0)
    return 1.0 - share


def choose(inner: np.ndarray, outer: np.ndarray, shared_over: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The index of the best penalty (outer, w) by ``inner``, and its R2 (outer, w); both are (penalties, outer, w).

    The first of equals wins. ``shared_over``: so many neighbouring columns, one permutation's targets, share one.
    """
    if shared_over is None:
        best = inner.argmax(axis=0)
    else:
        penalties, folds, w = inner.shape
        mean = inner.reshape(penalties, folds, w // shared_over, shared_over).mean(axis=3)
        best = np.repeat(mean.argmax(axis=0), shared_over, axis=1)
    return best, np.take_along_axis(outer, best[None], axis=0)[0]


def correlations(errors: list[np.ndarray], Y: np.ndarray, scatter: Scatter) -> np.ndarray:
    """Pearson's r of u and its prediction u - e in each outer fold: (outer, w), 0 where one of them is constant."""
    slopes = scatter.slopes(Y)
    found = np.zeros((len(errors), Y.shape[1]))
    for o, (e, fold) in enumerate(zip(errors, scatter.folds.outer, strict=True)):
        u = Y[fold.test] - scatter.C[fold.test, 1:] @ slopes[o]
        g = u - e
        u, g = u - u.mean(axis=0), g - g.mean(axis=0)
        size = np.sqrt((u * u).sum(axis=0) * (g * g).sum(axis=0))
        np.divide((u * g).sum(axis=0), size, out=found[o], where=size > 1e-9)
    return found
