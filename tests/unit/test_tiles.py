from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
import oracle

from mpgls.errors import NumericalError
from mpgls.model import epilogue as epilogue_module
from mpgls.model import tiles
from mpgls.model.epilogue import Epilogue
from mpgls.model.gls import Note, NullSums, fit_null, fit_snps
from mpgls.model.histograms import Statistic
from mpgls.model.tiles import Partial, Tile, TraitPanel

ROOT = Path(__file__).parents[2]
UPPER = 1.0 - 1e-6


def load_algorithm6():
    spec = importlib.util.spec_from_file_location("algorithm6", ROOT / "bench" / "algorithm6.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.algorithm6


def study(n=211, q=3, t=37, mb=53, seed=7, h2=None):
    """lam, X_L~, Y~, X~, h2 and the dense model, with a kinship that the intercept has been taken out of."""
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((n, n // 2)) + 2 * rng.standard_normal((n, 1)) @ rng.standard_normal((1, n // 2))
    Phi = oracle.scaled((A - A.mean(axis=0)) @ (A - A.mean(axis=0)).T)
    lam, Z = np.linalg.eigh(Phi)
    lam = np.maximum(lam, 0.0)
    X_L = np.column_stack([np.ones(n), 60 + 5 * rng.standard_normal((n, q - 1))])
    x = rng.binomial(2, 0.3, (n, mb)).astype(float)
    x -= x.mean(axis=0)
    if h2 is None:
        h2 = np.concatenate([[0.0, UPPER, 0.5, 0.5], rng.uniform(0, 0.98, t - 4)])
    Y = (rng.standard_normal((n, t)) + X_L @ rng.standard_normal((q, t))) * 10.0 ** rng.integers(-5, 6, t)
    Y[:, :5] += 4 * x[:, :5] * Y.std(axis=0)[:5]
    return lam, Z.T @ X_L, np.asfortranarray(Z.T @ Y), np.asfortranarray(Z.T @ x), h2, (Phi, X_L, Y, x)


def three_products(lam, X_L, Y, X, h2):
    """rss, r and d by the plain form, b_B, S_BR and every S_BL a product with all samples, in extended precision."""
    lam, X_L, Y, X, h2 = (np.asarray(values, dtype=np.longdouble) for values in (lam, X_L, Y, X, h2))
    W = 1 / (h2 * lam[:, None] + (1 - h2))
    b_B, S_BR = (W * Y).T @ X, W.T @ (X * X)
    S_BL = np.stack([(W * X_L[:, [k]]).T @ X for k in range(X_L.shape[1])])  # (q, t, mb)
    r, d, rss = np.empty_like(b_B), np.empty_like(b_B), np.empty(len(h2), dtype=np.longdouble)
    for j in range(len(h2)):
        S_TL, b_T = X_L.T @ (W[:, [j]] * X_L), X_L.T @ (W[:, j] * Y[:, j])
        solved = eliminate(S_TL, np.column_stack([b_T, S_BL[:, j]]))
        rss[j] = Y[:, j] @ (W[:, j] * Y[:, j]) - b_T @ solved[:, 0]
        r[j] = b_B[j] - solved[:, 0] @ S_BL[:, j]
        d[j] = S_BR[j] - np.sum(S_BL[:, j] * solved[:, 1:], axis=0)
    return rss, r, d


def eliminate(S, right):
    """S^-1 right by Gauss and Jordan, in the precision at hand; S positive definite."""
    M = np.column_stack([S, right])
    for k in range(len(S)):
        M[k] /= M[k, k]
        for i in set(range(len(S))) - {k}:
            M[i] -= M[i, k] * M[k]
    return M[:, len(S) :]


def tile_of(panel, X, splits=(slice(None),)):
    parts = [panel.local(rows).partial_products(np.asfortranarray(X[rows].astype(panel.dtype))) for rows in splits]
    total = Partial(sum(p.R for p in parts), sum(p.nodes for p in parts))
    return panel.finish(total, np.sum(X * X, axis=0))


@pytest.mark.parametrize(("n", "q", "t", "mb"), [(211, 3, 37, 53), (64, 1, 5, 1), (97, 5, 9, 130)])
def test_tile_is_the_three_products(n, q, t, mb):
    lam, X_L, Y, X, h2, _ = study(n, q, t, mb)
    panel = TraitPanel(lam, X_L, Y, h2)
    rss, r, d = three_products(lam, X_L, Y, X, h2)
    tile = tile_of(panel, X)
    np.testing.assert_allclose(panel.rss, rss, rtol=1e-10)
    np.testing.assert_allclose(tile.d, d, rtol=1e-10)
    size = np.sqrt(rss[:, None] * d)  # of r; a small r among large terms has no relative accuracy in any form
    assert np.max(np.abs(tile.R * np.sqrt(rss)[:, None] - r) / size) < 1e-10
    large = np.abs(r) > 1e-2 * size
    np.testing.assert_allclose((tile.R * np.sqrt(rss)[:, None])[large], r[large], rtol=1e-9)
    assert not tile.note.any()
    assert panel.testable.all()


def test_t_statistics_are_those_of_one_trait_alone():
    lam, X_L, Y, X, h2, _ = study()
    panel = TraitPanel(lam, X_L, Y, h2)
    tile = tile_of(panel, X)
    x_norm_sq = np.sum(X * X, axis=0)
    for test in ("t", "wald"):
        epilogue = Epilogue(panel.rss, panel.n, panel.q, test, p_threshold=1.0)
        beta, se = np.empty(tile.R.shape), np.empty(tile.R.shape)
        epilogue.add(tile, np.arange(X.shape[1]), beta, se)
        hits = epilogue.take_hits()
        assert hits.x.size == tile.R.size
        for j in range(panel.t):
            w = 1.0 / (h2[j] * lam + (1.0 - h2[j]))
            WX_L = w[:, None] * X_L
            residual = Y[:, j] - X_L @ panel.beta_L[:, j]  # without the covariates: the same model, better conditioned
            b_T, log_det = WX_L.T @ residual, -np.sum(np.log(w))
            sums = NullSums(X_L.T @ WX_L, b_T, residual @ (w * residual), log_det, panel.n)
            fit = fit_snps(sums, WX_L.T @ X, w @ (X * X), X.T @ (w * residual), x_norm_sq, test)
            assert not fit.note.any()
            np.testing.assert_allclose(se[j], fit.se, rtol=1e-9)
            np.testing.assert_allclose(beta[j] / se[j], fit.beta / fit.se, rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(fit_null(h2[j], sums).rss, panel.rss[j], rtol=1e-9)
        np.testing.assert_allclose(hits.beta, beta[hits.trait, hits.snp], rtol=1e-12)
        np.testing.assert_allclose(hits.se, se[hits.trait, hits.snp], rtol=1e-12)
        np.testing.assert_allclose(hits.log10_p, Statistic.of(panel.n, panel.q, test).log10_p(hits.x), rtol=1e-12)


def test_against_the_dense_model_and_algorithm_6():
    lam, X_L, Y, X, h2, (Phi, dense_X_L, dense_Y, x) = study(n=83, q=2, t=6, mb=9)
    panel = TraitPanel(lam, X_L, Y, h2)
    epilogue = Epilogue(panel.rss, panel.n, panel.q)
    beta, se = np.empty((6, 9)), np.empty((6, 9))
    epilogue.add(tile_of(panel, X), np.arange(9), beta, se)
    paper_beta, paper_se = load_algorithm6()(lam, X_L, Y, X, h2)
    np.testing.assert_allclose(se, paper_se, rtol=1e-8)
    np.testing.assert_allclose(beta / se, paper_beta / paper_se, rtol=1e-8, atol=1e-8)
    for j in (0, 2, 4, 5):  # the others have an almost singular V
        want = oracle.scan(h2[j], Phi, dense_X_L, dense_Y[:, j], x)
        np.testing.assert_allclose(beta[j], want[0], rtol=1e-7)
        np.testing.assert_allclose(se[j], want[1], rtol=1e-7)
        fixed = oracle.gls(dense_X_L, dense_Y[:, j], oracle.covariance(h2[j], Phi))[0]
        np.testing.assert_allclose(panel.beta_L[:, j], fixed, rtol=1e-7)


def test_rows_add_up():
    lam, X_L, Y, X, h2, _ = study()
    panel = TraitPanel(lam, X_L, Y, h2)
    whole = tile_of(panel, X)
    halves = tile_of(panel, X, (np.arange(0, 211, 2), np.arange(1, 211, 2)))
    blocks = tile_of(panel, X, (slice(0, 5), slice(5, 200), slice(200, 211)))
    for other in (halves, blocks):
        np.testing.assert_allclose(other.R, whole.R, rtol=0, atol=1e-12 * np.abs(whole.R).max())
        np.testing.assert_allclose(other.d, whole.d, rtol=1e-10)
    assert panel.local().WE is panel.WE


def test_rows_in_steps_and_changing_widths(monkeypatch):
    lam, X_L, Y, X, h2, _ = study()
    panel = TraitPanel(lam, X_L, Y, h2)
    whole = [values.copy() for values in tile_of(panel, X)]
    monkeypatch.setattr(tiles, "ROWS", 50)
    local = panel.local()
    for width in (53, 20, 53):
        tile = panel.finish(local.partial_products(np.asfortranarray(X[:, :width])), np.ones(width))
        np.testing.assert_allclose(tile.d, whole[1][:, :width], rtol=1e-11)
        np.testing.assert_allclose(tile.R, whole[0][:, :width], rtol=1e-9, atol=1e-12)
    monkeypatch.setattr(tiles, "_CHUNK", 211 * 4)
    again = TraitPanel(lam, X_L, Y, h2)
    np.testing.assert_allclose(again.WE, panel.WE, rtol=1e-9, atol=1e-12)


def test_part_of_the_traits_and_given_output():
    lam, X_L, Y, X, h2, _ = study()
    panel = TraitPanel(lam, X_L, Y, h2)
    partial, norms = panel.local().partial_products(X), np.sum(X * X, axis=0)
    whole, out = panel.finish(partial, norms), np.empty((10, 53))
    some = panel.finish(Partial(partial.R[5:15], partial.nodes), norms, slice(5, 15), out)
    assert some.d is out
    np.testing.assert_allclose(some.d, whole.d[5:15], rtol=1e-13)
    assert np.array_equal(some.R, whole.R[5:15])


def test_mixed_precision():
    lam, X_L, Y, X, h2, _ = study(n=500, t=60, mb=90)
    double, mixed = (TraitPanel(lam, X_L, Y, h2, dtype) for dtype in (np.float64, np.float32))
    assert mixed.WE.dtype == np.float32 and mixed.WE.flags.f_contiguous and mixed.A.dtype == np.float32
    assert len(mixed.basis.nodes) < len(double.basis.nodes)
    np.testing.assert_allclose(mixed.rss, double.rss, rtol=1e-12)
    first, second = tile_of(double, X), tile_of(mixed, X)
    assert second.d.dtype == second.R.dtype == np.float32
    np.testing.assert_allclose(second.d, first.d, rtol=5e-6)
    z = [np.sqrt(500) * tile.R / np.sqrt(tile.d) for tile in (first, second)]
    np.testing.assert_allclose(z[1], z[0], rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(TraitPanel(lam, X_L, Y, h2, np.float32, 1e-3).basis.error, 5e-4, rtol=1)


def test_untestable_snps_are_left_out_of_everything():
    lam, X_L, Y, X, h2, _ = study()
    good = X.copy()
    X = np.column_stack([X, np.zeros(211), X_L @ [0.0, 2.0, -1.0], X[:, 0]])
    panel = TraitPanel(lam, X_L, Y, h2)
    tile = tile_of(panel, X)
    assert list(tile.note[-3:]) == [Note.MONOMORPHIC, Note.COLLINEAR, Note.OK] and not tile.note[:-3].any()
    with_bad, without = (Epilogue(panel.rss, panel.n, panel.q, p_threshold=1.0) for _ in range(2))
    beta, se = np.empty((37, 56), dtype=np.float32), np.empty((37, 56), dtype=np.float32)
    with np.errstate(all="raise"):
        with_bad.add(tile, np.arange(56), beta, se)
    without.add(tile_of(panel, np.column_stack([good, good[:, 0]])), np.append(np.arange(53), 55))
    assert with_bad.tests == without.tests == 54
    assert np.array_equal(with_bad.counts, without.counts)
    assert np.array_equal(with_bad.best_snp, without.best_snp)
    assert np.array_equal(with_bad.take_hits().snp, without.take_hits().snp)
    for values in (beta, se):
        assert np.array_equal(np.isnan(values).all(axis=0), tile.note != 0)
        assert np.isfinite(values[:, tile.note == 0]).all()


def test_no_snp_of_the_tile_is_testable():
    lam, X_L, Y, X, h2, _ = study()
    panel = TraitPanel(lam, X_L, Y, h2)
    epilogue = Epilogue(panel.rss, panel.n, panel.q)
    beta = np.zeros((37, 2))
    epilogue.add(tile_of(panel, np.zeros((211, 2))), np.arange(2))
    epilogue.add(tile_of(panel, np.zeros((211, 2))), np.arange(2), beta)
    assert epilogue.tests == 0 and epilogue.counts.sum() == 0 and np.all(epilogue.best_snp == -1)
    assert np.isnan(epilogue.best_log10_p()).all() and np.isnan(beta).all()
    epilogue.add(tile_of(panel, X[:, :0]), np.arange(0))


def test_unusable_traits_are_left_out_and_the_others_go_on():
    lam, X_L, Y, X, h2, _ = study()
    broken = Y.copy()
    broken[:, 6], broken[:, 7], broken[3, 8] = X_L[:, 0] * 5.0, X_L @ [1.0, 2.0, 3.0], np.nan
    bad = [6, 7, 8, 9]
    h2 = h2.copy()
    h2[9] = np.nan
    panel = TraitPanel(lam, X_L, broken, h2)
    assert np.array_equal(np.flatnonzero(~panel.testable), bad)
    assert np.isnan(panel.rss[bad]).all() and np.isnan(panel.beta_L[:, bad]).all()
    epilogue = Epilogue(panel.rss, panel.n, panel.q, p_threshold=1.0)
    beta, se = np.empty((37, 53)), np.empty((37, 53))
    epilogue.add(tile_of(panel, X), np.arange(53), beta, se)
    reached = epilogue.counts.sum(axis=1)
    assert np.all(reached[bad] == 0) and np.all(np.delete(reached, bad) == 53)
    assert np.all(epilogue.best_snp[bad] == -1) and np.isnan(epilogue.best_log10_p()[bad]).all()
    assert np.isnan(beta[bad]).all() and np.isnan(se[bad]).all() and np.isfinite(np.delete(beta, bad, axis=0)).all()
    assert not set(epilogue.take_hits().trait) & set(bad)
    nothing = TraitPanel(lam, X_L, broken[:, bad], h2[bad])
    assert not nothing.testable.any() and np.isfinite(tile_of(nothing, X).d).all()


def test_impossible_designs():
    lam, X_L, Y, _, h2, _ = study()
    with pytest.raises(NumericalError, match="dependent"):
        TraitPanel(lam, np.column_stack([X_L, X_L[:, 1]]), Y, h2)
    with pytest.raises(NumericalError, match="degree of freedom"):
        TraitPanel(lam[:3], np.eye(3), Y[:3], h2)


def made_tile(t, mb, dtype, seed=0):
    rng = np.random.default_rng(seed)
    d = (400 * rng.uniform(0.2, 2.0, (t, mb))).astype(dtype)
    R = (rng.standard_normal((t, mb)) * np.sqrt(d / 1000.0)).astype(dtype)
    R[3, 5] = np.sqrt((0.2 + 0.01 * seed) * d[3, 5])
    return Tile(R, d, np.zeros(mb, dtype=np.uint8))


@pytest.mark.parametrize("strip", [1, 700, 1 << 15])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_epilogue_keeps_what_a_plain_count_keeps(dtype, strip, monkeypatch):
    monkeypatch.setattr(epilogue_module, "_STRIP", strip)
    rss = np.linspace(10.0, 900.0, 41)
    epilogue = Epilogue(rss, 1000, 3, p_threshold=1e-4)
    parts = [made_tile(41, mb, dtype, seed) for seed, mb in enumerate((100, 7, 100))]
    places = [np.arange(100) + 300, np.arange(7), np.arange(100) + 50]
    for tile, place in zip(parts, places, strict=True):
        epilogue.add(tile, place)
    R, d = (np.hstack([tile[k] for tile in parts]) for k in (0, 1))
    place, x = np.concatenate(places), R * R / d
    bins = epilogue.bins
    counts = np.array([np.bincount(bins.of(row), minlength=bins.count) for row in x])
    assert np.array_equal(epilogue.counts, counts) and epilogue.tests == 207
    assert np.array_equal(epilogue.best_x, x.max(axis=1)) and np.array_equal(epilogue.best_snp, place[x.argmax(axis=1)])
    hits = epilogue.take_hits()
    trait, column = np.nonzero(epilogue.statistic.log10_p(x) >= 4)
    assert hits.x.size == trait.size >= 3
    assert set(zip(hits.trait, hits.snp, strict=True)) == set(zip(trait, place[column], strict=True))
    assert hits.log10_p.min() >= 4 and epilogue.take_hits().x.size == 0


def test_ties_go_to_the_first_snp_in_any_order():
    tile = made_tile(4, 6, np.float64)
    R, d = np.tile(tile.R[:, :1], 6), np.tile(tile.d[:, :1], 6)
    epilogue = Epilogue(np.ones(4), 1000, 3)
    for places in ([20, 21, 22, 23, 24, 25], [7, 8, 9, 10, 11, 12], [30, 31, 32, 33, 34, 35]):
        epilogue.add(Tile(R, d, tile.note), np.array(places))
    assert np.all(epilogue.best_snp == 7)


def test_ranks_are_absorbed():
    together, first, second = (Epilogue(np.ones(41), 1000, 3) for _ in range(3))
    one, two = made_tile(41, 60, np.float64, 1), made_tile(41, 80, np.float64, 2)
    for tile, places, alone in ((one, np.arange(60), first), (two, np.arange(80) + 60, second)):
        together.add(tile, places)
        alone.add(tile, places)
    second.absorb(first.best_x, first.best_snp, first.counts, first.tests)
    for attribute in ("best_x", "best_snp", "counts", "tests"):
        assert np.array_equal(getattr(second, attribute), getattr(together, attribute))
    np.testing.assert_allclose(second.best_log10_p(), together.statistic.log10_p(together.best_x))


def test_without_histogram_and_into_transposed_output():
    tile = made_tile(41, 60, np.float32)
    rss = np.linspace(1.0, 9.0, 41)
    epilogue = Epilogue(rss, 1000, 3, histogram=False)
    store = np.empty((60, 41), dtype=np.float32)
    epilogue.add(tile, np.arange(60), store.T)
    assert epilogue.counts is None
    np.testing.assert_allclose(store.T, tile.R * np.sqrt(rss)[:, None] / tile.d, rtol=1e-6)
