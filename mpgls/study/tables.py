"""Phenotype and covariate tables: the text files a user writes by hand."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mpgls.errors import InputError, UsageError
from mpgls.study.missing import codes_note, doubtful_codes, take_codes
from mpgls.study.sample_ids import (
    IdList,
    OncePerSample,
    SampleColumns,
    SampleId,
    index_ids,
    read_ids,
    show_sample,
)
from mpgls.study.text import PathLike, TextTable, part_names

__all__ = [
    "IdList", "PathLike", "SampleId", "SampleTable", "Table", "index_ids", "read_ids", "read_table", "show_sample",
]  # fmt: skip

MISSING = frozenset({"NA", "nan", "NaN", ""})
_SHOWN_COLUMNS = 5


@dataclass(frozen=True)
class Table:
    """Numbers per sample, in the order of the file.

    ``ids`` holds k pairs (FID, IID), ``names`` the c columns that were read, and ``values`` is (k, c) float64
    with NaN where the file says that a value is missing. ``notes`` say how the file was understood, ``warnings`` what
    in it may mean something else than it was taken for.
    """

    path: str
    ids: list[SampleId]
    names: tuple[str, ...]
    values: np.ndarray
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @classmethod
    def of_everyone(cls, path: str, ids: list[SampleId], name: str) -> Table:
        """A column ``name`` that all samples ``ids`` have, and that varies: it stands for every trait of the file."""
        return cls(path, ids, (name,), np.arange(len(ids), dtype=np.float64)[:, None])

    @property
    def summary(self) -> str:
        """One line for the log: how the file was understood."""
        shown = ", ".join(self.names[:_SHOWN_COLUMNS]) + (", ..." if len(self.names) > _SHOWN_COLUMNS else "")
        columns = f"{len(self.names):,} column{'s' * (len(self.names) != 1)} read ({shown})"
        return "; ".join([f"{self.path}: {len(self.ids):,} samples, {columns}", *self.notes])


class SampleTable:
    """A text table whose header begins with FID and IID, or IID alone: `rows` gives sample and fields, line by line.

    ``header`` are all names; ``first`` is the first column after the sample's. ``known`` are the samples of the
    genotypes, which give an IID its FID where the file has none. ``who`` is what messages call a sample.

    Raises InputError for another header, for a line of another width, for a sample that occurs twice (unless ``who`` is
    None) and for a file without samples; StorageError for an unreadable file.
    """

    def __init__(
        self,
        path: PathLike,
        known: Sequence[SampleId] | None = None,
        who: str | None = "sample",
        wanted: str = "name ...",
    ) -> None:
        self.table = TextTable(path, key="IID")
        self.path, self.header = self.table.path, self.table.header
        if self.header[:1] not in (["FID"], ["IID"]):
            raise self.table.refuse_header(f"'FID IID {wanted}'")
        self._columns = SampleColumns(self.path, self.header, self.table.line, known)
        self.first, self._who = self._columns.first, who
        if len(self.header) <= self.first:
            raise InputError(f"{self.path}, line {self.table.line}: the header names no column besides FID and IID")

    def __iter__(self) -> Iterator[tuple[int, SampleId, list[str]]]:
        once, number = OncePerSample(self.path, self._who or ""), 0
        for number, fields in self.table.rows():
            sample = self._columns.sample(number, fields)
            if self._who is not None:
                once.add(sample, number)
            yield number, sample, fields
        if not number:
            raise InputError(f"{self.path} has a header but no samples")

    @property
    def notes(self) -> tuple[str, ...]:
        """How the file was understood; complete after the last line."""
        return (f"header: {self._columns.note}", *self.table.lines.notes)


def read_table(
    path: PathLike,
    wanted: Sequence[str] = (),
    known: Sequence[SampleId] | None = None,
    missing_codes: Sequence[float] = (),
) -> Table:
    """Read a phenotype or covariate table with the header ``FID IID name ...`` or ``IID name ...``, with # or without.

    Fields are separated by tabs or other white space; two tabs in a row enclose an empty, hence missing, value.
    ``NA``, ``nan``, ``NaN``, the empty field and the numbers ``missing_codes`` are missing; every other value is a
    number, but ``warnings`` count those that often mean missing. ``wanted`` selects columns, in that order; the others
    are not looked at, so they may hold text. Without ``wanted`` every column is read. ``known`` is as in `SampleTable`.

    Raises InputError (text in a numeric column, a line of the wrong width, samples or columns that occur
    twice), UsageError (a wanted column that does not exist) and StorageError (an unreadable file).
    """
    table = SampleTable(path, known)
    columns = _column_positions(table, wanted)
    ids: list[SampleId] = []
    numbers = array("d")
    for number, sample, fields in table:
        ids.append(sample)
        try:
            numbers.extend([_number(fields[c]) for c in columns])
        except ValueError:
            raise _not_a_number(table, number, fields, columns) from None
    values = np.array(numbers, dtype=np.float64).reshape(len(ids), len(columns))
    names = tuple(table.header[c] for c in columns)
    notes = table.notes
    if missing_codes:
        notes += (codes_note(take_codes(values, missing_codes), missing_codes),)
    return Table(table.path, ids, names, values, notes, doubtful_codes(table.path, names, values))


def column_names(path: PathLike) -> list[str]:
    """The names of a table's columns after FID and IID. Raises as `SampleTable` does."""
    table = SampleTable(path)
    return table.header[table.first :]


def _column_positions(table: SampleTable, wanted: Sequence[str]) -> list[int]:
    """Where the wanted columns (all when none is named) stand in a line; UsageError for an unknown one."""
    if not wanted:
        return list(range(table.first, len(table.header)))
    position = {name: column for column, name in enumerate(table.header) if column >= table.first}
    wanted = part_names(wanted, position)
    unknown = [name for name in wanted if name not in position]
    if unknown:
        raise UsageError(f"{table.path} has no column {unknown[0]!r}; its columns are {', '.join(position)}")
    if len(set(wanted)) < len(wanted):
        repeated = next(name for name in wanted if list(wanted).count(name) > 1)
        raise UsageError(f"column {repeated!r} of {table.path} is asked for twice")
    return [position[name] for name in wanted]


def _number(text: str) -> float:
    """The finite number that ``text`` spells, or NaN where it says that the value is missing."""
    if text in MISSING:
        return math.nan
    value = float(text)
    # float() also takes Python's digit separator and names of infinities, which no table means.
    if "_" in text or not math.isfinite(value):
        raise ValueError(text)
    return value


def _not_a_number(table: SampleTable, number: int, fields: Sequence[str], columns: Sequence[int]) -> InputError:
    """The error for the first of ``columns`` whose field is neither a finite number nor missing."""
    for column in columns:
        try:
            _number(fields[column])
        except ValueError:
            break
    return InputError(
        f"{table.path}, line {number}, column {table.header[column]!r}: {fields[column]!r} is not a finite number "
        "(write NA for a missing value)"
    )
