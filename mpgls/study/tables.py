"""Phenotype and covariate tables: text, with commas or without, HDF5 and Parquet."""

from __future__ import annotations

import math
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from mpgls.errors import InputError
from mpgls.study.column_files import ColumnFile, check_finite, open_columns
from mpgls.study.column_names import select_names
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
from mpgls.study.text import PathLike, TextTable

__all__ = [
    "IdList", "PathLike", "SampleId", "SampleTable", "Table", "index_ids", "read_ids", "read_table", "show_sample",
]  # fmt: skip

MISSING = frozenset({"NA", "nan", "NaN", ""})
_SHOWN_COLUMNS = 5


@dataclass(frozen=True)
class Table:
    """Numbers per sample, in the order of the file.

    ``ids`` holds k pairs (FID, IID), ``names`` the c columns that were read, and ``values`` is (k, c) float64
    with NaN where the file says that a value is missing. A column of categories has ``levels``, and its values are
    positions among them. ``notes`` say how the file was understood, ``warnings`` what in it may mean something else
    than it was taken for. ``further`` are the names of the further columns that were asked for.
    """

    path: str
    ids: list[SampleId]
    names: tuple[str, ...]
    values: np.ndarray
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    levels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    further: tuple[str, ...] = ()

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


@dataclass(frozen=True)
class Columns:
    """Which columns of a table are read, and how.

    ``wanted`` is read by `select_names`, and so are ``further`` columns, which come behind where they are not among
    them. The numbers ``missing_codes`` are missing. ``categories`` (wanted names) are
    taken as categories whatever is in them, and so is each column of words; None: words are an error.
    """

    wanted: Sequence[str] = ()
    missing_codes: Sequence[float] = ()
    categories: Sequence[str] | None = None
    what: str = "column"
    further: Sequence[str] = ()

    def select(self, names: Sequence[str], path: str) -> Selected:
        """What is meant of the columns ``names`` of ``path``. Raises UsageError for one that is not there."""
        columns = select_names(names, self.wanted, path, self.what)
        further = select_names(names, self.further, path, self.what) if self.further else []
        columns += [k for k in further if k not in columns]
        read = [names[k] for k in columns]
        categories = select_names(read, self.categories, path, self.what) if self.categories else []
        return Selected(columns, frozenset(read[k] for k in categories), tuple(names[k] for k in further))


class Selected(NamedTuple):
    """Positions of the columns that are read, and the names of the categories and the further columns asked for."""

    positions: list[int]
    categories: frozenset[str]
    further: tuple[str, ...]


def read_table(
    path: PathLike,
    wanted: Sequence[str] = (),
    known: Sequence[SampleId] | None = None,
    missing_codes: Sequence[float] = (),
    categories: Sequence[str] | None = None,
    what: str = "column",
    further: Sequence[str] = (),
) -> Table:
    """Read a phenotype or covariate table with the columns ``FID IID name ...`` or ``IID name ...``.

    Text is separated by commas, tabs or other white space; two tabs or commas in a row enclose an empty, hence
    missing, value. ``NA``, ``nan``, ``NaN``, the empty field and the numbers ``missing_codes`` are missing; every other
    value is a number, but ``warnings`` count those that often mean missing. ``wanted`` selects columns, as
    `select_names` reads it, which calls them a ``what``, and ``further`` adds some; the others are not looked at.
    Without ``wanted`` every column is read. With ``categories``, the columns of these names and all columns of words
    become categories; a word has a letter and is no number. ``known`` is as in `SampleTable`.

    Raises InputError (text in a numeric column, a line of the wrong width, samples or columns that occur
    twice), UsageError (a wanted column that does not exist) and StorageError (an unreadable file).
    """
    file = open_columns(os.fspath(path), known)
    columns = Columns(wanted, missing_codes, categories, what, further)
    return _of_text(SampleTable(path, known), columns) if file is None else _of_file(file, columns)


def _of_text(table: SampleTable, columns: Columns) -> Table:
    """The chosen columns of a text file."""
    selected = columns.select(table.header[table.first :], table.path)
    at = [table.first + k for k in selected.positions]
    names = tuple(table.header[k] for k in at)
    if columns.categories is None:
        ids, values = _numbers(table, at)
        return _finished(Table(table.path, ids, names, values, table.notes), columns.missing_codes)
    ids, lines, rows = [], [], []
    for number, sample, fields in table:
        ids.append(sample)
        lines.append(number)
        rows.append([fields[k] for k in at])
    values, levels = np.empty((len(ids), len(at))), {}
    for k, (name, texts) in enumerate(zip(names, zip(*rows, strict=True), strict=True)):
        if name in selected.categories or _all_words(texts):
            values[:, k], levels[name] = _as_category(texts, columns.missing_codes)
        else:
            values[:, k] = _as_numbers(texts, table.path, lines, name)
    read = Table(table.path, ids, names, values, table.notes, levels=levels, further=selected.further)
    return _finished(read, columns.missing_codes)


def _of_file(file: ColumnFile, columns: Columns) -> Table:
    """The chosen columns of an HDF5 or Parquet file."""
    selected = columns.select(file.names, file.path)
    names = tuple(file.names[k] for k in selected.positions)
    values, levels = np.empty((len(file.ids), len(names))), {}
    for k, (position, name) in enumerate(zip(selected.positions, names, strict=True)):
        texts = None if columns.categories is None else file.texts(position)
        if texts is None:
            values[:, k] = file.read(np.array([position]))[0]
            check_finite(file.path, [name], file.ids, values[None, :, k])
        if texts is None and name in selected.categories:
            texts = ["" if math.isnan(value) else f"{value:.15g}" for value in values[:, k]]
        if texts is not None:
            values[:, k], levels[name] = _as_category(texts, columns.missing_codes)
    read = Table(file.path, file.ids, names, values, file.notes, levels=levels, further=selected.further)
    return _finished(read, columns.missing_codes)


def _finished(read: Table, codes: Sequence[float]) -> Table:
    """The table as it was ``read``, with what is missing taken out and what may be missing warned of."""
    notes, numeric = read.notes, np.array([name not in read.levels for name in read.names], dtype=bool)
    numbers = read.values[:, numeric]
    if codes:
        notes += (codes_note(take_codes(numbers, codes), codes),)
        read.values[:, numeric] = numbers
    if read.levels:
        notes += (f"categories: {', '.join(read.levels)}",)
    doubts = doubtful_codes(read.path, [name for name in read.names if name not in read.levels], numbers)
    return replace(read, notes=notes, warnings=doubts)


def _numbers(table: SampleTable, at: Sequence[int]) -> tuple[list[SampleId], np.ndarray]:
    """The samples, and the columns ``at`` (c,) of a line as numbers (k, c); of 10^5 columns no text is kept."""
    ids: list[SampleId] = []
    numbers = array("d")
    for number, sample, fields in table:
        ids.append(sample)
        try:
            numbers.extend([_number(fields[k]) for k in at])
        except ValueError:
            wrong = next(k for k in at if not _is_number(fields[k]))
            raise _not_a_number(table.path, number, table.header[wrong], fields[wrong]) from None
    return ids, np.array(numbers, dtype=np.float64).reshape(len(ids), len(at))


def _as_numbers(texts: Sequence[str], path: str, lines: Sequence[int], name: str) -> np.ndarray:
    """A column (k,) as numbers. Raises InputError, naming the line, for a text."""
    for number, text in zip(lines, texts, strict=True):
        if not _is_number(text):
            raise _not_a_number(path, number, name, text, "; or --cat-covar for a column of categories")
    return np.array([_number(text) for text in texts])


def _as_category(texts: Sequence[str], codes: Sequence[float]) -> tuple[np.ndarray, tuple[str, ...]]:
    """A column (k,) as positions among its levels, NaN where missing, and the levels: as numbers or texts ascend."""
    known = [text for text in dict.fromkeys(texts) if text not in MISSING and not _is_code(text, codes)]
    all_numbers = all(map(_is_number, known))
    levels = tuple(sorted(known, key=(lambda text: (float(text), text)) if all_numbers else (lambda text: (0.0, text))))
    position = {level: float(k) for k, level in enumerate(levels)}
    return np.array([position.get(text, math.nan) for text in texts]), levels


def _all_words(texts: Sequence[str]) -> bool:
    """Whether a column holds words alone, beside what is missing: with letters, and no numbers."""
    known = set(texts) - MISSING
    return bool(known) and all(any(map(str.isalpha, text)) and not _reads_as_float(text) for text in known)


def _is_code(text: str, codes: Sequence[float]) -> bool:
    return bool(codes) and _is_number(text) and float(text) in codes


def _reads_as_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_number(text: str) -> bool:
    """Whether ``text`` is a finite number, or says that the value is missing."""
    try:
        _number(text)
    except ValueError:
        return False
    return True


def _number(text: str) -> float:
    """The finite number that ``text`` spells, or NaN where it says that the value is missing."""
    if text in MISSING:
        return math.nan
    value = float(text)
    # float() also takes Python's digit separator and names of infinities, which no table means.
    if "_" in text or not math.isfinite(value):
        raise ValueError(text)
    return value


def _not_a_number(path: str, line: int, name: str, text: str, or_else: str = "") -> InputError:
    return InputError(
        f"{path}, line {line}, column {name!r}: {text!r} is not a finite number (write NA for a missing value{or_else})"
    )
