"""Restricted maximum likelihood for h2 of many traits at once, in the eigenbasis of the kinship.

In the basis of the eigenvectors Z, V(h2) = h2 Phi + (1-h2) I is diagonal: v_k = h2 lam_k + 1 - h2, w = 1/v. The
profile REML log-likelihood l and its slope come for all traits on a grid of h2 from a few matrix products; a cubic
through the two grid points around the maximum starts Newton's method on the exact slope and curvature:

    l   = -1/2 [(n-q) (log(2 pi rss/(n-q)) + 1) + log|V| + log|X_L'V^-1X_L|] + 1/2 log|X_L'X_L|
    l'  = -1/2 [tr(PD) - (n-q) y'PDPy / rss],                                          D = diag(lam - 1)
    l'' = -1/2 [-tr(PDPD) + (n-q) (2 y'PDPDPy / rss - (y'PDPy / rss)^2)],              rss = y'Py

(Patterson and Thompson, Biometrika 58, 1971; Kang et al., Genetics 178, 2008; constants as in ``gls.profile_reml``).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag

import numpy as np

from mpgls.errors import NumericalError
from mpgls.model.h2_basis import variance
from mpgls.model.h2_scale import H2Scale, cubic_top
from mpgls.model.reml_start import is_flat


class TraitFlag(IntFlag):
    """What is special about a trait; NO_VARIANCE and NOT_FINITE have no fit."""

    NONE = 0
    LOWER = 1
    UPPER = 2
    NO_VARIANCE = 4
    NOT_FINITE = 8
    UNIDENTIFIED = 16


TRAIT_FLAG_TEXT = {
    TraitFlag.LOWER: "h2 at 0",
    TraitFlag.UPPER: "h2 at the upper end",
    TraitFlag.NO_VARIANCE: "constant or explained by the covariates",
    TraitFlag.NOT_FINITE: "missing or infinite values",
    TraitFlag.UNIDENTIFIED: "h2 not identified",
}

NO_VARIANCE = 1e-22
"""A trait whose residual sum of squares is this share of its sum of squares, or less, has no variance left."""

_STEP = 0.25
"""Step of the grid in the logarithm of (h2 + a)/(1 - h2); every term of l is smooth on the scale 1."""

_ROWS = 1024
_CHUNK_BYTES = 48 << 20
_STRIP = 1 << 15
"""Elements of a strip of traits in the exact evaluation: its arrays stay in cache."""

_CLIPPED = 1e-9
_SETTLED = 1e-10
_MAX_STEPS = 60


@dataclass(frozen=True)
class SpectralReml:
    """REML estimates of t traits, each (t,): h2, its standard error, s2 = rss/(n-q), l at h2.

    ``h2_se`` = (-l'')^-1/2 is NaN where l is not concave, and at the upper end; ``at_boundary``: h2 is 0 or the upper
    end; ``flags`` uint8 of TraitFlag. All is NaN for a trait flagged NO_VARIANCE or NOT_FINITE, h2 and its error for
    one flagged UNIDENTIFIED, whose s2 and l are those of h2 = 0.
    """

    h2: np.ndarray
    h2_se: np.ndarray
    s2: np.ndarray
    log_likelihood: np.ndarray
    at_boundary: np.ndarray
    flags: np.ndarray


def clip_spectrum(lam: np.ndarray) -> np.ndarray:
    """Eigenvalues (n,) in float64, those that are negative by rounding only set to 0."""
    lam = np.asarray(lam, dtype=np.float64)
    return np.where((lam < 0) & (lam > -_CLIPPED * lam.max()), 0.0, lam)


def maximise_spectral_reml(
    lam: np.ndarray, X_L_tilde: np.ndarray, Y_tilde: np.ndarray, log_det_xtx: float
) -> SpectralReml:
    """Maximise the profile REML log-likelihood of every trait over h2 in [0, 1 - 1e-6].

    ``lam`` (n,) eigenvalues of Phi, ``X_L_tilde`` (n, q) = Z'X_L, ``Y_tilde`` (n, t) = Z'Y, ``log_det_xtx`` =
    log|X_L'X_L|. Fastest with Y_tilde in Fortran order. Temporary arrays stay below 64 MiB (for n up to a million).
    Raises NumericalError when no degree of freedom is left or the covariates are linearly dependent.
    """
    search = _Search(clip_spectrum(lam), X_L_tilde, log_det_xtx)
    n, t = Y_tilde.shape
    step = max(1, _CHUNK_BYTES // (8 * (4 * n + 6 * (1 + search.q) * search.grid.size)))
    parts = [search.run(Y_tilde[:, start : start + step]) for start in range(0, t, step)] or [search.run(Y_tilde)]
    return SpectralReml(*(np.concatenate([getattr(part, name) for part in parts]) for name in _FIELDS))


_FIELDS = ("h2", "h2_se", "s2", "log_likelihood", "at_boundary", "flags")


@dataclass(frozen=True)
class _Moments:
    """At one h2 a trait: rss, l' and l'' (c,)."""

    rss: np.ndarray
    slope: np.ndarray
    curvature: np.ndarray


class _Search:
    def __init__(self, lam: np.ndarray, X_L_tilde: np.ndarray, log_det_xtx: float) -> None:
        self.n, self.q = X_L_tilde.shape
        self.df = self.n - self.q
        if self.df < 1:
            raise NumericalError(f"{self.n} samples leave no degree of freedom for {self.q} covariates.")
        self.lam, self.D, self.log_det_xtx = lam, lam - 1.0, log_det_xtx
        # an orthonormal basis of the covariates: P and rss stay, |X_L'V^-1X_L| = |Q'V^-1Q| |X_L'X_L|
        self.Q = orthonormal(X_L_tilde)
        self.rows, self.columns = np.triu_indices(self.q)
        self.pairs = np.ascontiguousarray((self.Q[:, self.rows] * self.Q[:, self.columns]).T)
        self.flat = is_flat_spectrum(lam, self.Q)
        self.scale = H2Scale.of(lam)
        self.upper = self.scale.upper
        low, high = self.scale.coordinate(np.array([0.0, self.upper])).tolist()
        self.grid = np.linspace(low, high, int(np.ceil((high - low) / _STEP)) + 1)
        self.grid_h2 = self.scale.h2_at(self.grid)
        self.grid_h2[0], self.grid_h2[-1] = 0.0, self.upper
        self.grid_inverse, self.grid_slope_S, self.grid_trace = self._of_h2(self.grid_h2)

    def run(self, Y: np.ndarray) -> SpectralReml:
        E = np.array(Y.T, dtype=np.float64, order="C")  # (c, n): a trait is a row
        flags = np.zeros(len(E), dtype=np.uint8)
        total = np.einsum("ij,ij->i", E, E)
        flags[~np.isfinite(total)] = TraitFlag.NOT_FINITE
        E[~np.isfinite(total)] = 0.0
        E -= (E @ self.Q) @ self.Q.T
        left = np.einsum("ij,ij->i", E, E)
        flags[(flags == 0) & ~(left > NO_VARIANCE * total)] = TraitFlag.NO_VARIANCE
        fitted = np.flatnonzero(flags == 0)
        h2, h2_se, s2, log_likelihood = np.full((4, len(E)), np.nan)
        result = SpectralReml(h2, h2_se, s2, log_likelihood, np.zeros(len(E), dtype=bool), flags)
        if fitted.size:
            self._fit(E[fitted] / np.sqrt(left[fitted])[:, None], left[fitted], fitted, result)
        return result

    def _fit(self, E: np.ndarray, scale: np.ndarray, where: np.ndarray, result: SpectralReml) -> None:
        """Estimates of the residuals E (c, n), each of norm 1 and times sqrt(scale), into rows ``where``."""
        if self.flat:
            h2 = np.zeros(len(E))
            moments = _Moments(np.ones(len(E)), h2, h2)  # V = I, and the residuals have norm 1
        else:
            h2, moments = self._refine(E, *self._start(E))
        rss = moments.rss * scale
        log_det = self._log_det(h2)
        result.h2[where], result.s2[where] = h2, rss / self.df
        result.log_likelihood[where] = -0.5 * (
            self.df * (np.log(2.0 * np.pi * rss / self.df) + 1.0) + log_det - self.log_det_xtx
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            concave = (moments.curvature < 0) & (h2 < self.upper)
            result.h2_se[where] = np.where(concave, 1.0 / np.sqrt(-moments.curvature), np.nan)
        if self.flat:
            result.h2[where], result.flags[where] = np.nan, TraitFlag.UNIDENTIFIED
            return
        result.at_boundary[where] = (h2 == 0.0) | (h2 == self.upper)
        result.flags[where] = np.where(h2 == 0.0, TraitFlag.LOWER, np.where(h2 == self.upper, TraitFlag.UPPER, 0))

    def _start(self, E: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A start and its bracket (c,): the largest maximum among the grid's ends and cubics between its points."""
        value, slope = self._grid_likelihood(E)
        width = self.grid[1] - self.grid[0]
        stretch = self.scale.stretch(self.grid_h2)
        f0, f1 = value[:, :-1], value[:, 1:]
        g0, g1 = ((slope * stretch * width)[:, part] for part in (slice(None, -1), slice(1, None)))
        # f0 + g0 u + b u^2 + a u^3, u in [0, 1]
        a, b = g0 + g1 - 2.0 * (f1 - f0), 3.0 * (f1 - f0) - 2.0 * g0 - g1
        u = cubic_top(f0, f1, g0, g1)
        top = np.where((g0 > 0) & (g1 < 0), f0 + u * (g0 + u * (b + u * a)), -np.inf)
        best = np.argmax(top, axis=1)
        each = np.arange(len(E))
        start = self.scale.h2_at(self.grid[best] + width * u[each, best])
        low, high = self.grid_h2[best], self.grid_h2[best + 1]
        highest = top[each, best]
        for end, rises in ((0, slope[:, 0] > 0), (-1, slope[:, -1] < 0)):
            at_end = ~rises & (value[:, end] >= highest)
            start[at_end] = low[at_end] = high[at_end] = self.grid_h2[end]
            highest[at_end] = value[at_end, end]
        # no end and no change of sign on the grid: the best grid point and its neighbours
        peak = np.argmax(value, axis=1)
        lost = ~np.isfinite(highest)
        start[lost] = self.grid_h2[peak[lost]]
        low[lost] = self.grid_h2[np.maximum(peak[lost] - 1, 0)]
        high[lost] = self.grid_h2[np.minimum(peak[lost] + 1, self.grid.size - 1)]
        return np.clip(start, low, high), low, high

    def _grid_likelihood(self, E: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """l but for constants of the trait, and its slope, (c, g), by matrix products over blocks of samples."""
        c, g, q = len(E), self.grid.size, self.q
        squares, products = np.zeros((c, 2 * g)), np.zeros((q, c, 2 * g))
        for start in range(0, self.n, _ROWS):
            block = slice(start, start + _ROWS)
            part = E[:, block]
            W = 1.0 / variance(self.grid_h2, self.lam[block, None])
            both = np.hstack([W, -self.D[block, None] * W * W])
            squares += np.square(part) @ both
            for k in range(q):
                products[k] += part @ (self.Q[block, k, None] * both)
        b, b_slope = (np.moveaxis(products[:, :, half], 0, 2) for half in (slice(0, g), slice(g, None)))
        solved = np.einsum("gkl,cgl->cgk", self.grid_inverse, b)
        rss = squares[:, :g] - np.einsum("cgk,cgk->cg", b, solved)
        rss_slope = squares[:, g:] - np.einsum("cgk,cgk->cg", 2.0 * b_slope, solved)
        rss_slope += np.einsum("cgk,gkl,cgl->cg", solved, self.grid_slope_S, solved, optimize=True)
        rss = np.maximum(rss, np.finfo(float).tiny)
        value = -0.5 * (self.df * np.log(rss) + self._log_det(self.grid_h2))
        return value, -0.5 * (self.df * rss_slope / rss + self.grid_trace)

    def _of_h2(self, h2: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """S_TL^-1 and dS_TL/dh2 (g, q, q), and tr(PD) (g,), in the basis Q."""
        S, S_slope, trace = (np.empty((h2.size, *shape)) for shape in ((self.q, self.q), (self.q, self.q), ()))
        for j, one in enumerate(h2):
            W = 1.0 / variance(one, self.lam)
            S[j], S_slope[j] = (self._symmetric(self.pairs @ v) for v in (W, -self.D * W * W))
            trace[j] = self.D @ W
        inverse = self._inverse(S)
        return inverse, S_slope, trace + np.einsum("gkl,glk->g", inverse, S_slope)

    def _log_det(self, h2: np.ndarray) -> np.ndarray:
        """log|V| + log|Q'V^-1Q| + log|X_L'X_L| (c,)."""
        result = np.empty(h2.size)
        step = max(1, _STRIP // self.n)
        for start in range(0, h2.size, step):
            V = variance(h2[start : start + step, None], self.lam)
            S = self._symmetric((1.0 / V) @ self.pairs.T)
            np.log(V, out=V)
            result[start : start + step] = V.sum(axis=1) + np.linalg.slogdet(S)[1]
        return result + self.log_det_xtx

    def _refine(self, E: np.ndarray, h2: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, _Moments]:
        """Newton's method inside the shrinking bracket; bisection where a step leaves it or l is not concave."""
        moments = _Moments(*(np.empty(h2.size) for _ in range(3)))
        active = np.arange(h2.size)
        for _ in range(_MAX_STEPS):
            now = self._moments(E, active, h2[active])
            for name in ("rss", "slope", "curvature"):
                getattr(moments, name)[active] = getattr(now, name)
            rising = now.slope > 0
            low[active[rising]], high[active[~rising]] = h2[active[rising]], h2[active[~rising]]
            with np.errstate(divide="ignore", invalid="ignore"):
                proposal = h2[active] - now.slope / now.curvature
            newton = (now.curvature < 0) & (proposal >= low[active]) & (proposal <= high[active])
            proposal = np.where(newton, proposal, 0.5 * (low[active] + high[active]))
            go_on = (np.abs(proposal - h2[active]) > _SETTLED) & (low[active] < high[active])
            active = active[go_on]
            if not active.size:
                break
            h2[active] = proposal[go_on]
        return h2, moments

    def _moments(self, E: np.ndarray, active: np.ndarray, h2: np.ndarray) -> _Moments:
        moments = _Moments(*(np.empty(h2.size) for _ in range(3)))
        step = max(1, _STRIP // self.n)
        for start in range(0, h2.size, step):
            part = slice(start, start + step)
            for name, values in zip(("rss", "slope", "curvature"), self._strip(E[active[part]], h2[part]), strict=True):
                getattr(moments, name)[part] = values
        return moments

    def _strip(self, E: np.ndarray, h2: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """rss, l', l'' of traits E (c, n) at h2 (c,); W, DW^2, D^2W^3 share their products with the pairs of Q."""
        W = variance(h2[:, None], self.lam)
        np.divide(1.0, W, out=W)
        DW = W * self.D
        trace, trace_sq = DW.sum(axis=1), np.einsum("ij,ij->i", DW, DW)
        WDW = W * DW
        S, S1 = (self._symmetric(A @ self.pairs.T) for A in (W, WDW))  # S' = -S1
        inverse = self._inverse(S)
        e = E - np.einsum("ckl,cl->ck", inverse, (W * E) @ self.Q) @ self.Q.T
        We = W * e
        rss = np.einsum("ij,ij->i", We, e)
        first = np.einsum("ij,ij->i", We * We, np.broadcast_to(self.D, e.shape))  # y'PDPy
        WDWe = DW * We
        half = WDWe @ self.Q
        second = np.einsum("ij,ij->i", DW * We, DW * e)  # y'PDPDPy before the covariates
        second -= np.einsum("ck,ckl,cl->c", half, inverse, half, optimize=True)
        WDW *= DW
        S2 = self._symmetric(WDW @ self.pairs.T)  # S'' = 2 S2
        M = inverse @ S1
        trace -= np.einsum("ckk->c", M)  # tr(PD)
        trace_sq += np.einsum("ckl,clk->c", M, M) - 2.0 * np.einsum("ckl,clk->c", inverse, S2)  # tr(PDPD)
        ratio = first / rss
        slope = -0.5 * (trace - self.df * ratio)
        curvature = -0.5 * (self.df * (2.0 * second / rss - ratio * ratio) - trace_sq)
        return rss, slope, curvature

    def _symmetric(self, upper: np.ndarray) -> np.ndarray:
        """(..., q, q) from the products (..., q(q+1)/2) of pairs of columns."""
        S = np.empty((*upper.shape[:-1], self.q, self.q))
        S[..., self.rows, self.columns] = upper
        S[..., self.columns, self.rows] = upper
        return S

    @staticmethod
    def _inverse(S: np.ndarray) -> np.ndarray:
        try:
            return np.linalg.inv(S)
        except np.linalg.LinAlgError:
            raise NumericalError("The covariates are linearly dependent: X_L' V^-1 X_L is singular.") from None


def is_flat_spectrum(lam: np.ndarray, Q: np.ndarray) -> bool:
    """`reml_start.is_flat` for eigenvalues (n,) and an orthonormal basis (n, q) of the covariates, Z'X_L."""
    once, twice = (Q.T @ (power[:, None] * Q) for power in (lam, lam * lam))
    return is_flat(np.eye(Q.shape[1]), once, twice, float(lam.sum()), float(lam @ lam), lam.size)


def orthonormal(X_L_tilde: np.ndarray) -> np.ndarray:
    """An orthonormal basis (n, q) of the columns of X_L. Raises NumericalError when they are linearly dependent."""
    X = np.asarray(X_L_tilde, dtype=np.float64)
    Q, R = np.linalg.qr(X)
    norms = np.sqrt(np.einsum("ij,ij->j", X, X))
    if not np.all(np.abs(np.diag(R)) > 1e-12 * norms):
        raise NumericalError("The covariates are linearly dependent: X_L does not have full column rank.")
    return np.asfortranarray(Q)
