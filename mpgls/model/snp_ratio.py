"""The variance ratio of each SNP: h2 by REML, and by ML, with the SNP in the model, for all SNPs of a block at once.

In the basis of the eigenvectors Z of Phi, V(h2) is diagonal, v_k = h2 lam_k + 1 - h2, so at nodes h_1..h_r of h2 every
sum that a likelihood needs is a matrix product: with W (n, r) = 1 / v,

    S_BR = (X~ o X~)'W,   S_BL = X~'(x_L~ o W),   b_B = X~'(y~ o W).

`h2_basis` gives each sum at any other h2 as a combination of its values at the nodes with a known error, and the
derivative of that combination the sum's derivative. So a search over h2 costs r products a SNP and step, whatever n is
With s = S_BL, u = S_TL^-1 s and a' the derivative of a by h2,

    d = S_BR - s'u,   r = b_B - s'beta_0,   rss = rss_0 - r^2 / d,   beta = r / d,
    l_REML' = -1/2 [(n-p) rss'/rss + tr(V^-1 D) + tr(S_TL^-1 S_TL') + d'/d],   D = diag(lam - 1),
    l_ML'   = -1/2 [n rss'/rss + tr(V^-1 D)].

Every maximum that the nodes show is refined, and the highest one taken. The optimum of REML gives effect and standard
error, those of ML the likelihood ratio (Zhou and Stephens, Nature Genetics 44, 2012, as GEMMA's -lmm 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from mpgls.model.gls import Note, SnpFit, SnpTest
from mpgls.model.h2_nodes import H2Nodes
from mpgls.model.h2_scale import cubic_top
from mpgls.model.pvalues import log10_p_chi2_1, log10_p_t

_SETTLED = 1e-11
_SECANTS, _MAX_STEPS = 20, 80
"""Steps of the search for an optimum: secants, and after so many of them bisections."""
_STRIP = 1 << 18
"""Numbers of a matrix (q+1, q+1) for each of so many pairs of SNP and h2 that are fitted at a time."""


@dataclass(frozen=True, eq=False)
class RatioFit(SnpFit):
    """Beside effect and error of B SNPs, each (B,): ``h2`` by REML with the SNP in the model, and ``logl`` there.

    ``log10p_lrt``: minus log10 p of the likelihood ratio test by ML; ``log10p_score``: of the score test at the null
    model's ML ratio. NaN where not estimable; h2 is NaN and logl infinite where a SNP explains the trait completely.
    """

    h2: np.ndarray
    logl: np.ndarray
    log10p_lrt: np.ndarray
    log10p_score: np.ndarray


def fields_of(test: SnpTest) -> tuple[str, ...]:
    """Which fields a SNP's record has beside effect and error: those of its `RatioFit`, if it has one."""
    tests = tuple(f"log10p_{name}" for name in ("lrt", "score") if name in test.by_ratio)
    return ("h2", "logl", *tests) if test.by_ratio else ()


@dataclass(frozen=True, eq=False)
class NullAtNodes:
    """Sums without a SNP at each node: ``gram`` (r, q+1, q+1) of F = Z'[X_L | y], over n samples.

    The trait was divided by ``unit``, which log-likelihoods are free of.
    """

    nodes: H2Nodes
    gram: np.ndarray
    n: int
    unit: float = 1.0

    @classmethod
    def of(cls, nodes: H2Nodes, F: np.ndarray, unit: float = 1.0) -> NullAtNodes:
        """From F (n, q+1)."""
        gram = np.stack([(F * w[:, None]).T @ F for w in nodes.weights(slice(None)).T])
        return cls(nodes, gram, len(F), unit)

    @property
    def q(self) -> int:
        """Covariates, with the intercept."""
        return self.gram.shape[1] - 1


@dataclass(frozen=True, eq=False)
class _Curve:
    """Of pairs (SNP, h2), (k,) each: the log-likelihood, its derivative by h2, and the pieces of a fit."""

    value: np.ndarray
    slope: np.ndarray
    d: np.ndarray
    r: np.ndarray
    rss: np.ndarray
    rss_null: np.ndarray

    @classmethod
    def joined(cls, parts: Sequence[_Curve]) -> _Curve:
        """One after the other."""
        return cls(*(np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(cls)))


@dataclass(frozen=True, eq=False)
class SnpRatios:
    """B SNPs with their sums at the nodes: S (r, q+2, B) with the rows S_BL, b_B and S_BR."""

    null: NullAtNodes
    S: np.ndarray

    @classmethod
    def of(cls, null: NullAtNodes, products: np.ndarray) -> SnpRatios:
        """From the sums of `node_products`."""
        return cls(null, products.reshape(null.q + 2, null.nodes.h2.size, -1).transpose(1, 0, 2))

    @property
    def nodes(self) -> H2Nodes:
        """Where the sums are known."""
        return self.null.nodes

    def some(self, snps: np.ndarray) -> SnpRatios:
        """Those of these numbers."""
        return SnpRatios(self.null, self.S[:, :, snps])

    def curve(self, h2: np.ndarray, snps: np.ndarray, reml: bool) -> _Curve:
        """The profile likelihood of ``snps`` (k,) each at its ``h2`` (k,)."""
        step = max(1, _STRIP // (self.null.q + 1) ** 2)
        strips = [slice(start, start + step) for start in range(0, max(h2.size, 1), step)]
        return _Curve.joined([self._strip(h2[strip], snps[strip], reml) for strip in strips])

    def _strip(self, h2: np.ndarray, snps: np.ndarray, reml: bool) -> _Curve:
        nodes, gram = self.nodes, self.null.gram
        C, C_slope = nodes.between.coefficients(h2)
        S = self.S[:, :, snps]
        grams = [np.tensordot(weights.T, gram, axes=1) for weights in (C, C_slope)]
        sums = [np.einsum("rk,rqk->kq", weights, S) for weights in (C, C_slope)]
        log_det = nodes.log_det(nodes.scale.coordinate(h2))
        return _profile(grams, sums, nodes.trace @ C, log_det, self.null.n, reml)

    def at_nodes(self, reml: bool) -> _Curve:
        """The same of every SNP at every node, (r, B) each."""
        nodes, gram = self.nodes, self.null.gram
        slopes = nodes.between.coefficients(nodes.h2)[1].T  # (r, r): the derivative at each node
        grams = [one[:, None] for one in (gram, np.tensordot(slopes, gram, axes=1))]
        sums = [one.swapaxes(1, 2) for one in (self.S, np.tensordot(slopes, self.S, axes=1))]
        log_det = nodes.log_det(nodes.scale.coordinate(nodes.h2))
        return _profile(grams, sums, nodes.trace[:, None], log_det[:, None], self.null.n, reml)

    def maximise(self, reml: bool) -> np.ndarray:
        """The h2 (B,) of the highest likelihood: each maximum that the nodes show is refined."""
        found = self.at_nodes(reml)
        value, slope, B = found.value, found.slope, self.S.shape[2]
        low, snps = np.nonzero((slope[:-1] > 0) & (slope[1:] <= 0))
        h2 = self._refine(low, snps, found, reml)
        top = self.curve(h2, snps, reml).value
        for end, falls in ((0, slope[0] <= 0), (-1, slope[-1] >= 0)):
            at_end = np.flatnonzero(falls)
            snps, h2 = np.append(snps, at_end), np.append(h2, np.full(at_end.size, self.nodes.h2[end]))
            top = np.append(top, value[end, at_end])
        best = np.full(B, np.nan)
        order = np.argsort(top, kind="stable")  # the highest one is written last
        best[snps[order]] = h2[order]
        return best

    def _refine(self, low: np.ndarray, snps: np.ndarray, found: _Curve, reml: bool) -> np.ndarray:
        """Zeros of the slope between nodes ``low`` and low + 1: secants in a shrinking bracket, else bisection."""
        nodes, scale = self.nodes.h2, self.nodes.scale
        u, stretch, value, slope = scale.coordinate(nodes), scale.stretch(nodes), found.value, found.slope
        left, right = u[low].copy(), u[low + 1].copy()
        g_left, g_right = (slope[low + k, snps] * stretch[low + k] for k in (0, 1))
        width = right - left
        top = cubic_top(value[low, snps], value[low + 1, snps], g_left * width, g_right * width)
        now = left + width * np.clip(top, 1e-3, 1.0 - 1e-3)
        active = np.arange(low.size)  # may be none: then a step does nothing
        for attempt in range(_MAX_STEPS):
            h2 = scale.h2_at(now[active])
            g = self.curve(h2, snps[active], reml).slope * scale.stretch(h2)
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


@dataclass(frozen=True, eq=False)
class RatioModel:
    """What the SNPs of a part have in common: sums without a SNP; ``ml``, the h2 of ML then, and the likelihood."""

    null: NullAtNodes
    ml: tuple[float, float]
    test: SnpTest

    @classmethod
    def of(cls, null: NullAtNodes, test: SnpTest) -> RatioModel:
        """With the null model by ML."""
        # a SNP that is one sample of its own, with lam = 1 and no trait: d = 1 and r = 0 at every h2
        absent = np.zeros((null.nodes.h2.size, null.q + 2, 1))
        absent[:, -1] = 1.0
        model = SnpRatios(null, absent)
        h2 = model.maximise(reml=False)
        return cls(null, (float(h2[0]), float(model.curve(h2, np.arange(1), reml=False).value[0])), test)

    def fit(self, products: np.ndarray, norm: np.ndarray) -> RatioFit:
        """Effect, error, ratio and p values of B SNPs from the sums of `node_products`.

        ``norm`` (B,) is |x|^2 of the centred SNP, 0 if monomorphic. Whether a SNP is collinear with the covariates, or
        explains the trait completely, is judged at h2 = 0, by the limits of `gls.fit_snps`.
        """
        snps, B, df = SnpRatios.of(self.null, products), norm.size, self.null.n - self.null.q - 1
        beta, se, h2, logl, lrt, score = np.full((6, B), np.nan)
        note = np.zeros(B, dtype=np.uint8)
        plain = snps.curve(np.zeros(B), np.arange(B), reml=True)
        note[~(plain.d > self.test.tolerance * snps.S[0, -1])] = Note.COLLINEAR
        note[~(norm > 0)] = Note.MONOMORPHIC
        complete = (note == Note.OK) & (plain.rss <= self.test.complete * plain.rss_null)
        beta[complete], se[complete], logl[complete] = plain.r[complete] / plain.d[complete], 0.0, np.inf

        fitted = np.flatnonzero((note == Note.OK) & ~complete)
        some, each = snps.some(fitted), np.arange(fitted.size)
        h2[fitted] = some.maximise(reml=True)
        at = some.curve(h2[fitted], each, reml=True)
        beta[fitted], se[fitted] = at.r / at.d, np.sqrt(at.rss / (df * at.d))
        logl[fitted] = at.value + 0.5 * _log_det_gram(some) - df * np.log(self.null.unit)
        if not self.null.nodes.is_range:
            h2[fitted] = np.nan
        if "lrt" in self.test.by_ratio:
            lrt[complete], lrt[fitted] = np.inf, self._likelihood_ratio(some)
        if "score" in self.test.by_ratio:
            score[note == Note.OK] = self._score(snps)[note == Note.OK]
        return RatioFit(beta, se, note, h2, logl, lrt, score)

    def _likelihood_ratio(self, snps: SnpRatios) -> np.ndarray:
        """Minus log10 p of twice the gain in likelihood by ML: chi-square with one degree of freedom."""
        h2 = snps.maximise(reml=False)
        gain = snps.curve(h2, np.arange(h2.size), reml=False).value - self.ml[1]
        return np.asarray(log10_p_chi2_1(np.sqrt(np.maximum(2.0 * gain, 0.0))))

    def _score(self, snps: SnpRatios) -> np.ndarray:
        """Minus log10 p of n r^2 / (d rss_0) at the null model's ML ratio: F with 1 and n - p degrees of freedom."""
        null, B = self.null, snps.S.shape[2]
        at = snps.curve(np.full(B, self.ml[0]), np.arange(B), reml=False)
        with np.errstate(invalid="ignore", divide="ignore"):
            statistic = np.sqrt(null.n * np.square(at.r) / (at.d * at.rss_null))
        return np.asarray(log10_p_t(statistic, null.n - null.q - 1))


def _profile(
    grams: Sequence[np.ndarray], sums: Sequence[np.ndarray], trace: np.ndarray, log_det: np.ndarray, n: int, reml: bool
) -> _Curve:
    """From sums of SNPs at some h2, and their derivatives: F'F (..., q+1, q+1), and [S_BL, b_B, S_BR] (..., q+2)."""
    S_TL, b_T, yy = _parts(grams[0])
    S_TL_slope, b_T_slope, yy_slope = _parts(grams[1])
    s, b_B, S_BR = sums[0][..., :-2], sums[0][..., -2], sums[0][..., -1]
    s_slope, b_B_slope, S_BR_slope = sums[1][..., :-2], sums[1][..., -2], sums[1][..., -1]
    inverse = np.linalg.inv(S_TL)
    beta_0, u = _times(inverse, b_T), _times(inverse, s)
    S_u, S_beta = _times(S_TL_slope, u), _times(S_TL_slope, beta_0)
    rss_null = yy - _dot(b_T, beta_0)
    rss_null_slope = yy_slope - 2.0 * _dot(b_T_slope, beta_0) + _dot(beta_0, S_beta)
    d = S_BR - _dot(s, u)
    d_slope = S_BR_slope - 2.0 * _dot(s_slope, u) + _dot(u, S_u)
    r = b_B - _dot(s, beta_0)
    r_slope = b_B_slope - _dot(s_slope, beta_0) - _dot(u, b_T_slope) + _dot(u, S_beta)
    with np.errstate(divide="ignore", invalid="ignore"):
        beta = r / d
        rss = rss_null - r * beta
        rss_slope = rss_null_slope - 2.0 * beta * r_slope + beta * beta * d_slope
        df = n - s.shape[-1] - 1 if reml else n
        value = df * (np.log(2.0 * np.pi * rss / df) + 1.0) + log_det
        slope = df * rss_slope / rss + trace
        if reml:
            value = value + np.linalg.slogdet(S_TL)[1] + np.log(d)
            slope = slope + np.einsum("...ij,...ji->...", inverse, S_TL_slope) + d_slope / d
    return _Curve(-0.5 * value, -0.5 * slope, d, r, rss, rss_null)


def _parts(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """S_TL, b_T and y'y of F'F."""
    return gram[..., :-1, :-1], gram[..., :-1, -1], gram[..., -1, -1]


def _log_det_gram(snps: SnpRatios) -> np.ndarray:
    """log|X'X| (B,) of [X_L | x], the constant of the REML log-likelihood: at h2 = 0 V is I."""
    S_TL, S = snps.null.gram[0, :-1, :-1], snps.S[0]
    left = S[-1] - np.einsum("qb,qb->b", S[:-2], np.linalg.solve(S_TL, S[:-2]))
    return np.linalg.slogdet(S_TL)[1] + np.log(left)


def _times(A: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.einsum("...ij,...j->...i", A, x)


def _dot(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.einsum("...i,...i->...", x, y)
