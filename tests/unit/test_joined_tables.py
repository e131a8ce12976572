"""Tables that are joined: what is no table, what was cut off, and what their runs say of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import mpgls
from mpgls.errors import InputError, UsageError
from mpgls.report.joined_tables import TableParts
from mpgls.report.table import COLUMNS

HEADER = "\t".join(COLUMNS)


def row(pos: int, **changed: str) -> str:
    values = dict(zip(COLUMNS, f"1 {pos} rs{pos} A C 0.25 99 0.5 0.25 2.0 1.3 5.0e-02 .".split(), strict=True))
    return "\t".join((values | changed).values())


def write(path: Path, *rows: str, end: str = "\n") -> str:
    path.write_text("\n".join([HEADER, *rows]) + end)
    return str(path)


@pytest.mark.parametrize("end", ["", "\t", "\tmonom"])
def test_a_line_without_an_end_was_cut_off(tmp_path, end):
    """Else the first row of the next table would go on in it."""
    cut = write(tmp_path / "a.tsv", row(1), row(2).rpartition("\t")[0] + end, end="")
    with pytest.raises(InputError, match=r"a\.tsv, line 3 has no end: the file was cut off there"):
        TableParts.open([cut, write(tmp_path / "b.tsv", row(3))])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"LOG10P": "abc"}, "line 4: LOG10P is no number: 'abc'"),
        ({"BETA": "0,5"}, "line 4: BETA is no number: '0,5'"),
        ({"SE": ""}, "line 4: SE is no number: ''"),
        ({"P": "1e-"}, "line 4: P is no number: '1e-'"),
        ({"N": "99.5"}, "line 4: N is no whole number: '99.5'"),
        ({"N": "NA"}, "line 4: N is no whole number: 'NA'"),
        ({"POS": "1" * 30}, "line 4: POS is no whole number: '11"),
        ({"ID": "r\udce9"}, "line 4 is not UTF-8 text: it has the byte e9"),
    ],
)
def test_what_is_no_figure_is_named(tmp_path, changed, message):
    path = tmp_path / "a.tsv"
    path.write_bytes("\n".join([HEADER, row(1), row(2), row(3, **changed), ""]).encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=f"a.tsv, {message}"):
        TableParts.open([str(path)])


def test_all_figures_that_tables_have_are_taken(tmp_path):
    without = dict.fromkeys(("EAF", "BETA", "SE", "STAT", "LOG10P", "P"), "NA")
    rows = [row(1, **without), row(2, STAT="-inf", LOG10P="inf", SE="0.0"), row(3, LOG10P="1233.9", P="1.2e-1234")]
    parts = TableParts.open([write(tmp_path / "a.tsv", *rows)])
    assert (parts.count, parts.largest_log10p) == (3, 1233.9)


def job(prefix: Path, rows: int, trait: str = "y", **options: str) -> str:
    """A table of one row as text and packed, beside a manifest that says how many it has."""
    made_from = json.dumps({"command": "single-trait", "options": options})
    facts = {"rows": rows, "covariates": {"intercept": [0, 1], "age": [0, 1]}}
    manifest = {"made_from": made_from, "tables": {trait: f"{prefix}.{trait}.tsv"}, "traits": {trait: facts}}
    Path(f"{prefix}.json").write_text(json.dumps(manifest))
    return write(Path(f"{prefix}.{trait}.tsv"), row(10 + len(list(prefix.parent.iterdir()))))


def test_a_table_that_lost_whole_lines_is_refused(tmp_path):
    cut = job(tmp_path / "a", 2)
    with pytest.raises(InputError, match=r"a\.y\.tsv has 1 rows, and its run wrote 2: it was changed or cut off"):
        TableParts.open([cut])


def test_any_format_of_a_run_is_known_by_its_manifest(tmp_path):
    first, other = job(tmp_path / "a", 1), job(tmp_path / "b", 1, "z")
    Path(f"{other}.gz").write_bytes(Path(other).read_bytes())  # known by its first bytes
    with pytest.raises(InputError, match=r"a\.y\.tsv is of trait 'y', and .*b\.z\.tsv\.gz of 'z'"):
        TableParts.open([first, f"{other}.gz"])


def test_a_damaged_manifest_tells_nothing(tmp_path):
    first = job(tmp_path / "a", 1)
    (tmp_path / "a.json").write_text('{"tables": ')
    assert TableParts.open([first]).unknown == [first]


def test_joined_tables_are_joined_again(tmp_path):
    """The joined table is known as its parts are: trait, covariates and options."""
    parts = {name: job(tmp_path / name, 1, trait) for name, trait in (("a", "y"), ("b", "y"), ("c", "z"))}
    wald = job(tmp_path / "w", 1, **{"--test": "wald"})
    for name, table in parts.items():
        mpgls.merge(tables=(table,), out=tmp_path / f"j{name}")
    joined = [str(tmp_path / f"j{name}.tsv") for name in parts]
    mpgls.merge(tables=joined[:2], format="tsv,ssf", out=tmp_path / "all")
    facts = (tmp_path / "all.ssf.tsv-meta.yaml").read_text()
    assert '- "y"\n' in facts and 'adjusted_covariates:\n- "age"\n' in facts
    with pytest.raises(InputError, match=r"of trait 'y', and .*jc\.tsv of 'z'"):
        TableParts.open([joined[0], joined[2]])
    with pytest.raises(InputError, match="of different analyses: --test"):
        TableParts.open([joined[0], wald])


def test_a_kinship_has_one_format(tmp_path):
    with pytest.raises(UsageError, match="--format is of --tables"):
        mpgls.merge(kinships=("K.h5",), format="tsv.gz", out=tmp_path / "J")
