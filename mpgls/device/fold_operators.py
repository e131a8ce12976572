"""The operators of a penalty made on a card from the kernel, in float64: D, and the matrices of every fold.

    D = alpha (V^-1 - V^-1 C (C'V^-1 C)^-1 C'V^-1),   V = K + alpha I
    N = (D_OO)^-1,   N_I = (D_II - D_IO N D_OI)^-1        O an outer fold, I one of its inner folds

What leave-out multiplies by (`leave_out`), and the smoothers of training sets (`smoothers`), as in
`mpgls.model.kernel_ridge`. To be called in the lane of products.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mpgls.device.card import Card

Fold = tuple[np.ndarray, Sequence[np.ndarray]]
"""Positions of the samples of an outer fold, and of each of its inner folds."""


def spd_inverse(card: Card, A: Any) -> Any:
    """A^-1 = L^-T L^-1 of a positive definite A = L L' on the card. Raises LinAlgError where it is not."""
    L = card.cholesky(A)
    if not bool((card.xp.diagonal(L) > 0).all()):  # nor where it is not a number
        raise np.linalg.LinAlgError("not positive definite")
    W = card.solve_triangular(L, card.xp.eye(len(L)))
    del L
    return W.T @ W


def residual_operator(card: Card, V: Any, C: Any, alpha: float) -> Any:
    """D (n, n) of the kernel ``V`` (n, n), which is overwritten, and covariates ``C`` (n, q). Raises LinAlgError."""
    V.reshape(-1)[:: len(V) + 1] += alpha
    D = spd_inverse(card, V)
    VC = D @ C
    F = card.solve_triangular(card.cholesky(C.T @ VC), VC.T.copy())
    D -= F.T @ F
    D *= alpha
    return D


def leave_out(card: Card, D: Any, folds: Sequence[Fold]) -> Iterator[tuple[int, Any]]:
    """(k, A_k) of every fold: N of the outer ones, from 0 on, and [-N_I D_IO N | N_I] of the inner ones after them."""
    numbers = itertools.count(len(folds))
    for o, (test, inner) in enumerate(folds):
        D_O, N, DN = _outer(card, D, test)
        yield o, N
        for here in map(card.xp.asarray, inner):
            N_I, DN_I = _inner(card, D, here, D_O, DN)
            yield next(numbers), card.xp.concatenate([-(N_I @ DN_I), N_I], axis=1)


def smoothers(card: Card, D: Any, folds: Sequence[Fold], training: Sequence[np.ndarray]) -> Iterator[tuple[int, Any]]:
    """(k, A_k) as `leave_out`: -N D_OT, and N_I (D_IO N D_OT - D_IT); T is the ``training`` set of k."""
    xp, numbers = card.xp, itertools.count(len(folds))
    for o, (test, inner) in enumerate(folds):
        D_O, N, DN = _outer(card, D, test)
        yield o, -(N @ _rows(xp, D_O, training[o]).T)
        for here in map(xp.asarray, inner):
            k = next(numbers)
            N_I, DN_I = _inner(card, D, here, D_O, DN)
            D_IT = xp.take(xp.take(D, here, axis=0), xp.asarray(training[k]), axis=1)
            yield k, N_I @ (DN_I @ _rows(xp, D_O, training[k]).T - D_IT)


def _outer(card: Card, D: Any, test: np.ndarray) -> tuple[Any, Any, Any]:
    """D_:O (n, |O|), N, and D_:O N."""
    D_O = card.xp.take(D, card.xp.asarray(test), axis=1)
    N = spd_inverse(card, _rows(card.xp, D_O, test))
    return D_O, N, D_O @ N


def _inner(card: Card, D: Any, inner: Any, D_O: Any, DN: Any) -> tuple[Any, Any]:
    """N_I, and D_IO N."""
    xp = card.xp
    D_II, DN_I = xp.take(xp.take(D, inner, axis=0), inner, axis=1), xp.take(DN, inner, axis=0)
    return spd_inverse(card, D_II - DN_I @ xp.take(D_O, inner, axis=0).T), DN_I


def _rows(xp: Any, A: Any, at: np.ndarray) -> Any:
    return xp.take(A, xp.asarray(at), axis=0)
