from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
import oracle

from mpgls.errors import NumericalError
from mpgls.model import spectra
from mpgls.model.h2_scale import upper_h2
from mpgls.model.spectra import TraitFlag, clip_spectrum, maximise_spectral_reml

UPPER = 1.0 - 1e-6


def family(n, rng):
    """Blocks of four sibs: eigenvalues around 0.5 and 2.5."""
    return np.kron(np.eye(-(-n // 4)), 0.5 * np.ones((4, 4)) + 0.5 * np.eye(4))[:n, :n]


def population(n, rng):
    """Few large eigenvalues, many near 0."""
    A = rng.standard_normal((n, n // 3)) + 6.0 * rng.standard_normal((n, 2)) @ rng.standard_normal((2, n // 3))
    A -= A.mean(axis=0)
    return A @ A.T


def unrelated(n, rng):
    A = rng.standard_normal((n, 6 * n))
    A -= A.mean(axis=0)
    return A @ A.T


def very_low_rank(n, rng):
    A = rng.standard_normal((n, 5))
    return A @ A.T


KINDS = (family, population, unrelated, very_low_rank)


def study(kind, n, q, seed=3, truths=(0.0, 0.2, 0.5, 0.8, 0.97, 1.0), repeats=2):
    """Phi, X_L, Y of true h2 from 0 to 1, and the eigenpairs."""
    rng = np.random.default_rng(seed)
    Phi = oracle.scaled(kind(n, rng))
    lam, Z = np.linalg.eigh(Phi)
    X = np.column_stack([np.ones(n), 40 + 9 * rng.standard_normal((n, q - 1))])
    h2 = np.repeat(truths, repeats)
    polygenic = Z @ (np.sqrt(np.maximum(lam, 0.0))[:, None] * rng.standard_normal((n, h2.size)))
    Y = np.sqrt(h2) * polygenic + np.sqrt(1 - h2) * rng.standard_normal((n, h2.size))
    Y = 3.0 * Y + X @ rng.standard_normal((q, h2.size))
    return Phi, X, Y, lam, Z


def spectral_slope(h2, lam, X, y):
    """l and l' from the diagonal form, by other sums than the module: the projection in full."""
    w = 1.0 / (h2 * lam + 1.0 - h2)
    Q = np.linalg.qr(X)[0]
    WQ = w[:, None] * Q
    explained = np.linalg.solve(Q.T @ WQ, WQ.T)  # P = diag(w) - WQ explained
    e = y - Q @ (Q.T @ y)
    Py, D, df = w * e - WQ @ (explained @ e), lam - 1.0, len(y) - X.shape[1]
    rss = e @ Py
    log_det = -np.sum(np.log(w)) + np.linalg.slogdet(Q.T @ WQ)[1]
    value = -0.5 * (df * (np.log(2 * np.pi * rss / df) + 1.0) + log_det)
    return value, -0.5 * ((w - np.sum(WQ * explained.T, axis=1)) @ D - df * (Py @ (D * Py)) / rss)


def dense_h2(lam, X, y):
    """The REML h2 by a fine search of 600 values and bisection of the slope, and l there."""
    z = np.linspace(-9.0, 13.5, 600)
    h2 = np.concatenate([[0.0], 1.0 / (1.0 + np.exp(-z)), [UPPER]])
    k = int(np.argmax([spectral_slope(h, lam, X, y)[0] for h in h2]))
    low, high = h2[max(k - 1, 0)], h2[min(k + 1, h2.size - 1)]
    for end, sign in ((low, 1.0), (high, -1.0)):
        if k in (0, h2.size - 1) and sign * spectral_slope(end, lam, X, y)[1] <= 0:
            return end, spectral_slope(end, lam, X, y)[0]
    while high - low > 1e-14:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if spectral_slope(middle, lam, X, y)[1] > 0 else (low, middle)
        if middle in (low, high) and 0.5 * (low + high) in (low, high):
            break
    return 0.5 * (low + high), spectral_slope(0.5 * (low + high), lam, X, y)[0]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(("n", "q"), [(61, 3), (40, 1)])
def test_h2_is_that_of_a_fine_search(kind, n, q):
    _, X, Y, lam, Z = study(kind, n, q)
    lam = np.maximum(lam, 0.0)
    got = maximise_spectral_reml(lam, Z.T @ X, Z.T @ Y, np.linalg.slogdet(X.T @ X)[1])
    want, value = np.transpose([dense_h2(lam, Z.T @ X, Z.T @ y) for y in Y.T])
    np.testing.assert_allclose(got.h2, want, rtol=0, atol=1e-8)
    np.testing.assert_allclose(got.log_likelihood, value, rtol=1e-10)
    assert np.array_equal(got.at_boundary, (want == 0.0) | (want == UPPER))
    assert np.array_equal(got.flags == TraitFlag.LOWER, want == 0.0)
    assert np.array_equal(got.flags == TraitFlag.UPPER, want == UPPER)


def test_both_ends_are_reached():
    """The parametrised study would prove nothing about the ends if no trait were there."""
    found = []
    for kind in KINDS:
        _, X, Y, lam, Z = study(kind, 61, 3)
        found.append(maximise_spectral_reml(lam, Z.T @ X, Z.T @ Y, 0.0).flags)
    flags = np.concatenate(found)
    assert np.sum(flags == TraitFlag.LOWER) > 2 and np.sum(flags == TraitFlag.UPPER) > 2
    assert np.sum(flags == TraitFlag.NONE) > 10


def test_dense_model_agrees():
    Phi, X, Y, lam, Z = study(family, 60, 3)
    got = maximise_spectral_reml(lam, Z.T @ X, Z.T @ Y, np.linalg.slogdet(X.T @ X)[1])
    for j, y in enumerate(Y.T):
        _, _, rss = oracle.gls(X, y, oracle.covariance(got.h2[j], Phi))
        np.testing.assert_allclose(got.s2[j], rss / 57, rtol=1e-10)
        np.testing.assert_allclose(got.log_likelihood[j], oracle.reml(got.h2[j], Phi, X, y), rtol=1e-11)
        if not got.at_boundary[j]:
            np.testing.assert_allclose(got.h2[j], oracle.sharp_h2(Phi, X, y), atol=1e-8)


def test_standard_error_is_the_curvature():
    _, X, Y, lam, Z = study(family, 61, 3, truths=(0.4, 0.6), repeats=3)
    got = maximise_spectral_reml(lam, Z.T @ X, Z.T @ Y, 0.0)
    for h2, se, y in zip(got.h2, got.h2_se, Y.T, strict=True):
        if 0.01 < h2 < 0.99:
            slopes = [spectral_slope(h2 + step, lam, Z.T @ X, Z.T @ y)[1] for step in (-1e-5, 1e-5)]
            np.testing.assert_allclose(se, 1 / np.sqrt((slopes[0] - slopes[1]) / 2e-5), rtol=1e-6)
    assert np.sum((got.h2 > 0.01) & (got.h2 < 0.99)) >= 3


def test_negative_eigenvalues_of_rounding_are_zero():
    _, X, Y, lam, Z = study(population, 61, 2)
    low = np.argsort(lam)[:20]
    exact, rounded = lam.copy(), lam.copy()
    exact[low], rounded[low] = 0.0, -1e-12
    first, second = (maximise_spectral_reml(values, Z.T @ X, Z.T @ Y, 0.0) for values in (exact, rounded))
    assert np.array_equal(first.h2, second.h2)
    assert np.all(clip_spectrum(rounded) >= 0)
    assert upper_h2(clip_spectrum(rounded)) == UPPER


def test_truly_negative_eigenvalue_lowers_the_upper_end():
    _, X, Y, lam, Z = study(family, 61, 2, truths=(1.0,), repeats=5)
    lam[0] = -0.5
    got = maximise_spectral_reml(lam, Z.T @ X, Z.T @ Y, 0.0)
    assert clip_spectrum(lam)[0] == -0.5
    assert np.all(got.h2 <= upper_h2(lam)) and np.all(1 + got.h2 * (lam[0] - 1) > 0)
    assert np.all(np.isfinite(got.log_likelihood))


def test_unusable_traits_are_flagged_and_the_others_go_on():
    _, X, Y, lam, Z = study(family, 61, 3)
    broken = np.column_stack([Y, np.full(61, 7.0), X @ [3.0, 1.0, -2.0], np.full(61, np.nan), np.zeros(61), Y[:, 0]])
    broken[4, -1] = np.nan
    got = maximise_spectral_reml(lam, Z.T @ X, Z.T @ broken, 0.0)
    whole = maximise_spectral_reml(lam, Z.T @ X, Z.T @ Y, 0.0)
    np.testing.assert_allclose(got.h2[: Y.shape[1]], whole.h2, atol=1e-9)
    none, missing = TraitFlag.NO_VARIANCE, TraitFlag.NOT_FINITE
    assert list(got.flags[Y.shape[1] :]) == [none, none, missing, none, missing]
    assert np.all(np.isnan([getattr(got, name)[-5:] for name in ("h2", "h2_se", "s2", "log_likelihood")]))
    assert set(spectra.TRAIT_FLAG_TEXT) == {flag for flag in TraitFlag if flag}


def test_chunks_layout_and_scale_do_not_matter(monkeypatch):
    _, X, Y, lam, Z = study(population, 61, 3)
    one = maximise_spectral_reml(lam, Z.T @ X, np.asfortranarray(Z.T @ Y), 0.0)
    monkeypatch.setattr(spectra, "_CHUNK_BYTES", 5 * 8 * (4 * 61 + 6 * 4 * 90))
    monkeypatch.setattr(spectra, "_STRIP", 61 * 2)
    monkeypatch.setattr(spectra, "_ROWS", 17)
    many = maximise_spectral_reml(lam, Z.T @ X, np.ascontiguousarray(1e9 * (Z.T @ Y)), 0.0)
    np.testing.assert_allclose(many.h2, one.h2, rtol=0, atol=2e-9)
    np.testing.assert_allclose(many.s2, 1e18 * one.s2, rtol=1e-7)


def test_no_traits_and_impossible_designs():
    _, X, Y, lam, Z = study(family, 20, 3)
    assert maximise_spectral_reml(lam, Z.T @ X, Y[:, :0], 0.0).h2.shape == (0,)
    with pytest.raises(NumericalError, match="dependent"):
        maximise_spectral_reml(lam, Z.T @ np.column_stack([X, X[:, 1]]), Y, 0.0)
    with pytest.raises(NumericalError, match="degree of freedom"):
        maximise_spectral_reml(lam[:3], np.eye(3), Y[:3], 0.0)
