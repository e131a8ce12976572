"""Ridge regression in sample space: errors of prediction for every fold and penalty as products with fixed operators.

With the kernel K = X X' (n x n), unpenalised covariates C (n x q, with the intercept) and V = K + alpha I, the fit to
all samples leaves the residuals

    y - y_fit = D y          D = alpha (V^-1 - V^-1 C (C'V^-1 C)^-1 C'V^-1)

and leaving out any set S of samples, refitting, and predicting S has the errors

    y_S - y_S(-S) = (D_SS)^-1 (D y)_S

exactly, covariates included (An, Liu & Venkatesh, Pattern Recognition 40, 2007, equation 15). So all folds of a
penalty share one product D Y. For an outer fold O and an inner fold I of the others, S = O u I:

    N      = (D_OO)^-1                                    e_O = N (D y)_O
    N_I    = (D_II - D_IO N D_OI)^-1
    M      = [-N_I D_IO N | N_I], rows I of (D_SS)^-1     e_I = M (D y)_S

That costs 2 n^2 (1 + 1/10 + 2.52) operations a target, penalty and permutation with 10 x 5 folds. Smoothers that were
fitted to each training set T, e_I = y_I - A y_T with A = -N_I (D_IT - D_IO N D_OT), cost 2 n^2 7.38. They are for small
penalties in single precision, where (D_SS)^-1 magnifies rounding, and for kernels that differ from fold to fold.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from mpgls.errors import NumericalError
from mpgls.model.folds import NestedFolds
from mpgls.model.work import Work

TOLERANCE = {np.dtype(np.float64): 1e-9, np.dtype(np.float32): 1e-4}
"""How large rounding may become, relative to a target, before leave-out gives way to direct smoothers."""
LOST = 1e-4
"""How large rounding of the smoothers, made in double precision, may become before a penalty is refused."""
FOLD_IS_LOST = "a fold's samples cannot be predicted from the others: the covariates are collinear without them"
_STRIP = 1024


def residual_operator(V: np.ndarray, C: np.ndarray, alpha: float) -> None:
    """Overwrite the kernel ``V`` (n, n), float64 in Fortran order, by D; ``C`` (n, q) has full column rank.

    Raises NumericalError if K + alpha I is not positive definite.
    """
    from scipy.linalg import lapack

    n = V.shape[0]
    V[np.diag_indices(n)] += alpha
    _, info = lapack.dpotrf(V, lower=1, clean=0, overwrite_a=1)
    if info:
        raise NumericalError(f"the kernel with penalty {alpha:g} is not positive definite (leading minor {info})")
    lapack.dpotri(V, lower=1, overwrite_c=1)
    _mirror(V)
    F = fitted_root(V, C)
    for strip in strips(n):
        residual_columns(V, F, alpha, strip)


def strips(n: int) -> list[slice]:
    """0 to n-1 in pieces of columns that stay in the cache."""
    return [slice(start, min(start + _STRIP, n)) for start in range(0, n, _STRIP)]


def fitted_root(V_inverse: np.ndarray, C: np.ndarray) -> np.ndarray:
    """F = L^-1 C'V^-1 (q, n), L L' = C'V^-1 C."""
    from scipy.linalg import solve_triangular

    VC = V_inverse @ C
    return solve_triangular(np.linalg.cholesky(C.T @ VC), VC.T, lower=True)


def residual_columns(V_inverse: np.ndarray, F: np.ndarray, alpha: float, columns: slice) -> None:
    """Overwrite ``columns`` of V^-1 by those of D = alpha (V^-1 - F'F)."""
    strip = V_inverse[:, columns]
    strip -= F.T @ F[:, columns]
    strip *= alpha


def _mirror(A: np.ndarray) -> None:
    """Copy the lower triangle of ``A`` to the upper one, strip by strip."""
    for strip in strips(A.shape[0]):
        square = np.tril(A[strip, strip], -1)
        A[strip, strip] = square + square.T + np.diag(np.diag(A[strip, strip]))
        A[strip, strip.stop :] = A[strip.stop :, strip].T


def dual_coefficients(D: np.ndarray, Y: np.ndarray, alpha: float) -> np.ndarray:
    """a = (D Y) / alpha (n, t): fitted values are C b + K a, and X'a are the coefficients of the columns of X."""
    return (D @ Y) / alpha


def amplification(largest: float, alpha: float) -> float:
    """A bound of the norm of (D_SS)^-1, by which leave-out magnifies rounding; ``largest`` eigenvalue of the kernel."""
    return (largest + alpha) / alpha


def leave_out_is_safe(largest: float, alpha: float, dtype: np.dtype | type) -> bool:
    """Whether errors by leave-out are as good as TOLERANCE asks in this type."""
    dtype = np.dtype(dtype)
    return float(np.finfo(dtype).eps) * amplification(largest, alpha) <= TOLERANCE[dtype]


def smallest_penalty(largest: float) -> float:
    """The smallest penalty that rounding leaves a meaning, beside the ``largest`` eigenvalue of the kernel."""
    return largest * float(np.finfo(np.float64).eps) / LOST


def largest_eigenvalue(K: np.ndarray, C: np.ndarray, steps: int = 30) -> float:
    """The largest eigenvalue of K (n, n) beside the covariates C (n, q), from below, by power iteration."""
    Q = np.linalg.qr(C)[0]
    v = np.random.default_rng(11).standard_normal(K.shape[0])
    size = 0.0
    for _ in range(steps):
        v -= Q @ (Q.T @ v)
        v /= np.linalg.norm(v)
        v = K @ v
        size = float(np.linalg.norm(v))
        if size == 0.0:
            break
    return size


# -- operators of a penalty -------------------------------------------------------------------------------------------


class Operators(Protocol):
    """What turns targets Y (n, w) into errors of prediction, for one penalty and all folds."""

    def outer_errors(self, Y: np.ndarray, work: Work) -> list[np.ndarray]:
        """Of each outer fold, errors (len(test), w) of its samples."""

    def inner_squares(self, Y: np.ndarray, work: Work) -> np.ndarray:
        """Sums of squared errors of each inner fold: (outer, inner, w). Call after `outer_errors` of the same Y."""


class LeaveOut:
    """Errors from the residuals of all samples; the arrays are filled by `build`.

    ``flat`` is one array of `size` elements for D and all blocks, so that ranks of a node can share it.
    """

    def __init__(self, folds: NestedFolds, flat: np.ndarray) -> None:
        self.folds = folds
        pieces = _pieces(flat, self._shapes(folds))
        self.D = next(pieces)
        self.N = [next(pieces) for _ in folds.outer]
        self.M = [[next(pieces) for _ in fold.inner] for fold in folds.outer]

    @staticmethod
    def rows(folds: NestedFolds) -> list[np.ndarray]:
        """The samples whose residuals give the errors of each entry of ``folds.tests``."""
        inner = [np.concatenate([fold.test, inner]) for fold in folds.outer for inner in fold.inner]
        return [*(fold.test for fold in folds.outer), *inner]

    @classmethod
    def _shapes(cls, folds: NestedFolds) -> list[tuple[int, int]]:
        pairs = zip(folds.tests, cls.rows(folds), strict=True)
        return [(folds.n, folds.n), *((test.size, rows.size) for test, rows in pairs)]

    @classmethod
    def size(cls, folds: NestedFolds) -> int:
        """Numbers that it holds; also the multiplications of `outer_errors` and `inner_squares` for one target."""
        return sum(rows * cols for rows, cols in cls._shapes(folds))

    def build(self, D: np.ndarray, o: int) -> None:
        """The blocks of outer fold o, and its rows of D, from the whole D in float64."""
        fold = self.folds.outer[o]
        self.D[fold.test] = D[fold.test]
        N, DN = _outer_inverse(D, fold.test)
        self.N[o][...] = N
        for inner, M in zip(fold.inner, self.M[o], strict=True):
            N_I = _inner_inverse(D, fold.test, inner, DN)
            np.matmul(-N_I, DN[inner], out=M[:, : fold.test.size], casting="same_kind")
            M[:, fold.test.size :] = N_I

    def outer_errors(self, Y: np.ndarray, work: Work) -> list[np.ndarray]:
        """e_O = N (D y)_O."""
        r = np.matmul(self.D, Y, out=work.array("residuals", Y.shape, Y.dtype))
        return [N @ r[fold.test] for N, fold in zip(self.N, self.folds.outer, strict=True)]

    def inner_squares(self, Y: np.ndarray, work: Work) -> np.ndarray:
        """|e_I|^2, e_I = M (D y)_S."""
        r = work.array("residuals", Y.shape, Y.dtype)
        squares = np.empty((len(self.M), len(self.M[0]), Y.shape[1]), dtype=Y.dtype)
        for o, fold in enumerate(self.folds.outer):
            outer, widest = fold.test.size, max(inner.size for inner in fold.inner)
            r_S = work.array("left out", (outer + widest, Y.shape[1]), Y.dtype)
            np.take(r, fold.test, axis=0, out=r_S[:outer], mode="clip")
            for i, (inner, M) in enumerate(zip(fold.inner, self.M[o], strict=True)):
                np.take(r, inner, axis=0, out=r_S[outer : M.shape[1]], mode="clip")
                e = np.matmul(M, r_S[: M.shape[1]], out=work.array("errors", (inner.size, Y.shape[1]), Y.dtype))
                np.einsum("ij,ij->j", e, e, out=squares[o, i])
        return squares


class Direct:
    """Errors by the smoother A of each training set: e = y_test - A y_train; filled by `build` or `build_fold`."""

    def __init__(self, folds: NestedFolds, flat: np.ndarray) -> None:
        self.folds = folds
        pieces = _pieces(flat, self._shapes(folds))
        self.A = [next(pieces) for _ in folds.tests]
        self.training = self.rows(folds)

    @staticmethod
    def rows(folds: NestedFolds) -> list[np.ndarray]:
        """The samples whose targets predict those of each entry of ``folds.tests``."""
        return [folds.training(k) for k in range(len(folds.tests))]

    @staticmethod
    def _shapes(folds: NestedFolds) -> list[tuple[int, int]]:
        pairs = zip(folds.tests, folds.left_out, strict=True)
        return [(test.size, folds.n - left_out.size) for test, left_out in pairs]

    @classmethod
    def size(cls, folds: NestedFolds) -> int:
        """Numbers that it holds; also the multiplications of `outer_errors` and `inner_squares` for one target."""
        return sum(rows * cols for rows, cols in cls._shapes(folds))

    def build(self, D: np.ndarray, o: int) -> None:
        """The smoothers of outer fold o and of its inner folds, from one D for all of them."""
        inner = len(self.folds.outer[o].inner)
        first = len(self.folds.outer) + o * inner
        for k in (o, *range(first, first + inner)):
            self.build_fold(D, k)

    def build_fold(self, D: np.ndarray, k: int) -> None:
        """The smoother of entry k of ``folds.tests`` from a D whose kernel fits its training set."""
        test, left_out, training = self.folds.tests[k], self.folds.left_out[k], self.training[k]
        outer = left_out[test.size :] if left_out.size > test.size else test[:0]
        _, DN = _outer_inverse(D, outer)
        N = _inner_inverse(D, outer, test, DN)
        self.A[k][...] = N @ (DN[test] @ D[np.ix_(outer, training)] - D[np.ix_(test, training)])

    def outer_errors(self, Y: np.ndarray, work: Work) -> list[np.ndarray]:
        """e_O = y_O - A y_R, R all but O."""
        return [self._errors(k, Y, work).copy() for k in range(len(self.folds.outer))]

    def inner_squares(self, Y: np.ndarray, work: Work) -> np.ndarray:
        """|e_I|^2, e_I = y_I - A y_T, T all but I and O."""
        outer, inner = len(self.folds.outer), self.folds.inner_count
        squares = np.empty((outer, inner, Y.shape[1]), dtype=Y.dtype)
        for k in range(outer * inner):
            e = self._errors(outer + k, Y, work)
            np.einsum("ij,ij->j", e, e, out=squares[k // inner, k % inner])
        return squares

    def _errors(self, k: int, Y: np.ndarray, work: Work) -> np.ndarray:
        A, test = self.A[k], self.folds.tests[k]
        y_train = work.array("training", (A.shape[1], Y.shape[1]), Y.dtype)
        np.take(Y, self.training[k], axis=0, out=y_train, mode="clip")
        e = np.matmul(A, y_train, out=work.array("errors", (A.shape[0], Y.shape[1]), Y.dtype))
        return np.subtract(Y[test], e, out=e)


Kind = type[LeaveOut] | type[Direct]
"""How the errors of a penalty are made."""


def _pieces(flat: np.ndarray, shapes: list[tuple[int, int]]) -> Iterator[np.ndarray]:
    """Consecutive parts of a flat array as C-ordered matrices."""
    start = 0
    for rows, cols in shapes:
        yield flat[start : start + rows * cols].reshape(rows, cols)
        start += rows * cols


def _outer_inverse(D: np.ndarray, outer: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """N = (D_OO)^-1, and D_:O N (n, |O|)."""
    N = _spd_inverse(D[np.ix_(outer, outer)])
    return N, D[:, outer] @ N


def _inner_inverse(D: np.ndarray, outer: np.ndarray, inner: np.ndarray, DN: np.ndarray) -> np.ndarray:
    """N_I = (D_II - D_IO N D_OI)^-1."""
    return _spd_inverse(D[np.ix_(inner, inner)] - DN[inner] @ D[np.ix_(outer, inner)])


def _spd_inverse(A: np.ndarray) -> np.ndarray:
    from scipy.linalg import lapack

    if A.size == 0:
        return A
    L, info = lapack.dpotrf(np.asfortranarray(A), lower=1, overwrite_a=1)
    if info:
        raise NumericalError(FOLD_IS_LOST)
    inverse, _ = lapack.dpotri(L, lower=1, overwrite_c=1)
    _mirror(inverse)
    return inverse
