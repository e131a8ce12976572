"""Mass-univariate models against full regressions, nilearn and statistics in closed form; bits that must not change."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import vgwas_oracle as oracle
from scipy import stats

from mpgls.model.mulm import (
    COLLINEAR_SNP,
    CONSTANT_VOXEL,
    Pairs,
    Score,
    SnpBlock,
    TileScan,
    rescore,
    unit_residuals,
    whiten,
)

N, B, V, R = 83, 37, 211, 4


@pytest.fixture(scope="module")
def data():
    """X (B, n) centred, Y (v, n) with a mean far from 0, Z (n, r)."""
    rng = np.random.default_rng(1)
    Z = np.column_stack([np.ones(N), rng.standard_normal((N, R - 1))])
    X = rng.integers(0, 3, (B, N)).astype(np.float64) + 0.3 * Z[:, 1]
    Y = rng.standard_normal((V, N)) + 50.0 + 2 * Z[:, 2]
    return X - X.mean(axis=1, keepdims=True), Y, Z


def prepared(data, dtype=np.float64):
    X, Y, Z = data
    Z_w, R_Y = whiten(Z), np.empty((V, N), dtype=dtype)
    lengths = unit_residuals(Y, Z_w, R_Y, CONSTANT_VOXEL)
    return SnpBlock(X, Z_w, dtype), R_Y, lengths


def found_t(scan, block, order, R_Y, testable=None):
    """t (B, v) of the entries, NaN elsewhere."""
    t = np.full((B, len(R_Y)), np.nan)
    entries = scan.entries(block, order, R_Y, np.ones(len(R_Y), dtype=bool) if testable is None else testable)
    t[entries.snp, entries.voxel] = entries.t
    return t


def test_residuals_are_of_length_one_and_orthogonal_to_the_confounds(data):
    _, Y, Z = data
    R_Y = np.empty((V, N))
    lengths = unit_residuals(Y, whiten(Z), R_Y, CONSTANT_VOXEL)
    expected = Y - (Z @ np.linalg.lstsq(Z, Y.T, rcond=None)[0]).T
    np.testing.assert_allclose(R_Y * lengths[:, None], expected, atol=1e-11)
    np.testing.assert_allclose(np.linalg.norm(R_Y, axis=1), 1.0, rtol=1e-13)
    assert np.abs(R_Y @ Z).max() < 1e-11


def test_residuals_of_a_row_depend_on_no_other_row_bit_for_bit(data):
    _, Y, Z = data
    whole, Z_w = np.empty((V, N)), whiten(Z)
    lengths = unit_residuals(Y, Z_w, whole, CONSTANT_VOXEL)
    for step in (1, 5, 64):
        for first in range(0, V, step):
            part = np.empty((len(Y[first : first + step]), N))
            here = unit_residuals(np.asfortranarray(Y[first : first + step]), Z_w, part, CONSTANT_VOXEL)
            assert part.tobytes() == whole[first : first + step].tobytes()
            assert here.tobytes() == lengths[first : first + step].tobytes()


def test_what_the_confounds_explain_has_length_zero(data):
    X, Y, Z = data
    values = np.vstack([Y[:2], np.full(N, 3.7), Z @ [1.0, 2.0, -1.0, 0.5], np.float32(1e4) + Y[2].astype(np.float32)])
    out = np.empty_like(values)
    lengths = unit_residuals(values, whiten(Z), out, CONSTANT_VOXEL)
    assert (lengths > 0).tolist() == [True, True, False, False, True]
    assert not out[2:4].any()
    snps = np.vstack([X[:1], Z[:, 1] - Z[:, 1].mean(), np.zeros(N)])
    assert (unit_residuals(snps, whiten(Z), np.empty_like(snps), COLLINEAR_SNP) > 0).tolist() == [True, False, False]


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-11), (np.float32, 1e-5)])
@pytest.mark.parametrize("permute", [False, True])
def test_t_is_that_of_the_full_regression(data, dtype, tolerance, permute):
    X, Y, Z = data
    order = np.random.default_rng(3).permutation(N) if permute else np.arange(N)
    block, R_Y, _ = prepared(data, dtype)
    t = found_t(TileScan(Score(N - R - 1, 1.0), R, N, dtype), block, order, R_Y)
    np.testing.assert_allclose(t, oracle.t_scores(X.T, Y.T, Z, order), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_exactly_the_pairs_beyond_the_threshold_are_found(data, dtype):
    X, Y, Z = data
    order = np.random.default_rng(4).permutation(N)
    block, R_Y, _ = prepared(data, dtype)
    expected = oracle.t_scores(X.T, Y.T, Z, order)
    for p in (0.5, 0.01, 1e-4):
        score = Score(N - R - 1, p)
        t = found_t(TileScan(score, R, N, dtype), block, order, R_Y)
        assert np.array_equal(np.isfinite(t), np.abs(expected) >= score.t_threshold)
        assert 2 * stats.t.sf(score.t_threshold, N - R - 1) == pytest.approx(p, rel=1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_entries_do_not_depend_on_tiles_bit_for_bit(data, dtype):
    block, R_Y, _ = prepared(data, dtype)
    order = np.random.default_rng(5).permutation(N)
    score = Score(N - R - 1, 0.05)
    whole = found_t(TileScan(score, R, N, dtype), block, order, R_Y)
    assert np.isfinite(whole).any()
    for snps, nbytes in ((1, 1), (5, 4096), (13, 9999), (B, 64)):
        scan = TileScan(score, R, N, dtype, tile_snps=snps, tile_bytes=nbytes)
        assert found_t(scan, block, order, R_Y).tobytes() == whole.tobytes()
        parts = [found_t(scan, block, order, R_Y[a : a + 53]) for a in range(0, V, 53)]
        assert np.hstack(parts).tobytes() == whole.tobytes()


def test_few_snps_and_very_many_voxels(monkeypatch):
    monkeypatch.setattr("mpgls.model.mulm.STRIP", 100)
    rng = np.random.default_rng(9)
    X, Y, Z = rng.standard_normal((2, N)), rng.standard_normal((777, N)), np.ones((N, 1))
    block, R_Y = SnpBlock(X - X.mean(axis=1, keepdims=True), whiten(Z), np.float64), np.empty((777, N))
    unit_residuals(Y, whiten(Z), R_Y, CONSTANT_VOXEL)
    entries = TileScan(Score(N - 2, 0.1), 1, N, np.float64).entries(block, np.arange(N), R_Y, np.ones(777, dtype=bool))
    expected = np.argwhere(np.abs(oracle.t_scores(X.T, Y.T, Z)) >= stats.t.isf(0.05, N - 2))
    assert sorted(zip(entries.snp, entries.voxel, strict=True)) == sorted(map(tuple, expected.tolist()))


def test_scores_do_not_depend_on_the_pairs_beside_them_bit_for_bit(data):
    block, R_Y, _ = prepared(data, np.float32)
    ZX = block.permuted(np.random.default_rng(6).permutation(N))
    rng = np.random.default_rng(7)
    snp, voxel = rng.integers(0, B, 3000), rng.integers(0, V, 3000)
    beta, gamma2 = rescore(ZX, R, R_Y, snp, voxel)
    for first, step in ((0, 1), (17, 3), (1000, 999)):
        part = slice(first, first + step)
        again = rescore(ZX, R, R_Y, snp[part], voxel[part])
        assert again[0].tobytes() == beta[part].tobytes() and again[1].tobytes() == gamma2[part].tobytes()


def test_untestable_voxels_and_snps_have_no_entry_even_without_a_threshold(data):
    X, Y, Z = data
    values, snps = Y.copy(), X.copy()
    values[9], snps[4] = 2.0, Z[:, 1] - Z[:, 1].mean()
    block, R_Y, lengths = prepared((snps, values, Z))
    t = found_t(TileScan(Score(N - R - 1, 1.0), R, N, np.float64), block, np.arange(N), R_Y, lengths > 0)
    missing = np.isnan(t)
    assert missing[4].all() and missing[:, 9].all() and missing.sum() == V + B - 1


def test_t_of_an_exact_fit_is_infinite():
    score = Score(10, 0.05)
    assert score.t(np.array([1.0, -1.0, 0.0]), np.zeros(3)).tolist() == [np.inf, -np.inf, 0.0]
    assert score.log10_p(np.array([np.inf]))[0] == np.inf


@pytest.mark.parametrize("covariates", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-10), (np.float32, 1e-5)])
def test_t_and_maxima_are_those_of_nilearn_on_the_same_permutations(data, covariates, dtype, tolerance):
    permuted_ols = pytest.importorskip("nilearn.mass_univariate").permuted_ols
    X, Y, Z = data
    Z = Z if covariates else Z[:, :1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = permuted_ols(
            X.T, Y.T, Z[:, 1:] if covariates else None, n_perm=5, random_state=8, output_type="dict"
        )  # fmt: skip
    r = Z.shape[1]
    Z_w, R_Y = whiten(Z), np.empty((V, N), dtype=dtype)
    unit_residuals(Y, Z_w, R_Y, CONSTANT_VOXEL)
    block, scan = SnpBlock(X, Z_w, dtype), TileScan(Score(N - r - 1, 1.0), r, N, dtype)
    t = found_t(scan, block, np.arange(N), R_Y)
    np.testing.assert_allclose(t, theirs["t"], rtol=tolerance, atol=tolerance)
    # nilearn shuffles what the last permutation left, with a generator seeded by one of random_state
    rng = np.random.RandomState(np.random.RandomState(8).randint(1, np.iinfo(np.int32).max - 1))
    order = np.arange(N)
    for k in range(5):
        order = order[rng.permutation(N)]
        largest = np.abs(found_t(scan, block, order, R_Y)).max(axis=1)
        np.testing.assert_allclose(largest, theirs["h0_max_t"][:, k], rtol=tolerance)


def test_pairs_that_are_nominated_elsewhere_are_scored_alike_in_threads_bit_for_bit(data, monkeypatch):
    """Beside all others, in any order, some of them at a time."""
    monkeypatch.setattr("mpgls.model.mulm.TOGETHER", 100)
    block, R_Y, _ = prepared(data, np.float32)
    order, scan = np.random.default_rng(5).permutation(N), TileScan(Score(N - R - 1, 0.05), R, N, np.float32)
    expected = scan.entries(block, order, R_Y, np.ones(V, dtype=bool))
    assert len(expected) > 100
    for snps in (np.arange(B), np.unique(expected.snp)[:3]):
        pairs = np.array([(snp, voxel) for snp in snps for voxel in range(V)])[::-1]
        with ThreadPoolExecutor(3) as pool:
            found = scan.scored(block, order, R_Y, Pairs(*pairs.T), pool)
        at, here = np.lexsort((found.voxel, found.snp)), np.isin(expected.snp, snps)
        by = np.lexsort((expected.voxel[here], expected.snp[here]))
        for name in ("snp", "voxel", "beta", "t"):
            assert np.array_equal(getattr(found, name)[at], getattr(expected, name)[here][by])
    assert len(scan.scored(block, order, R_Y, Pairs(np.empty(0, np.int64), np.empty(0, np.int64)))) == 0
