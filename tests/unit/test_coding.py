"""Codings of genotypes: what becomes of a row of bytes, against NumPy on copies and dosages."""

from __future__ import annotations

import numpy as np
import pytest

from mpgls.model.coding import ADDITIVE, DOMINANT, RECESSIVE, Coding
from mpgls.study.genotypes import Decoder

N, B = 37, 11
MADE = {DOMINANT: lambda x: np.minimum(x, 1.0), RECESSIVE: lambda x: np.maximum(x - 1.0, 0.0)}


def packed(G: np.ndarray) -> np.ndarray:
    """Copies (n, B), NaN where missing, as rows of a .bed."""
    n, snps = G.shape
    codes = np.zeros((snps, -(-n // 4) * 4), dtype=np.uint8)
    codes[:, :n] = np.where(np.isnan(G), 1, np.select([G == 2, G == 1], [0, 2], 3)).T
    return np.bitwise_or.reduce(codes.reshape(snps, -1, 4) << np.array([0, 2, 4, 6], dtype=np.uint8), axis=2)


def rows_of(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Genotypes (N, B), NaN where missing, and their rows of bytes; multiples of 2^-14, as a .pgen has them."""
    rng = np.random.default_rng(1)
    G = rng.binomial(2, 0.5, (N, B)).astype(float)
    if kind == "dosages":
        G = np.round(np.clip(G + rng.normal(0, 0.3, G.shape), 0, 2) * 2**14) / 2**14
    G[rng.random(G.shape) < 0.1] = np.nan
    G[:, 3] = np.nan
    if kind == "dosages":
        return G, np.ascontiguousarray(np.nan_to_num(G, nan=-9.0).T.astype(np.float32)).view(np.uint8)
    return G, packed(G)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("kind", ["hard calls", "dosages"])
@pytest.mark.parametrize("coding", [DOMINANT, RECESSIVE])
def test_columns_are_centred_and_imputed_as_coded(coding, kind, dtype):
    G, rows = rows_of(kind)
    panels = [np.array([5, 1, 30]), np.arange(10, 25)]
    outs = [np.empty((panel.size, B), dtype=dtype, order="F") for panel in panels]
    decoder = Decoder(N, panels, dtype, coding=coding)
    stats = decoder.decode(rows, outs)
    analysed = np.concatenate(panels)
    x = MADE[coding](G[analysed])
    with np.errstate(invalid="ignore"), pytest.warns(RuntimeWarning):
        mean, variance = np.nan_to_num(np.nanmean(x, axis=0)), np.nan_to_num(np.nanvar(x, axis=0))
    np.testing.assert_allclose(np.vstack(outs), np.nan_to_num(x - mean), atol=1e-15 if dtype == np.float64 else 1e-7)
    known = np.isfinite(x).sum(axis=0)
    np.testing.assert_allclose(stats.mean, mean, rtol=1e-15)
    np.testing.assert_allclose(stats.variance, variance * known / analysed.size, rtol=1e-13, atol=1e-16)
    again = [np.empty_like(out) for out in outs]
    decoder.decode(rows, again, decoder.stats(rows))
    assert all(np.array_equal(*pair) for pair in zip(outs, again, strict=True))


@pytest.mark.parametrize("kind", ["hard calls", "dosages"])
def test_what_is_said_of_alleles_does_not_depend_on_the_coding(kind):
    _, rows = rows_of(kind)
    plain, coded = (Decoder(N, [np.arange(N)], np.float64, coding=one).stats(rows) for one in (ADDITIVE, RECESSIVE))
    for name in ("eaf", "n_obs", "copies", "chromosomes", "info", "one_genotype"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(coded, name))
    assert not np.array_equal(plain.variance, coded.variance)


def test_a_coding_is_linear_between_its_codes():
    x = np.linspace(0, 2, 41)
    for codes in ((0.0, 1.0, 1.0), (0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (2.0, 0.5, 3.0)):
        np.testing.assert_allclose(Coding(codes).of(x), np.interp(x, [0, 1, 2], codes), atol=1e-15)
