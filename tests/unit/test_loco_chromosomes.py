"""SNPs by chromosome, and by the keys that tell whether two files hold the same ones."""

from __future__ import annotations

import numpy as np
import pytest

from mpgls.errors import InputError
from mpgls.study import plink
from mpgls.study.chromosome_names import (
    canonical_chromosome,
    check_left_out,
    plain_chromosome,
    positions_of,
    spellings,
)
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


def test_leading_zeros_are_no_difference_and_two_names_in_one_file_are_two_chromosomes(tmp_path):
    found = chromosomes_of(make_bim(tmp_path / "g.bim", ["01", "1", "chr01", "23", "X", "023"]), np.arange(6))
    assert found.labels == ("01", "23", "X")
    np.testing.assert_array_equal(found.code, [0, 1, 2, 1])


@pytest.mark.parametrize(
    ("one", "other"),
    [("1", "01"), ("chr1", "1"), ("X", "23"), ("chrY", "24"), ("XY", "par1"), ("MT", "chrM"), ("26", "m"), ("0X", "X")],
)
def test_snps_are_known_again_under_another_name_of_their_chromosome(tmp_path, one, other):
    bims = [make_bim(tmp_path / f"{k}.bim", [label]) for k, label in enumerate((one, other, "7"))]
    keys = [int(snp_keys(bim.read(0, 1))[0]) for bim in bims]
    assert keys[0] == keys[1] != keys[2]


def test_names_of_chromosomes():
    assert [plain_chromosome(name) for name in ("chr01", "Chr1", "1", " x", "0", "00", "1a", "010", "000012F")] == [
        "1", "1", "1", "X", "0", "0", "1A", "10", "12F"
    ]  # fmt: skip
    assert [canonical_chromosome(name) for name in ("chrX", "y", "PAR2", "M", "chrMT", "2L", "scaffold_12")] == [
        "23", "24", "25", "26", "26", "2L", "SCAFFOLD_12"
    ]  # fmt: skip
    assert spellings("X") == ("X", "23") and spellings("5") == ("5",) and spellings("26") == ("26", "MT", "M")
    assert positions_of("23", ["22", "X", "1"]) == [1] and positions_of("X", ["23", "x", "X"]) == [1, 2]
    assert positions_of("9", ["1"]) == []


def test_chromosomes_that_cannot_be_left_out_are_named():
    assert check_left_out(["01", "X"], ["1", "2", "23"], "K.h5") == ()
    (warning,) = check_left_out(["1", "2", "X", "MT"], ["1"], "K.h5")
    assert warning == "K.h5 has no SNP of chromosomes 2, X, MT: nothing is left out for them"
    with pytest.raises(InputError, match=r"K\.h5 has no SNP of any tested chromosome.*tested ones are A01, A02, those"):
        check_left_out(["A01", "A02"], ["1", "2"], "K.h5")
    with pytest.raises(InputError, match=r"those of K\.h5 are none"):
        check_left_out(["1"], [], "K.h5")


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
