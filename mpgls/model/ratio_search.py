"""The highest likelihood over h2 of each of many pairs of SNP and trait, from their sums at the nodes.

With d, r and rss_0 of `null_nodes` and a' the derivative of a by h2,

    rss = rss_0 - r^2 / d,   beta = r / d,   rss' = rss_0' - 2 beta r' + beta^2 d',
    l_REML' = -1/2 [(n-p) rss'/rss + tr(PD) + d'/d],
    l_ML'   = -1/2 [n rss'/rss + tr(V^-1 D)].

Every maximum that the nodes show is refined, and the highest one taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mpgls.model.h2_scale import cubic_top
from mpgls.model.null_nodes import DesignAtNodes

_SETTLED = 1e-11
_SECANTS, _MAX_STEPS = 20, 80
"""Steps of the search for an optimum: secants, and after so many of them bisections."""


@dataclass(frozen=True, eq=False)
class Curve:
    """Of pairs at some h2, (k,) each: the log-likelihood, its derivative by h2, and the pieces of a fit."""

    value: np.ndarray
    slope: np.ndarray
    d: np.ndarray
    r: np.ndarray
    rss: np.ndarray
    rss_null: np.ndarray


class Sums(NamedTuple):
    """d, r and rss_0 of pairs, or their derivatives by h2, and tr(V^-1 D) and tr(PD)."""

    d: np.ndarray
    r: np.ndarray
    rss_null: np.ndarray
    trace: np.ndarray
    trace_P: np.ndarray


@dataclass(frozen=True, eq=False)
class PairsAtNodes:
    """d, r and rss_0 (r, k) of k pairs of SNP and trait at the nodes of ``design``, the first of which is h2 = 0."""

    design: DesignAtNodes
    d: np.ndarray
    r: np.ndarray
    rss: np.ndarray

    @property
    def count(self) -> int:
        """How many there are."""
        return self.d.shape[1]

    def some(self, pairs: np.ndarray) -> PairsAtNodes:
        """Those of these numbers."""
        return PairsAtNodes(self.design, self.d[:, pairs], self.r[:, pairs], self.rss[:, pairs])

    def curve(self, h2: np.ndarray, pairs: np.ndarray, reml: bool) -> Curve:
        """The profile likelihood of ``pairs`` (k,) each at its ``h2`` (k,)."""
        value, slope = self._between(h2, pairs)
        return self._curve(value, self._slope(value, slope, reml), h2, reml)

    def slope(self, h2: np.ndarray, pairs: np.ndarray, reml: bool) -> np.ndarray:
        """Its derivative by h2 (k,) alone."""
        return self._slope(*self._between(h2, pairs), reml)

    def at_nodes(self, reml: bool) -> Curve:
        """The likelihood of every pair at every node, (r, k) each."""
        nodes = self.design.nodes
        slopes = nodes.between.coefficients(nodes.h2)[1].T  # (r, r): the derivative at each node
        value = Sums(self.d, self.r, self.rss, nodes.trace[:, None], self.design.trace[:, None])
        slope = Sums(slopes @ self.d, slopes @ self.r, slopes @ self.rss, value.trace, value.trace_P)
        return self._curve(value, self._slope(value, slope, reml), nodes.h2[:, None], reml)

    def maximise(self, reml: bool) -> np.ndarray:
        """The h2 (k,) of the highest likelihood: each maximum that the nodes show is refined."""
        found = self.at_nodes(reml)
        value, slope, nodes = found.value, found.slope, self.design.nodes
        low, pairs = np.nonzero((slope[:-1] > 0) & (slope[1:] <= 0))
        h2 = self._refine(low, pairs, found, reml)
        top = self.curve(h2, pairs, reml).value
        for end, falls in ((0, slope[0] <= 0), (-1, slope[-1] >= 0)):
            at_end = np.flatnonzero(falls)
            pairs, h2 = np.append(pairs, at_end), np.append(h2, np.full(at_end.size, nodes.h2[end]))
            top = np.append(top, value[end, at_end])
        best = np.full(self.count, np.nan)
        order = np.argsort(top, kind="stable")  # the highest one is written last
        best[pairs[order]] = h2[order]
        return best

    def _between(self, h2: np.ndarray, pairs: np.ndarray) -> tuple[Sums, Sums]:
        """The sums of ``pairs`` at their h2, and their derivatives, whose traces are not derived."""
        design, nodes = self.design, self.design.nodes
        at = nodes.between.coefficients(h2)
        d, r, rss = (
            [np.einsum("rk,rk->k", C, sums) for C in at]
            for sums in (self.d[:, pairs], self.r[:, pairs], self.rss[:, pairs])
        )
        trace, trace_P = nodes.trace @ at[0], design.trace @ at[0]
        return Sums(d[0], r[0], rss[0], trace, trace_P), Sums(d[1], r[1], rss[1], trace, trace_P)

    def _slope(self, value: Sums, slope: Sums, reml: bool) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            beta = value.r / value.d
            rss = value.rss_null - value.r * beta
            rss_slope = slope.rss_null - 2.0 * beta * slope.r + beta * beta * slope.d
            found = self._df(reml) * rss_slope / rss
            return -0.5 * (found + value.trace_P + slope.d / value.d if reml else found + value.trace)

    def _curve(self, sums: Sums, slope: np.ndarray, h2: np.ndarray, reml: bool) -> Curve:
        design, df = self.design, self._df(reml)
        place = design.nodes.scale.coordinate(h2)
        with np.errstate(divide="ignore", invalid="ignore"):
            rss = sums.rss_null - sums.r * sums.r / sums.d
            value = df * (np.log(2.0 * np.pi * rss / df) + 1.0)
            value = value + (np.log(sums.d) + design.log_det(place) if reml else design.nodes.log_det(place))
        return Curve(-0.5 * value, slope, sums.d, sums.r, rss, sums.rss_null)

    def _df(self, reml: bool) -> int:
        return self.design.n - self.design.q - 1 if reml else self.design.n

    def _refine(self, low: np.ndarray, pairs: np.ndarray, found: Curve, reml: bool) -> np.ndarray:
        """Zeros of the slope between nodes ``low`` and low + 1: secants in a shrinking bracket, else bisection."""
        nodes, scale = self.design.nodes.h2, self.design.nodes.scale
        u, stretch, value, slope = scale.coordinate(nodes), scale.stretch(nodes), found.value, found.slope
        left, right = u[low].copy(), u[low + 1].copy()
        g_left, g_right = (slope[low + k, pairs] * stretch[low + k] for k in (0, 1))
        width = right - left
        top = cubic_top(value[low, pairs], value[low + 1, pairs], g_left * width, g_right * width)
        now = left + width * np.clip(top, 1e-3, 1.0 - 1e-3)
        active = np.arange(low.size)  # may be none: then a step does nothing
        for attempt in range(_MAX_STEPS):
            h2 = scale.h2_at(now[active])
            g = self.slope(h2, pairs[active], reml) * scale.stretch(h2)
            rising = g > 0
            before = np.where(rising, left[active], right[active])
            g_before = np.where(rising, g_left[active], g_right[active])
            left[active[rising]], g_left[active[rising]] = now[active[rising]], g[rising]
            right[active[~rising]], g_right[active[~rising]] = now[active[~rising]], g[~rising]
            a, b, ga, gb = left[active], right[active], g_left[active], g_right[active]
            with np.errstate(divide="ignore", invalid="ignore"):
                across = a + (b - a) * ga / (ga - gb)
                along = now[active] - g * (now[active] - before) / (g - g_before)
            proposal = np.where((along > a) & (along < b), along, np.clip(across, a, b))
            proposal = np.where(g == 0, now[active], proposal if attempt < _SECANTS else 0.5 * (a + b))
            step = np.abs(proposal - now[active])
            now[active] = proposal
            active = active[step > _SETTLED]
            if not active.size:
                break
        return scale.h2_at(now)
