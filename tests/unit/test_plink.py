"""Reading PLINK filesets, and what is said about broken ones."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path

import numpy as np
import pytest

from mpgls.errors import InputError, StorageError
from mpgls.study import variants
from mpgls.study.plink import BedFile, VariantTable, bfile_prefix, open_fileset, read_fam


def write(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def bim_rows(count: int) -> list[str]:
    return [f"{1 + k % 22}\trs{k}\t0\t{7 * k - 3}\tA\t{'ACGT' * (1 + k % 3)}" for k in range(count)]


def test_fam_ids_and_missing_phenotypes(tmp_path: Path) -> None:
    lines = "F1 1 0 0 1 1.5\nF1\t2 0 0 2 -9\r\nÅ x 0 0 0 NA\nF2 2 0 0 0 nan\nF3 1 0 0 0 -9.0\nF4 1 0 0 0 0"
    samples = read_fam(write(tmp_path / "a.fam", lines))
    assert samples.ids() == [("F1", "1"), ("F1", "2"), ("Å", "x"), ("F2", "2"), ("F3", "1"), ("F4", "1")]
    np.testing.assert_array_equal(samples.phenotype, [1.5, np.nan, np.nan, np.nan, np.nan, 0.0])


def test_fam_columns_after_the_sixth_are_left_out(tmp_path: Path) -> None:
    samples = read_fam(write(tmp_path / "a.fam", "F1 1 0 0 1 1.5 NA text\nF1 2 0 0 1 2 3 4\n"))
    assert samples.phenotype.tolist() == [1.5, 2.0]


@pytest.mark.parametrize("text", ["tall", "inf", "1_0", "."])
def test_text_as_phenotype_is_a_fault_where_the_phenotype_is_used(tmp_path: Path, text: str) -> None:
    samples = read_fam(write(tmp_path / "a.fam", f"F1 1 0 0 1 1\nF1 2 0 0 1 {text}\nF1 3 0 0 1 wide\n"))
    assert samples.ids() == [("F1", "1"), ("F1", "2"), ("F1", "3")]
    assert samples.notes == () and "its phenotype holds text" in samples.phenotype_note
    with pytest.raises(InputError, match=rf"a\.fam, line 2: the phenotype \(column 6\) is {text!r}, not a number"):
        _ = samples.phenotype
    with pytest.raises(InputError, match="line 2"):
        _ = pickle.loads(pickle.dumps(samples)).phenotype


@pytest.mark.parametrize(
    ("column", "expected", "note"),
    [
        ("1 2 0 -9 2", [1, 2, None, None, 2], "case/control, 2 of 2, 1 of 1, and 1 of 0, which are missing; 2 missing"),
        ("1.0 2.0 0.00 NA 1", [1, 2, None, None, 1], "case/control, 1 of 2, 2 of 1, and 1 of 0"),
        ("1 2 2 1 1", [1, 2, 2, 1, 1], "case/control, 2 of 2, 3 of 1; 0 missing"),
        ("0 1 1 0 -9", [0, 1, 1, 0, None], "numbers; 1 missing, 1 of them -9"),  # a 0/1 column is what it is
        ("0 1 2 3 -9", [0, 1, 2, 3, None], "numbers"),
        ("0 1 2 1.5 0", [0, 1, 2, 1.5, 0], "numbers; 0 missing"),
        ("-9 -9.0 nan NA 7", [None, None, None, None, 7], "numbers; 4 missing, 2 of them -9"),
    ],
)
def test_missing_phenotypes_as_plink_has_them(tmp_path: Path, column: str, expected: list, note: str) -> None:
    lines = "".join(f"F {k} 0 0 1 {text}\n" for k, text in enumerate(column.split()))
    samples = read_fam(write(tmp_path / "a.fam", lines))
    np.testing.assert_array_equal(samples.phenotype, np.array(expected, dtype=float))
    assert note in samples.phenotype_note


def test_codes_that_the_user_gives_are_missing_in_the_fam_too(tmp_path: Path) -> None:
    samples = read_fam(write(tmp_path / "a.fam", "F 1 0 0 1 99\nF 2 0 0 1 1\nF 3 0 0 1 2\n"), missing_codes=(99.0,))
    np.testing.assert_array_equal(samples.phenotype, [np.nan, 1, 2])
    assert "case/control" in samples.phenotype_note and "1 value of 99 is missing" in samples.phenotype_note


@pytest.mark.parametrize(
    ("header", "row", "ids", "phenotype"),
    [
        ("#FID IID PAT MAT SEX PHENO1", "F 1 0 0 2 5", ("F", "1"), 5.0),
        ("FID IID SEX BMI", "F 1 2 5", ("F", "1"), 5.0),
        ("#IID SEX QT", "1 2 5", ("0", "1"), 5.0),
        ("#FID IID SEX", "F 1 2", ("F", "1"), np.nan),
    ],
)
def test_a_fam_with_a_header_is_read_as_plink_2_reads_it(tmp_path: Path, header, row, ids, phenotype) -> None:
    samples = read_fam(write(tmp_path / "a.fam", f"{header}\n{row}\n"))
    assert samples.ids() == [ids]
    np.testing.assert_array_equal(samples.phenotype, [phenotype])
    assert "header" in samples.summary


def test_a_family_may_begin_with_a_hash(tmp_path: Path) -> None:
    samples = read_fam(write(tmp_path / "a.fam", "# I0 0 0 1 2\n#12 I1 0 0 1 3\n##x I2 0 0 1 4\n"))
    assert samples.ids() == [("#", "I0"), ("#12", "I1"), ("##x", "I2")]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("F1 1 0 0 1 1\nF2 1 0 0 1 1\nF1 1 0 0 1 2\n", "F1 1 twice, on lines 1 and 3"),
        ("F1 1 0 0 1 1\nF2 1 0 0 1\n", "line 2 has 5 fields"),
        ("F1 1 0 0 1 1\n\nF2 1 0 0 1 1\n", "line 2 is empty"),
        ("F1 1 0 0 1 1\nF2 1 0 0 1 1 7\n", "line 2 has 7 fields, but line 1 has 6"),
        ("F1 1 0 0 1\n", "line 1 has 5 fields, not 6 or more"),
        # the sex would be read as the phenotype
        (
            "F1\t1\t0\t0\t1\t5\nF1\tplant 17\t0\t0\t2\t5\n",
            "line 2 has 7 fields, but line 1 has 6: 'plant 17' in column 2 has a blank",
        ),
        ("F1\tplant 1\t0\t0\t1\t5\nF1\tplant 2\t0\t0\t2\t5\n", "line 1 has 7 fields: 'plant 1' in column 2"),
        # two parents not given: the column after the phenotype would be read in its place
        ("F1\t1\t\t\t1\t5\t6\t7\n", r"line 1 has 6 fields: column 3 is empty \(two tabs in a row\)"),
        (b"F1 1 0 0 1 1\n\xff 1 0 0 1 1\n", "line 2 is not UTF-8"),
        ("", "lists no sample"),
    ],
)
def test_fam_errors_name_the_line(tmp_path: Path, lines: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_fam(write(tmp_path / "a.fam", lines))


@pytest.mark.parametrize("last", ["", "\n", "\r\n"])
@pytest.mark.parametrize("count", [1, 6, 7, 8, 23])
def test_variant_table_reads_any_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, last: str) -> None:
    monkeypatch.setattr(variants, "STRIDE", 7)
    monkeypatch.setattr(variants, "_CHUNK_BYTES", 50)
    rows = bim_rows(count)
    table = VariantTable.open(write(tmp_path / "a.bim", "\n".join(rows) + last))
    assert (table.count, len(table.offsets)) == (count, -(-count // 7) + 1)
    for start in range(count + 1):
        for stop in range(start, count + 1):
            part = table.read(start, stop)
            want = [row.split() for row in rows[start:stop]]
            assert [part.chrom, part.id, part.a1, part.a2] == [[w[c] for w in want] for c in (0, 1, 4, 5)]
            assert part.pos.tolist() == [int(w[3]) for w in want]
            assert len(part) == stop - start


def test_variant_table_offsets_are_those_of_every_stride_th_line(tmp_path: Path) -> None:
    rows = bim_rows(2 * variants.STRIDE + 5)
    table = VariantTable.open(write(tmp_path / "a.bim", "\n".join(rows) + "\n"))
    starts = np.cumsum([0] + [len(row) + 1 for row in rows])
    assert table.offsets.tolist() == [0, starts[variants.STRIDE], starts[2 * variants.STRIDE], starts[-1]]
    assert table.read(variants.STRIDE - 1, variants.STRIDE + 2).id == ["rs65535", "rs65536", "rs65537"]


def test_variant_batches_cover_all_rows(tmp_path: Path) -> None:
    table = VariantTable.open(write(tmp_path / "a.bim", "\n".join(bim_rows(10))))
    batches = list(table.batches(4))
    assert [start for start, _ in batches] == [0, 4, 8]
    assert [name for _, rows in batches for name in rows.id] == [f"rs{k}" for k in range(10)]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("1 rs 0 5 A", "line 4 has 5 fields"),
        ("1 rs 0 5 A C extra", "line 4 has 7 fields"),
        ("", "line 4 is empty"),
        (" \t", "line 4 is empty"),
        ("1\trs 4\t0\t5\tA\tC", "line 4 has 7 fields, not 6: 'rs 4' in column 2 has a blank"),
        ("1 rs 0 5e3 A C", "line 4.*rs is '5e3'"),
        ("1 rs 0 99999999999999999999 A C", "line 4.*not a whole number"),
        (b"1 \xff 0 5 A C", "line 4 is not UTF-8"),
        # two wrong lines whose fields add up to twelve
        ("1 rs 0 5 A\n1 rs 0 5 A C C", "line 4 has 5 fields"),
    ],
)
@pytest.mark.parametrize("start", [0, 2])
def test_malformed_variants_are_named(tmp_path: Path, bad: str | bytes, message: str, start: int) -> None:
    raw = bad if isinstance(bad, bytes) else bad.encode()
    rows = [row.encode() for row in bim_rows(9)]
    table = VariantTable.open(write(tmp_path / "a.bim", b"\n".join([*rows[:3], raw, *rows[3:]])))
    assert table.read(0, 3).id == ["rs0", "rs1", "rs2"]
    with pytest.raises(InputError, match=message):
        table.read(start, table.count)


def test_variant_names_may_be_of_any_alphabet(tmp_path: Path) -> None:
    table = VariantTable.open(write(tmp_path / "a.bim", "1 rsÅ 0 5 A C\nX b\u00a0c 0 -6 A C\n"))
    rows = table.read(0, 2)
    assert (rows.id, rows.pos.tolist()) == (["rsÅ", "b\u00a0c"], [5, -6])


def test_variant_table_without_rows_or_with_a_wrong_range(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lists no SNP"):
        VariantTable.open(write(tmp_path / "a.bim", ""))
    path = write(tmp_path / "b.bim", "\n".join(bim_rows(3)))
    table = VariantTable.open(path)
    with pytest.raises(ValueError, match="2 to 4"):
        table.read(2, 4)
    write(path, "1 rs 0 1 A C\n")
    with pytest.raises(StorageError, match="shorter"):
        table.read(0, 3)


def bed_bytes(n: int, m: int, header: bytes = b"\x6c\x1b\x01") -> bytes:
    return header + bytes(m * ((n + 3) // 4))


def test_bed_offsets(tmp_path: Path) -> None:
    bed = BedFile.open(write(tmp_path / "a.bed", bed_bytes(9, 4)), 9, 4)
    assert (bed.snp_bytes, bed.offset(0), bed.offset(4), BedFile.HEADER) == (3, 3, 15, 3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (bed_bytes(9, 4, b"\x6c\x1c\x01"), "not a PLINK 1 .bed.*6c1c"),
        (b"", "not a PLINK 1 .bed.*nothing"),
        (bed_bytes(9, 4, b"\x6c\x1b\x00"), "not SNP-major"),
        (bed_bytes(9, 4)[:-1], "truncated.*hold 3 whole SNPs.*want 4 SNPs of 9 samples, 15 bytes"),
        (b"\x6c\x1b", "truncated.*hold 0 whole SNPs"),
        (bed_bytes(9, 5), "too long: it has 18 bytes.*want 4 SNPs of 9 samples"),
    ],
)
def test_broken_beds(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        BedFile.open(write(tmp_path / "a.bed", data), 9, 4)


@pytest.mark.parametrize("n", range(9, 13))
def test_a_fam_with_too_few_samples(tmp_path: Path, n: int) -> None:
    """SNP 3 of 12 samples has code 10 everywhere: with fewer in the .fam its last bits are left over."""
    path = write(tmp_path / "a.bed", bed_bytes(12, 2) + b"\xaa" * 3 + bytes(3))
    if n == 12:
        assert BedFile.open(path, n, 4).n == 12
        return
    with pytest.raises(InputError, match=rf"a\.bed has more samples than the {n} of the \.fam: SNP 3 has a genotype"):
        BedFile.open(path, n, 4)


@pytest.mark.parametrize("tail", ["\n", "\n\n\n", "\n \t\n\r\n", "\n   "])
@pytest.mark.parametrize("chunk", [7, 64, 1 << 24])
def test_empty_lines_at_the_end_of_a_bim_are_no_snps(tmp_path, monkeypatch, tail: str, chunk: int) -> None:
    monkeypatch.setattr(variants, "STRIDE", 2)
    monkeypatch.setattr(variants, "_CHUNK_BYTES", chunk)
    rows = bim_rows(4)
    table = VariantTable.open(write(tmp_path / "a.bim", "\n".join(rows) + tail))
    assert table.count == 4 and table.offsets.size == 3
    assert [name for _, part in table.batches(3) for name in part.id] == [f"rs{k}" for k in range(4)]
    assert ("empty line" in table.summary) == (tail != "\n")


def test_a_wrong_line_of_the_bim_is_not_blamed_on_the_bed(tmp_path: Path) -> None:
    prefix = tmp_path / "g"
    write(Path(f"{prefix}.fam"), "".join(f"F {k} 0 0 0 {k}\n" for k in range(9)))
    write(Path(f"{prefix}.bed"), bed_bytes(9, 4))
    rows = bim_rows(4)
    write(Path(f"{prefix}.bim"), "\n".join([*rows[:2], "", *rows[2:]]))
    with pytest.raises(InputError, match=r"g\.bim, line 3 is empty"):
        open_fileset(prefix)
    write(Path(f"{prefix}.bim"), "\n".join(rows) + "\n\n")
    assert open_fileset(prefix).variants.count == 4
    write(Path(f"{prefix}.bim"), "\n".join(bim_rows(5)))
    with pytest.raises(InputError, match=r"g\.bed is truncated: .*want 5 SNPs"):
        open_fileset(prefix)


def test_a_file_of_the_set_may_be_named_in_place_of_the_prefix(tmp_path: Path) -> None:
    prefix = tmp_path / "g"
    write(Path(f"{prefix}.fam"), "F 1 0 0 0 1\n")
    write(Path(f"{prefix}.bim"), bim_rows(1)[0])
    write(Path(f"{prefix}.bed"), bed_bytes(1, 1))
    for suffix in ("", ".bed", ".bim", ".fam"):
        assert open_fileset(f"{prefix}{suffix}").prefix == str(prefix)
    assert bfile_prefix("x.ped") == "x.ped"
    write(tmp_path / "g.bed.bed", bed_bytes(1, 1))
    assert bfile_prefix(f"{prefix}.bed") == f"{prefix}.bed"
    with pytest.raises(StorageError, match=r"cannot read .*q\.bed: No such file"):
        open_fileset(tmp_path / "q.bed")


@pytest.mark.parametrize("chunk", [1, 100, 1 << 22])
def test_a_compressed_bim_is_read_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(variants, "STRIDE", 5)
    monkeypatch.setattr("mpgls.study.text._CHUNK_CHARACTERS", chunk)
    rows = bim_rows(33)
    path = write(tmp_path / "a.bim", gzip.compress(("\n".join(rows) + "\n").encode()))
    table = pickle.loads(pickle.dumps(VariantTable.open(path)))
    assert "gzip" in table.summary and table.count == 33
    for start, stop in [(0, 33), (7, 9), (8, 30), (2, 3), (32, 33), (10, 20), (10, 12), (0, 1)]:
        assert table.read(start, stop).id == [f"rs{k}" for k in range(start, stop)]
    write(path, gzip.compress("\n".join(row.replace("rs", "new") for row in rows).encode()))
    assert VariantTable.open(path).read(3, 4).id == ["new3"]
    write(path, gzip.compress(rows[0].encode()))
    with pytest.raises(StorageError, match="shorter"):
        table.read(0, 33)


def test_fileset_opens_and_can_be_sent(tmp_path: Path) -> None:
    prefix = tmp_path / "cohort.v1.2"
    write(Path(f"{prefix}.fam"), "".join(f"F {k} 0 0 0 {k}\n" for k in range(9)))
    write(Path(f"{prefix}.bim"), "\n".join(bim_rows(4)))
    with pytest.raises(StorageError, match=r"cohort\.v1\.2\.bed: No such file"):
        open_fileset(prefix)
    write(Path(f"{prefix}.bed"), bed_bytes(9, 4))
    files = pickle.loads(pickle.dumps(open_fileset(prefix)))
    assert (files.prefix, files.bed.n, files.bed.m, files.variants.count) == (str(prefix), 9, 4, 4)
    assert files.variants.read(3, 4).id == ["rs3"]
    assert files.samples.ids()[8] == ("F", "8")
