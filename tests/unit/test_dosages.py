"""Sums and centred columns of dosages, against NumPy over the samples that are known."""

from __future__ import annotations

import numpy as np
import pytest

from mpgls.study.count_filters import passes
from mpgls.study.filters import SnpFilter
from mpgls.study.genotypes import HAPLOID, ON_X, ON_Y, TWO_COPIES, Decoder, missing_per_sample
from mpgls.study.ploidy import SexedGenotypes
from mpgls.study.snp_stats import SnpStats

N, B = 43, 9


def dosages(n: int = N, seed: int = 1) -> np.ndarray:
    """(B, n) float32 in steps of 2^-14, -9 where missing; SNP 3 is known of nobody."""
    rng = np.random.default_rng(seed)
    made = np.where(rng.random((B, n)) < 0.1, -9.0, np.round(rng.uniform(0, 2, (B, n)) * 16384) / 16384)
    made[3] = -9.0
    return made.astype(np.float32)


def rows_of(made: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(made).view(np.uint8)


def known(made: np.ndarray) -> np.ndarray:
    return np.where(made < 0, np.nan, made.astype(np.float64))


PANELS = {
    "all": [np.arange(N)],
    "some": [np.array([5, 2, 40, 11])],
    "two": [np.arange(1, N, 2), np.arange(0, N, 2)[::-1]],
    "empty": [np.arange(3), np.arange(0)],
}


@pytest.mark.parametrize("panels", PANELS.values(), ids=PANELS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_panels_are_centred(panels: list[np.ndarray], dtype: type) -> None:
    made = dosages()
    decoder = Decoder(N, panels, dtype)
    outs = [np.full((len(panel), B), np.nan, dtype=dtype, order="F") for panel in panels]
    stats = decoder.decode(rows_of(made), outs)
    x = known(made)[:, np.concatenate(panels)]
    there = np.isfinite(x)
    np.testing.assert_array_equal(stats.n_obs, there.sum(axis=1))
    np.testing.assert_array_equal(stats.a1_sum, np.nansum(x, axis=1))
    np.testing.assert_array_equal(stats.sum_sq, np.nansum(x**2, axis=1))
    mean = np.nansum(x, axis=1) / np.maximum(there.sum(axis=1), 1)
    np.testing.assert_array_equal(np.concatenate(outs).T, np.where(there, x - mean[:, None], 0.0).astype(dtype))


def test_a_shift_takes_the_place_of_the_mean() -> None:
    made, out = dosages(), np.empty((N, B), order="F")
    shift = np.linspace(-1, 1, B)
    decoder = Decoder(N, [np.arange(N)], np.float64)
    decoder.decode(rows_of(made), [out], decoder.stats(rows_of(made)), shift)
    np.testing.assert_array_equal(out.T, np.where(made < 0, 0.0, made.astype(np.float64) - shift[:, None]))


def test_variance_and_frequency() -> None:
    made = dosages(1000)
    stats = Decoder(1000, [np.arange(1000)], np.float64).stats(rows_of(made))
    some = np.delete(np.arange(B), 3)
    scatter = np.nanvar(known(made[some]), axis=1) * stats.n_obs[some]
    np.testing.assert_allclose(stats.variance[some], scatter / 1000, rtol=1e-12)
    np.testing.assert_allclose(stats.eaf[some], np.nanmean(known(made[some]), axis=1) / 2, rtol=1e-14)
    assert np.isnan(stats.eaf[3]) and stats.variance[3] == 0


def test_quality_of_imputation() -> None:
    """The variance of dosages over 2 p (1-p), and what --info keeps of it."""
    rng = np.random.default_rng(3)
    genotypes = rng.binomial(2, 0.3, (3, 5000)).astype(np.float32)
    halved = (0.6 + (genotypes[1] - 0.6) / 2).astype(np.float32)
    made = np.array([genotypes[0], halved, np.full(5000, 0.6)], dtype=np.float32)
    stats = Decoder(5000, [np.arange(5000)], np.float64).stats(rows_of(made))
    p = made.astype(np.float64).mean(axis=1) / 2
    wanted = made.astype(np.float64).var(axis=1) / (2 * p * (1 - p))
    np.testing.assert_allclose(stats.info[:2], wanted[:2], rtol=1e-10)
    assert abs(stats.info[0] - 1) < 0.1 and abs(stats.info[1] - 0.25) < 0.03 and np.isnan(stats.info[2])
    assert passes(stats, SnpFilter(info=0.8)).tolist() == [True, False, True]
    assert passes(stats, SnpFilter(info=stats.info[1])).all()


@pytest.mark.parametrize("n", [1, 2, 10_007, 300_001])
def test_the_same_dosage_in_everybody_does_not_vary(n: int) -> None:
    made = np.full((4, n), [[0.3], [1.0], [0.0], [1.7]], dtype=np.float32)
    made[:, 1::7] = np.where(np.arange(4) == 3, -9.0, made[:, 0])[:, None]
    stats = Decoder(n, [np.arange(n)], np.float64).stats(rows_of(made))
    assert stats.monomorphic.all() and (stats.variance == 0).all()


def test_one_other_genotype_among_many_varies() -> None:
    """What is rounding of dosages is none of counts: one heterozygote among 10^9 people."""
    n = 10**9
    stats = SnpStats(np.array([n, n]), np.array([1.0, 2.0 * n - 1]), np.array([1.0, 4.0 * n - 3]), n)
    assert not stats.monomorphic.any()


def test_missing_genotypes_of_each_sample() -> None:
    made = dosages()
    np.testing.assert_array_equal(missing_per_sample(rows_of(made), N), (made < 0).sum(axis=0))


def test_whole_dosages_are_genotypes() -> None:
    """The same counts and the same bits as from a .bed."""
    copies = np.random.default_rng(2).choice([0, 1, 2, -9], (B, N))
    quads = np.full((B, 44), 3, dtype=np.uint8)
    quads[:, :N] = np.select([copies == 2, copies == 1, copies == 0], [0, 2, 3], 1)
    packed = np.bitwise_or.reduce(quads.reshape(B, -1, 4) << np.array([0, 2, 4, 6], dtype=np.uint8), axis=2)
    made = []
    for rows in (packed, rows_of(copies.astype(np.float32))):
        out = np.empty((N, B), dtype=np.float32, order="F")
        made.append((Decoder(N, [np.arange(N)], np.float32).decode(rows, [out]), out))
    (one, x), (two, y) = made
    np.testing.assert_array_equal(x, y)
    for name in ("n_obs", "a1_sum", "sum_sq", "variance", "monomorphic"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


@pytest.mark.parametrize("x_model", [2, 1])
def test_dosages_by_sex(x_model: int) -> None:
    """X, Y and MT of dosages: a person's x, and the frequency over the chromosomes that there are."""
    made = np.array([[1.5, 1.0, 0.5, -9.0, 2.0]] * 4, dtype=np.float32)
    males = np.array([True, True, False, False, True])

    class Plain:
        n, m, dosages, snp_bytes, held_bytes = 5, 4, True, 20, 0

    class Known:
        codes = np.array([TWO_COPIES, ON_X, ON_Y, HAPLOID], dtype=np.uint8)

        def of(self, rows: np.ndarray) -> np.ndarray:
            return self.codes[rows]

    sexed = SexedGenotypes(Plain(), np.where(males, 1, 2), Known(), x_model)  # type: ignore[arg-type]
    rows = sexed.recode(rows_of(made), np.arange(4))
    assert rows.shape == (4, sexed.snp_bytes)
    decoder, out = Decoder(5, [np.arange(5)], np.float64, sexed.males), np.empty((5, 4), order="F")
    stats = decoder.decode(rows, [out], shift=np.zeros(4))
    scale = 2 / x_model
    wanted = [
        [1.5, 1.0, 0.5, 0, 2],
        [1.5 / scale, 0, 0.5, 0, 2 / scale],  # a man with a dosage of exactly 1 is heterozygous
        [0.75, 0, 0, 0, 1],
        [0.75, 0, 0.25, 0, 1],
    ]
    np.testing.assert_array_equal(out.T, wanted)
    assert stats.n_obs.tolist() == [4, 3, 2, 3]
    np.testing.assert_allclose(stats.eaf, [5 / 8, (0.75 + 0.5 + 1) / 4, 1.75 / 2, 2 / 3], rtol=1e-12)
    assert missing_per_sample(rows, 5).tolist() == [0, 3, 1, 4, 0]
