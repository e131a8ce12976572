"""A few values of h2 that stand for all of them: the quadratic forms x'P(h2)x of many traits from those at nodes.

With U an orthonormal basis of the complement of the covariates and mu_k the eigenvalues of U'Phi U (between the
smallest and the largest eigenvalue of Phi), every such form is a positive combination of one family of functions:

    x'P(h2)x = sum_k c_k f(mu_k, h2),   c_k >= 0,   f(mu, h2) = 1 / v(h2, mu),   v(h2, mu) = h2 mu + 1 - h2.

What reproduces f to a relative error for all mu reproduces the form to that relative error. f is a Cauchy kernel, so
interpolation in h2 at nodes h_1..h_r and in mu at points mu_1..mu_r has a closed form and a known error:

    f(mu, h2) = sum_k B_k(h2) f(mu, h_k) + f(mu, h2) a(h2) b(mu),
    a(h2) = prod_i (h2 - h_i) / v(h2, mu_i),   b(mu) = prod_i (mu_i - mu) / v(h_i, mu),
    B_k(h2) = v(h_k, mu_k) / v(h2, mu_k)  prod_(i != k)  (h2 - h_i) v(h_k, mu_i) / ((h_k - h_i) v(h2, mu_i)).

The next node is where |a| is largest among the h2 at hand, the next point where |b| is: Gaussian elimination with
complete pivoting on f (Demmel, SIAM J. Matrix Anal. Appl. 21, 2000; Leja-Bagby points of rational interpolation).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

TOLERANCE = {"double": 1e-11, "mixed": 1e-7, "exact": 1e-11}
"""Relative error allowed to the quadratic forms, by precision."""

MAX_NODES = 200
_POINTS = 1000
_CHECKED = 512
_TINY = 1e-30
"""What an h2 that is a node is moved by, so that no factor of its coefficients is 0."""


@dataclass(frozen=True)
class H2Basis:
    """Nodes (r,), a subset of the h2 given, and B (r, t): a form at h2_j is its values at the nodes times B[:, j].

    ``error`` is the largest relative error of f on a grid of mu twice as fine as the one that chose the points, over
    all distinct h2 or, of more than a thousand, over those of largest predicted error and an even sample.
    """

    nodes: np.ndarray
    B: np.ndarray
    error: float


@dataclass(frozen=True, eq=False)
class Interpolation:
    """Nodes (r,) ascending for every h2 between the first and the last of them, not only for those of some traits.

    ``points`` (r,) are the eigenvalues between them, ``weights`` (r,) what of B_k does not depend on h2, ``error`` as
    in `H2Basis`, over evenly chosen candidates.
    """

    nodes: np.ndarray
    points: np.ndarray
    weights: np.ndarray
    error: float

    @classmethod
    def over(cls, h2: np.ndarray, lam_min: float, lam_max: float, tolerance: float) -> Interpolation:
        """Nodes among the candidates ``h2`` for eigenvalues from ``lam_min`` to ``lam_max``; see `h2_basis`."""
        nodes, points, _ = _choose(h2, _eigenvalue_grid(h2, lam_min, lam_max, _POINTS), tolerance)
        nodes, points = np.sort(nodes), np.sort(points)
        at_node = variance(nodes[:, None], points)  # v(h_k, mu_i)
        apart = nodes[:, None] - nodes
        np.fill_diagonal(apart, 1.0)
        weights = np.prod(at_node, axis=1) / np.prod(apart, axis=1)
        exact = cls(nodes, points, weights, 0.0)
        few = h2[np.linspace(0, h2.size - 1, min(h2.size, _CHECKED)).astype(np.int64)]
        fine = _eigenvalue_grid(h2, lam_min, lam_max, 2 * _POINTS + 1)
        return dataclasses.replace(exact, error=_measured_error(few, nodes, exact.coefficients(few)[0], fine))

    def coefficients(self, h2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """B (r, k) for ``h2`` (k,), and dB/dh2.

        With the nearest node apart, no term of the derivative is the difference of two large ones.
        """
        apart = h2 - self.nodes[:, None]
        apart[apart == 0.0] = _TINY
        at_h2 = variance(h2, self.points[:, None])
        inverse = 1.0 / apart
        B = np.prod(apart / at_h2, axis=0) * inverse * self.weights[:, None]
        nearest, each = np.argmin(np.abs(apart), axis=0), np.arange(h2.size)
        largest = inverse[nearest, each]
        inverse[nearest, each] = 0.0
        rest = inverse.sum(axis=0) - np.sum((self.points[:, None] - 1.0) / at_h2, axis=0)
        growth = rest + largest - inverse
        growth[nearest, each] = rest
        return B, B * growth


def h2_basis(h2: ArrayLike, lam_min: float, lam_max: float, tolerance: float) -> H2Basis:
    """Nodes and coefficients for the traits' ``h2`` (t,), for eigenvalues from ``lam_min`` to ``lam_max``.

    Adds nodes until the relative error is at most ``tolerance``. With few distinct h2 these are the nodes, and B
    picks. Raises ValueError where h2 lam + 1 - h2 is not positive, for an h2 outside [0, 1], and for no h2 at all.
    """
    h2 = np.asarray(h2, dtype=np.float64)
    if h2.ndim != 1 or h2.size == 0 or not (np.all(h2 >= 0) and np.all(h2 <= 1)):
        raise ValueError("h2 must be a non-empty vector of values between 0 and 1")
    if not lam_min <= lam_max < np.inf or not np.all(h2 * lam_min + (1.0 - h2) > 0):
        raise ValueError(f"eigenvalues from {lam_min} to {lam_max} do not give positive variances at every h2")
    distinct, position = np.unique(h2, return_inverse=True)
    nodes, points, log_a = _choose(distinct, _eigenvalue_grid(distinct, lam_min, lam_max, _POINTS), tolerance)
    B = _coefficients(distinct, nodes, points)
    checked = _to_check(log_a)
    fine = _eigenvalue_grid(distinct, lam_min, lam_max, 2 * _POINTS + 1)
    error = _measured_error(distinct[checked], nodes, B[:, checked], fine)
    return H2Basis(nodes, B[:, position], error)


def variance(h2: ArrayLike, mu: np.ndarray) -> np.ndarray:
    """v(h2, mu) = h2 mu + (1 - h2), in the order that keeps all digits of a v near 0."""
    h2 = np.asarray(h2)
    return h2 * mu + (1.0 - h2)


def _eigenvalue_grid(h2: np.ndarray, lam_min: float, lam_max: float, count: int) -> np.ndarray:
    """From lam_min to lam_max, even in the logarithm of v at the largest h2: f changes on no finer scale."""
    top = float(h2.max())
    if top == 0.0 or lam_min == lam_max:
        return np.array([lam_min, lam_max])
    low, high = (top * lam + (1.0 - top) for lam in (lam_min, lam_max))
    grid = (np.geomspace(low, high, count) - (1.0 - top)) / top
    grid[0], grid[-1] = lam_min, lam_max
    return np.clip(grid, lam_min, lam_max)


def _choose(h2: np.ndarray, mu: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes and points, one pair at a time, until max |a| max |b| is at most the tolerance; and log |a|."""
    log_a, log_b = np.zeros(h2.size), np.zeros(mu.size)
    nodes: list[float] = []
    points: list[float] = []
    while len(nodes) < min(h2.size, MAX_NODES):
        node, point = h2[np.argmax(log_a)], mu[np.argmax(log_b)]
        nodes.append(float(node))
        points.append(float(point))
        with np.errstate(divide="ignore"):
            log_a += np.log(np.abs(h2 - node)) - np.log(variance(h2, point))
            log_b += np.log(np.abs(point - mu)) - np.log(variance(node, mu))
        if log_a.max() + log_b.max() <= np.log(tolerance):
            break
    return np.array(nodes), np.array(points), log_a


def _coefficients(h2: np.ndarray, nodes: np.ndarray, points: np.ndarray) -> np.ndarray:
    """B (r, t) by the products above: no system is solved, and every factor is right to rounding."""
    at_node = variance(nodes[:, None], points)  # v(h_k, mu_i)
    at_h2 = variance(h2[:, None], points)  # v(h2_j, mu_i)
    B = at_node.diagonal()[:, None] / at_h2.T
    for i, node in enumerate(nodes):
        others = np.arange(nodes.size) != i
        step = (h2 - node) / at_h2[:, i]
        B[others] *= (at_node[others, i] / (nodes[others] - node))[:, None] * step
    return B + 0.0  # no negative zeros


def _to_check(log_a: np.ndarray) -> np.ndarray:
    """All of few traits; else those of largest |a| (the error of a trait is |a| times b(mu)) and as many evenly."""
    if log_a.size <= 2 * _CHECKED:
        return np.arange(log_a.size)
    even = np.linspace(0, log_a.size - 1, _CHECKED).astype(np.int64)
    return np.union1d(even, np.argpartition(log_a, -_CHECKED)[-_CHECKED:])


def _measured_error(h2: np.ndarray, nodes: np.ndarray, B: np.ndarray, mu: np.ndarray) -> float:
    at_nodes = 1.0 / variance(nodes, mu[:, None])
    relative = at_nodes @ B
    relative *= variance(h2, mu[:, None])
    return float(np.max(np.abs(relative - 1.0)))
