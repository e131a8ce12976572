"""The tables of the documents are what the figures in bench/results say."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture
def tables(monkeypatch):
    """bench/tables.py."""
    monkeypatch.syspath_prepend(str(BENCH))
    import tables

    yield tables
    sys.modules.pop("tables")


def test_documents_hold_the_figures(tables) -> None:
    made = tables.tables()
    for document in tables.DOCUMENTS:
        text = document.read_text()
        assert tables.filled(text, made) == text, "run: python bench/tables.py"


def test_every_template_is_used_and_names_what_exists(tables) -> None:
    made = tables.tables()
    marks = [name for document in tables.DOCUMENTS for name in tables.MARKED.findall(document.read_text())]
    assert sorted(marks) == sorted(made)


def test_a_figure_of_a_file_replaces_the_old_row(tables, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "scan.json").write_text(
        '{"rate": 0.25, "seconds": {"all of it": [3, 1, 2]}, "bytes": 2147483648, "peer": null}'
    )
    (tmp_path / "tables.md").write_text(
        "## one\n\n| a | b |\n|---|---|\n| {scan/rate} | {scan/seconds/all of it|median:.0f} s of {scan/bytes|gib} |\n"
        "| {scan/peer} | {scan/peer|median:.1f} |\n"
    )
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    monkeypatch.setattr(tables, "TEMPLATES", tmp_path / "tables.md")
    tables.figures.cache_clear()
    before = "Text.\n\n<!-- table: one -->\n| a | b |\n|---|---|\n| 9 | 9 |\n\nMore.\n"
    after = "Text.\n\n<!-- table: one -->\n| a | b |\n|---|---|\n| 0.250 | 2 s of 2.00 |\n| - | - |\n\nMore.\n"
    assert tables.filled(before, tables.tables()) == after
    tables.figures.cache_clear()


def test_every_record_of_a_table_is_made_by_record_sh(tables) -> None:
    named = set(re.findall(r"^(\w+) +\d+$", (BENCH / "record.sh").read_text(), re.MULTILINE))
    assert all((BENCH / f"{name}.py").exists() for name in named)
    assert {field[1].split("/")[0] for field in tables.FIELD.finditer(tables.TEMPLATES.read_text())} - {"file"} <= named
