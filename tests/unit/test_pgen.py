"""Reading PLINK 2 files, against what was written; and what is said of files that cannot be read."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from pgen_files import write_pgen

from mpgls.errors import InputError, StorageError, UsageError
from mpgls.study.filters import SnpFilter, select_snps
from mpgls.study.genotype_files import AS_STORED, Reading
from mpgls.study.packed_bits import codes_of
from mpgls.study.pgen import called, open_pfile
from mpgls.study.sources import GenotypeSource, open_genotypes, open_variants
from mpgls.study.variants import VariantTable

pgenlib = pytest.importorskip("pgenlib", reason="pgenlib is not installed: pip install 'mpgls[pgen]'")
N, M = 37, 50
COPIES = np.array([2, -9, 1, 0])
"""Copies of A1 of the codes of a .bed."""


def bim_lines(m: int = M) -> list[str]:
    return [f"{1 + k // 30}\trs{k}\t0\t{100 + k}\tA\tC" for k in range(m)]


def fam_lines(n: int = N) -> list[str]:
    return [f"F{i // 2} I{i} 0 0 {1 + i % 2} {i}" for i in range(n)]


def genotypes(seed: int = 1) -> np.ndarray:
    made = np.random.default_rng(seed).choice([0.0, 1.0, 2.0, np.nan], size=(N, M), p=[0.5, 0.3, 0.15, 0.05])
    return made


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """Hard calls of M SNPs of N people."""
    write_pgen(tmp_path / "p", bim_lines(), fam_lines(), genotypes())
    return tmp_path / "p"


def read(prefix: Path, rows: list[int], reading: Reading = AS_STORED) -> np.ndarray:
    """SNPs as they are read: copies of ALT (rows, N), or dosages; -9 where missing."""
    file = open_pfile(prefix, (), None, reading).bed
    out = np.empty((len(rows), file.snp_bytes), dtype=np.uint8)
    reader = file.reader()
    reader.read(np.array(rows, dtype=np.int64), out)
    reader.close()
    return out.view(np.float32) if file.dosages else COPIES[codes_of(out, N)]


def test_variants_and_samples(prefix: Path) -> None:
    found = open_pfile(f"{prefix}.psam", (), None, AS_STORED)
    rows = found.variants.read(29, 31)
    assert (rows.chrom, rows.id, rows.pos.tolist()) == (["1", "2"], ["rs29", "rs30"], [129, 130])
    assert (rows.a1, rows.a2) == (["A", "A"], ["C", "C"])  # ALT is counted
    assert found.variants.place(0) == f"{prefix}.pvar, line 4"
    assert found.samples.ids()[3] == ("F1", "I3") and found.samples.phenotype[3] == 3
    assert (found.bed.n, found.bed.m, found.bed.snp_bytes) == (N, M, 10)


@pytest.mark.parametrize("rows", [list(range(M)), [0], [3, 4, 17, 49]], ids=len)
def test_hard_calls(prefix: Path, rows: list[int]) -> None:
    np.testing.assert_array_equal(read(prefix, rows), np.nan_to_num(genotypes(), nan=-9).T[rows])


def test_bytes_are_those_of_a_bed(prefix: Path) -> None:
    """Bits after the last sample are zero, as PLINK 1 writes them."""
    file = open_pfile(prefix, (), None, AS_STORED).bed
    out = np.empty((M, file.snp_bytes), dtype=np.uint8)
    file.reader().read(np.arange(M), out)
    assert (out[:, -1] >> 2 * (N % 4) == 0).all()


def test_phased_records_are_read_without_their_phase(tmp_path: Path) -> None:
    haplotypes = np.random.default_rng(2).integers(0, 2, (M, N, 2)).astype(np.int32)
    write_pgen(tmp_path / "p", bim_lines(), fam_lines(), genotypes())
    with pgenlib.PgenWriter(
        bytes(tmp_path / "p.pgen"), N, variant_ct=M, nonref_flags=False, hardcall_phase_present=True
    ) as out:
        for one in haplotypes:
            out.append_alleles(one.reshape(-1), all_phased=True)
    np.testing.assert_array_equal(read(tmp_path / "p", list(range(M))), haplotypes.sum(axis=2))


@pytest.mark.parametrize("header", ["without CM", "as a .bim", "other columns"])
def test_columns_of_a_pvar(tmp_path: Path, header: str) -> None:
    lines = {
        "without CM": ["1 a 7 T C", "2 b 9 G A"],
        "as a .bim": ["1 a 0 7 T C", "2 b 0 9 G A"],
        "other columns": ["##x", "#CHROM ID QUAL POS FILTER ALT REF", "1 a . 7 PASS T C", "2 b . 9 PASS G A"],
    }[header]
    (tmp_path / "v.pvar").write_text("\n".join(lines) + "\n")
    rows = VariantTable.open(tmp_path / "v.pvar", pvar=True).read(0, 2)
    assert (rows.chrom, rows.id, rows.pos.tolist(), rows.a1, rows.a2) == (
        ["1", "2"], ["a", "b"], [7, 9], ["T", "G"], ["C", "A"],
    )  # fmt: skip


def test_a_pvar_that_lacks_a_column(tmp_path: Path) -> None:
    (tmp_path / "v.pvar").write_text("##x\n#CHROM\tPOS\tID\tREF\n1\t7\ta\tC\n")
    with pytest.raises(InputError, match=r"v\.pvar, line 2: the header names no column ALT"):
        VariantTable.open(tmp_path / "v.pvar", pvar=True)


# -- several alleles ------------------------------------------------------------------------------------------------


def test_a_snp_of_several_alleles(tmp_path: Path) -> None:
    """It is refused where it is analysed; the others are read right beside it."""
    prefix = tmp_path / "p"
    write_pgen(prefix, bim_lines(3), fam_lines(), genotypes()[:, :3])
    lines = Path(f"{prefix}.pvar").read_text().splitlines()
    Path(f"{prefix}.pvar").write_text("\n".join(lines).replace("rs1\tC\tA", "rs1\tC\tA,G") + "\n")
    alleles = [np.random.default_rng(k).integers(0, 2 + (k == 1), 2 * N).astype(np.int32) for k in range(3)]
    with pgenlib.PgenWriter(bytes(tmp_path / "p.pgen"), N, variant_ct=3, nonref_flags=False, allele_ct_limit=3) as out:
        for one, count in zip(alleles, (2, 3, 2), strict=True):
            out.append_alleles(one, allele_ct=count)
    found = open_pfile(prefix, (), None, AS_STORED)
    with pytest.raises(InputError, match=r"p\.pvar, line 5: SNP rs1 has several ALT alleles, A,G: leave such SNPs out"):
        select_snps(found.variants, SnpFilter())
    (tmp_path / "drop").write_text("rs1\n")
    assert select_snps(found.variants, SnpFilter(exclude=str(tmp_path / "drop"))).index.tolist() == [0, 2]
    wanted = [alleles[k].reshape(N, 2).sum(axis=1) for k in (0, 2)]
    np.testing.assert_array_equal(read(prefix, [0, 2]), wanted)


# -- dosages --------------------------------------------------------------------------------------------------------


@pytest.fixture
def dosages(tmp_path: Path) -> np.ndarray:
    """Dosages of ALT in steps of 1/16384, written to tmp_path/p for every third SNP; hard calls for the others."""
    rng = np.random.default_rng(4)
    made = genotypes()
    some = np.round(rng.uniform(0, 2, made.shape) * 16384) / 16384
    made[:, ::3] = np.where(rng.random(made.shape) < 0.05, np.nan, some)[:, ::3]
    write_pgen(tmp_path / "p", bim_lines(), fam_lines(), made, exact=False)
    return made


def test_dosages_and_hard_calls_of_one_file(tmp_path: Path, dosages: np.ndarray) -> None:
    found = read(tmp_path / "p", list(range(M)))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.nan_to_num(dosages, nan=-9).T)


@pytest.mark.parametrize("threshold", [0.1, 0.499, 0.0])
def test_hard_calls_of_dosages(tmp_path: Path, dosages: np.ndarray, threshold: float) -> None:
    found = read(tmp_path / "p", list(range(M)), Reading("hard-call", threshold))
    near = np.abs(dosages - np.rint(dosages)) <= threshold
    np.testing.assert_array_equal(found, np.where(near, np.nan_to_num(np.rint(dosages)), -9).T)


def test_hard_calls_as_they_are_stored(tmp_path: Path, dosages: np.ndarray) -> None:
    """pgenlib stores PLINK 2's: farther than 0.1 from a whole number is missing."""
    found = read(tmp_path / "p", list(range(M)), Reading("hard-call"))
    np.testing.assert_array_equal(found, read(tmp_path / "p", list(range(M)), Reading("hard-call", 0.1)))


def test_a_threshold_of_a_decimal_fraction_is_reached() -> None:
    made = np.array([0.1, 0.9, 0.8999, 1.1, 1.1002, 1.9, -9.0], dtype=np.float32)
    assert called(made, 0.1).tolist() == [0, 1, -9, 1, -9, 2, -9]
    # steps of 2^-14: 0.2 lies between 3276 and 3277 of them, 0.1 of a .bgen is 1638.4 of them; PLINK 2 agrees
    assert called(np.array([3276, 3277, 16384 - 3277, 32768 - 3276]) / 2**14, 0.2).tolist() == [0, -9, -9, 2]
    assert called(np.array([0.1, 1.9, 0.25]), 0.1).tolist() == [0, 2, -9]
    assert called(np.array([0.25, 1.5, 0.5]), 0.25).tolist() == [0, -9, -9]


# -- what cannot be read --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is not a .pgen: it begins with nothing"),
        (b"##fileformat=VCF", "is not a .pgen: it begins with 2323, not 6c1b"),
        (b"\x6c\x1b\x01" + bytes(40), "is a PLINK 1 .bed: give it to --bfile"),
        (b"\x6c\x1b\x10\x00", "is truncated: it has 4 bytes, not even a header"),
        (b"\x6c\x1b\x20" + bytes(40), "has storage mode 20, which mpgls does not know: rewrite it with plink2"),
    ],
    ids=["empty", "text", "bed", "cut", "mode"],
)
def test_a_file_that_is_none(prefix: Path, content: bytes, said: str) -> None:
    Path(f"{prefix}.pgen").write_bytes(content)
    with pytest.raises(InputError, match=f"p.pgen {said}"):
        open_pfile(prefix, (), None, AS_STORED)


@pytest.mark.parametrize("kept", [13, 30, 100, -1])
def test_a_truncated_file(prefix: Path, kept: int) -> None:
    path = Path(f"{prefix}.pgen")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"p\.pgen is truncated: it has [0-9]+ bytes, and its header tells of more"):
        open_pfile(prefix, (), None, AS_STORED)


def test_files_of_other_sizes(prefix: Path) -> None:
    lines = Path(f"{prefix}.psam").read_text().splitlines()
    Path(f"{prefix}.psam").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(InputError, match=r"holds 50 SNPs of 37 samples, but .*\.pvar lists 50 SNPs and .*\.psam 36"):
        open_pfile(prefix, (), None, AS_STORED)


def test_a_damaged_record(prefix: Path) -> None:
    path = Path(f"{prefix}.pgen")
    content = bytearray(path.read_bytes())
    content[12 + 8 :] = b"\xff" * (len(content) - 20)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"p\.pgen (is|has|holds) "):
        read(prefix, list(range(M)))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot read .*none\.pgen"):
        open_pfile(tmp_path / "none", (), None, AS_STORED)


def test_a_packed_pvar(prefix: Path) -> None:
    Path(f"{prefix}.pvar").rename(f"{prefix}.pvar.zst")
    with pytest.raises(InputError, match=r"p\.pvar\.zst is compressed by zstd: unpack it with plink2 --zst-decompress"):
        open_pfile(prefix, (), None, AS_STORED)


def test_without_pgenlib(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pgenlib", None)
    with pytest.raises(UsageError, match=r"--pfile needs the Python package pgenlib: pip install 'mpgls\[pgen\]'"):
        open_genotypes(GenotypeSource("--pfile", str(prefix)))
    assert open_variants(GenotypeSource("--pfile", str(prefix))).count == M  # a table can be exported all the same


@pytest.mark.parametrize("name", ["a.vcf", "b.vcf.gz", "c.bcf"])
@pytest.mark.parametrize("flag", ["--bfile", "--pfile"])
def test_a_vcf(flag: str, name: str) -> None:
    with pytest.raises(InputError, match=f"{name} is a VCF: plink2 --vcf {name} dosage=DS --make-pgen --out NAME"):
        open_genotypes(GenotypeSource(flag, name))
