"""The variance ratio of each SNP: h2 by REML, and by ML, with the SNP in the model, for many SNPs at once.

In the basis of the eigenvectors Z of Phi, V(h2) is diagonal, v_k = h2 lam_k + 1 - h2, so at nodes h_1..h_r of h2 every
sum that a likelihood needs is a matrix product: with W (n, r) = 1 / v,

    S_BR = (X~ o X~)'W,   S_BL = X~'(x_L~ o W),   b_B = X~'(y~ o W).

`null_nodes` takes the covariates out of these sums, `ratio_search` finds the optimum from what is left. The optimum of
REML gives effect and standard error, those of ML the likelihood ratio (Zhou and Stephens, Nature Genetics 44, 2012, as
GEMMA's -lmm 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mpgls.model.gls import Note, SnpFit, SnpTest
from mpgls.model.null_nodes import DesignAtNodes, TraitsAtNodes
from mpgls.model.pvalues import log10_p_chi2_1, log10_p_t
from mpgls.model.ratio_search import PairsAtNodes


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
class RatioModel:
    """What pairs of SNP and trait have in common: t traits at the nodes; of each its h2 by ML and the likelihood there.

    ``ml_h2`` and ``ml_value`` (t,) are those of the model without a SNP.
    """

    traits: TraitsAtNodes
    ml_h2: np.ndarray
    ml_value: np.ndarray
    test: SnpTest

    @classmethod
    def of(cls, traits: TraitsAtNodes, test: SnpTest) -> RatioModel:
        """With the null models by ML."""
        # a SNP that is one sample of its own, with lam = 1 and no trait: d = 1 and r = 0 at every h2
        absent = PairsAtNodes(traits.design, np.ones_like(traits.rss), np.zeros_like(traits.rss), traits.rss)
        h2 = absent.maximise(reml=False)
        return cls(traits, h2, absent.curve(h2, np.arange(h2.size), reml=False).value, test)

    @classmethod
    def joined(cls, parts: Sequence[RatioModel]) -> RatioModel:
        """Models of traits with the same covariates as one."""
        arrays = [np.concatenate(one, axis=-1) for one in zip(*(part.arrays() for part in parts), strict=True)]
        return cls.of_arrays(parts[0].design, parts[0].test, arrays)

    @classmethod
    def of_arrays(cls, design: DesignAtNodes, test: SnpTest, arrays: Sequence[np.ndarray]) -> RatioModel:
        """The model that `arrays` described."""
        half, rss, unit, ml_h2, ml_value = arrays
        return cls(TraitsAtNodes(design, half, rss, unit), ml_h2, ml_value, test)

    def arrays(self) -> tuple[np.ndarray, ...]:
        """All that depends on the traits, which are the last axis."""
        return self.traits.half, self.traits.rss, self.traits.unit, self.ml_h2, self.ml_value

    @property
    def design(self) -> DesignAtNodes:
        """The covariates at the nodes."""
        return self.traits.design

    @property
    def df(self) -> int:
        """Degrees of freedom of the t test: n - p."""
        return self.design.n - self.design.q - 1

    def fit(self, pairs: PairsAtNodes, trait: np.ndarray, note: np.ndarray) -> RatioFit:
        """Effect, error, ratio and p values of k pairs with the traits of these positions (k,).

        Those whose ``note`` (k,) is not 0 have none. Whether a SNP explains the trait completely is judged at h2 = 0,
        by the limits of `gls.fit_snps`.
        """
        design, df = self.design, self.df
        beta, se, h2, logl, lrt, score = np.full((6, pairs.count), np.nan)
        usable = note == Note.OK
        plain_d, plain_r, plain_rss = pairs.d[0], pairs.r[0], pairs.rss[0]
        with np.errstate(divide="ignore", invalid="ignore"):
            plain = plain_r / plain_d
            complete = usable & (plain_rss - plain_r * plain <= self.test.complete * plain_rss)
        beta[complete], se[complete], logl[complete] = plain[complete], 0.0, np.inf

        fitted = np.flatnonzero(usable & ~complete)
        some = pairs.some(fitted)
        h2[fitted] = some.maximise(reml=True)
        at = some.curve(h2[fitted], np.arange(fitted.size), reml=True)
        beta[fitted], se[fitted] = at.r / at.d, np.sqrt(at.rss / (df * at.d))
        logl[fitted] = at.value + 0.5 * np.log(some.d[0]) - df * np.log(self.traits.unit[trait[fitted]])
        if not design.nodes.is_range:
            h2[fitted] = np.nan
        if "lrt" in self.test.by_ratio:
            lrt[complete], lrt[fitted] = np.inf, self._likelihood_ratio(some, trait[fitted])
        if "score" in self.test.by_ratio:
            score[usable] = self._score(pairs.some(np.flatnonzero(usable)), trait[usable])
        return RatioFit(beta, se, note, h2, logl, lrt, score)

    def _likelihood_ratio(self, pairs: PairsAtNodes, trait: np.ndarray) -> np.ndarray:
        """Minus log10 p of twice the gain in likelihood by ML: chi-square with one degree of freedom."""
        h2 = pairs.maximise(reml=False)
        gain = pairs.curve(h2, np.arange(h2.size), reml=False).value - self.ml_value[trait]
        return np.asarray(log10_p_chi2_1(np.sqrt(np.maximum(2.0 * gain, 0.0))))

    def _score(self, pairs: PairsAtNodes, trait: np.ndarray) -> np.ndarray:
        """Minus log10 p of n r^2 / (d rss_0) at the null model's ML ratio: F with 1 and n - p degrees of freedom."""
        at = pairs.curve(self.ml_h2[trait], np.arange(trait.size), reml=False)
        with np.errstate(invalid="ignore", divide="ignore"):
            statistic = np.sqrt(self.design.n * np.square(at.r) / (at.d * at.rss_null))
        return np.asarray(log10_p_t(statistic, self.df))


@dataclass(frozen=True, eq=False)
class TraitRatios:
    """The `model` of one trait, for blocks of SNPs: ``F`` (n, q+1) are Q and the trait's residual on the covariates."""

    model: RatioModel
    F: np.ndarray

    @classmethod
    def of(cls, design: DesignAtNodes, y: np.ndarray, unit: float, test: SnpTest) -> TraitRatios:
        """Of the trait y (n,) in the eigenbasis, which was divided by ``unit``."""
        E = design.residuals(y[:, None])
        return cls(RatioModel.of(TraitsAtNodes.of(design, E, np.array([unit])), test), np.hstack([design.Q, E]))

    def fit(self, products: np.ndarray, norm: np.ndarray) -> RatioFit:
        """The fits of B SNPs from the sums of `h2_nodes.node_products` with F, over all rows.

        ``norm`` (B,) is |x|^2 of the centred SNP, 0 if monomorphic. Whether a SNP is collinear with the covariates is
        judged at h2 = 0, by the limit of `gls.fit_snps`.
        """
        model, B = self.model, norm.size
        pairs, S_BR = self.pairs(products)
        note = np.zeros(B, dtype=np.uint8)
        note[~(pairs.d[0] > model.test.tolerance * S_BR[0])] = Note.COLLINEAR
        note[~(norm > 0)] = Note.MONOMORPHIC
        return model.fit(pairs, np.zeros(B, dtype=np.int64), note)

    def pairs(self, products: np.ndarray) -> tuple[PairsAtNodes, np.ndarray]:
        """The SNPs of these sums with the trait, and S_BR (r, B)."""
        traits, q = self.model.traits, self.model.design.q
        S = products.reshape(q + 2, self.model.design.nodes.h2.size, -1)
        whitened, d = traits.design.squares(S[:q].swapaxes(0, 1), S[q + 1])
        r = S[q] - np.einsum("rq,rqk->rk", traits.half[:, :, 0], whitened)
        return PairsAtNodes(traits.design, d, r, np.broadcast_to(traits.rss, d.shape)), S[q + 1]
