"""Phenotype and covariate tables, sample lists and name lists."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from mpgls.errors import InputError, StorageError, UsageError
from mpgls.study.missing import parse_missing_codes
from mpgls.study.tables import index_ids, read_ids, read_table, show_sample
from mpgls.study.text import read_words


def write(folder: Path, text: str, name: str = "table.txt") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def test_table_of_white_space(tmp_path: Path) -> None:
    path = write(tmp_path, "FID IID  height weight\nf1 i1 1.5 -9\n  f1 i2 NA 2e3\r\nf2 i1 nan NaN")
    table = read_table(path)
    assert table.path == str(path)
    assert table.ids == [("f1", "i1"), ("f1", "i2"), ("f2", "i1")]
    assert table.names == ("height", "weight")
    assert table.values.dtype == np.float64
    np.testing.assert_array_equal(table.values, [[1.5, -9], [np.nan, 2000], [np.nan, np.nan]])


def test_table_of_tabs_has_empty_fields_and_names_with_blanks(tmp_path: Path) -> None:
    path = write(tmp_path, "\ufeff#FID\tIID\tbody mass\tage\na\tb\t\t3\nc\td\t4\t\n")
    table = read_table(path)
    assert table.names == ("body mass", "age")
    np.testing.assert_array_equal(table.values, [[np.nan, 3], [4, np.nan]])


def test_table_of_tabs_and_blanks(tmp_path: Path) -> None:
    path = write(tmp_path, "FID IID\tx y\na b\t1 2\n")
    table = read_table(path)
    assert table.names == ("x", "y")
    np.testing.assert_array_equal(table.values, [[1, 2]])


def test_wanted_columns_in_the_order_asked_for_and_text_elsewhere(tmp_path: Path) -> None:
    path = write(tmp_path, "FID IID a sex c\n1 1 1 male 3\n1 2 4 female 6\n")
    table = read_table(path, ["c", "a"])
    assert table.names == ("c", "a")
    np.testing.assert_array_equal(table.values, [[3, 1], [6, 4]])


@pytest.mark.parametrize("text", ["male", "inf", "-inf", "1_000", "1,5", "NAN", "na", "0x10", "."])
def test_text_in_a_numeric_column_is_located(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, f"FID IID a sex\n1 1 1 2\n1 2 1 {text}\n")
    with pytest.raises(InputError) as caught:
        read_table(path)
    for part in (str(path), "line 3", "'sex'", repr(text)):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: expected a header"),
        ("1 1 2.5\n", "line 1: expected a header 'FID IID name ...', found '1 1 2.5'"),
        ("FID,IID,x\n", "no samples"),
        ("FID,IID,x,x\n", "column 'x' twice"),
        ("FID,IID,x,\n1,1,2,\n", "column 4 has no name"),
        ("FID,IID,x\n1,1\n", "line 2: 2 fields, but the header names 3"),
        ('FID,IID,x\n1,1,"2\n', "line 2: a quote is not closed"),
        ("FID;IID;x\n1;1;2\n", "expected a header"),
        ("FID IID\n1 1\n", "no column besides"),
        ("FID\tIID\tx\t\n1\t1\t2\t3\n", "line 2: 4 fields, but the header names 3 columns"),
        ("FID\tIID\t\tx\n1\t1\t2\t3\n", "column 3 has no name"),
        ("IID FID x\n1 1 2\n", "must begin with FID and IID, or with IID where there is no FID"),
        ("#FID x\n1 2\n", "must begin with FID and IID"),
        ("IID\n1\n", "no column besides"),
        ("FID\tIID\tx\na\tplant 17\t2\n", "line 2: the ID 'plant 17' has a blank in it"),
        ("FID IID x\na b 1\n\nc d 1\n", "line 3 is empty"),
        ("FID IID x y x\n", "column 'x' twice"),
        ("FID IID x\n", "no samples"),
        ("FID IID x\n1 1 2\n1 2 3 4\n", "line 3: 4 fields, but the header names 3"),
        ("FID IID x\n1 1\n", "line 2: 2 fields, but the header names 3"),
        ("FID\tIID\tx\ty\na\tb\t\t1\t2\n", "line 2: 5 fields, but the header names 4"),
        ("FID\tIID\tx\n\tb\t1\n", "line 2: the FID or the IID is empty"),
        ("FID IID x\na b 1\nc d 1\na b 1\n", "sample 'a b' occurs twice, in lines 2 and 4"),
    ],
)
def test_malformed_tables(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        read_table(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_unknown_and_repeated_wanted_columns(tmp_path: Path) -> None:
    path = write(tmp_path, "FID IID height weight\n1 1 1 1\n")
    with pytest.raises(UsageError, match="no column 'hight'; its columns are height, weight"):
        read_table(path, ["height", "hight"])
    with pytest.raises(UsageError, match="no column 'FID'"):
        read_table(path, ["FID"])
    with pytest.raises(UsageError, match=r"'height' of .* twice"):
        read_table(path, ["height", "weight", "height"])


def test_unreadable_files(tmp_path: Path) -> None:
    for reader in (read_table, read_ids, read_words):
        with pytest.raises(StorageError, match=r"absent\.txt"):
            reader(tmp_path / "absent.txt")
    path = tmp_path / "binary.txt"
    path.write_bytes(b"FID IID x\n\xff\xfe 1 2\n")
    with pytest.raises(InputError, match="UTF-8"):
        read_table(path)


@pytest.mark.parametrize(
    "header", ["", "FID IID sex\n", "#FID\tIID\tsex\n", "# a remark\n## and one more\nFID IID sex\n", "# FID IID sex\n"]
)
def test_id_list(tmp_path: Path, header: str) -> None:
    path = write(tmp_path, header + "f1 i1 x\nf2\ti2 0\n  f1 i1 2\n\n")
    assert read_ids(path).ids == [("f1", "i1"), ("f2", "i2"), ("f1", "i1")]


def test_id_list_with_a_single_field(tmp_path: Path) -> None:
    path = write(tmp_path, "f1 i1\ni2\n")
    with pytest.raises(InputError, match="line 2 has 1 field, but line 1 has 2"):
        read_ids(path)
    assert read_ids(write(tmp_path, "")).ids == []
    assert read_ids(write(tmp_path, "i1\ni2\n")).ids == [("0", "i1"), ("0", "i2")]


@pytest.mark.parametrize("first", ["#12 I20", "F1 I1"])
def test_a_hash_is_a_letter_of_an_id(tmp_path: Path, first: str) -> None:
    path = write(tmp_path, f"{first}\n#13 I21\nF2 #4\n")
    assert read_ids(path).ids == [tuple(first.split()), ("#13", "I21"), ("F2", "#4")]


@pytest.mark.parametrize("text", ["f1 i1\nf2 plant 17\n", "f1\ti1\nf2\tplant 17\n"])
def test_a_blank_in_an_id_of_a_list_is_located(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match="line 2 has 3 fields, but line 1 has 2"):
        read_ids(write(tmp_path, text))
    with pytest.raises(InputError, match="line 1 has 3 fields: 'plant 17' in column 2 has a blank"):
        read_ids(write(tmp_path, "f2\tplant 17\nf2\tplant 18\n"))


KNOWN = [("F1", "a"), ("F2", "b"), ("F1", "twin"), ("F2", "twin")]


@pytest.mark.parametrize("header", ["#IID", "IID"])
def test_a_file_without_fid_has_those_of_the_genotypes(tmp_path: Path, header: str) -> None:
    path = write(tmp_path, f"{header} y\nb 2\nother 3\na 1\n")
    assert read_table(path).ids == [("0", "b"), ("0", "other"), ("0", "a")]
    assert "no column FID: FID is 0" in read_table(path).summary
    table = read_table(path, known=KNOWN)
    assert table.ids == read_ids(path, KNOWN).ids == [("F2", "b"), ("0", "other"), ("F1", "a")]
    assert "FID is that of the genotypes' sample" in table.summary
    assert table.values.tolist() == [[2], [3], [1]] and table.names == ("y",)
    path = write(tmp_path, f"{header} y\na 2\ntwin 3\n")
    with pytest.raises(InputError, match=r"line 3: the file has no FID, and several families.*'twin'"):
        read_table(path, known=KNOWN)


def test_codes_of_missing_values_are_counted_and_taken(tmp_path: Path) -> None:
    text = "FID IID y sex n\n1 1 -9 0 0\n1 2 3.5 1 1\n1 3 -9.0 2 2\n1 4 0 2 3\n1 5 NA 0 4\n"
    table = read_table(write(tmp_path, text))
    assert table.values[:, 0].tolist()[:4] == [-9, 3.5, -9, 0]
    nine, zero = table.warnings
    assert "2 values of column 'y' are -9 and are read as numbers" in nine
    assert "--missing-code -9" in nine
    assert "2 values of column 'sex' are 0, where all others are 1 and 2," in zero and "--missing-code 0" in zero
    table = read_table(write(tmp_path, text), missing_codes=(-9.0,))
    np.testing.assert_array_equal(table.values[:, 0], [np.nan, 3.5, np.nan, 0, np.nan])
    assert "2 values of -9 are missing (--missing-code)" in table.summary
    assert len(table.warnings) == 1 and "'sex'" in table.warnings[0]
    table = read_table(write(tmp_path, text), ["sex"], missing_codes=parse_missing_codes(["-9,0"]))
    np.testing.assert_array_equal(table.values[:, 0], [np.nan, 1, 2, 2, np.nan])
    assert table.warnings == ()
    assert read_table(write(tmp_path, "FID IID y\n1 1 0\n1 2 1\n1 3 0\n")).warnings == ()


def test_missing_codes_of_the_command_line() -> None:
    assert parse_missing_codes(["-9", "0,99", "-9.0"]) == (-9.0, 0.0, 99.0)
    for text in ("NA", "", "inf", "-9,,0"):
        with pytest.raises(UsageError, match="--missing-code"):
            parse_missing_codes([text])


def test_wanted_columns_may_be_separated_by_commas(tmp_path: Path) -> None:
    path = write(tmp_path, "FID IID a b a,b c\n1 1 1 2 3 4\n")
    assert read_table(path, ["a,c", "b"]).names == ("a", "c", "b")
    assert read_table(path, ["a,b"]).names == ("a,b",)
    with pytest.raises(UsageError, match="no column 'd'"):
        read_table(path, ["a,d"])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PK\x03\x04...", "a workbook"),
        (b"\x89HDF\r\n\x1a\n", "HDF5 file of traits"),
        (b"PAR1 and no more", "damaged Parquet file"),
        (b"\x28\xb5\x2f\xfd..", "zstd"),
        (gzip.compress(b"FID IID x\n1 1 2\n1 2 3\n", mtime=0)[:-12], "compressed by gzip, but damaged or truncated"),
        (b"FID IID x\n1 1 2\n1 \xe5 3\n", "line 3 is not UTF-8 text: it has the byte e5"),
        (b"\xff\xfeF\x00I", "UTF-16"),
    ],
)
def test_what_is_no_text_is_said(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "table.txt"
    path.write_bytes(data)
    with pytest.raises(InputError, match=message):
        read_table(path)


def test_names(tmp_path: Path) -> None:
    path = write(tmp_path, "rs1\n\n rs2 rs3\r\nrs1")
    assert read_words(path)[0] == ["rs1", "rs2", "rs3", "rs1"]


def test_index_ids() -> None:
    ids = [("a", "1"), ("a", "2"), ("b", "1")]
    assert index_ids(ids, "x") == {("a", "1"): 0, ("a", "2"): 1, ("b", "1"): 2}
    with pytest.raises(InputError, match=r"k\.id lists sample 'a 2' twice \(entries 2 and 4\)"):
        index_ids([*ids, ("a", "2")], "k.id")
    assert show_sample(("a", "2")) == "'a 2'"
