"""Counting and decoding packed genotypes, against plain loops over the two-bit codes."""

from __future__ import annotations

import numpy as np
import pytest

from mpgls.study import genotypes
from mpgls.study.genotypes import Decoder, bytes_per_snp, keep_bytes, missing_per_sample
from mpgls.study.snp_stats import SnpStats

COPIES_OF_CODE = np.array([2.0, np.nan, 1.0, 0.0])


def pack(codes: np.ndarray, padding: int = 0) -> np.ndarray:
    """Two-bit codes (B, n) as .bed rows; ``padding`` is the code written after the last sample."""
    snps, n = codes.shape
    full = np.full((snps, 4 * bytes_per_snp(n)), padding, dtype=np.uint8)
    full[:, :n] = codes
    quads = full.reshape(snps, -1, 4)
    return (quads << np.array([0, 2, 4, 6], dtype=np.uint8)).sum(axis=2).astype(np.uint8)


def random_codes(snps: int, n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.choice(4, size=(snps, n), p=[0.2, 0.1, 0.4, 0.3]).astype(np.uint8)


def fortran(sizes: list[int], snps: int, dtype: str = "f8") -> list[np.ndarray]:
    return [np.full((size, snps), np.nan, dtype=dtype, order="F") for size in sizes]


def expected(codes: np.ndarray, analysed: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Centred dosages (len(rows), B), one SNP at a time."""
    columns = []
    for snp in COPIES_OF_CODE[codes]:
        observed = snp[analysed][~np.isnan(snp[analysed])]
        mean = observed.mean() if observed.size else 0.0
        columns.append(np.nan_to_num(snp[rows] - mean, nan=0.0))
    return np.array(columns).reshape(len(codes), len(rows)).T


PANELS = {
    "all": lambda n: [np.arange(n)],
    "middle": lambda n: [np.arange(n)[1:-1]],
    "scattered": lambda n: [np.flatnonzero(np.arange(n) % 3 != 1)],
    "cyclic": lambda n: [np.flatnonzero(np.arange(n) // 2 % 3 == r) for r in range(3)],
    "unsorted": lambda n: [np.arange(n)[::-1]],
    "empty and some": lambda n: [np.empty(0, dtype=np.int64), np.arange(n)[n // 2 :]],
}


@pytest.mark.parametrize("dtype", ["f8", "f4"])
@pytest.mark.parametrize("kind", PANELS)
@pytest.mark.parametrize("n", [5, 64, 131])
def test_decode_centres_each_snp_over_the_analysed_samples(n: int, kind: str, dtype: str) -> None:
    codes = random_codes(67, n, seed=n)
    codes[0], codes[1], codes[2] = 1, 2, 3
    panels = PANELS[kind](n)
    outs = fortran([len(rows) for rows in panels], 67, dtype)
    Decoder(n, panels, dtype).decode(pack(codes), outs)
    analysed = np.concatenate(panels)
    for rows, out in zip(panels, outs, strict=True):
        tolerance = 1e-15 if dtype == "f8" else 1e-7
        np.testing.assert_allclose(out, expected(codes, analysed, rows), rtol=0, atol=4 * tolerance)


@pytest.mark.parametrize("padding", [0, 1, 2, 3])
def test_bits_after_the_last_sample_count_for_nothing(padding: int) -> None:
    codes = random_codes(9, 13)
    decoder = Decoder(13, [np.arange(13)], "f8")
    clean, noisy = fortran([13, 13], 9)
    reference, stats = decoder.decode(pack(codes), [clean]), decoder.decode(pack(codes, padding), [noisy])
    np.testing.assert_array_equal(clean, noisy)
    np.testing.assert_array_equal(reference.n_obs, stats.n_obs)
    np.testing.assert_array_equal(reference.sum_sq, stats.sum_sq)
    np.testing.assert_array_equal(missing_per_sample(pack(codes, padding), 13), (codes == 1).sum(axis=0))


def test_stats_equal_plain_counts_and_exclude_other_samples() -> None:
    codes = random_codes(150, 37)
    rows = np.array([0, 3, 4, 9, 20, 36])
    stats = Decoder(37, [rows[:2], rows[2:]], "f8").stats(pack(codes))
    x = COPIES_OF_CODE[codes[:, rows]]
    np.testing.assert_array_equal(stats.n_obs, (~np.isnan(x)).sum(axis=1))
    np.testing.assert_array_equal(stats.a1_sum, np.nansum(x, axis=1))
    np.testing.assert_array_equal(stats.sum_sq, np.nansum(x**2, axis=1))
    assert (stats.n, stats.n_obs.dtype) == (6, np.int32)


def test_counts_longer_than_one_run_of_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(genotypes, "_FIELD_RUN", 3)
    codes = random_codes(20, 50)
    stats = Decoder(50, [np.arange(50)], "f8").stats(pack(codes))
    np.testing.assert_array_equal(stats.a1_sum, np.nansum(COPIES_OF_CODE[codes], axis=1))
    np.testing.assert_array_equal(stats.n_obs, (codes != 1).sum(axis=1))


def test_one_run_of_fields_cannot_overflow() -> None:
    assert 4 * genotypes._FIELD_RUN <= genotypes._FIELD_MASK


def test_given_stats_save_the_counting_and_set_the_mean() -> None:
    codes = random_codes(11, 21)
    decoder = Decoder(21, [np.arange(21)], "f8")
    (plain, again) = fortran([21, 21], 11)
    stats = decoder.decode(pack(codes), [plain])
    assert decoder.decode(pack(codes), [again], stats) is stats
    np.testing.assert_array_equal(plain, again)
    shifted = SnpStats(stats.n_obs, stats.a1_sum + stats.n_obs, stats.sum_sq, stats.n)
    decoder.decode(pack(codes), [again], shifted)
    np.testing.assert_allclose(again, np.where(codes.T == 1, 0.0, plain - 1.0), atol=1e-14)


def test_summary_properties_of_hand_made_snps() -> None:
    #             2 2 1 . | all missing | all one copy | 0 0 0 2
    codes = np.array([[0, 0, 2, 1], [1, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 0]], dtype=np.uint8)
    stats = Decoder(4, [np.arange(4)], "f8").stats(pack(codes))
    np.testing.assert_allclose(stats.mean, [5 / 3, 0, 1, 0.5], rtol=1e-15)
    np.testing.assert_allclose(stats.eaf, [5 / 6, np.nan, 0.5, 0.25], rtol=1e-15)
    np.testing.assert_array_equal(stats.monomorphic, [False, True, True, False])
    np.testing.assert_allclose(stats.variance, [(2 / 9 + 4 / 9) / 4, 0, 0, 0.75], rtol=1e-15)


def test_variance_is_that_of_the_decoded_column() -> None:
    codes = random_codes(30, 41)
    (out,) = fortran([41], 30)
    stats = Decoder(41, [np.arange(41)], "f8").decode(pack(codes), [out])
    np.testing.assert_allclose(stats.variance, (out**2).mean(axis=0), rtol=1e-13)


def test_working_memory_is_small_and_reused() -> None:
    decoder = Decoder(8000, [np.arange(8000)], "f8")
    before = decoder._values
    (out,) = fortran([8000], 40)
    decoder.decode(pack(random_codes(40, 8000)), [out])
    assert decoder._values is before
    assert decoder.scratch_bytes < 2 << 20


def test_keep_bytes_sets_both_bits_of_the_kept_samples() -> None:
    assert keep_bytes(np.array([0, 3, 5]), 6).tolist() == [0b11000011, 0b00001100]
    assert keep_bytes(np.arange(5), 5).tolist() == [0b11111111, 0b00000011]


@pytest.mark.parametrize("snps", [1, 255, 600])
def test_missing_per_sample_beyond_one_byte_of_counts(snps: int) -> None:
    codes = random_codes(snps, 10)
    codes[:, 7] = 1
    missing = missing_per_sample(pack(codes), 10)
    np.testing.assert_array_equal(missing, (codes == 1).sum(axis=0))
    assert missing[7] == snps


def test_an_empty_block_is_fine() -> None:
    decoder = Decoder(9, [np.arange(9)], "f4")
    packed = np.empty((0, 3), dtype=np.uint8)
    assert decoder.decode(packed, fortran([9], 0, "f4")).n_obs.shape == (0,)
    assert missing_per_sample(packed, 9).tolist() == [0] * 9


@pytest.mark.parametrize("panels", [[[0, 1], [1, 2]], [[0, 9]], [[-1, 2]]])
def test_panels_must_name_each_sample_once(panels: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="sample"):
        Decoder(9, [np.array(rows) for rows in panels], "f8")


def test_outputs_that_do_not_fit_are_refused() -> None:
    decoder = Decoder(9, [np.arange(9)], "f8")
    packed = pack(random_codes(5, 9))
    for outs in ([], [np.empty((9, 5))], fortran([9], 4), fortran([9], 5, "f4")):
        with pytest.raises(ValueError, match="output"):
            decoder.decode(packed, outs)
    with pytest.raises(ValueError, match="genotypes of 9 samples are uint8"):
        decoder.stats(packed[:, :2])
    with pytest.raises(ValueError, match="float64 or float32"):
        Decoder(9, [np.arange(9)], "i4")
