"""The search for each SNP's h2, on local arrays; that its figures are right is shown in tests/mpi/test_ratio.py."""

from __future__ import annotations

import dataclasses
from dataclasses import fields

import numpy as np
import pytest

from mpgls.model.gls import SnpTest
from mpgls.model.h2_nodes import H2Nodes, node_products
from mpgls.model.null_nodes import DesignAtNodes
from mpgls.model.ratio_search import Curve, PairsAtNodes
from mpgls.model.snp_ratio import TraitRatios

N, B = 60, 2000
TESTS = SnpTest("t", "double", ("t", "lrt", "score"))


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


def fitted(
    study: tuple[np.ndarray, np.ndarray, np.ndarray], factor: float
) -> tuple[PairsAtNodes, TraitRatios, np.ndarray]:
    lam, F, X = study
    design = DesignAtNodes.of(H2Nodes.of(lam), F[:, :-1])
    ratios = TraitRatios.of(design, F[:, -1] * factor, 1.0, TESTS)
    products = node_products(ratios.F, design.nodes.weights(slice(None)), X)
    return ratios.pairs(products)[0], ratios, products


@pytest.mark.parametrize("reml", [True, False])
def test_every_snp_ends_where_its_likelihood_is_flat(study, reml):
    for factor in np.linspace(1.0, 3.0, 12):
        snps, _, _ = fitted(study, factor)
        h2 = snps.maximise(reml)
        inside = (h2 > 0.0) & (h2 < snps.design.nodes.h2[-1])
        slope = snps.curve(h2, np.arange(B), reml).slope
        assert inside.sum() > B // 2 and np.abs(slope[inside]).max() < 1e-6
        assert np.all(snps.curve(h2, np.arange(B), reml).value >= snps.at_nodes(reml).value.max(axis=0) - 1e-9)


class Rounded(PairsAtNodes):
    """Likelihoods that fall to both sides of their optimum, whose slope is 0 to the last bit near it."""

    def optimum(self, pairs):
        return np.linspace(0.2, 0.8, B)[pairs]

    def curve(self, h2, pairs, reml):
        apart = h2 - self.optimum(pairs)
        return dataclasses.replace(super().curve(h2, pairs, reml), value=-0.5 * apart**2, slope=-np.round(apart, 4))

    def slope(self, h2, pairs, reml):
        return self.curve(h2, pairs, reml).slope

    def at_nodes(self, reml):
        parts = [self.curve(np.full(B, h2), np.arange(B), reml) for h2 in self.design.nodes.h2]
        return Curve(*(np.stack([getattr(part, one.name) for part in parts]) for one in fields(Curve)))


def test_a_slope_of_zero_to_the_last_bit_ends_the_search(study):
    snps, _, _ = fitted(study, 1.0)
    rounded = Rounded(snps.design, snps.d, snps.r, snps.rss)
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


@pytest.mark.parametrize("q", [1, 30, N - 3])
def test_as_many_covariates_as_there_may_be(study, q):
    """The likelihoods by dense algebra, at values of h2 between the nodes; and no cost of a SNP grows as q^3."""
    lam, F, X = study
    X_L = np.random.default_rng(1).standard_normal((N, q)) + 3.0
    design = DesignAtNodes.of(H2Nodes.of(lam), X_L)
    ratios = TraitRatios.of(design, F[:, -1], 1.0, TESTS)
    products = node_products(ratios.F, design.nodes.weights(slice(None)), X[:, :3])
    pairs, _ = ratios.pairs(products)
    for h2 in (0.0, 0.123, 0.777):
        for reml in (True, False):
            found = pairs.curve(np.full(3, h2), np.arange(3), reml).value
            right = [dense_likelihood(h2, lam, np.column_stack([X_L, x]), F[:, -1], reml) for x in X[:, :3].T]
            constant = 0.5 * np.log(pairs.d[0]) if reml else 0.0  # log|X'X| beside that of X_L
            np.testing.assert_allclose(found + constant, right, rtol=1e-9)


def dense_likelihood(h2, lam, X, y, reml):
    """The profile log-likelihood; by REML with 1/2 log|X'X|."""
    v, (n, p) = h2 * lam + 1.0 - h2, X.shape
    S = X.T @ (X / v[:, None])
    residual = y - X @ np.linalg.solve(S, X.T @ (y / v))
    df = n - p if reml else n
    value = df * (np.log(2.0 * np.pi * (residual @ (residual / v)) / df) + 1.0) + np.log(v).sum()
    if reml:
        value += np.linalg.slogdet(S)[1] - np.linalg.slogdet(X.T @ X)[1]
    return -0.5 * value
