"""The weights of SNPs as a file: the counterpart of `mpgls.report.weights_table`, which has its columns."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass

import numpy as np

from mpgls.errors import InputError
from mpgls.study.text import PathLike, TextTable
from mpgls.study.variants import Variants

COLUMNS = ("CHR", "POS", "ID", "EA", "NEA", "EAF", "MEAN")
"""Columns before those of the traits."""
_SHOWN = 5


@dataclass(frozen=True, eq=False)
class WeightsFile:
    """Weights ``values`` (m, t) of ``variants`` (m) for the traits ``names`` (t), per copy of EA, which is their a1.

    ``mean`` (m,) is what a missing genotype counts as; ``lines`` (m,) say where each SNP stands.
    """

    path: str
    names: tuple[str, ...]
    variants: Variants
    mean: np.ndarray
    values: np.ndarray
    lines: np.ndarray
    notes: tuple[str, ...]

    @property
    def summary(self) -> str:
        """One line for the log: how the file was understood."""
        shown = ", ".join(self.names[:_SHOWN]) + (", ..." if len(self.names) > _SHOWN else "")
        return "; ".join([f"{self.path}: weights of {len(self.values):,} SNPs for {shown}", *self.notes])


def read_weights(path: PathLike) -> WeightsFile:
    """Read a file of weights.

    Raises InputError, naming the line, for another header, a line of another width, a number that is none, a mean that
    is not from 0 to 2, and for a file without SNPs; StorageError for an unreadable file.
    """
    table = TextTable(path, key="ID", own=len(COLUMNS))
    wanted, names = list(COLUMNS), tuple(table.header[len(COLUMNS) :])
    if table.header[: len(wanted)] != wanted or not names:
        raise table.refuse_header(f"'{' '.join(wanted)} trait ...', as mpgls writes PREFIX.TRAIT.weights.tsv")
    variants, positions = Variants([], [], np.empty(0, dtype=np.int64), [], []), array("q")
    lines, numbers = array("q"), array("d")
    for number, fields in table.rows():
        chrom, pos, name, a1, a2, _, *figures = fields
        for column, text in zip(
            (variants.chrom, variants.id, variants.a1, variants.a2), (chrom, name, a1, a2), strict=True
        ):
            column.append(text)
        positions.append(_whole(table.path, number, pos))
        numbers.extend(_finite(table.path, number, table.header[6 + k], text) for k, text in enumerate(figures))
        lines.append(number)
    if not lines:
        raise InputError(f"{table.path} has a header but no SNPs")
    figures_of = np.array(numbers).reshape(len(lines), 1 + len(names))
    mean, values = figures_of[:, 0].copy(), figures_of[:, 1:].copy()
    wrong = np.flatnonzero((mean < 0) | (mean > 2))
    if wrong.size:
        raise InputError(
            f"{table.path}, line {lines[int(wrong[0])]}: MEAN is {mean[wrong[0]]:g}, not a number of copies from 0 to 2"
        )
    whole = Variants(variants.chrom, variants.id, np.array(positions, dtype=np.int64), variants.a1, variants.a2)
    return WeightsFile(table.path, names, whole, mean, values, np.array(lines), table.lines.notes)


def _whole(path: str, line: int, text: str) -> int:
    try:
        return int(np.int64(int(text)))
    except (ValueError, OverflowError):
        raise InputError(f"{path}, line {line}: the position is {text!r}, not a whole number") from None


def _finite(path: str, line: int, column: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{path}, line {line}, column {column!r}: {text!r} is not a finite number")
    return value
