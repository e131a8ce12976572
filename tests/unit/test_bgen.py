"""Reading BGEN, against the package bgen and what was written; and what is said of files that cannot be read."""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bgen_files import NEEDS_BGEN, probabilities, write_bgen

from mpgls.errors import InputError, StorageError, UsageError
from mpgls.study.bgen import open_bgen
from mpgls.study.filters import SnpFilter, select_snps
from mpgls.study.genotype_files import AS_STORED, Reading
from mpgls.study.oxford_sample import read_sample
from mpgls.study.packed_bits import codes_of
from mpgls.study.sources import GenotypeSource, open_genotypes, open_variants

bgen = pytest.importorskip("bgen", reason=NEEDS_BGEN)
N, M = 37, 11
COPIES = np.array([2, -9, 1, 0])
BIM = [f"{1 + k // 6}\trs{k}\t0\t{100 + k}\tA\tC{'T' * 300 * (k == 4)}" for k in range(M)]
FAM = [f"F{i // 2} I{i} 0 0 1 -9" for i in range(N)]


def dosages(seed: int = 1) -> np.ndarray:
    """(N, M) dosages in steps of 1/255, NaN where missing."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random((N, M)) < 0.1, np.nan, np.round(rng.uniform(0, 2, (N, M)) * 255) / 255)


def read(path: Path, reading: Reading = AS_STORED, rows: Any = range(M)) -> np.ndarray:
    """SNPs as they are read: dosages (rows, N), or copies of the second allele; -9 where missing."""
    file = open_bgen(str(path.with_suffix("")), str(path.with_suffix(".sample")), reading).bed
    out = np.empty((len(rows), file.snp_bytes), dtype=np.uint8)
    reader = file.reader()
    reader.read(np.array(rows, dtype=np.int64), out)
    reader.close()
    return out.view(np.float32) if file.dosages else COPIES[codes_of(out, N)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_bgen(tmp_path / "g.bgen", BIM, FAM, dosages())
    return tmp_path / "g.bgen"


@pytest.mark.parametrize("packed", ["zlib", "zstd", None])
@pytest.mark.parametrize("bits", [8, 16, 32])
def test_dosages_of_the_second_allele(tmp_path: Path, bits: int, packed: str | None) -> None:
    if packed == "zstd":
        pytest.importorskip("zstandard")
    path = tmp_path / "g.bgen"
    write_bgen(path, BIM, FAM, dosages(), bits, packed)
    found = read(path)
    np.testing.assert_array_equal(found < 0, np.isnan(dosages()).T)
    np.testing.assert_allclose(np.where(found < 0, np.nan, found), dosages().T, atol=1e-6)
    theirs = np.array([one.alt_dosage for one in bgen.BgenReader(str(path))])
    np.testing.assert_allclose(np.where(found < 0, np.nan, found), theirs, atol=1e-6)


def test_phased_haplotypes(tmp_path: Path) -> None:
    first = np.random.default_rng(3).integers(0, 256, (N, 2)) / 255
    both = np.column_stack([first[:, 0], 1 - first[:, 0], first[:, 1], 1 - first[:, 1]])
    with bgen.BgenWriter(str(tmp_path / "g.bgen"), N, [f"I{i}" for i in range(N)]) as writer:
        writer.add_variant("v", "rs1", "7", 5, ["A", "C"], both, phased=True)
    file = open_bgen(str(tmp_path / "g"), None, AS_STORED)
    out = np.empty((1, 4 * N), dtype=np.uint8)
    file.bed.reader().read(np.array([0]), out)
    np.testing.assert_allclose(out.view(np.float32)[0], 2 - first.sum(axis=1), atol=1e-6)
    assert file.samples.ids()[2] == ("0", "I2")  # the IDs in the file


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("phased", [False, True])
def test_a_single_copy_counts_twice(tmp_path: Path, bits: int, phased: bool) -> None:
    """As that of a male on chromosome X does in a .bed."""
    ploidy = np.where(np.arange(N) % 3 == 0, 1, 2).astype(np.uint8)
    p = np.random.default_rng(5).integers(0, 128, (N, 2)) / 255
    unphased = np.column_stack([p, 1 - p.sum(axis=1)])
    both = np.column_stack([p[:, 0], 1 - p[:, 0], p[:, 1], 1 - p[:, 1]]) if phased else unphased
    single = np.full(both.shape, np.nan)
    single[:, 0], single[:, 1] = p[:, 0], 1 - p[:, 0]
    made = np.where((ploidy == 1)[:, None], single, both)
    with bgen.BgenWriter(str(tmp_path / "g.bgen"), N, [f"I{i}" for i in range(N)]) as writer:
        writer.add_variant("v", "rs1", "X", 5, ["A", "C"], made, ploidy=ploidy, phased=phased, bit_depth=bits)
    out = np.empty((1, 4 * N), dtype=np.uint8)
    open_bgen(str(tmp_path / "g"), None, AS_STORED).bed.reader().read(np.array([0]), out)
    diploid = 2 - p.sum(axis=1) if phased else 2 - 2 * p[:, 0] - p[:, 1]
    wanted = np.where(ploidy == 1, 2 * (1 - p[:, 0]), diploid)
    np.testing.assert_allclose(out.view(np.float32)[0], wanted, atol=1e-6)


def test_variants(path: Path) -> None:
    found = open_bgen(str(path.with_suffix("")), str(path.with_suffix(".sample")), AS_STORED)
    rows = found.variants.read(4, 7)
    assert (rows.chrom, rows.id, rows.pos.tolist()) == (["1", "1", "2"], ["rs4", "rs5", "rs6"], [104, 105, 106])
    assert (rows.a1, rows.a2) == (["A"] * 3, ["C" + "T" * 300, "C", "C"])
    assert [start for start, _ in found.variants.batches(4)] == [0, 4, 8]
    assert found.samples.ids()[3] == ("F1", "I3") and found.bed.m == M
    assert open_variants(GenotypeSource("--bgen", str(path))).count == M


@pytest.mark.parametrize("threshold", [None, 0.3, 0.5])
def test_hard_calls(path: Path, threshold: float | None) -> None:
    x, limit = dosages(), 0.1 if threshold is None else threshold
    wanted = np.where(np.abs(x - np.rint(x)) <= limit + 1e-6, np.nan_to_num(np.rint(x)), -9)
    rows = [1, 5, 10]
    np.testing.assert_array_equal(read(path, Reading("hard-call", threshold), rows), wanted.T[rows])


# -- what cannot be read --------------------------------------------------------------------------------------------


def opened(path: Path, sample: str | None = "g.sample") -> None:
    open_bgen(str(path.with_suffix("")), sample and str(path.with_name(sample)), AS_STORED)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not a .bgen"),
        (b"##fileformat=VCFv4.2\n", "is not a .bgen"),
        (struct.pack("<4I4sI", 20, 20, 3, 5, b"bgen", 1 | 1 << 2), "is a .bgen of version 1.1"),
        (struct.pack("<4I4sI", 20, 20, 3, 5, b"bgen", 3 | 2 << 2), "is a .bgen with the flags 0000000b"),
        (struct.pack("<4I4sI", 20, 20, 0, 5, b"bgen", 2 << 2), "holds 0 SNPs of 5 samples"),
    ],
)
def test_a_file_that_is_none(path: Path, content: bytes, said: str) -> None:
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"g.bgen {said}"):
        opened(path, None)


@pytest.mark.parametrize(("kept", "snp"), [(30, 1), (500, None), (-1, M)])
def test_a_truncated_file(path: Path, kept: int, snp: int | None) -> None:
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=rf"g\.bgen is truncated: it ends in SNP {snp or '[0-9]+'} of 11"):
        opened(path)


def test_a_damaged_snp(path: Path) -> None:
    start = open_bgen(str(path.with_suffix("")), str(path.with_suffix(".sample")), AS_STORED).bed.starts
    content = bytearray(path.read_bytes())
    content[start[8] - 9 : start[8]] = b"\xff" * 9
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"g\.bgen is damaged: its SNP 8 cannot be read \("):
        read(path)


def rewritten(path: Path, change: Any) -> None:
    """The file of one SNP again, after ``change`` of its unpacked genotypes."""
    with bgen.BgenWriter(str(path), N, compression=None) as writer:
        writer.add_variant("", "rs9", "1", 5, ["A", "C"], probabilities(dosages()[:, 0]))
    content = bytearray(path.read_bytes())
    genotypes = 10 + 3 * N
    content[-genotypes:] = change(content[-genotypes:])
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("at", "value", "said"),
    [
        (0, 36, "has 36 samples, and the file 37"),
        (4, 3, "has 3 alleles"),
        (7, 3, "has genotypes of ploidy 2 to 3, and mpgls reads 1 and 2"),
        (9 + N, 7, "has probabilities of 7 bits, and mpgls reads 8, 16 and 32"),
    ],
)
def test_genotypes_of_another_kind(path: Path, at: int, value: int, said: str) -> None:
    def change(data: bytearray) -> bytearray:
        data[at] = value
        return data

    rewritten(path, change)
    with pytest.raises(InputError, match=rf"g\.bgen: SNP rs9 {said}"):
        read(path, rows=[0])


def test_a_snp_of_several_alleles(path: Path) -> None:
    three = np.zeros((N, 6))
    three[:, 0] = 1
    with bgen.BgenWriter(str(path), N) as writer:
        writer.add_variant("", "rs0", "1", 5, ["A", "C"], probabilities(dosages()[:, 0]))
        writer.add_variant("", "rs1", "1", 6, ["A", "C", "G"], three)
    with pytest.raises(InputError, match=r"g\.bgen, SNP 2: SNP rs1 has several ALT alleles, C,G: leave such SNPs out"):
        select_snps(open_variants(GenotypeSource("--bgen", str(path))), SnpFilter())


def test_samples(path: Path) -> None:
    with pytest.raises(InputError, match=r"g\.bgen has no IDs of samples: give --sample"):
        opened(path, None)
    sample = path.with_suffix(".sample")
    lines = sample.read_text().splitlines()
    for changed, said in (
        (lines[:-1], "g.sample lists 36 samples, and .*g.bgen has 37"),
        (lines[2:], "g.sample is not a .sample: its first line begins with ID_1 ID_2, and its second with 0 0"),
        ([*lines[:-1], lines[2]], "g.sample: sample 'F0 I0' occurs twice, in lines 3 and 39"),
        ([*lines[:-1], "F"], "g.sample, line 39 has no ID_2"),
        (lines[:2], "g.sample lists no sample"),
    ):
        sample.write_text("\n".join(changed) + "\n")
        with pytest.raises(InputError, match=said):
            opened(path)
    sample.write_text("ID missing Sex\n0 0 D\nI1 0 2\nI2 0 NA\n")
    found = read_sample(str(sample))
    assert found.ids() == [("0", "I1"), ("0", "I2")] and found.sex.tolist() == [2, 0]


def test_without_zstandard(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    opened(path)  # zlib is Python's own
    write_bgen(path, BIM, FAM, dosages(), packed="zstd")
    with pytest.raises(UsageError, match=r"packed by zstd needs .* zstandard: pip install 'mpgls\[bgen\]'"):
        opened(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot read .*none\.bgen"):
        open_genotypes(GenotypeSource("--bgen", str(tmp_path / "none.bgen")))
