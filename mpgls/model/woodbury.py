"""A low-rank covariance through K x K matrices only: neither an n x n matrix nor the SVD of G.

With G (n, K) and V = h2 G G'/s + (1-h2) I, let w = h2 / ((1-h2) s) and

    L L' = I + w G'G,    a~ = sqrt(w) L^-1 G'a,    u_a = L^-T a~.

Then (Woodbury; Sylvester's determinant theorem)

    a'V^-1 b = (a'b - a~'b~) / (1-h2)
    a'V^-2 b = (a'b - a~'b~ - u_a'u_b) / (1-h2)^2
    a'V^-3 b = (a'b - a~'b~ - u_a'u_b - u_a'(LL')^-1 u_b) / (1-h2)^3
    log|V|   = n log(1-h2) + log|L L'|

[Ludicrous] reaches the same numbers through U of the SVD G = U S W'. The difference a'b - a~'b~ loses the digits that
1/(1-h2) gains, no more: V's smallest eigenvalue is 1-h2.
"""

from __future__ import annotations

import math

import numpy as np

from mpgls.model.gls import NullSums


def kernel_weight(h2: float, scale: float) -> float:
    """w = h2 / ((1-h2) s) for h2 in [0, 1) and the mean diagonal s of G G'."""
    return h2 / ((1.0 - h2) * scale)


def inner_products(h2: float, direct: np.ndarray, through_G: np.ndarray) -> np.ndarray:
    """a'V^-1 b from ``direct`` = a'b and ``through_G`` = a~'b~, of any one shape."""
    return (direct - through_G) / (1.0 - h2)


def inverse_power(h2: float, direct: np.ndarray, *through_G: np.ndarray) -> np.ndarray:
    """a'V^-k b from ``direct`` = a'b and the k products ``through_G``: a~'b~, u_a'u_b, u_a'(LL')^-1 u_b."""
    return (direct - sum(through_G)) / (1.0 - h2) ** len(through_G)


def null_sums(
    h2: float, n: int, direct: np.ndarray, through_G: np.ndarray, log_det: float, log_det_xtx: float
) -> NullSums:
    """The whitened sums of F = [X_L | y] from F'F and F~'F~ (q+1, q+1) and log|L L'|."""
    gram = inner_products(h2, direct, through_G)
    log_det_V = n * math.log1p(-h2) + log_det
    return NullSums(gram[:-1, :-1], gram[:-1, -1], float(gram[-1, -1]), log_det_V, n, log_det_xtx)
