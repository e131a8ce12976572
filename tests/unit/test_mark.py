"""What a file was made from: equal marks go on, others are refused with the name of what differs."""

from __future__ import annotations

import json

import pytest

from mpgls.errors import InputError
from mpgls.stream.mark import Mark

OPTIONS = {"--h2": 0.5, "--loco": True, "--pheno-name": ("CD8", "CD4")}
INPUTS = {"--bfile": [[10, "aa"], [20, "bb"]], "--covar": [[30, "cc"]]}


def mark(command="single-trait", options=OPTIONS, inputs=INPUTS, **facts):
    return Mark({"command": command, "options": options, "inputs": inputs, **facts})


def test_equal_facts_are_equal_texts_in_any_order():
    turned = Mark({"inputs": INPUTS, "options": dict(reversed(OPTIONS.items())), "command": "single-trait"})
    assert turned.text == mark().text
    mark().check(turned.text, "o.h5")


def test_the_text_is_json_that_says_it_all():
    found = json.loads(mark().text)
    assert found["options"] == {"--h2": 0.5, "--loco": True, "--pheno-name": ["CD8", "CD4"]}
    assert found["inputs"] == INPUTS


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"command": "low-rank"}, "not the same command"),
        ({"options": OPTIONS | {"--h2": 0.25}}, "--h2 was 0.5, now it is 0.25"),
        ({"options": {"--loco": True, "--pheno-name": ("CD8", "CD4")}}, "--h2 was 0.5, now it is not given"),
        ({"options": {"--h2": 0.5, "--pheno-name": ("CD8", "CD4")}}, "--loco was given, now it is not given"),
        ({"options": OPTIONS | {"--test": "wald"}}, "--test was not given, now it is wald"),
        ({"options": OPTIONS | {"--pheno-name": ("CD8",)}}, "--pheno-name was CD8 CD4, now it is CD8"),
        ({"inputs": INPUTS | {"--covar": [[30, "dd"]]}}, "the file of --covar is another"),
        ({"inputs": INPUTS | {"--bfile": [[10, "aa"], [21, "bb"]]}}, "the file of --bfile is another"),
        ({"inputs": INPUTS | {"--keep": [[1, "ee"]]}}, "--keep was not given, now it is given"),
        ({"inputs": {"--bfile": INPUTS["--bfile"]}}, "--covar was given, now it is not given"),
        ({"sizes": {"block": 7}}, "not the same sizes"),
        ({"options": OPTIONS | {"--h2": 0.1}, "inputs": {}}, "--h2 was 0.5, now it is 0.1"),
    ],
)
def test_the_first_difference_is_named(changed, said):
    with pytest.raises(InputError) as refused:
        mark(**changed).check(mark().text, "folder/o.h5")
    assert str(refused.value) == (
        f"folder/o.h5 was made from other inputs or options, so it cannot be resumed ({said}): "
        "run with the same command line, or without --resume to start anew"
    )


@pytest.mark.parametrize("found", ["a" * 64, "", "[1]"])
def test_a_hash_of_an_earlier_version(found):
    with pytest.raises(InputError, match="by an earlier version of mpgls"):
        mark().check(found, "o.h5")


def test_a_narrower_mark_has_the_facts_of_the_wider_one():
    narrow = mark().narrowed(part="chromosome 3")
    assert narrow.facts == {**mark().facts, "part": "chromosome 3"}
    with pytest.raises(InputError, match="not the same part"):
        narrow.check(mark().narrowed(part="chromosome 4").text, "o.h5")


def test_long_values_are_kept_as_hashes():
    many = {"--pheno-name": [f"trait{k}" for k in range(100_000)]}
    long = mark(options=many, samples=list(range(100_000)))
    assert len(long.text) < 1000
    long.check(mark(options=dict(many), samples=list(range(100_000))).text, "o.h5")
    with pytest.raises(InputError, match="--pheno-name was sha256:"):
        mark(options={"--pheno-name": [*many["--pheno-name"][:-1], "x"]}).check(long.text, "o.h5")
    with pytest.raises(InputError, match="not the same samples"):
        mark(options=many, samples=list(range(1, 100_001))).check(long.text, "o.h5")
