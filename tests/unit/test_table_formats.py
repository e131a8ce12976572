"""One table as text, CSV, Parquet and HDF5; and columns of words and of numbers as categories."""

from __future__ import annotations

import math
from pathlib import Path

import h5py
import numpy as np
import pytest

from mpgls.errors import InputError, UsageError
from mpgls.study.tables import read_table
from mpgls.study.trait_matrix import open_traits

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

IDS = [("f1", "i1"), ("f1", "i2"), ("f2", "i3"), ("0", "i4"), ("0", "i5")]
COLUMNS = {"age": [41.5, 38.0, math.nan, -9.0, 2e-3], "dose": [1.0, 2.0, 2.0, 1.0, math.nan]}


def shown(value: float) -> str:
    return "NA" if math.isnan(value) else repr(value)


def write(form: str, folder: Path, columns: dict[str, list] = COLUMNS) -> Path:
    """The table in a format, under a name that does not tell which."""
    path = folder / "table"
    rows = list(zip(IDS, zip(*columns.values(), strict=True), strict=True))
    if form == "parquet":
        fid, iid = zip(*IDS, strict=True)
        nulls = {name: [None if v != v else v for v in values] for name, values in columns.items()}
        pq.write_table(pa.table({"FID": fid, "IID": iid, **nulls}), path)
    elif form == "hdf5":
        with h5py.File(path, "w") as file:
            file["traits"] = np.array(list(columns.values()))
            for name, texts in (("names", list(columns)), ("samples", [" ".join(one) for one in IDS])):
                file.create_dataset(name, data=texts, dtype=h5py.string_dtype())
    else:
        between = {"text": "\t", "csv": ","}[form]
        lines = [between.join(["#FID", "IID", *columns])]
        lines += [between.join([*sample, *map(shown, values)]) for sample, values in rows]
        path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("form", ["text", "csv", "parquet", "hdf5"])
def test_all_formats_are_one_table(tmp_path: Path, form: str) -> None:
    path = write(form, tmp_path)
    table = read_table(path, missing_codes=(-9.0,))
    assert table.ids == IDS and table.names == ("age", "dose")
    np.testing.assert_array_equal(table.values.T, [[41.5, 38, np.nan, np.nan, 2e-3], COLUMNS["dose"]])
    assert "1 value of -9 is missing" in table.summary
    assert read_table(path, ["d*"]).names == ("dose",)
    traits = open_traits(path, ["dose", "age"])
    np.testing.assert_array_equal(traits.read([0, 1]), [COLUMNS["dose"], COLUMNS["age"]])
    assert traits.ids == IDS and any("-9" in warning for warning in traits.warnings)
    coded = read_table(path, ["dose"], categories=["dose"])
    assert coded.levels == ({"dose": ("1.0", "2.0")} if form in ("text", "csv") else {"dose": ("1", "2")})
    np.testing.assert_array_equal(coded.values[:, 0], [0, 1, 1, 0, np.nan])


def test_csv_has_quotes_blanks_and_empty_fields(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('# made by hand\n"FID", "IID","body mass", site\r\n a,b,,"north, old"\r\nc,"d",4 , south\r\n')
    table = read_table(path, categories=())
    assert table.ids == [("a", "b"), ("c", "d")] and table.names == ("body mass", "site")
    np.testing.assert_array_equal(table.values, [[np.nan, 0], [4, 1]])
    assert table.levels == {"site": ("north, old", "south")}
    assert "fields separated by commas" in table.summary


def test_iid_alone_takes_the_family_of_the_genotypes(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"IID": [2, 1], "x": pa.array([True, None])}), path)
    table = read_table(path, known=[("fam", "1"), ("fam", "2")])
    assert table.ids == [("fam", "2"), ("fam", "1")]
    np.testing.assert_array_equal(table.values, [[1], [np.nan]])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"x": [1]}, "must begin with FID and IID"),
        ({"FID": ["a"], "IID": ["b"]}, "no column besides FID and IID"),
        ({"FID": ["a", "a"], "IID": ["b", "b"], "x": [1, 2]}, r"'a b' twice \(entries 1 and 2\)"),
        ({"FID": ["a"], "IID": [None], "x": [1]}, "row 1: the FID or the IID is empty"),
        ({"FID": ["a"], "IID": ["b"], "x": ["tall"]}, "column 'x' is of type string and holds no numbers"),
        ({"FID": ["a"], "IID": ["b"], "x": [math.inf]}, "column 'x' of sample 'a b' is inf, not a finite number"),
        ({"FID": pa.array([], "string"), "IID": pa.array([], "string"), "x": pa.array([], "int8")}, "but no samples"),
    ],
)
def test_malformed_parquet(tmp_path: Path, columns: dict, message: str) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(InputError, match=message):
        read_table(path)


def test_parquet_without_pyarrow_is_said(tmp_path: Path, monkeypatch) -> None:
    path = write("parquet", tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r"need the Python package pyarrow: pip install 'mpgls\[parquet\]'"):
        read_table(path)


# -- categories -----------------------------------------------------------------------------------------------------

SITES = ["north", "south", "NA", "east", "south"]


def table_of(folder: Path, **columns: list[str]) -> Path:
    path = folder / "c.tsv"
    rows = zip(*columns.values(), strict=True)
    lines = ["\t".join(["FID", "IID", *columns]), *("\t".join([*i, *row]) for i, row in zip(IDS, rows, strict=True))]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_words_become_levels_and_numbers_where_asked(tmp_path: Path) -> None:
    path = table_of(tmp_path, site=SITES, batch=["10", "9", "10", "", "-9"], age=["1", "2", "3", "4", "5"])
    table = read_table(path, missing_codes=(-9.0,), categories=["b*"])
    assert table.levels == {"site": ("east", "north", "south"), "batch": ("9", "10")}
    expected = [[1, 1, 1], [2, 0, 2], [np.nan, 1, 3], [0, np.nan, 4], [2, np.nan, 5]]
    np.testing.assert_array_equal(table.values, expected)
    assert "categories: site, batch" in table.summary
    with pytest.raises(InputError, match="line 2, column 'site': 'north' is not a finite number"):
        read_table(path)  # a trait
    with pytest.raises(UsageError, match="has no column 'centre'"):
        read_table(path, categories=["centre"])


@pytest.mark.parametrize(
    "texts", [["1", "2", "3", "4", "tall"], ["1,5", "2,5", "3", "NA", "4"], ["inf"] * 5, ["."] * 5]
)
def test_numbers_with_a_slip_are_no_category(tmp_path: Path, texts: list[str]) -> None:
    with pytest.raises(InputError, match=r"column 'x': .* is not a finite number .*--cat-covar"):
        read_table(table_of(tmp_path, x=texts), categories=())


def test_words_of_parquet_become_levels(tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    fid, iid = zip(*IDS, strict=True)
    words = pa.array(["north", "south", None, "east", "south"])
    pq.write_table(pa.table({"FID": fid, "IID": iid, "site": words, "again": words.dictionary_encode()}), path)
    table = read_table(path, categories=())
    assert table.levels == dict.fromkeys(("site", "again"), ("east", "north", "south"))
    np.testing.assert_array_equal(table.values, np.array([[1, 2, np.nan, 0, 2]] * 2).T)
