from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mpgls.errors import StorageError
from mpgls.model.trait_flags import Flag
from mpgls.report.trait_table import COLUMNS, TraitRows, write_traits
from mpgls.study.h2_file import read_h2_file
from mpgls.study.plink import VariantTable

NAN = float("nan")


def make_rows(**changes) -> TraitRows:
    columns = {
        "names": ["CD8", "IL-2", "flat"],
        "n": np.array([1410, 1200, 0]),
        "h2": np.array([0.1 + 0.2, 0.0, NAN]),
        "h2_se": np.array([0.05, NAN, NAN]),
        "s2": np.array([1.25, 3.0, NAN]),
        "lambda_gc": np.array([1.0123, 0.99, NAN]),
        "tested": np.array([10_768, 10_768, 0]),
        "log10p_max": np.array([345.25, -0.0, NAN]),
        "best_row": np.array([2, 0, -1]),
        "hits": np.array([17, 0, 0]),
        "flags": np.array([0, Flag.BOUNDARY | Flag.IMPUTED, Flag.CONSTANT], dtype=np.uint8),
    }
    return TraitRows(**(columns | changes))


def make_bim(path: Path) -> VariantTable:
    path.write_text("".join(f"{chrom}\trs{k}\t0\t{10 * k}\tA\tC\n" for k, chrom in enumerate(["1", "2", "X"])))
    return VariantTable.open(path)


def written(tmp_path: Path, rows: TraitRows) -> list[list[str]]:
    write_traits(tmp_path / "o.traits.tsv", rows, make_bim(tmp_path / "g.bim"))
    lines = (tmp_path / "o.traits.tsv").read_text().split("\n")
    assert lines[-1] == "" and lines[0] == "\t".join(COLUMNS)
    return [line.split("\t") for line in lines[1:-1]]


def test_every_column(tmp_path):
    expected = "TRAIT N H2 H2_SE S2 LAMBDA_GC TESTED MIN_P LOG10P_MAX BEST_SNP BEST_CHR BEST_POS HITS FLAGS"
    assert " ".join(COLUMNS) == expected
    rows = written(tmp_path, make_rows())
    assert rows[0] == [
        "CD8", "1410", "0.30000000000000004", "0.05", "1.25", "1.0123", "10768", "5.6234132519e-346", "345.25",
        "rs2", "X", "20", "17", "NA",
    ]  # fmt: skip
    assert rows[1] == [
        "IL-2", "1200", "0.0", "NA", "3.0", "0.99", "10768", "1.0000000000e+00", "0",
        "rs0", "1", "0", "0", "approximate (imputed);h2 at boundary",
    ]  # fmt: skip
    assert rows[2] == ["flat", "0", *["NA"] * 4, "0", *["NA"] * 5, "0", "constant"]


def test_the_table_gives_its_h2_back(tmp_path):
    written(tmp_path, make_rows())
    assert read_h2_file(tmp_path / "o.traits.tsv") == pytest.approx(
        {"CD8": 0.1 + 0.2, "flat": np.nan, "IL-2": 0.0}, rel=0.0, abs=0.0, nan_ok=True
    )


def test_columns_of_different_length_are_refused():
    with pytest.raises(ValueError, match="differ in length"):
        make_rows(hits=np.array([1, 2]))


def test_unwritable_place_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match="cannot write"):
        write_traits(tmp_path / "absent" / "o.tsv", make_rows(), make_bim(tmp_path / "g.bim"))
