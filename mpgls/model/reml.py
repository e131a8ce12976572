"""Restricted maximum likelihood for h2 with few factorisations.

Each evaluation of the profile REML log-likelihood l(h2) costs one Cholesky factorisation of V = h2 Phi + (1-h2) I,
so the search squeezes every evaluation. Write l = rho - 1/2 psi with psi = log|V|. Once the factor is there, rho and
its derivative are exact at the price of two triangular solves (``reml_point``); psi comes without a derivative, but its
shape is known: with the eigenvalues lam_i of Phi,

    psi(h2) = sum_i log((1-h2) + h2 lam_i).

The residual sum of squares has the same structure, sum_i z_i^2 / ((1-h2) + h2 lam_i). ``_Surrogate`` therefore fits both
by non-negative weights on a fixed grid of eigenvalues, corrects the fit near the optimum by polynomials through the
float64 evaluations, and proposes its own maximum as the next point. It models the whole range of h2, so a second maximum
is seen, not only the slope at hand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from mpgls.errors import NumericalError
from mpgls.model.gls import NullSums, profile_reml

UPPER = 1.0 - 1e-6
"""Largest h2: V = Phi itself may be singular."""

SPREAD = (0.2, 0.5, 0.8)
"""First coarse evaluations, beside the free one at h2 = 0."""


LOCAL = 0.7
"""Distance in log(h2/(1-h2)) within which a polynomial may speak for the curve."""

WINDOW = 15
"""The same distance in cells of the surrogate's grid."""


@dataclass(frozen=True)
class RemlPoint:
    """One evaluation at an h2: l, psi = log|V|, and the derivative of rho = l + psi/2 with respect to h2.

    ``slope`` may be NaN where the derivative is not known. ``log_likelihood`` -inf says that the Cholesky
    factorisation failed; the other two are then not read.
    """

    log_likelihood: float
    log_det: float = float("nan")
    slope: float = float("nan")


FAILED = RemlPoint(float("-inf"))
"""What an evaluation returns when V is not positive definite in its precision."""


@dataclass(frozen=True)
class RemlResult:
    """REML estimate of h2 and its standard error (from the curvature of l; NaN where l is not concave).

    ``log_likelihood`` is the float64 value at ``h2``; ``evaluations_*`` count the factorisations in float32 and
    float64 (the evaluation at h2 = 0 needs none and is not counted). The last float64 evaluation was at ``h2``
    unless h2 = 0. ``at_boundary``: h2 is 0 or the upper end.
    """

    h2: float
    h2_se: float
    log_likelihood: float
    evaluations_single: int
    evaluations_double: int
    at_boundary: bool


def reml_point(sums: NullSums, slope_gram: np.ndarray) -> RemlPoint:
    """The evaluation for ``maximise_reml`` from the whitened sums at one h2.

    ``slope_gram`` (q+1, q+1) = U'(Phi - I)U with U = V^-1 [X_L | y]; away from h2 = 0 it is
    ``slope_gram(h2, S, U'U)``. By the envelope theorem only V depends on h2: with beta the GLS estimate and c = [-beta; 1]

        d rss/dh2 = -c' slope_gram c,    d log|S_TL|/dh2 = -trace(S_TL^-1 slope_gram_LL).

    Raises NumericalError as ``gls.profile_reml`` does.
    """
    log_likelihood = profile_reml(sums)
    q = len(sums.b_T)
    solved = np.linalg.solve(sums.S_TL, np.column_stack([sums.b_T, slope_gram[:q, :q]]))
    contrast = np.append(-solved[:, 0], 1.0)
    rss = sums.yy - sums.b_T @ solved[:, 0]
    slope = 0.5 * ((sums.n - q) * (contrast @ slope_gram @ contrast) / rss + np.trace(solved[:, 1:]))
    return RemlPoint(log_likelihood, float(sums.log_det), float(slope))


def slope_gram(h2: float, whitened_gram: np.ndarray, inverse_gram: np.ndarray) -> np.ndarray:
    """U'(Phi - I)U (q+1, q+1) for U = V^-1 [X_L | y] and h2 > 0, without another product with Phi.

    ``whitened_gram`` = [X_L | y]'V^-1[X_L | y] (of the whitened columns L^-1 [X_L | y]), ``inverse_gram`` = U'U
    (of the columns L^-T L^-1 [X_L | y]). Since Phi - I = (V - I)/h2 the answer is their difference over h2. At
    h2 = 0, U = [X_L | y] and the product with Phi has to be formed.
    """
    return (whitened_gram - inverse_gram) / h2


def maximise_reml(
    coarse: Callable[[float], RemlPoint],
    fine: Callable[[float], RemlPoint],
    *,
    n: int,
    log_det_slope_at_zero: float = 0.0,
    tolerance: float = 6e-8,
    coarse_noise: float = 3e-3,
    coarse_step: float = 0.03,
    max_coarse: int = 8,
    max_fine: int = 20,
) -> RemlResult:
    """Maximise the profile REML log-likelihood over h2 in [0, 1 - 1e-6].

    ``coarse(h2)`` is a float32 evaluation, ``fine(h2)`` the float64 one; both return a RemlPoint (``FAILED`` when
    Cholesky fails). ``fine(0.0)`` is called once at the start: V = I there, so it needs no factorisation. ``n`` is
    the number of samples; ``log_det_slope_at_zero`` = trace(Phi) - n, 0 for Phi scaled to mean diagonal 1.
    ``coarse_noise`` is the absolute error to expect of a coarse log|V|. Coarse evaluations go on until the
    proposed step is below ``coarse_step``, fine ones until it is below ``tolerance`` (in h2).

    Raises NumericalError when V is not positive definite at the optimum or the search does not settle.
    """
    search = _Search(coarse, fine, _Surrogate(n, log_det_slope_at_zero, coarse_noise))
    search.evaluate_fine(0.0)
    for h2 in SPREAD:
        search.evaluate_coarse(h2)
    while search.singles < max_coarse:
        proposal = search.propose()
        if proposal == 0.0 or proposal >= search.coarse_limit or search.coarse_gap(proposal) < coarse_step:
            break
        search.evaluate_coarse(proposal)
    while search.doubles < max_fine:
        proposal = search.propose()
        if abs(proposal - search.last) <= tolerance:
            return search.result()
        if search.singles < max_coarse and search.is_unexplored(proposal):
            search.evaluate_coarse(proposal)
        else:
            search.evaluate_fine(proposal)
    raise NumericalError(f"The REML search for h2 did not settle; its last value was {search.last:.6g}.")


@dataclass
class _Search:
    """The evaluations made so far, and what they forbid."""

    coarse: Callable[[float], RemlPoint]
    fine: Callable[[float], RemlPoint]
    curve: _Surrogate
    singles: int = 0
    doubles: int = 0
    last: float = 0.0  # where the last float64 evaluation was
    coarse_limit: float = 1.0  # the lowest h2 at which float32 failed
    limit: float = UPPER  # the highest h2 that may be proposed
    fine_values: dict[float, float] = field(default_factory=dict)
    coarse_at: list[float] = field(default_factory=list)

    def evaluate_coarse(self, h2: float) -> None:
        if h2 >= self.coarse_limit:
            return
        self.singles += 1
        point = self.coarse(h2)
        if np.isfinite(point.log_likelihood):
            self.coarse_at.append(h2)
            self.curve.add(h2, point, exact=False)
        else:
            self.coarse_limit = h2

    def evaluate_fine(self, h2: float) -> None:
        """Evaluate in float64; where V is not positive definite, go half of the way back."""
        self.doubles += h2 > 0.0
        point = self.fine(h2)
        if np.isfinite(point.log_likelihood):
            self.last = h2
            self.fine_values[h2] = point.log_likelihood
            self.curve.add(h2, point, exact=True)
            return
        below = max((x for x in [*self.coarse_at, *self.fine_values] if x < h2), default=0.0)
        if h2 - below < 1e-3 * (1.0 - h2) + 1e-9:
            raise NumericalError(
                f"The kinship matrix is not positive semidefinite: the covariance at h2 = {h2:.6g}, near the REML "
                "optimum, has no Cholesky factor."
            )
        self.limit = 0.5 * (below + h2)

    def propose(self) -> float:
        return self.curve.argmax(self.limit, near=self.last if self.doubles else None)

    def coarse_gap(self, h2: float) -> float:
        return min((abs(h2 - x) for x in self.coarse_at), default=np.inf)

    def is_unexplored(self, h2: float) -> bool:
        """Whether h2 is worth a float32 look before a float64 one: far from every evaluation."""
        if not 0.0 < h2 < self.coarse_limit:
            return False
        at = np.array([x for x in [*self.coarse_at, *self.fine_values] if x > 0])
        return bool(np.all(np.abs(_logit(at) - _logit(h2)) > LOCAL))

    def result(self) -> RemlResult:
        curvature = self.curve.curvature(self.last)
        return RemlResult(
            h2=self.last,
            h2_se=float(1.0 / np.sqrt(curvature)) if curvature > 0 else float("nan"),
            log_likelihood=self.fine_values[self.last],
            evaluations_single=self.singles,
            evaluations_double=self.doubles,
            at_boundary=self.last == 0.0 or self.last >= UPPER,
        )


class _Surrogate:
    """A smooth model of l through all evaluations so far.

    Globally, psi = sum_k m_k log d_k and exp(-2 rho / n) = sum_k w_k / d_k up to a constant, with
    d_k = (1-h2) + h2 node_k and m, w >= 0. (rho also holds log|S_TL|, a small part that bends the second form by q/n.)
    Near the last float64 evaluation, polynomials take up what is left of psi and of rho'.
    """

    def __init__(self, n: int, slope_at_zero: float, coarse_noise: float) -> None:
        self.n, self.slope_at_zero, self.coarse_noise = n, slope_at_zero, coarse_noise
        self.nodes = np.logspace(-7, 5, 121)  # closer than the width of one term in log(node)
        self.grid = np.concatenate([[0.0], 1.0 / (1.0 + np.exp(-np.linspace(-9.0, 13.8, 500))), [UPPER]])
        self.h2, self.psi, self.rho = np.empty(0), np.empty(0), np.empty(0)
        self.rho_slope, self.exact = np.empty(0), np.empty(0, dtype=bool)
        self.log_det_weights = self.rss_weights = np.empty(0)
        self.correction = _Correction()

    def add(self, h2: float, point: RemlPoint, exact: bool) -> None:
        self.h2 = np.append(self.h2, h2)
        self.psi = np.append(self.psi, point.log_det)
        self.rho = np.append(self.rho, point.log_likelihood + 0.5 * point.log_det)
        self.rho_slope = np.append(self.rho_slope, point.slope)
        self.exact = np.append(self.exact, exact)

    def argmax(self, limit: float, near: float | None) -> float:
        """Where the model is largest on [0, limit]; another hill than that of ``near`` only if clearly higher."""
        self._fit()
        grid = np.append(self.grid[self.grid < limit], limit)
        order = np.argsort(self.h2, kind="stable")
        rest = self.rho - 0.5 * self.psi - self._value(self.h2)
        value = self._value(grid) + np.interp(grid, self.h2[order], rest[order])
        top = int(np.argmax(value))
        if near is not None and near > 0:
            hill = _climb(value, int(np.argmin(np.abs(grid - near))))
            if value[top] - value[hill] < 10.0 * self.coarse_noise:
                top = hill
        return self._stationary(grid, top)

    def curvature(self, h2: float) -> float:
        """-l'' of the model."""
        step = 1e-4 * max(min(h2, 1.0 - h2), 1e-6)
        ends = np.array([max(h2 - step, 0.0), h2 + step])
        below, above = self._slope(ends)
        return float((below - above) / (ends[1] - ends[0]))

    def _stationary(self, grid: np.ndarray, k: int) -> float:
        """The zero of l' that falls from + to - nearest to grid[k]; without one near, a point uphill of it."""
        slope = self._slope(grid)
        first, last = max(k - WINDOW, 0), min(k + WINDOW, grid.size - 1)
        falls = first + np.flatnonzero((slope[first:last] > 0) & (slope[first + 1 : last + 1] <= 0))
        if falls.size == 0:
            return float(grid[last] if slope[k] > 0 else grid[first])
        i = int(falls[np.argmin(np.abs(falls + 0.5 - k))])
        low, high = grid[i], grid[i + 1]
        while high - low > 1e-12:
            points = np.linspace(low, high, 33)
            j = int(np.argmax(self._slope(points) <= 0))
            low, high = points[max(j - 1, 0)], points[max(j, 1)]
        return float(0.5 * (low + high))

    def _denominators(self, h2: np.ndarray) -> np.ndarray:
        return (1.0 - h2)[:, None] + h2[:, None] * self.nodes

    def _value(self, h2: np.ndarray) -> np.ndarray:
        d = self._denominators(h2)
        return -0.5 * (self.n * np.log((1.0 / d) @ self.rss_weights) + np.log(d) @ self.log_det_weights)

    def _global_rho_slope(self, d: np.ndarray) -> np.ndarray:
        return 0.5 * self.n * (((self.nodes - 1.0) / d**2) @ self.rss_weights) / ((1.0 / d) @ self.rss_weights)

    def _slope(self, h2: np.ndarray) -> np.ndarray:
        d = self._denominators(h2)
        psi_slope = ((self.nodes - 1.0) / d) @ self.log_det_weights
        return self._global_rho_slope(d) - 0.5 * psi_slope + self.correction.slope(h2)

    def _fit(self) -> None:
        d = self._denominators(self.h2)
        noise = np.where(self.exact, 0.1, 1.0) * self.coarse_noise
        self._fit_log_det(d, noise)
        self._fit_rss(d, noise)
        fine = self.exact & (self.h2 > 0)
        self.correction = _Correction()
        if fine.any():
            psi_rest = self.psi - np.log(d) @ self.log_det_weights
            slope_rest = self.rho_slope - self._global_rho_slope(d)
            self.correction.fit(self.h2[fine], psi_rest[fine], slope_rest[fine], 1e-15 * self.n / self.coarse_noise)

    def _fit_log_det(self, d: np.ndarray, noise: np.ndarray) -> None:
        """Weights m from psi at the points, psi'(0), and the number of eigenvalues."""
        rows = np.vstack([np.log(d), self.nodes - 1.0, np.ones_like(self.nodes)])
        target = np.concatenate([self.psi, [self.slope_at_zero, self.n]])
        tight = np.full(2, 1e-3 * np.sqrt(self.n))
        self.log_det_weights = self._positive(rows, target, np.concatenate([noise, tight]))

    def _fit_rss(self, d: np.ndarray, noise: np.ndarray) -> None:
        """Weights w from exp(-2 rho / n), scaled to 1 at the first point, and its derivative."""
        known = np.isfinite(self.rho_slope)
        value = np.exp(-2.0 * (self.rho - self.rho[0]) / self.n)
        slope = -2.0 / self.n * value * self.rho_slope
        value_noise = 2.0 / self.n * value * noise
        slope_noise = value_noise / np.minimum(1.0 - self.h2, np.maximum(self.h2, 0.01))
        rows = np.vstack([1.0 / d, ((1.0 - self.nodes) / d**2)[known]])
        target = np.concatenate([value, slope[known]])
        self.rss_weights = self._positive(rows, target, np.concatenate([value_noise, slope_noise[known]]))

    def _positive(self, rows: np.ndarray, target: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Non-negative least squares, slightly drawn to zero; large eigenvalues are few."""
        from scipy.optimize import nnls

        size = max(float(np.abs(target).max()), 1.0) / (1.0 + self.nodes)
        design = np.vstack([rows * size / noise[:, None], 0.1 * np.eye(self.nodes.size)])
        right = np.concatenate([target / noise, np.zeros(self.nodes.size)])
        return size * nnls(design, right, maxiter=30 * self.nodes.size)[0]


class _Correction:
    """What the global model misses of l' near the last float64 evaluation: polynomials in x = (h2 - centre) / scale."""

    DEGREE = 4

    def __init__(self) -> None:
        self.centre, self.scale, self.low, self.high = 0.0, 1.0, 0.0, 0.0
        self.coefficients = np.zeros(1)

    def fit(self, h2: np.ndarray, psi_rest: np.ndarray, slope_rest: np.ndarray, rounding: float) -> None:
        """Residuals of psi and rho' at the float64 points, the last of which is the centre.

        ``rounding`` is the error of psi_rest relative to its size: where the points lie too close for their
        differences to mean anything, the polynomial stays flat.
        """
        near = np.abs(_logit(h2) - _logit(h2[-1])) < LOCAL
        self.centre, self.scale = h2[-1], 0.3 * min(h2[-1], 1.0 - h2[-1])
        x = (h2[near] - self.centre) / self.scale
        self.low, self.high = 2.0 * x.min() - x.max(), 2.0 * x.max() - x.min()
        powers = np.vander(x, self.DEGREE + 1, increasing=True)
        psi = np.polynomial.polynomial.polyder(_flat_fit(powers, psi_rest[near], rounding)) / self.scale
        known = np.isfinite(slope_rest[near])
        rho_slope = _flat_fit(powers[known], slope_rest[near][known], 1e-11)
        self.coefficients = np.polynomial.polynomial.polysub(rho_slope, 0.5 * psi)

    def slope(self, h2: np.ndarray) -> np.ndarray:
        x = np.clip((h2 - self.centre) / self.scale, self.low, self.high)
        return np.polynomial.polynomial.polyval(x, self.coefficients)


def _flat_fit(powers: np.ndarray, target: np.ndarray, penalty: float) -> np.ndarray:
    """Coefficients through the targets, all but the constant held small by ``penalty``."""
    hold = penalty * np.eye(powers.shape[1])[1:]
    right = np.concatenate([target, np.zeros(hold.shape[0])])
    return np.linalg.lstsq(np.vstack([powers, hold]), right, rcond=None)[0]


def _climb(value: np.ndarray, k: int) -> int:
    """The local maximum of ``value`` uphill of index k."""
    while True:
        neighbours = range(max(k - 1, 0), min(k + 2, value.size))
        best = max(neighbours, key=lambda i: value[i])
        if value[best] <= value[k]:
            return k
        k = best


def _logit(h2: np.ndarray | float) -> np.ndarray:
    return np.log(h2) - np.log1p(-np.asarray(h2))
