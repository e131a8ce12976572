"""What a finished run left, as arrays."""

from __future__ import annotations

import gzip
import json
import os

import numpy as np
import pytest

import mpgls
from mpgls.errors import StorageError, UsageError
from mpgls.run.results import Results

SCAN = "CHR\tPOS\tID\tBETA\tP\tNOTE\n1\t10\trs1\t0.25\t1e-300\t.\nX\t20\trs2\tNA\tNA\tmonomorphic\n"
HITS = "TRAIT\tPOS\tBEST\nCD8\t7\tNA\n"


@pytest.fixture
def results(tmp_path):
    (tmp_path / "o.CD8.tsv").write_text(SCAN)
    (tmp_path / "o.hits.tsv").write_text(HITS)
    tables = {"CD8": str(tmp_path / "o.CD8.tsv"), "hits": str(tmp_path / "o.hits.tsv")}
    manifest = {"command": "single-trait", "files": [str(tmp_path / "o.h5"), *tables.values()], "tables": tables}
    return Results(str(tmp_path / "o"), manifest)


def only(results, name):
    return Results(results.prefix, results.manifest | {"tables": {name: str(results.tables[name])}})


def test_what_there_is(results, tmp_path):
    assert results.command == "single-trait" and results.nulls is None
    assert results.tables == {"CD8": tmp_path / "o.CD8.tsv", "hits": tmp_path / "o.hits.tsv"}
    assert results.files == (tmp_path / "o.h5", *results.tables.values())
    assert Results("o", {}).files == () and Results("o", {}).tables == {} and Results("o", {}).command == ""
    assert mpgls.Results is Results


def test_a_table_is_a_structured_array(results):
    table = results.table("CD8")
    assert table.dtype.names == ("CHR", "POS", "ID", "BETA", "P", "NOTE") and table.shape == (2,)
    assert table["CHR"].tolist() == ["1", "X"] and table["ID"].tolist() == ["rs1", "rs2"]
    assert table["NOTE"].tolist() == [".", "monomorphic"]
    assert table["POS"].dtype == np.int64 and table["POS"].tolist() == [10, 20]
    np.testing.assert_array_equal(table["BETA"], [0.25, np.nan])
    assert table["P"][0] == 1e-300
    assert only(results, "CD8").table().tolist()[0] == table.tolist()[0]  # the name is not needed


def test_a_column_without_a_value_is_text(results):
    assert results.table("hits")["BEST"].tolist() == ["NA"]


def test_a_table_without_rows(results, tmp_path):
    (tmp_path / "o.hits.tsv").write_text("TRAIT\tPOS\n")
    assert results.table("hits").dtype.names == ("TRAIT", "POS") and results.table("hits").size == 0


def test_a_compressed_table(results, tmp_path):
    (tmp_path / "o.CD8.tsv").write_bytes(gzip.compress(SCAN.encode()))
    assert results.table("CD8")["POS"].tolist() == [10, 20]


def test_other_forms(results):
    pandas = pytest.importorskip("pandas")
    frame = results.table("CD8", "pandas")
    assert list(frame.columns) == list(results.table("CD8").dtype.names) and pandas.isna(frame["P"][1])
    pytest.importorskip("pyarrow")
    assert results.table("CD8", "arrow").column("ID").to_pylist() == ["rs1", "rs2"]


def test_what_there_is_not(results, tmp_path):
    with pytest.raises(UsageError, match=r"single-trait .*o has no table None: choose one of CD8, hits"):
        results.table()
    with pytest.raises(UsageError, match=r"has no table 'CD4': choose one of CD8, hits"):
        results.table("CD4")
    with pytest.raises(UsageError, match=r"has no table 'CD4': choose one of none"):
        Results("o", {}).table("CD4")
    with pytest.raises(UsageError, match="a table comes as one of numpy, arrow, pandas, not csv"):
        results.table("CD8", "csv")
    os.unlink(tmp_path / "o.CD8.tsv")
    with pytest.raises(StorageError, match=r"cannot read .*o\.CD8\.tsv: No such file"):
        results.table("CD8")


def test_the_manifest_travels(results):
    assert json.loads(json.dumps(dict(results.manifest))) == results.manifest
