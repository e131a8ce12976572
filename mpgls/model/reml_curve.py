"""A model of the profile REML log-likelihood l(h2) from a handful of evaluations.

Write l = rho - 1/2 psi with psi = log|V|, V = h2 Phi + (1-h2) I. Given a factor of V, rho and its derivative are exact
at the price of two triangular solves; psi comes without a derivative, but its shape is known: with the eigenvalues
lam_i of Phi,

    psi(h2) = sum_i log((1-h2) + h2 lam_i).

The residual sum of squares has the same structure, sum_i z_i^2 / ((1-h2) + h2 lam_i). ``LikelihoodCurve`` therefore
fits both by non-negative weights on a fixed grid of eigenvalues and corrects the fit near the optimum by polynomials
through the float64 evaluations. It models the whole range of h2, so a second maximum is seen, not only the slope at
hand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

UPPER = 1.0 - 1e-6
"""Largest h2: V = Phi itself may be singular."""

LOCAL = 0.7
"""Distance in log(h2/(1-h2)) within which a polynomial may speak for the curve."""

CLOSE = 1e-3
"""Evaluations nearer to the last one, in units of its polynomials, differ from it by rounding."""

EXACT = 1e-4
"""Error of a float64 evaluation, as a share of that of a float32 one."""

WINDOW = 15
"""The same distance in cells of the surrogate's grid."""


@dataclass(frozen=True)
class RemlPoint:
    """One evaluation at an h2: l, psi = log|V|, and two derivatives of rho = l + psi/2 with respect to h2.

    ``slope`` and ``curvature``, rho' and rho'', may be NaN where they are not known; ``log_det_curvature`` is psi'',
    known where V = I. ``log_likelihood`` -inf says that the Cholesky factorisation failed; the others are then not
    read.
    """

    log_likelihood: float
    log_det: float = float("nan")
    slope: float = float("nan")
    curvature: float = float("nan")
    log_det_curvature: float = float("nan")


class LikelihoodCurve:
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
        self.points: dict[float, RemlPoint] = {}
        self.log_det_weights = self.rss_weights = np.empty(0)
        self.correction = _Correction()

    def add(self, h2: float, point: RemlPoint, exact: bool) -> None:
        self.h2 = np.append(self.h2, h2)
        self.psi = np.append(self.psi, point.log_det)
        self.rho = np.append(self.rho, point.log_likelihood + 0.5 * point.log_det)
        self.rho_slope = np.append(self.rho_slope, point.slope)
        self.exact = np.append(self.exact, exact)
        if exact:
            self.points[h2] = point

    def argmax(self, limit: float, near: float | None) -> tuple[float, bool]:
        """Where the model is largest on [0, limit], and whether l' vanishes there (or points to the end there is).

        Another hill than that of ``near`` is taken only if it is clearly higher.
        """
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

    def information(self, h2: float) -> float:
        """-l'' where a float64 evaluation was: rho'' is that of the evaluation, psi'' of the model if V is not I."""
        point = self.points[h2]
        psi = point.log_det_curvature
        return 0.5 * (self._log_det_curvature(h2) if np.isnan(psi) else psi) - point.curvature

    def _log_det_curvature(self, h2: float) -> float:
        ratio = (self.nodes - 1.0) / self._denominators(np.array([h2]))[0]
        return float(self.correction.log_det_curvature(h2) - ratio**2 @ self.log_det_weights)

    def _stationary(self, grid: np.ndarray, k: int) -> tuple[float, bool]:
        """The zero of l' that falls from + to - nearest to grid[k] (or an end that l' points to), True.

        Without one near: a new point uphill of grid[k], False.
        """
        first, last = max(k - WINDOW, 0), min(k + WINDOW, grid.size - 1)
        slope = self._slope(grid[first : last + 1])
        if first == 0:
            slope[0] = self.slope_at_lower_end(slope[0])
        falls = first + np.flatnonzero((slope[:-1] > 0) & (slope[1:] <= 0))
        if falls.size == 0:
            end = last if slope[k - first] > 0 else first
            if (end == 0 and slope[0] <= 0) or (end == grid.size - 1 and slope[-1] > 0):
                return float(grid[end]), True
            between = range(end, k, -1 if end > k else 1)
            new = (i for i in between if not np.any(np.abs(self.h2 - grid[i]) < 1e-9))
            return float(grid[next(new, last)]), False
        i = int(falls[np.argmin(np.abs(falls + 0.5 - k))])
        low, high = grid[i], grid[i + 1]
        while high - low > 1e-12:
            points = np.linspace(low, high, 33)
            j = int(np.argmax(self._slope(points) <= 0))
            low, high = points[max(j - 1, 0)], points[max(j, 1)]
        return float(0.5 * (low + high)), True

    def slope_at_lower_end(self, model: float) -> float:
        """l'(0), exact when the evaluation there gave the derivative of rho."""
        start = np.flatnonzero(self.h2 == 0.0)
        if start.size == 0 or not np.isfinite(self.rho_slope[start[0]]):
            return model
        return float(self.rho_slope[start[0]] - 0.5 * self.slope_at_zero)

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
        noise = np.where(self.exact, EXACT, 1.0) * self.coarse_noise
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
        self.coefficients = self.log_det = np.zeros(1)

    def fit(self, h2: np.ndarray, psi_rest: np.ndarray, slope_rest: np.ndarray, rounding: float) -> None:
        """Residuals of psi and rho' at the float64 points, the last of which is the centre.

        ``rounding`` is the error of psi_rest relative to its size: where the points lie too close for their
        differences to mean anything, the polynomial stays flat.
        """
        self.centre, self.scale = h2[-1], 0.3 * min(h2[-1] + 0.01, 1.0 - h2[-1])
        apart = np.abs(h2 - self.centre) / self.scale
        near = (np.abs(logit(h2) - logit(self.centre)) < LOCAL) & ((apart > CLOSE) | (apart == 0.0))
        x = (h2[near] - self.centre) / self.scale
        self.low, self.high = 2.0 * x.min() - x.max(), 2.0 * x.max() - x.min()
        powers = np.vander(x, self.DEGREE + 1, increasing=True)
        self.log_det = _flat_fit(powers, psi_rest[near], rounding)
        psi = np.polynomial.polynomial.polyder(self.log_det) / self.scale
        known = np.isfinite(slope_rest[near])
        rho_slope = _flat_fit(powers[known], slope_rest[near][known], 1e-11)
        self.coefficients = np.polynomial.polynomial.polysub(rho_slope, 0.5 * psi)

    def log_det_curvature(self, h2: float) -> float:
        x = (h2 - self.centre) / self.scale
        second = np.polynomial.polynomial.polyder(self.log_det, 2) / self.scale**2
        return float(np.polynomial.polynomial.polyval(x, second))

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


def logit(h2: np.ndarray | float) -> np.ndarray:
    """The scale on which l is smooth: log(h2 / (1-h2)), levelled off below h2 = 0.01."""
    return np.log(np.add(h2, 0.01)) - np.log1p(-np.asarray(h2))
