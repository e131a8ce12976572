"""Kinds of chromosomes, sexes of samples, and rows of a .bed as sex has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mpgls.errors import InputError
from mpgls.study.fam import read_fam
from mpgls.study.genotypes import HAPLOID, ON_X, ON_Y, TWO_COPIES, Decoder
from mpgls.study.plink import BedFile, VariantTable
from mpgls.study.ploidy import SexedGenotypes
from mpgls.study.sexes import read_sexes
from mpgls.study.variant_kinds import Kinds, kinds_of_variants

CODE = {2.0: 0, 1.0: 2, 0.0: 3}


def pack(G: np.ndarray) -> np.ndarray:
    """Rows of a .bed of dosages (B, n), NaN where missing."""
    codes = np.array([[CODE.get(x, 1) for x in row] for row in G.tolist()], dtype=np.uint8)
    codes = np.pad(codes, ((0, 0), (0, -G.shape[1] % 4))).reshape(len(G), -1, 4)
    return np.bitwise_or.reduce(codes << np.array([0, 2, 4, 6], dtype=np.uint8), axis=2)


def variants(folder: Path, labels: list[str], positions: list[int] | None = None) -> VariantTable:
    path = folder / "b.bim"
    at = positions or range(1, len(labels) + 1)
    path.write_text("".join(f"{c} s{k} 0 {p} A C\n" for k, (c, p) in enumerate(zip(labels, at, strict=True))))
    return VariantTable.open(path)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["1", "X", "chrx", "Y", "XY", "MT", "M", "0", "Z"], [0, 1, 1, 2, 0, 3, 3, 0, 0]),
        (["22", "23", "24", "25", "26", "chr23", "27"], [0, 1, 2, 0, 3, 1, 0]),
        (["23", "24", "26", "X", "Y", "MT"], [0, 0, 0, 1, 2, 3]),  # cattle
    ],
)
def test_kinds_by_name(tmp_path: Path, monkeypatch, labels: list[str], expected: list[int]) -> None:
    monkeypatch.setattr(VariantTable.batches, "__defaults__", (2,))
    kinds = kinds_of_variants(variants(tmp_path, labels))
    assert kinds.of(np.arange(len(labels))).tolist() == expected
    assert kinds.of(np.array([4, 1])).tolist() == [expected[4], expected[1]]


@pytest.mark.parametrize(("build", "last", "first"), [(37, 2_699_520, 154_931_044), (38, 2_781_479, 155_701_383)])
def test_pseudo_autosomal_regions(tmp_path: Path, build: int, last: int, first: int) -> None:
    table = variants(tmp_path, ["X"] * 4 + ["Y", "1"], [last, last + 1, first - 1, first, 5, 5])
    expected = [TWO_COPIES, ON_X, ON_X, TWO_COPIES, ON_Y, TWO_COPIES]
    assert kinds_of_variants(table, build).of(np.arange(6)).tolist() == expected
    assert kinds_of_variants(table).of(np.arange(6)).tolist() == [ON_X] * 4 + [ON_Y, TWO_COPIES]


@pytest.mark.parametrize("x_model", [1, 2])
@pytest.mark.parametrize("n", [1, 4, 9, 30])
def test_rows_as_sex_has_them(n: int, x_model: int) -> None:
    rng = np.random.default_rng(n)
    sexes, kind = rng.integers(0, 3, n).astype(np.int8), rng.integers(0, 4, 60).astype(np.uint8)
    G = rng.choice([0.0, 1.0, 2.0, np.nan], (60, n))
    plain = BedFile(Path("g.bed"), n, 60)
    bed = SexedGenotypes(plain, sexes, Kinds(np.arange(61), kind), x_model)
    order = rng.permutation(60)
    rows = bed.recode(pack(G[order]), order)
    assert rows.shape == (60, bed.snp_bytes)
    male, expected, copies, chromosomes = sexes == 1, G.copy(), G.copy(), np.where(np.isnan(G), 0, 2)
    for k in range(60):
        single = {TWO_COPIES: male & False, ON_X: male, ON_Y: male, HAPLOID: male | True}[int(kind[k])]
        expected[k, single & (G[k] == 1)] = np.nan
        if kind[k] == ON_Y:
            expected[k, ~male] = np.nan
        chromosomes[k] = np.where(np.isnan(expected[k]), 0, np.where(single, 1, 2))
        copies[k] = np.where(single, expected[k] / 2, expected[k])
        if kind[k] != ON_X or x_model == 1:
            expected[k] = copies[k]
    analysed = np.flatnonzero(rng.random(n) < 0.8)
    decoder = Decoder(n, [analysed], np.float64, bed.males)
    out = np.empty((analysed.size, 60), order="F")
    stats = decoder.decode(rows, [out], shift=np.zeros(60))
    kept = expected[order][:, analysed]
    np.testing.assert_array_equal(out.T, np.nan_to_num(kept))
    for one in (stats, decoder.stats(rows)):
        np.testing.assert_array_equal(one.n_obs, (~np.isnan(kept)).sum(axis=1))
        np.testing.assert_array_equal(one.a1_sum, np.nansum(kept, axis=1))
        np.testing.assert_array_equal(one.copies, np.nansum(copies[order][:, analysed], axis=1))
        np.testing.assert_array_equal(one.chromosomes, chromosomes[order][:, analysed].sum(axis=1))
        able = np.where(kind[order] == ON_Y, male[analysed].sum(), analysed.size)
        np.testing.assert_array_equal(np.broadcast_to(one.able, 60), able)
        two_copies = np.where(chromosomes[order][:, analysed] == 2, kept, np.nan)
        for x, count in zip((2, 1, 0), one.genotypes, strict=True):
            np.testing.assert_array_equal(count, (two_copies == x).sum(axis=1))


def test_sexes_of_a_fam_and_of_a_table(tmp_path: Path) -> None:
    fam = tmp_path / "g.fam"
    fam.write_text("a 1 0 0 1 -9\na 2 0 0 2 -9\nb 3 0 0 0 -9\nb 4 0 0 other -9\n")
    assert read_fam(fam).sex.tolist() == [1, 2, 0, 0]
    fam.write_text("#FID IID SEX PAT MAT PHENO1\na 1 F 0 0 3\na 2 1 0 0 2\n")
    assert read_fam(fam).sex.tolist() == [2, 1]
    table, ids = tmp_path / "sex.csv", [("a", "1"), ("a", "2"), ("b", "3"), ("b", "4")]
    table.write_text("IID,SEX,age\n3,m,40\n1,Female,41\n4,NA,3\n9,2,9\n")
    assert read_sexes(table, ids).tolist() == [2, 0, 1, 0]
    table.write_text("FID IID SEX\nz 1 1\n")
    with pytest.raises(InputError, match=r"sex.csv has none of the genotypes' samples"):
        read_sexes(table, ids)
