"""SNPs by chromosome, and by the keys that tell whether two files hold the same ones."""

from __future__ import annotations

import numpy as np
import pytest

from mpgls.errors import InputError
from mpgls.study import plink
from mpgls.study.chromosomes import Chromosomes, chromosomes_of
from mpgls.study.plink import VariantTable
from mpgls.study.snp_keys import keys_of, snp_keys

LABELS = ["1", "chr1", "X", "2", "2", "x", "scaffold_12", "CHR1", "1A", "1A", "1A"]


def make_bim(path, labels=LABELS, prefix="rs"):
    lines = [f"{label}\t{prefix}{k}\t0\t{100 - 7 * k}\tA\tC\n" for k, label in enumerate(labels)]
    path.write_text("".join(lines))
    return VariantTable.open(path)


@pytest.fixture(params=[3, 65536])
def bim(tmp_path, request, monkeypatch):
    """Read in batches of three rows, and all at once."""
    table = make_bim(tmp_path / "g.bim")
    whole = VariantTable.batches
    monkeypatch.setattr(plink.VariantTable, "batches", lambda self: whole(self, request.param))
    return table


def test_runs_of_neighbours_under_any_labels(bim):
    found = chromosomes_of(bim, np.arange(11))
    assert found.labels == ("1", "X", "2", "scaffold_12", "1A")
    np.testing.assert_array_equal(found.edges, [0, 2, 3, 5, 6, 7, 8, 11])
    np.testing.assert_array_equal(found.code, [0, 1, 2, 1, 3, 0, 4])
    np.testing.assert_array_equal(found.sizes(), [3, 2, 2, 1, 3])
    np.testing.assert_array_equal(found.positions(0), [0, 1, 7])
    np.testing.assert_array_equal(found.positions(1), [2, 5])


def test_only_the_selected_snps_count(bim):
    found = chromosomes_of(bim, np.array([1, 3, 7, 8, 10]))
    assert found.labels == ("chr1", "2", "1A")
    np.testing.assert_array_equal(found.edges, [0, 1, 2, 3, 5])
    np.testing.assert_array_equal(found.positions(0), [0, 2])


@pytest.mark.parametrize("width", [1, 2, 3, 100])
def test_blocks_cover_all_snps_and_cross_no_chromosome(bim, width):
    found = chromosomes_of(bim, np.arange(11))
    edges, code = found.blocks(width)
    assert edges[0] == 0 and edges[-1] == 11 and code.size == edges.size - 1
    assert (np.diff(edges) >= 1).all() and (np.diff(edges) <= width).all()
    of_snp = np.repeat(code, np.diff(edges))
    for c in range(5):
        np.testing.assert_array_equal(np.flatnonzero(of_snp == c), found.positions(c))
    assert code.size == sum(-(-length // width) for length in np.diff(found.edges))


def test_without_chromosomes_blocks_are_those_of_all_snps():
    edges, code = Chromosomes.together(23).blocks(10)
    np.testing.assert_array_equal(edges, [0, 10, 20, 23])
    assert not code.any() and Chromosomes.together(23).positions(0).size == 23


@pytest.mark.parametrize("label", ["0", ".", "chr0"])
def test_a_snp_without_chromosome_is_named_if_it_is_selected(tmp_path, label):
    bim = make_bim(tmp_path / "g.bim", ["1", "2", label, "2"])
    with pytest.raises(InputError, match=rf"g\.bim, line 3: SNP rs2 has no chromosome \(its label is '{label}'\)"):
        chromosomes_of(bim, np.arange(4))
    assert chromosomes_of(bim, np.array([0, 1, 3])).labels == ("1", "2")


def test_keys_tell_snps_apart_and_know_them_again(bim, tmp_path):
    index = np.array([0, 1, 3, 4, 9])
    batches = list(keys_of(bim, index))
    assert [first for first, _ in batches] == np.cumsum([0, *(keys.size for _, keys in batches[:-1])]).tolist()
    keys = np.concatenate([keys for _, keys in batches])
    assert keys.dtype == np.uint64 and np.unique(keys).size == 5
    np.testing.assert_array_equal(keys, snp_keys(bim.read(0, 11))[index])
    relabelled = make_bim(tmp_path / "h.bim", ["chr" + name.removeprefix("chr") for name in LABELS[:7]])
    np.testing.assert_array_equal(snp_keys(relabelled.read(0, 4))[[0, 1, 3]], keys[:3])
    renamed = make_bim(tmp_path / "i.bim", prefix="snp_with_a_longer_name_")
    assert not np.isin(snp_keys(renamed.read(0, 11)), keys).any()


def test_a_key_is_the_fnv_hash_of_its_text(bim):
    expected = 0xCBF29CE484222325
    for byte in b"SCAFFOLD_12 58 rs6":
        expected = (expected ^ byte) * 0x100000001B3 % 2**64
    assert int(snp_keys(bim.read(6, 7))[0]) == expected
    assert snp_keys(bim.read(2, 2)).size == 0
