"""Heritabilities that the user gives, for each trait or for each trait and chromosome."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mpgls.errors import InputError
from mpgls.study.chromosome_names import plain_chromosome, spellings
from mpgls.study.text import PathLike, TextTable


def given_h2(
    h2: float | None, path: str | None, traits: Sequence[str], chromosomes: Sequence[str] | None
) -> np.ndarray:
    """h2 (parts, t) where the user gave one, with --h2 or in the table ``path``; NaN where it is to be estimated.

    There is a part for each of the ``chromosomes`` that are left out in turn, or one for all SNPs together (None).
    Raises InputError when the table has none of the traits, and what reading it raises. Call on one rank.
    """
    known = np.full((len(chromosomes or ("all",)), len(traits)), np.nan if h2 is None else h2)
    if path is None:
        return known
    table: Mapping[Any, float]
    if chromosomes is None:
        keys, table = [list[Any](traits)], read_h2_file(path)
    else:
        keys = [[(name, plain_chromosome(label)) for name in traits] for label in chromosomes]
        table = read_h2_by_chromosome(path)
    if not any(key in table for row in keys for key in row):
        where = "" if chromosomes is None else f" on any of the {len(chromosomes)} chromosomes"
        shown = ", ".join(traits[:3]) + (", ..." if len(traits) > 3 else "")
        raise InputError(f"{path} has none of the {len(traits)} traits of this run{where}: {shown}")
    return np.array([[table.get(key, np.nan) for key in row] for row in keys])


def read_h2_file(path: PathLike) -> dict[str, float]:
    """Trait -> h2 from a table with the columns TRAIT and H2; others are not looked at, so an O.traits.tsv will do.

    NaN where H2 is NA. Raises InputError, naming the line, for an h2 that is no number or outside
    [0, 1), for a trait that occurs twice and for a malformed table; StorageError for an unreadable file.
    """
    return {trait: h2 for (trait,), h2 in _read(os.fspath(path), ("TRAIT",)).items()}


def read_h2_by_chromosome(path: PathLike) -> dict[tuple[str, str], float]:
    """(Trait, chromosome) -> h2 from a table with the columns TRAIT, CHR and H2, such as an O.loco.tsv.

    Chromosomes are in the form of `plain_chromosome`, each by all its names (X and 23) that the file does not use for
    another one. Raises as `read_h2_file` does.
    """
    found = _read(os.fspath(path), ("TRAIT", "CHR"))
    written = {(trait, plain): h2 for (trait, plain), h2 in found.items()}
    meant = {(trait, name): h2 for (trait, plain), h2 in written.items() for name in spellings(plain)}
    return {**meant, **written}


def _read(name: str, keys: tuple[str, ...]) -> dict[tuple[str, ...], float]:
    table = TextTable(name, key="TRAIT")
    columns = (*keys, "H2")
    for column in columns:
        if column not in table.header:
            raise table.refuse_header(f"with the columns {', '.join(columns[:-1])} and {columns[-1]}")
    key_at, h2_at = [table.header.index(key) for key in keys], table.header.index("H2")
    found: dict[tuple[str, ...], float] = {}
    line_of: dict[tuple[str, ...], int] = {}
    for number, fields in table.rows():
        shown = f"trait {fields[key_at[0]]!r}" + (f", chromosome {fields[key_at[1]]}," if len(keys) > 1 else "")
        # chr1 and 1 are one key
        key = (fields[key_at[0]], *(plain_chromosome(fields[k]) for k in key_at[1:]))
        if line_of.setdefault(key, number) != number:
            hint = "; values by chromosome are for --loco" if "CHR" in table.header and len(key) == 1 else ""
            raise InputError(f"{name}: {shown} occurs twice, in lines {line_of[key]} and {number}{hint}")
        found[key] = math.nan if fields[h2_at] == "NA" else _h2(fields[h2_at], shown, name, number)
    return found


def _h2(text: str, shown: str, path: str, line: int) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < 1:
        raise InputError(f"{path}, line {line}: h2 of {shown} is {text!r}, not a number of at least 0, below 1")
    return value
