"""Heritabilities from a table: by trait, and by trait and chromosome."""

from __future__ import annotations

import numpy as np
import pytest

from mpgls.errors import InputError
from mpgls.study.h2_file import read_h2_by_chromosome, read_h2_file


def test_h2_file(tmp_path):
    path = tmp_path / "h2.tsv"
    path.write_text("TRAIT\tN\tH2\tFLAGS\nCD8\t5\t0.25\tNA\nx\t7\tNA\tconstant\nIL-2\t6\t0\tNA\n")
    assert read_h2_file(path) == pytest.approx({"CD8": 0.25, "x": np.nan, "IL-2": 0.0}, nan_ok=True)
    path.write_text("#TRAIT H2\na 0.5\n")
    assert read_h2_file(path) == {"a": 0.5}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "line 1: expected a header"),
        ("trait h2\n", "line 1: expected a header"),
        ("TRAIT H2\na 0.5\nb 1\n", "line 3: h2 of trait 'b' is '1'"),
        ("TRAIT H2\na -0.1\n", "line 2: h2 of trait 'a' is '-0.1'"),
        ("TRAIT H2\na nan\n", "line 2: h2 of trait 'a'"),
        ("TRAIT H2\na high\n", "line 2: h2 of trait 'a' is 'high'"),
        ("TRAIT H2\na\n", "line 2: 1 fields, but the header names 2"),
        ("TRAIT H2\na 0.1\na 0.2\n", "'a' occurs twice, in lines 2 and 3"),
        ("TRAIT H2\na 0.1\n\nb 0.2\n", "line 3 is empty"),
    ],
)
def test_malformed_h2_file(tmp_path, text, complaint):
    path = tmp_path / "h2.tsv"
    path.write_text(text)
    with pytest.raises(InputError, match=complaint):
        read_h2_file(path)


def test_by_chromosome_labels_are_those_of_chr(tmp_path):
    path = tmp_path / "h2.tsv"
    path.write_text("TRAIT\tCHR\tSNPS\tH2\na\tchr1\t5\t0.25\na\tX\t5\tNA\na\tscaffold_12\t5\t0\nb\t1\t5\t0.5\n")
    expected = {("a", "1"): 0.25, ("a", "X"): np.nan, ("a", "23"): np.nan, ("a", "SCAFFOLD_12"): 0.0, ("b", "1"): 0.5}
    assert read_h2_by_chromosome(path) == pytest.approx(expected, nan_ok=True)
    path.write_text("TRAIT CHR H2\na 1 0.5\na 1 0.5\n")
    with pytest.raises(InputError, match="trait 'a', chromosome 1, occurs twice, in lines 2 and 3"):
        read_h2_by_chromosome(path)


def test_a_table_by_chromosome_is_not_taken_for_one_by_trait(tmp_path):
    path = tmp_path / "h2.tsv"
    path.write_text("TRAIT CHR H2\na 1 0.5\na 2 0.5\n")
    with pytest.raises(InputError, match="'a' occurs twice, in lines 2 and 3; values by chromosome are for --loco"):
        read_h2_file(path)
    path.write_text("TRAIT H2\na 0.5\n")
    with pytest.raises(InputError, match="expected a header with the columns TRAIT, CHR and H2"):
        read_h2_by_chromosome(path)
