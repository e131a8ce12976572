"""Phenotype and covariate tables, sample lists and name lists: the text files a user writes by hand."""

from __future__ import annotations

import math
import os
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mpgls.errors import InputError, StorageError, UsageError

SampleId = tuple[str, str]
PathLike = str | os.PathLike[str]

MISSING = frozenset({"NA", "nan", "NaN", ""})


@dataclass(frozen=True)
class Table:
    """Numbers per sample, in the order of the file.

    ``ids`` holds k pairs (FID, IID), ``names`` the c columns that were read, and ``values`` is (k, c) float64
    with NaN where the file says that a value is missing.
    """

    path: str
    ids: list[SampleId]
    names: tuple[str, ...]
    values: np.ndarray

    @classmethod
    def of_everyone(cls, path: str, ids: list[SampleId], name: str) -> Table:
        """A column ``name`` that all samples ``ids`` have, and that varies: it stands for every trait of the file."""
        return cls(path, ids, (name,), np.arange(len(ids), dtype=np.float64)[:, None])


def read_table(path: PathLike, wanted: Sequence[str] = ()) -> Table:
    """Read a phenotype or covariate table with the header ``FID IID name ...`` (or ``#FID IID name ...``).

    Fields are separated by tabs or other white space; two tabs in a row enclose an empty, hence missing, value.
    ``NA``, ``nan``, ``NaN`` and the empty field are missing; every other value, -9 included, is a number.
    ``wanted`` selects columns, in that order; the others are not looked at, so they may hold text. Without
    ``wanted`` every column is read.

    Raises InputError (text in a numeric column, a line of the wrong width, samples or columns that occur
    twice), UsageError (a wanted column that does not exist) and StorageError (an unreadable file).
    """
    name = os.fspath(path)
    lines = _numbered_lines(name)
    header = _read_header(name, lines)
    columns = _column_positions(name, header, wanted)
    ids, numbers = _read_body(name, lines, header, columns)
    values = np.array(numbers, dtype=np.float64).reshape(len(ids), len(columns))
    return Table(name, ids, tuple(header[c] for c in columns), values)


def read_id_list(path: PathLike) -> list[SampleId]:
    """The (FID, IID) pairs of a sample list, one a line; further fields are ignored, so a .fam will do.

    Blank lines, lines that start with ``#`` and a first line ``FID IID`` are skipped. Repetitions are kept:
    they are harmless in a list to keep or remove, and `index_ids` refuses them where they are not.

    Raises InputError for a line with a single field and StorageError for an unreadable file.
    """
    name = os.fspath(path)
    ids: list[SampleId] = []
    for number, line in _numbered_lines(name):
        if line.startswith("#"):
            continue
        fields = line.split(None, 2)
        if len(fields) < 2:
            raise InputError(f"{name}, line {number}: expected FID and IID, found only {fields[0]!r}")
        if ids or fields[:2] != ["FID", "IID"]:
            ids.append((fields[0], fields[1]))
    return ids


def read_names(path: PathLike) -> list[str]:
    """The names (SNP IDs, say) of a list file, one a line or separated by white space, in file order.

    Raises StorageError for an unreadable file.
    """
    return [name for _, line in _numbered_lines(os.fspath(path)) for name in line.split()]


def index_ids(ids: Sequence[SampleId], source: str) -> dict[SampleId, int]:
    """Position of each (FID, IID) in ``ids``; InputError, naming ``source``, if a sample occurs twice."""
    index = {sample: position for position, sample in enumerate(ids)}
    if len(index) < len(ids):
        first: dict[SampleId, int] = {}
        for position, sample in enumerate(ids):
            if sample in first:
                raise InputError(
                    f"{source} lists sample {show_sample(sample)} twice "
                    f"(entries {first[sample] + 1} and {position + 1})"
                )
            first[sample] = position
    return index


def show_sample(sample: SampleId) -> str:
    """A sample as messages show it: its FID and IID in quotes."""
    return f"'{sample[0]} {sample[1]}'"


def _numbered_lines(path: str) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, without their line end, each with its number in the file from 1."""
    try:
        with open(path, encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, start=1):
                if not line.isspace():
                    yield number, line.rstrip("\n")
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text file in UTF-8") from error


def _split(line: str, width: int) -> list[str]:
    """The fields of a line: split at tabs if it has any (so that a field can be empty), else at white space.

    A line that mixes tabs and blanks is split at both where the tabs alone do not give ``width`` fields.
    """
    if "\t" not in line:
        return line.split()
    fields = [field.strip() for field in line.split("\t")]
    return line.split() if len(fields) != width and all(fields) else fields


def _read_header(path: str, lines: Iterator[tuple[int, str]]) -> list[str]:
    """The column names, FID and IID included; InputError unless they are distinct and there is a third."""
    number, line = next(lines, (1, ""))
    header = [name.strip() for name in line.removeprefix("#").split("\t")]
    if header[:2] != ["FID", "IID"]:
        header = line.removeprefix("#").split()
    if header[:2] != ["FID", "IID"]:
        raise InputError(f"{path}, line {number}: expected a header 'FID IID name ...', found {line[:60]!r}")
    if len(header) < 3:
        raise InputError(f"{path}, line {number}: the header names no column besides FID and IID")
    for column, name in enumerate(header):
        if not name:
            raise InputError(f"{path}, line {number}: column {column + 1} has no name")
        if name in header[:column]:
            raise InputError(f"{path}, line {number}: the header names column {name!r} twice")
    return header


def _column_positions(path: str, header: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Where the wanted columns (all when none is named) stand in a line; UsageError for an unknown one."""
    if not wanted:
        return list(range(2, len(header)))
    position = {name: column for column, name in enumerate(header) if column >= 2}
    unknown = [name for name in wanted if name not in position]
    if unknown:
        raise UsageError(f"{path} has no column {unknown[0]!r}; its columns are {', '.join(position)}")
    if len(set(wanted)) < len(wanted):
        repeated = next(name for name in wanted if list(wanted).count(name) > 1)
        raise UsageError(f"column {repeated!r} of {path} is asked for twice")
    return [position[name] for name in wanted]


def _read_body(
    path: str, lines: Iterable[tuple[int, str]], header: Sequence[str], columns: Sequence[int]
) -> tuple[list[SampleId], array[float]]:
    """The sample IDs and, row by row, the numbers in ``columns``."""
    line_of: dict[SampleId, int] = {}
    numbers = array("d")
    for number, line in lines:
        fields = _split(line, len(header))
        if len(fields) != len(header):
            raise InputError(f"{path}, line {number}: {len(fields)} fields, but the header names {len(header)} columns")
        sample = (fields[0], fields[1])
        if not all(sample):
            raise InputError(f"{path}, line {number}: the FID or the IID is empty")
        if line_of.setdefault(sample, number) != number:
            raise InputError(
                f"{path}: sample {show_sample(sample)} occurs twice, in lines {line_of[sample]} and {number}"
            )
        try:
            numbers.extend([_number(fields[c]) for c in columns])
        except ValueError:
            raise _not_a_number(path, number, header, fields, columns) from None
    if not line_of:
        raise InputError(f"{path} has a header but no samples")
    return list(line_of), numbers


def _number(text: str) -> float:
    """The finite number that ``text`` spells, or NaN where it says that the value is missing."""
    if text in MISSING:
        return math.nan
    value = float(text)
    # float() also takes Python's digit separator and names of infinities, which no table means.
    if "_" in text or not math.isfinite(value):
        raise ValueError(text)
    return value


def _not_a_number(
    path: str, number: int, header: Sequence[str], fields: Sequence[str], columns: Sequence[int]
) -> InputError:
    """The error for the first of ``columns`` whose field is neither a finite number nor missing."""
    for column in columns:
        try:
            _number(fields[column])
        except ValueError:
            break
    return InputError(
        f"{path}, line {number}, column {header[column]!r}: {fields[column]!r} is not a finite number "
        "(write NA for a missing value)"
    )
