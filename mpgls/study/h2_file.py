"""Heritabilities that the user gives, for each trait or for each trait and chromosome."""

from __future__ import annotations

import math
import os

from mpgls.errors import InputError
from mpgls.study.filters import plain_chromosome
from mpgls.study.tables import PathLike, _numbered_lines


def read_h2_file(path: PathLike) -> dict[str, float]:
    """Trait -> h2 from a table with the columns TRAIT and H2; others are not looked at, so an O.traits.tsv will do.

    NaN where H2 is NA. Raises InputError, naming the line, for an h2 that is no number or outside
    [0, 1), for a trait that occurs twice and for a malformed table; StorageError for an unreadable file.
    """
    return {trait: h2 for (trait,), h2 in _read(os.fspath(path), ("TRAIT",)).items()}


def read_h2_by_chromosome(path: PathLike) -> dict[tuple[str, str], float]:
    """(Trait, chromosome) -> h2 from a table with the columns TRAIT, CHR and H2, such as an O.loco.tsv.

    Chromosomes are in the form of `plain_chromosome`. Raises as `read_h2_file` does.
    """
    found = _read(os.fspath(path), ("TRAIT", "CHR"))
    return {(trait, plain_chromosome(chromosome)): h2 for (trait, chromosome), h2 in found.items()}


def _read(name: str, keys: tuple[str, ...]) -> dict[tuple[str, ...], float]:
    lines = _numbered_lines(name)
    number, line = next(lines, (1, ""))
    header = _fields(line.removeprefix("#"))
    columns = (*keys, "H2")
    for column in columns:
        if header.count(column) != 1:
            wanted = " and ".join([", ".join(columns[:-1]), columns[-1]])
            raise InputError(f"{name}, line {number}: expected a header with the columns {wanted}")
    key_at, h2_at = [header.index(key) for key in keys], header.index("H2")
    found: dict[tuple[str, ...], float] = {}
    line_of: dict[tuple[str, ...], int] = {}
    for number, line in lines:
        fields = _fields(line)
        if len(fields) != len(header):
            raise InputError(f"{name}, line {number}: {len(fields)} fields, but the header names {len(header)} columns")
        key = tuple(fields[k] for k in key_at)
        shown = f"trait {key[0]!r}" + (f", chromosome {key[1]}," if len(key) > 1 else "")
        if line_of.setdefault(key, number) != number:
            hint = "; values by chromosome are for --loco" if "CHR" in header and len(key) == 1 else ""
            raise InputError(f"{name}: {shown} occurs twice, in lines {line_of[key]} and {number}{hint}")
        found[key] = math.nan if fields[h2_at] == "NA" else _h2(fields[h2_at], shown, name, number)
    return found


def _fields(line: str) -> list[str]:
    return [text.strip() for text in line.split("\t")] if "\t" in line else line.split()


def _h2(text: str, shown: str, path: str, line: int) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < 1:
        raise InputError(f"{path}, line {line}: h2 of {shown} is {text!r}, not a number of at least 0, below 1")
    return value
