"""Names of files made from IDs: readable, the same every time, and never one for two."""

from __future__ import annotations

import itertools
import random

import pytest

from mpgls.report.file_names import ENDINGS_OF_MAP, ENDINGS_OF_TRAIT, safe_name, snp_parts, trait_parts


@pytest.mark.parametrize(
    ("name", "safe"),
    [("rs12", "rs12"), ("1:500_A/T", "1_500_A_T"), ("../../x", "_.._x"), ("", "_"), ("é b", "__b"), (".", "_")],
)
def test_names_of_snps_are_safe_in_file_names(name: str, safe: str) -> None:
    assert safe_name(name) == safe


@pytest.mark.parametrize(
    ("names", "rows", "parts"),
    [
        (["rs1", "rs2"], [0, 7], ["rs1", "rs2"]),
        (["1:5:A:G"], [4], ["1_5_A_G"]),
        ([".", "."], [4, 6], ["_.row5", "_.row7"]),
        (["."], [4], ["_.row5"]),  # the name alone says nothing
        (["1:5:A/G", "1:5:A:G", "rs3"], [4, 6, 8], ["1_5_A_G.row5", "1_5_A_G.row7", "rs3"]),
        (["a:b", "a/b", "a_b.row1"], [0, 1, 2], ["a_b.row1.row1", "a_b.row2", "a_b.row1.row3"]),
    ],
)
def test_maps_are_named_by_the_id_and_where_it_is_not_enough_by_the_row(
    names: list[str], rows: list[int], parts: list[str]
) -> None:
    assert snp_parts(names, rows) == parts


def test_the_table_by_chromosome_of_a_trait_is_not_the_table_of_another() -> None:
    assert trait_parts(["a", "b", "c.x"]) == ["a", "b", "c.x"]
    assert trait_parts(["a", "a.loco", "b"]) == ["a.1", "a.loco.2", "b"]
    assert trait_parts(["a", "a.loco"], (".tsv",)) == ["a", "a.loco"]
    assert trait_parts(["x/y", "x_y"]) == ["x_y.1", "x_y.2"]


@pytest.mark.parametrize("seed", range(20))
def test_no_two_files_have_one_name(seed: int) -> None:
    draw = random.Random(seed)
    pieces = ["a", "A", ".", ":", "/", "_", ".row1", ".row2", ".1", ".2", ".loco", "é", "x" * 300]
    names = ["".join(draw.choices(pieces, k=draw.randint(1, 4))) for _ in range(25)]
    for parts, endings in (
        (snp_parts(names, range(25)), ENDINGS_OF_MAP),
        (trait_parts(list(dict.fromkeys(names))), ENDINGS_OF_TRAIT),
    ):
        files = [part + ending for part, ending in itertools.product(parts, endings)]
        assert len(set(files)) == len(files)
        assert all("/" not in file and len(file.encode()) < 200 for file in files)
