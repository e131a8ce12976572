"""The covariates of a null model as an orthonormal basis, so that no number depends on how they are written.

The user's columns X = [1 | C] are centred and scaled, C = 1 mu' + D S, and D is orthogonalised with column pivoting,
D = Q R. Then [1/sqrt(n) | Q] spans what X spans, whatever the units, offsets and mixtures of the columns are; the
effects a of the basis are b = T a in the user's columns:

    b_C = S^-1 R^-1 a_Q,    b_0 = a_0 / sqrt(n) - mu' b_C
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mpgls.errors import InputError
from mpgls.model.deviations import deviations

INTERCEPT = "intercept"
COLLINEAR_TOLERANCE = 1e-10
"""A unit column depends on others if no more than this is left of it beside them, or what its rounding can leave."""
_ROUNDINGS = 8.0
_NAMED_SHARE = 1e-6
"""Shares of a unit column's combination that are smaller than this are rounding, and are not named."""


@dataclass(frozen=True)
class Design:
    """Covariates over n samples: ``X_L`` (n, q), orthonormal columns, the first of them constant.

    ``names`` are the user's columns, the intercept first; ``T`` (q, q) gives their effects from those of ``X_L``.
    """

    X_L: np.ndarray
    T: np.ndarray
    names: tuple[str, ...]

    @classmethod
    def of(cls, C: np.ndarray, names: Sequence[str]) -> Design:
        """The basis of the intercept and the covariates C (n, q-1) that are called ``names``.

        Raises InputError, naming them, for covariates that are constant or depend on others.
        """
        n, k = C.shape
        D, mu, S, floor = _standardised(C)
        _refuse([name for name, scale in zip(names, S, strict=True) if scale == 0], n)
        order, Q, R = _pivoted(D, floor)
        if len(order) < k:
            _refuse_dependent(D, mu / S, floor, names)
        back = np.linalg.inv(R) if k else R
        T = np.zeros((k + 1, k + 1))
        T[1:, 1:][order] = back
        T[1:, 1:] /= S[:, None]
        T[0, 0] = 1.0 / np.sqrt(n)
        T[0, 1:] = -mu @ T[1:, 1:]
        X_L = np.asfortranarray(np.column_stack([np.full(n, 1.0 / np.sqrt(n)), Q]))
        return cls(X_L, T, (INTERCEPT, *names))

    def with_columns(self, Z: np.ndarray, names: Sequence[str]) -> Design:
        """Further columns (n, k), taken as they are, such as principal components."""
        q, k = len(self.names), Z.shape[1]
        T = np.eye(q + k)
        T[:q, :q] = self.T
        return Design(np.asfortranarray(np.column_stack([self.X_L, Z])), T, (*self.names, *names))

    def ordered(self, order: np.ndarray) -> Design:
        """The same samples in another order."""
        return Design(np.asfortranarray(self.X_L[order]), self.T, self.names)

    def effects(self, a: np.ndarray, root: np.ndarray, s2: float) -> np.ndarray:
        """Effects and standard errors (2, q) of the user's columns, from a (q,) with covariance s2 (root root')^-1."""
        from scipy.linalg import solve_triangular

        spread = solve_triangular(root, self.T.T, lower=True)
        length = np.hypot.reduce(spread, axis=0)  # squares of a covariate's unit may be no numbers
        return np.array([self.T @ a, np.sqrt(s2) * length])


def _standardised(C: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """D (n, k) of unit centred columns, their means and lengths (k,), and what rounding leaves of each (k,).

    The length of a constant column is 0.
    """
    left, size, mean = deviations(C)
    length = np.sqrt(np.square(left).sum(axis=0))
    rounding = _ROUNDINGS * np.finfo(np.float64).eps * np.sqrt(C.shape[0])
    length[length <= rounding] = 0.0
    safe = np.where(length == 0, 1.0, length)
    return left / safe, (size * mean)[0], size[0] * length, np.maximum(COLLINEAR_TOLERANCE, rounding / safe)


def _pivoted(D: np.ndarray, floor: np.ndarray) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Order of the columns, Q and R with D[:, order] = Q R; it ends where what is left is rounding.

    Gram-Schmidt, twice for each column, because once loses orthogonality (Giraud, Langou and Rozloznik, 2005).
    """
    n, k = D.shape
    left = D.copy()
    order: list[int] = []
    Q, R = np.empty((n, k), order="F"), np.zeros((k, k))
    lengths = np.ones(k)
    for rank in range(k):
        free = [j for j in range(k) if j not in order]
        lengths[free] = np.sqrt(np.square(left[:, free]).sum(axis=0))
        best = max(free, key=lambda j: lengths[j] / floor[j])
        if lengths[best] <= floor[best]:
            return order, Q[:, :rank], R[:rank, :rank]
        column = left[:, best]
        column = column - Q[:, :rank] @ (Q[:, :rank].T @ column)
        column = column - column.mean()
        Q[:, rank] = column / np.sqrt(np.square(column).sum())
        order.append(best)
        left -= np.outer(Q[:, rank], Q[:, rank] @ left)
    R = Q.T @ D[:, order]
    return order, Q, np.triu(R)


def _refuse(constant: Sequence[str], n: int) -> None:
    if constant:
        noun, verb = ("covariate", "is") if len(constant) == 1 else ("covariates", "are")
        raise InputError(f"{noun} {named(constant)} {verb} constant over the {n} analysed samples")


def _refuse_dependent(D: np.ndarray, offset: np.ndarray, floor: np.ndarray, names: Sequence[str]) -> None:
    """Name each column that depends on those before it, in the user's order; ``offset`` (k,) are means over lengths."""
    kept: list[int] = []
    told = []
    for column in range(D.shape[1]):
        share = np.linalg.lstsq(D[:, kept], D[:, column], rcond=None)[0]
        left = np.linalg.norm(D[:, column] - D[:, kept] @ share)
        if left > floor[column] or not kept:
            kept.append(column)
            continue
        others = [names[kept[k]] for k in np.flatnonzero(np.abs(share) > _NAMED_SHARE)]
        terms = np.array([offset[column], *(share * offset[kept])])
        if abs(2 * terms[0] - terms.sum()) > _NAMED_SHARE * max(1.0 / np.sqrt(len(D)), np.abs(terms).max()):
            others = [INTERCEPT, *others]
        told.append(f"{names[column]!r} is a linear combination of {named(others)}")
    told = told or [f"{named(names)} are linearly dependent"]
    raise InputError(f"the covariates are collinear over the {len(D)} analysed samples: {'; '.join(told)}")


def named(names: Sequence[str]) -> str:
    """The names as part of a sentence: 'a', 'b' and 'c'."""
    quoted = [f"the {name}" if name == INTERCEPT else repr(name) for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"
