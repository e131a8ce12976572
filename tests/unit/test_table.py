from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from thread_ranks import ThreadRank, on_ranks

from mpgls.errors import InputError, StorageError
from mpgls.model.gls import NOTE_TEXT, Note
from mpgls.model.pvalues import log10_p_chi2_1, log10_p_t
from mpgls.report.table import COLUMNS, ScanTable, format_p, format_rows, log10_p
from mpgls.report.table_files import write_rows
from mpgls.report.table_lines import Table
from mpgls.stream.store import RECORD_DTYPE
from mpgls.study.plink import Variants


def make_variants(m: int) -> Variants:
    return Variants(
        chrom=[str(1 + k % 3) for k in range(m)],
        id=[f"rs{k}" for k in range(m)],
        pos=np.array([-9 if k == 2 else 100 + 7 * k for k in range(m)], dtype=np.int64),
        a1=["A"] * m,
        a2=["CT"] * m,
    )


def make_records(m: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    records = np.zeros(m, RECORD_DTYPE)
    records["se"] = rng.uniform(0.01, 0.1, m)
    records["beta"] = records["se"] * rng.standard_normal(m)
    records["eaf"] = rng.uniform(0.01, 0.99, m)
    records["n"] = rng.integers(500, 600, m)
    return records


def parse(text: bytes) -> list[dict[str, str]]:
    return [dict(zip(COLUMNS, line.split("\t"), strict=True)) for line in text.decode().splitlines()]


class Reader:
    """A .bim in memory that remembers how many rows one call took."""

    def __init__(self, variants: Variants) -> None:
        self.variants = variants
        self.longest = 0

    def read(self, start: int, stop: int) -> Variants:
        assert 0 <= start < stop <= len(self.variants.id)
        self.longest = max(self.longest, stop - start)
        v = self.variants
        return Variants(v.chrom[start:stop], v.id[start:stop], v.pos[start:stop], v.a1[start:stop], v.a2[start:stop])


def write(comm: ThreadRank, path: Path, table: ScanTable, batch: int = 65536) -> None:
    assert write_rows(comm, {"tsv": path}, Table(table.columns, table.text, table.count), batch) == []


HEADER = "\t".join(COLUMNS).encode() + b"\n"


def test_header_names_the_columns_in_order():
    assert HEADER == b"CHR\tPOS\tID\tEA\tNEA\tEAF\tN\tBETA\tSE\tSTAT\tLOG10P\tP\tNOTE\n"


def test_figures_read_back_to_the_same_floats():
    variants, records = make_variants(301), make_records(301)
    rows = parse(format_rows(variants, records, 555, "t"))
    expected = log10_p_t(records["beta"] / records["se"], 555)
    assert [row["ID"] for row in rows] == variants.id
    assert [float(row["BETA"]) for row in rows] == records["beta"].tolist()
    assert [float(row["SE"]) for row in rows] == records["se"].tolist()
    assert [float(row["STAT"]) for row in rows] == (records["beta"] / records["se"]).tolist()
    np.testing.assert_allclose([float(row["LOG10P"]) for row in rows], expected, rtol=1e-13)
    np.testing.assert_allclose([float(row["P"]) for row in rows], 10**-expected, rtol=1e-10)
    assert rows[2]["POS"] == "-9" and rows[2]["NEA"] == "CT" and {row["NOTE"] for row in rows} == {"."}


def test_wald_uses_chi_square_and_unknown_test_is_refused():
    records = make_records(17)
    np.testing.assert_allclose(log10_p(records, 3, "wald"), log10_p_chi2_1(records["beta"] / records["se"]))
    assert not np.allclose(log10_p(records, 3, "t"), log10_p(records, 3, "wald"))
    with pytest.raises(ValueError, match="'t' or 'wald'"):
        log10_p(records, 3, "score")


@pytest.mark.parametrize("note", [Note.MONOMORPHIC, Note.ALL_MISSING, Note.COLLINEAR])
def test_rows_without_an_estimate_have_na_and_the_reason(note):
    records = make_records(3)
    records["note"][1] = note
    records["eaf"][1] = np.nan if note == Note.ALL_MISSING else 0.25
    row = parse(format_rows(make_variants(3), records, 100, "t"))[1]
    assert [row[name] for name in ("BETA", "SE", "STAT", "LOG10P", "P")] == ["NA"] * 5
    assert row["NOTE"] == NOTE_TEXT[note] != ""
    assert row["EAF"] == ("NA" if note == Note.ALL_MISSING else "0.25")
    assert row["N"] == str(records["n"][1])


def test_filtered_rows_are_left_out_across_chunks():
    m = 20_011
    records = make_records(m)
    records["note"][::3] = Note.HWE
    rows = parse(format_rows(make_variants(m), records, 100, "t"))
    assert [row["ID"] for row in rows] == [f"rs{k}" for k in range(m) if k % 3]


def test_p_far_below_the_smallest_float_is_text():
    records = make_records(2)
    records["beta"][1], records["se"][1] = 100.0, 1.0
    row = parse(format_rows(make_variants(2), records, 1e7, "wald"))[1]
    mantissa, exponent = row["P"].split("e")
    # 2 (1 - Phi(z)) = 2 phi(z) / z (1 - 1/z^2 + 3/z^4 - 15/z^6 + ...) at z = 100
    tail = Decimal(-5000).exp() * Decimal(2 / np.sqrt(2 * np.pi) / 100 * (1 - 1e-4 + 3e-8 - 15e-12))
    assert exponent == "-2174" and float(Decimal(row["P"]) / tail) == pytest.approx(1, rel=2e-10)
    assert 1 <= float(mantissa) < 10
    assert float(Decimal(row["P"]).log10()) == pytest.approx(-float(row["LOG10P"]), rel=1e-10)


@pytest.mark.parametrize(
    ("log10p", "text"),
    [
        (0.0, "1.0000000000e+00"),
        (2.0, "1.0000000000e-02"),
        (299.5, "3.1622776602e-300"),
        (300.0, "1.0000000000e-300"),
        (300.5, "3.1622776602e-301"),
        (1234.0, "1.0000000000e-1234"),
        # rounds up to the next power of ten
        (400.0 + 1e-13, "1.0000000000e-400"),
        (np.inf, "0.0000000000e+00"),
        (np.nan, "NA"),
    ],
)
def test_format_p(log10p, text):
    assert format_p(log10p) == text


@pytest.mark.parametrize("test", ["t", "wald"])
def test_a_standard_error_of_zero_is_infinite_evidence(test):
    records = make_records(3)
    records["beta"][1:], records["se"][1:] = (-3.0, 0.0), 0.0
    rows = parse(format_rows(make_variants(3), records, 100, test))
    assert (rows[1]["SE"], rows[1]["STAT"], rows[1]["LOG10P"]) == ("0.0", "-inf", "inf")
    assert float(rows[1]["P"]) == 0.0 and rows[1]["NOTE"] == "."
    assert rows[2]["STAT"] == rows[2]["P"] == "NA" and rows[0]["P"] != "NA"


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("batch", [1, 7, 65536])
def test_table_is_the_same_on_any_number_of_ranks(tmp_path, size, batch):
    m = 53
    variants, records = make_variants(m), make_records(m)
    records["note"][5:30:2] = Note.MAF
    records["note"][40] = Note.MONOMORPHIC
    expected = HEADER + format_rows(variants, records, 90, "t")
    seen: list[str] = []

    table = ScanTable(
        Reader(variants), lambda a, b: records[a:b], m, 90, "t", on_batch=lambda v, r, p: seen.extend(v.id)
    )
    assert on_ranks(size, lambda comm: write(comm, tmp_path / "t.tsv", table, batch)) == [None] * size
    assert (tmp_path / "t.tsv").read_bytes() == expected
    assert sorted(seen) == sorted(variants.id)
    assert [p.name for p in tmp_path.iterdir()] == ["t.tsv"]


def test_selected_rows_are_read_in_bounded_pieces(tmp_path):
    m = 200_000
    variants = make_variants(m)
    index = np.array([0, 3, 4, 65_535, 65_536, 150_000, 150_001, 199_999])
    records, reader = make_records(index.size), Reader(variants)
    path = tmp_path / "t.tsv"
    table = ScanTable(reader, lambda a, b: records[a:b], 8, 90, "t", index)
    on_ranks(1, lambda comm: write(comm, path, table))
    lines = path.read_bytes().splitlines(keepends=True)
    assert [row["ID"] for row in parse(b"".join(lines[1:]))] == [f"rs{k}" for k in index]
    assert [float(row["BETA"]) for row in parse(b"".join(lines[1:]))] == records["beta"].tolist()
    assert reader.longest <= 65_536


def test_no_rows_gives_the_header(tmp_path):
    path = tmp_path / "t.tsv"
    table = ScanTable(Reader(make_variants(1)), lambda a, b: make_records(0), 0, 9, "t")
    assert on_ranks(2, lambda comm: write(comm, path, table)) == [None] * 2
    assert path.read_bytes() == HEADER


def test_one_failing_rank_stops_all_and_leaves_no_file(tmp_path):
    m = 40
    records = make_records(m)

    def read(start: int, stop: int) -> np.ndarray:
        if start <= 23 < stop:
            raise InputError("row 23 of the .bim is malformed")
        return records[start:stop]

    table = ScanTable(Reader(make_variants(m)), read, m, 9, "t")
    results = on_ranks(3, lambda comm: write(comm, tmp_path / "t.tsv", table, 4))
    assert [str(error) for error in results] == ["row 23 of the .bim is malformed"] * 3
    assert list(tmp_path.iterdir()) == []


def test_unwritable_output_is_a_storage_error_on_all_ranks(tmp_path):
    path = tmp_path / "absent" / "t.tsv"
    table = ScanTable(Reader(make_variants(1)), lambda a, b: make_records(1), 1, 9, "t")
    results = on_ranks(2, lambda comm: write(comm, path, table))
    assert all(isinstance(error, StorageError) and str(path) in str(error) for error in results)
