"""Which SNPs measure similarity, and the shift that makes their products exact in float32."""

from __future__ import annotations

import numpy as np
import pytest

from mpgls.errors import InputError, UsageError
from mpgls.study.plink import VariantTable
from mpgls.study.similarity import (
    SimilaritySnps,
    by_chromosome,
    evenly_spaced,
    every_kth,
    exact_shift,
    matching_rows,
)


def variants(tmp_path, labels):
    path = tmp_path / "x.bim"
    path.write_text("".join(f"{label}\trs{k}\t0\t{k + 1}\tA\tC\n" for k, label in enumerate(labels)))
    return VariantTable.open(path)


def test_every_kth_begins_with_the_first():
    candidates = np.array([2, 3, 5, 7, 11, 13, 17])
    assert every_kth(candidates, 3).tolist() == [2, 7, 17]
    assert every_kth(candidates, 1).tolist() == candidates.tolist()
    assert every_kth(candidates, 100).tolist() == [2]


@pytest.mark.parametrize("count", [1, 2, 17, 96, 97])
def test_evenly_spaced_are_the_middles_of_equal_shares(count):
    candidates = 5 + 3 * np.arange(97)
    chosen = (evenly_spaced(candidates, count) - 5) // 3
    assert chosen.tolist() == [int((k + 0.5) * 97 / count) for k in range(count)]
    assert len(set(chosen.tolist())) == count
    assert np.ptp(np.diff(chosen)) <= 1 if count > 1 else chosen.tolist() == [48]


def test_more_than_there_are():
    with pytest.raises(UsageError, match="--similarity-count 8 is more than the 7 SNPs"):
        evenly_spaced(np.arange(7), 8)


def test_snps_of_a_chromosome_are_brought_together(tmp_path):
    labels = ["chr2", "X", "2", "scaf_1", "x", "CHRX", "2", "1A"]
    snps = by_chromosome(variants(tmp_path, labels), np.array([0, 1, 2, 3, 5, 6, 7]))
    assert snps.index.tolist() == [0, 2, 6, 1, 5, 3, 7]
    assert snps.chromosome.tolist() == ["chr2", "chr2", "chr2", "X", "X", "scaf_1", "1A"]


def test_batches_of_the_bim_do_not_matter(tmp_path, monkeypatch):
    labels = [str(k // 7 % 3) + "a" for k in range(50)]
    index = np.flatnonzero(np.random.default_rng(1).random(50) < 0.6)
    table = variants(tmp_path, labels)
    whole = by_chromosome(table, index)
    batches = VariantTable.batches
    monkeypatch.setattr(VariantTable, "batches", lambda self: batches(self, 9))
    again = by_chromosome(table, index)
    assert again.index.tolist() == whole.index.tolist() and again.chromosome.tolist() == whole.chromosome.tolist()
    assert sorted(whole.index.tolist()) == index.tolist()


def test_leaving_one_out_keeps_at_most_two_runs():
    snps = SimilaritySnps(np.arange(10, 17), np.array(["1", "1", "2", "2", "2", "X", "X"], dtype=object))
    assert snps.without("1") == [slice(2, 7)]
    assert snps.without("chr2") == [slice(0, 2), slice(5, 7)]
    assert snps.without("x") == [slice(0, 5)]
    assert snps.without("9") == snps.without(None) == [slice(0, 7)]
    assert snps.without("01") == [slice(2, 7)] and snps.without("23") == [slice(0, 5)]
    assert snps.present() == ["1", "2", "X"]
    alone = snps.subset(np.array([False, False, True, False, True, False, False]))
    assert alone.index.tolist() == [12, 14] and alone.chromosome.tolist() == ["2", "2"]
    assert alone.without("2") == [] and alone.without("1") == [slice(0, 2)]


def test_a_chromosome_of_several_names_is_left_out_whole():
    snps = SimilaritySnps(np.arange(6), np.array(["PAR1", "23", "PAR2", "X", "2", "2"], dtype=object))
    assert snps.without("25") == [slice(1, 2), slice(3, 6)]
    assert snps.without("PAR2") == [slice(0, 2), slice(3, 6)]
    # where a file has both they are two
    assert snps.without("X") == [slice(0, 3), slice(4, 6)] and snps.without("23") == [slice(0, 1), slice(2, 6)]


def test_samples_are_found_by_family_and_name():
    others = [("b", "1"), ("a", "2"), ("a", "1")]
    assert matching_rows([("a", "1"), ("b", "1")], others, "o.fam").tolist() == [2, 0]
    with pytest.raises(InputError, match=r"o\.fam has no genotypes of sample b 2, which is analysed"):
        matching_rows([("a", "1"), ("b", "2")], others, "o.fam")


@pytest.mark.parametrize("n", [1, 100, 1410, 100_000, 1_000_000])
def test_products_of_shifted_dosages_are_exact_in_float32(n):
    """The largest sums of products that n shifted dosages can have, and all in between, are whole multiples of one
    unit below 2^24 units; and the shift is as near to the mean as that unit allows."""
    mean = np.linspace(0.0, 2.0, 8193)
    shift = exact_shift(mean, np.ones(mean.size, dtype=bool), n)
    unit = np.min(np.diff(np.unique(shift)))
    assert np.abs(shift - mean).max() <= unit / 2
    assert np.array_equal(np.float32(shift), shift)
    dosages = np.abs(np.subtract.outer(np.arange(3.0), shift))
    units = dosages / unit
    assert np.array_equal(units, np.round(units))
    assert n * units.max() ** 2 <= 2**24
    assert n * (2 * units.max()) ** 2 > 2**23  # no coarser than it must be


def test_a_product_of_thousands_of_samples_is_exact():
    rng = np.random.default_rng(3)
    n = 5003
    D = rng.binomial(2, [0.03, 0.3, 0.5, 0.9], (n, 4)).astype(float)
    D -= exact_shift(D.mean(axis=0), np.ones(4, dtype=bool), n)
    single = D.astype(np.float32)
    np.testing.assert_array_equal(single.T @ single, D.T @ D)


def test_with_missing_genotypes_the_mean_itself_is_subtracted():
    mean = np.array([0.1234567891234, 1.7])
    shift = exact_shift(mean, np.array([False, True]), 1000)
    assert shift[0] == np.float32(mean[0]) and shift[1] != np.float32(mean[1])
