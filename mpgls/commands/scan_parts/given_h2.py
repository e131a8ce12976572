"""The heritabilities that the user gives instead of having them estimated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mpgls.errors import InputError
from mpgls.study.filters import plain_chromosome
from mpgls.study.h2_file import read_h2_by_chromosome, read_h2_file


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
