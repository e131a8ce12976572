"""The search for each SNP's h2, on local arrays; that its figures are right is shown in tests/mpi/test_ratio.py."""

from __future__ import annotations

import dataclasses
from dataclasses import fields

import numpy as np
import pytest

from mpgls.model import snp_ratio
from mpgls.model.gls import SnpTest
from mpgls.model.h2_nodes import H2Nodes, node_products
from mpgls.model.snp_ratio import NullAtNodes, RatioModel, SnpRatios

N, B = 60, 2000


@pytest.fixture(scope="module")
def study() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Eigenvalues, [X_L | y] and SNPs in the eigenbasis, where the trait is heritable."""
    rng = np.random.default_rng(8)
    lam = rng.gamma(1.0, size=N)
    lam[0] = 0.0
    lam *= N / lam.sum()
    X_L = rng.standard_normal((N, 2))
    y = rng.standard_normal(N) * np.sqrt(0.6 * lam + 0.4)
    return lam, np.column_stack([X_L, y]), rng.standard_normal((N, B))


def fitted(study: tuple[np.ndarray, np.ndarray, np.ndarray], factor: float) -> tuple[SnpRatios, RatioModel, np.ndarray]:
    lam, F, X = study
    F = F * np.array([1.0, 1.0, factor])
    null = NullAtNodes.of(H2Nodes.of(lam), F)
    products = node_products(F, null.nodes.weights(slice(None)), X)
    model = RatioModel.of(null, SnpTest("t", "double", ("t", "lrt", "score")))
    return SnpRatios.of(null, products), model, products


@pytest.mark.parametrize("reml", [True, False])
def test_every_snp_ends_where_its_likelihood_is_flat(study, reml):
    for factor in np.linspace(1.0, 3.0, 12):
        snps, _, _ = fitted(study, factor)
        h2 = snps.maximise(reml)
        inside = (h2 > 0.0) & (h2 < snps.nodes.h2[-1])
        slope = snps.curve(h2, np.arange(B), reml).slope
        assert inside.sum() > B // 2 and np.abs(slope[inside]).max() < 1e-6
        assert np.all(snps.curve(h2, np.arange(B), reml).value >= snps.at_nodes(reml).value.max(axis=0) - 1e-9)


class Rounded(SnpRatios):
    """Likelihoods that fall to both sides of their optimum, whose slope is 0 to the last bit near it."""

    def optimum(self, snps):
        return np.linspace(0.2, 0.8, B)[snps]

    def curve(self, h2, snps, reml):
        apart = h2 - self.optimum(snps)
        return dataclasses.replace(super().curve(h2, snps, reml), value=-0.5 * apart**2, slope=-np.round(apart, 4))

    def at_nodes(self, reml):
        parts = [self.curve(np.full(B, h2), np.arange(B), reml) for h2 in self.nodes.h2]
        return snp_ratio._Curve(*(np.stack([getattr(part, one.name) for part in parts]) for one in fields(parts[0])))


def test_a_slope_of_zero_to_the_last_bit_ends_the_search(study):
    snps, _, _ = fitted(study, 1.0)
    rounded = Rounded(snps.null, snps.S)
    np.testing.assert_allclose(rounded.maximise(True), rounded.optimum(np.arange(B)), atol=6e-5)


def test_the_unit_of_the_trait_does_not_matter(study):
    norm = np.full(B, 1.0)
    _, model, products = fitted(study, 1.0)
    first = model.fit(products, norm)
    for factor in (1.3, 2.9):
        _, model, products = fitted(study, factor)
        other = model.fit(products, norm)
        np.testing.assert_allclose(other.beta, factor * first.beta, rtol=1e-8, atol=1e-9)
        for name in ("h2", "log10p_lrt", "log10p_score"):
            np.testing.assert_allclose(getattr(other, name), getattr(first, name), rtol=1e-8, atol=1e-9, err_msg=name)


def test_many_covariates_are_fitted_a_few_snps_at_a_time(study, monkeypatch):
    """The matrices of all pairs of SNP and h2 need not be in memory together."""
    _, model, products = fitted(study, 1.0)
    whole = model.fit(products, np.full(B, 1.0))
    monkeypatch.setattr(snp_ratio, "_STRIP", 9 * 7)
    parts = model.fit(products, np.full(B, 1.0))
    for name in ("h2", "beta", "se", "logl", "log10p_lrt"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-8, atol=1e-10, err_msg=name)
