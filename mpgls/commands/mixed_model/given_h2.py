"""The heritabilities that the user gives instead of having them estimated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpgls.commands.mixed_model.loco import ScanPart
from mpgls.errors import InputError
from mpgls.study.filters import plain_chromosome
from mpgls.study.h2_file import read_h2_by_chromosome, read_h2_file


def given_h2(h2: float | None, path: str | None, traits: Sequence[str], parts: Sequence[ScanPart]) -> np.ndarray:
    """h2 (parts, t) where the user gave one, with --h2 or in the table ``path``; NaN where it is to be estimated.

    Raises InputError when the table has none of the traits, and what reading it raises. Call on one rank.
    """
    known = np.full((len(parts), len(traits)), np.nan if h2 is None else h2)
    if path is None:
        return known
    if parts[0].label is None:
        by_trait = read_h2_file(path)
        known[0] = [by_trait.get(name, np.nan) for name in traits]
    else:
        by_chromosome = read_h2_by_chromosome(path)
        for part, row in zip(parts, known, strict=True):
            row[:] = [by_chromosome.get((name, plain_chromosome(str(part.label))), np.nan) for name in traits]
    if np.isnan(known).all():
        where = "" if parts[0].label is None else f" on any of the {len(parts)} chromosomes"
        raise InputError(f"{path} has none of the {len(traits)} traits of this run{where}: {traits[0]}, ...")
    return known
