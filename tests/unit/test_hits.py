from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from thread_ranks import one_rank

from mpgls.errors import StorageError
from mpgls.model.hits import HIT_DTYPE, merge_hits, no_hits
from mpgls.report import hits as module
from mpgls.report.hits import COLUMNS, HitVariants, hits_table, pieces
from mpgls.report.table import format_rows
from mpgls.report.table_files import write_rows
from mpgls.report.table_lines import Table
from mpgls.stream.store import RECORD_DTYPE
from mpgls.study.plink import Variants, VariantTable

TRAITS = ("zeta", "alpha", "a b")


def make_bim(path: Path, m: int = 300) -> VariantTable:
    path.write_text("".join(f"{1 + k // 100}\trs{k}\t0\t{7 * k + 1}\tA\tC{'T' * (k % 3)}\n" for k in range(m)))
    return VariantTable.open(path)


def make_hits(count: int = 41, m: int = 300, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    hits = np.zeros(count, HIT_DTYPE)
    chosen = rng.choice(m * len(TRAITS), count, replace=False)
    hits["trait"], hits["row"] = chosen % len(TRAITS), chosen // len(TRAITS)
    hits["beta"], hits["se"] = rng.standard_normal(count), rng.uniform(0.01, 0.1, count)
    hits["log10p"], hits["n"], hits["eaf"] = (
        rng.uniform(7, 20, count),
        rng.integers(50, 60, count),
        rng.uniform(size=count),
    )
    hits["log10p"][:1] = 1234.5
    return hits


def table_of(folder: Path, hits: np.ndarray) -> Table:
    return hits_table(hits, TRAITS, make_bim(folder / "g.bim"))


def rows_of(folder: Path, hits: np.ndarray) -> list[dict[str, str]]:
    write_rows(one_rank(), {"tsv": folder / "o.tsv"}, table_of(folder, hits), batch=10)
    return parse(folder / "o.tsv")


def parse(path: Path) -> list[dict[str, str]]:
    lines = path.read_text().splitlines()
    assert lines[0].split("\t") == list(COLUMNS)
    return [dict(zip(COLUMNS, line.split("\t"), strict=True)) for line in lines[1:]]


def test_hits_of_ranks_are_merged_in_order_of_trait_and_row():
    hits = make_hits()
    merged = merge_hits([hits[:7], hits[:0], hits[7:]])
    keys = list(zip(merged["trait"].tolist(), merged["row"].tolist(), strict=True))
    assert keys == sorted(keys) and len(keys) == 41
    np.testing.assert_array_equal(merged, merge_hits([hits[::-1]]))
    assert merge_hits([no_hits()]).dtype == HIT_DTYPE


def test_rows_are_those_of_the_single_trait_table(tmp_path):
    variants, hits = make_bim(tmp_path / "g.bim"), merge_hits([make_hits()])
    rows = rows_of(tmp_path, hits)
    assert len(rows) == 41
    whole = variants.read(0, 300)
    for row, hit in zip(rows, hits, strict=True):
        assert row["TRAIT"] == TRAITS[hit["trait"]] and row["ID"] == f"rs{hit['row']}"
        k, record = int(hit["row"]), np.zeros(1, RECORD_DTYPE)
        for name in ("beta", "se", "eaf", "n"):
            record[name] = hit[name]
        one = Variants([whole.chrom[k]], [whole.id[k]], whole.pos[k : k + 1], [whole.a1[k]], [whole.a2[k]])
        text = format_rows(one, record, 50, "t", hit["log10p"].reshape(1)).decode()
        if hit["log10p"] < 1000:
            assert "\t".join(row[name] for name in COLUMNS[1:]) + "\t.\n" == text
        else:
            assert row["P"] == "3.1622776602e-1235" and row["LOG10P"] == "1234.5"


def test_figures_that_are_not_known_are_na_and_infinite_ones_inf(tmp_path):
    hits = make_hits(3)
    hits["se"][0], hits["log10p"][1], hits["eaf"][2] = 0.0, np.inf, np.nan
    hits["trait"], hits["row"] = 0, [5, 6, 7]
    rows = rows_of(tmp_path, hits)
    assert rows[0]["STAT"] in ("inf", "-inf") and rows[0]["SE"] == "0.0"
    assert rows[1]["LOG10P"] == "inf" and rows[1]["P"] == "0.0000000000e+00"
    assert rows[2]["EAF"] == "NA" and rows[2]["BETA"] != "NA"


@pytest.mark.parametrize("count", [0, 41])
def test_parquet_holds_the_same(tmp_path, count):
    parquet = pytest.importorskip("pyarrow.parquet")
    hits = merge_hits([make_hits(41)[:count]])
    made = table_of(tmp_path, hits)
    paths = {form: tmp_path / f"o.{form}" for form in ("tsv", "parquet")}
    assert write_rows(one_rank(), paths, made, batch=15) == []
    file = parquet.ParquetFile(paths["parquet"])
    table, rows = file.read(), parse(paths["tsv"])
    assert file.num_row_groups == -(-count // 15)
    assert table.column_names == list(COLUMNS) and table.num_rows == count
    types = {field.name: str(field.type) for field in table.schema}
    assert (types["N"], types["POS"], types["BETA"], types["ID"]) == ("int32", "int64", "double", "string")
    columns = table.to_pydict()
    for name in COLUMNS:
        kind = type(columns[name][0]) if count else str
        assert columns[name] == [kind(row[name]) for row in rows]


def test_variants_are_looked_up_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 50)
    variants = make_bim(tmp_path / "g.bim")
    rows = np.array([299, 3, 3, 52, 53, 120])
    found = HitVariants(variants, rows)
    assert [found.id[k] for k in found.at(rows)] == [f"rs{k}" for k in rows]
    assert found.pos[found.at(rows)].tolist() == [7 * k + 1 for k in rows]
    assert [(first, last) for first, last, _ in pieces(variants, found.rows)] == [(0, 2), (2, 3), (3, 4), (4, 5)]
    assert HitVariants(variants, rows[:0]).id == []


def test_unwritable_place_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match=r"cannot write .*o\.tsv"):
        write_rows(one_rank(), {"tsv": tmp_path / "absent" / "o.tsv"}, table_of(tmp_path, make_hits(0)))
