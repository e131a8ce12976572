"""Partial products of whitened columns over the rows at hand, summed in float64 whatever the columns' precision."""

from __future__ import annotations

import numpy as np

ROWS = 1024
"""Rows of a step: its columns stay in cache between the product and the norm, and float32 sums stay short."""


def partial_products(F: np.ndarray, X: np.ndarray) -> np.ndarray:
    """F'x and x'x of every column x of X: float64 (k+1, B).

    ``F`` (r, k) = [X_L~ | y~] and ``X`` (r, B), Fortran order, of the same precision. Rows 0..k-2 of the result are
    S_BL, row k-1 is b_B, row k is S_BR, each summed over these r rows only ([Elem] Algorithm 3, lines 9-11).
    """
    k, B = F.shape[1], X.shape[1]
    total = np.zeros((k + 1, B))
    for start in range(0, X.shape[0], ROWS):
        X_part = X[start : start + ROWS]
        total[:k] += F[start : start + ROWS].T @ X_part
        total[k] += np.einsum("ij,ij->j", X_part, X_part)
    return total
