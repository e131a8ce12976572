"""Phenotype and covariate tables, sample lists and name lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mpgls.errors import InputError, StorageError, UsageError
from mpgls.study.tables import index_ids, read_id_list, read_names, read_table, show_sample


def write(folder: Path, text: str, name: str = "table.txt") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def test_table_of_white_space(tmp_path: Path) -> None:
    path = write(tmp_path, "FID IID  height weight\nf1 i1 1.5 -9\n\n  f1 i2 NA 2e3\r\nf2 i1 nan NaN")
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
    path = write(tmp_path, f"FID IID a sex\n1 1 1 2\n\n1 2 1 {text}\n")
    with pytest.raises(InputError) as caught:
        read_table(path)
    for part in (str(path), "line 4", "'sex'", repr(text)):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: expected a header"),
        ("1 1 2.5\n", "line 1: expected a header 'FID IID name ...', found '1 1 2.5'"),
        ("FID,IID,x\n", "expected a header"),
        ("FID IID\n1 1\n", "no column besides"),
        ("FID\tIID\tx\t\n1\t1\t2\t3\n", "column 4 has no name"),
        ("FID IID x y x\n", "column 'x' twice"),
        ("FID IID x\n", "no samples"),
        ("FID IID x\n1 1 2\n1 2 3 4\n", "line 3: 4 fields, but the header names 3"),
        ("FID IID x\n1 1\n", "line 2: 2 fields, but the header names 3"),
        ("FID\tIID\tx\ty\na\tb\t\t1\t2\n", "line 2: 5 fields, but the header names 4"),
        ("FID\tIID\tx\n\tb\t1\n", "line 2: the FID or the IID is empty"),
        ("FID IID x\na b 1\nc d 1\n\na b 1\n", "sample 'a b' occurs twice, in lines 2 and 5"),
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
    for reader in (read_table, read_id_list, read_names):
        with pytest.raises(StorageError, match=r"absent\.txt"):
            reader(tmp_path / "absent.txt")
    path = tmp_path / "binary.txt"
    path.write_bytes(b"FID IID x\n\xff\xfe 1 2\n")
    with pytest.raises(InputError, match="UTF-8"):
        read_table(path)


@pytest.mark.parametrize("header", ["", "FID IID\n", "#FID\tIID\n", "# a remark\nFID IID sex\n"])
def test_id_list(tmp_path: Path, header: str) -> None:
    path = write(tmp_path, header + "f1 i1\n\nf2\ti2 0 0 1 -9\n  f1 i1")
    assert read_id_list(path) == [("f1", "i1"), ("f2", "i2"), ("f1", "i1")]


def test_id_list_with_a_single_field(tmp_path: Path) -> None:
    path = write(tmp_path, "f1 i1\ni2\n")
    with pytest.raises(InputError, match="line 2: expected FID and IID, found only 'i2'"):
        read_id_list(path)
    assert read_id_list(write(tmp_path, "")) == []


def test_names(tmp_path: Path) -> None:
    path = write(tmp_path, "rs1\n\n rs2 rs3\r\nrs1")
    assert read_names(path) == ["rs1", "rs2", "rs3", "rs1"]


def test_index_ids() -> None:
    ids = [("a", "1"), ("a", "2"), ("b", "1")]
    assert index_ids(ids, "x") == {("a", "1"): 0, ("a", "2"): 1, ("b", "1"): 2}
    with pytest.raises(InputError, match=r"k\.id lists sample 'a 2' twice \(entries 2 and 4\)"):
        index_ids([*ids, ("a", "2")], "k.id")
    assert show_sample(("a", "2")) == "'a 2'"
