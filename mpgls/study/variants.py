"""The variants of a study, row by row: a .bim or .pvar of any length.

A table stays on disk; only the offset of every 65,536th line is held, so that one rank opens it and sends it to the
others. It keeps the rules of `mpgls.study.text`, but is read by blocks of lines.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

import numpy as np

from mpgls.errors import InputError, StorageError
from mpgls.study.text import PathLike, facts_of_bytes, open_text, reading, split_at_tabs, utf8_chunks, why_unclear

STRIDE = 65536
_CHUNK_BYTES = 16 << 20
_NEWLINE = ord("\n")
_LAST_BLANK = ord(" ")
_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, eq=False)
class Variants:
    """Rows of a .bim or .pvar; ``a1`` is the allele that is counted, the effect allele of every result.

    It is A1 of a .bim and ALT of a .pvar.
    """

    chrom: list[str]
    id: list[str]
    pos: np.ndarray
    """int64, in base pairs."""
    a1: list[str]
    a2: list[str]

    def __len__(self) -> int:
        return len(self.id)


class Columns(NamedTuple):
    """Where the lines of a table have what: positions among their ``width`` fields."""

    chrom: int
    id: int
    pos: int
    a1: int
    a2: int
    width: int


BIM = Columns(chrom=0, id=1, pos=3, a1=4, a2=5, width=6)
_PVAR_WITHOUT_CM = Columns(chrom=0, id=1, pos=2, a1=3, a2=4, width=5)
_OF_PVAR = {"chrom": "CHROM", "id": "ID", "pos": "POS", "a1": "ALT", "a2": "REF"}


class VariantRows(Protocol):
    """What is needed of one table or of several that are read as one."""

    @property
    def path(self) -> Path:
        """The file, or what messages call several files."""

    @property
    def count(self) -> int:
        """Rows, so SNPs."""

    @property
    def has_alt(self) -> bool:
        """Whether a1 is ALT, of which there may be several."""

    @property
    def notes(self) -> tuple[str, ...]:
        """How the file was understood."""

    @property
    def row_bytes(self) -> int:
        """Bytes of a row, about."""

    @property
    def summary(self) -> str:
        """One line for the log: how the file was understood."""

    def read(self, start: int, stop: int) -> Variants:
        """The rows ``start`` to ``stop`` (exclusive). Raises StorageError and InputError."""

    def batches(self, size: int = STRIDE) -> Iterator[tuple[int, Variants]]:
        """All rows in order, as (number of the first row, at most ``size`` rows)."""

    def place(self, row: int) -> str:
        """Where a row stands, as messages have it: file and line."""


@dataclass(frozen=True, eq=False)
class VariantTable:
    """Random access to the rows of a .bim or .pvar of any length."""

    path: Path
    count: int
    """Lines, so SNPs; empty ones at the end do not count."""
    stride: int
    offsets: np.ndarray
    """int64: byte offset of the lines 0, stride, 2 stride, ..., and then the end of the last line."""
    plain: bool = True
    """Whether the offsets are those of the file; else of the text that it holds compressed or in UTF-16."""
    notes: tuple[str, ...] = ()
    """How the file was understood."""
    columns: Columns = BIM
    header: int = 0
    """Lines before row 0."""
    has_alt: bool = False
    """Whether a1 is ALT, of which there may be several."""

    @classmethod
    def open(cls, path: str | Path, pvar: bool = False) -> VariantTable:
        """Count the lines of a .bim, or of a ``pvar``, and note where every 65,536th begins, in one pass.

        Raises
        ------
        StorageError : the file cannot be read.
        InputError : it is empty, no text, or its first line is none of such a file.
        """
        name = str(path)
        notes, plain, begin = _form(name)
        columns, header = BIM, 0
        if pvar:
            columns, header, begin = _pvar_header(name, _chunks(name, plain, begin), begin)
        lines = _LineCount(begin)
        for chunk in _chunks(name, plain, begin):
            lines.add(chunk)
        if lines.count == 0:
            raise InputError(f"{path} lists no SNP")
        if lines.empty:
            notes.append(f"{lines.empty} empty line{'s' * (lines.empty > 1)} at the end")
        table = cls(Path(path), lines.count, STRIDE, lines.offsets(), plain, tuple(notes), columns, header, pvar)
        table.read(0, 1)
        return table

    @property
    def summary(self) -> str:
        """One line for the log: how the file was understood."""
        return "; ".join([f"{self.path}: {self.count:,} SNPs", *self.notes])

    @property
    def row_bytes(self) -> int:
        """Bytes of a row, about."""
        return -(-int(self.offsets[-1] - self.offsets[0]) // self.count)

    def read(self, start: int, stop: int) -> Variants:
        """The rows ``start`` to ``stop`` (exclusive).

        Raises
        ------
        StorageError : the file cannot be read, or has become shorter since it was opened.
        InputError : a row of another number of fields or whose position is not a whole number, with its line.
        """
        if not 0 <= start <= stop <= self.count:
            raise ValueError(f"rows {start} to {stop} of {self.path}, which has {self.count}")
        if start == stop:
            return Variants([], [], np.empty(0, dtype=np.int64), [], [])
        data = self._lines(start, stop)
        fast = _parse_regular(data, stop - start, self.columns)
        return fast if fast is not None else _parse_lines(data, self.path, self.header + start + 1, self.columns)

    def batches(self, size: int = STRIDE) -> Iterator[tuple[int, Variants]]:
        """All rows in order, as (number of the first row, at most ``size`` rows)."""
        for start in range(0, self.count, size):
            yield start, self.read(start, min(start + size, self.count))

    def place(self, row: int) -> str:
        """Where a row stands, as messages have it: file and line."""
        return f"{self.path}, line {self.header + row + 1}"

    def _lines(self, start: int, stop: int) -> bytes:
        """The bytes of the lines ``start`` to ``stop`` (exclusive)."""
        first_block, last_block = start // self.stride, -(-stop // self.stride)
        begin, end = int(self.offsets[first_block]), int(self.offsets[last_block])
        if self.plain:
            with open_bytes(self.path) as file:
                file.seek(begin)
                data = file.read(end - begin)
        else:
            data = _UNPACKED.read(str(self.path), begin, end)
        if len(data) != end - begin:
            raise StorageError(f"{self.path} has become shorter since it was opened")
        skip, last = start - first_block * self.stride, stop - first_block * self.stride
        if skip == 0 and stop == min(last_block * self.stride, self.count):
            return data
        ends = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == _NEWLINE) + 1
        return data[ends[skip - 1] if skip else 0 : ends[last - 1] if last <= ends.size else len(data)]


class _LineCount:
    """Counts the lines of a text that begins at byte ``begin``, given chunk by chunk, and where each block starts."""

    def __init__(self, begin: int) -> None:
        self.count = 0
        self._starts, self._size, self._newlines, self._last = [begin], begin, 0, _NEWLINE
        self._end: int | None = begin

    def add(self, chunk: bytes) -> None:
        """The next bytes."""
        newline = np.frombuffer(chunk, dtype=np.uint8) == _NEWLINE
        found = int(np.count_nonzero(newline))
        # the lines that end here are newlines .. newlines + found - 1; after every stride-th, note the next line
        first = STRIDE - 1 - self._newlines % STRIDE
        if first < found:
            self._starts += (np.flatnonzero(newline)[first::STRIDE] + self._size + 1).tolist()
        ink = len(chunk.rstrip())
        if ink:
            self.count = self._newlines + found - chunk.count(b"\n", ink) + 1
        if ink or self._end is None:
            at = chunk.find(b"\n", ink)
            self._end = self._size + at + 1 if at >= 0 else None
        self._newlines, self._size, self._last = self._newlines + found, self._size + len(chunk), chunk[-1]

    @property
    def empty(self) -> int:
        """Lines without text at the end."""
        return self._newlines + (self._last != _NEWLINE) - self.count

    def offsets(self) -> np.ndarray:
        """int64: where the blocks start, and where the last line with text ends."""
        end = self._size if self._end is None else self._end
        return np.array([*(start for start in self._starts if start < end), end], dtype=np.int64)


class _Unpacked:
    """Ranges of the text of files that are compressed or in UTF-16.

    Such a text can only be read forward, so the place and the last range are kept from call to call.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._file: tuple[str, int, int] | None = None
        self._at, self._held = 0, b""
        self._chunks: Iterator[bytes] = iter(())

    def read(self, path: str, begin: int, end: int) -> bytes:
        """The bytes ``begin`` to ``end`` (exclusive) of the text as `utf8_chunks` gives it; fewer where it ends."""
        with self._lock, reading(path):
            known = os.stat(path)
            file = (path, known.st_mtime_ns, known.st_size)
            if file != self._file or begin < self._at:
                self._file, self._at, self._held, self._chunks = file, 0, b"", utf8_chunks(path)
            parts, size = [self._held], self._at + len(self._held)
            while size < end and (chunk := next(self._chunks, b"")):
                # what lies before the range is not kept
                parts = [*parts, chunk] if size > begin else [chunk]
                self._at = self._at if size > begin else size
                size += len(chunk)
            self._held = b"".join(parts)[max(0, begin - self._at) :]
            self._at = begin
            return self._held[: end - begin]


_UNPACKED = _Unpacked()


def _form(path: str) -> tuple[list[str], bool, int]:
    """What the log says of a file's bytes, whether its lines can be found in the file itself, and where they begin."""
    with open_text(path):
        notes = list(facts_of_bytes(path))
    with open_bytes(path) as file:
        start = file.read(_CHUNK_BYTES)
    old_lines = b"\r" in start and b"\n" not in start
    if old_lines or "gzip" in notes or "UTF-16" in notes:
        return notes + ["lines end in CR"] * old_lines, False, 0
    return notes + ["lines end in CR LF"] * (b"\r\n" in start), True, len(_MARK) if start.startswith(_MARK) else 0


def _chunks(path: str, plain: bool, begin: int) -> Iterator[bytes]:
    """The bytes of a text from ``begin`` on: of the file, or of what it holds compressed or in UTF-16."""
    if not plain:
        for chunk in utf8_chunks(path):
            if len(chunk) > begin:
                yield chunk[begin:]
            begin = max(0, begin - len(chunk))
        return
    with open_bytes(path) as file:
        file.seek(begin)
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def _pvar_header(path: str, chunks: Iterable[bytes], begin: int) -> tuple[Columns, int, int]:
    """Where the lines of a .pvar have what, how many lines its header has, and where row 0 begins.

    The header ends with the line #CHROM. A file without one has the columns of a .bim, or those without centimorgans.
    """
    names: list[str] | None = None
    line, data, number = b"", b"", 0
    for chunk in chunks:
        data += chunk
        while (end := data.find(b"\n")) >= 0:
            line = data[:end]
            if not line.startswith(b"#"):
                return _pvar_columns(path, names, number, line), number, begin
            number, begin, data = number + 1, begin + end + 1, data[end + 1 :]
            if line.startswith(b"#CHROM"):
                names = line[1:].decode(errors="replace").split()
    return _pvar_columns(path, names, number, data), number, begin


def _pvar_columns(path: str, names: Sequence[str] | None, number: int, first: bytes) -> Columns:
    """The columns of a .pvar by their ``names`` in line ``number``, or by the fields of its ``first`` row."""
    if names is None:
        return _PVAR_WITHOUT_CM if len(first.split()) == _PVAR_WITHOUT_CM.width else BIM
    for name in _OF_PVAR.values():
        if name not in names:
            raise InputError(f"{path}, line {number}: the header names no column {name}")
    return Columns(**{of: names.index(name) for of, name in _OF_PVAR.items()}, width=len(names))


def _parse_regular(data: bytes, count: int, of: Columns) -> Variants | None:
    """Rows split all at once; None if a line is malformed or unusual, which only the slow way can tell."""
    if not (data.isascii() and _same_fields_a_line(data, count, of.width)):
        return None
    fields = data.decode("ascii").split()
    if len(fields) != of.width * count:
        return None
    try:
        pos = np.fromiter(map(int, fields[of.pos :: of.width]), dtype=np.int64, count=count)
    except (ValueError, OverflowError):
        return None
    chrom, ids, a1, a2 = (fields[column :: of.width] for column in (of.chrom, of.id, of.a1, of.a2))
    return Variants(chrom, ids, pos, a1, a2)


def _same_fields_a_line(data: bytes, count: int, width: int) -> bool:
    text = np.frombuffer(data, dtype=np.uint8)
    blank = text <= _LAST_BLANK
    starts = np.flatnonzero(blank[:-1] > blank[1:]) + 1
    if not blank[0]:
        starts = np.concatenate([[0], starts])
    ends = np.flatnonzero(text == _NEWLINE)
    if ends.size < count:
        ends = np.append(ends, text.size)
    if starts.size != width * count or ends.size != count:
        return False
    # the last field of a line begins before its end, and the first of the next after it
    return bool(np.all(starts[width - 1 :: width] < ends) and np.all(starts[width::width] > ends[:-1]))


def _parse_lines(data: bytes, path: Path, first_line: int, of: Columns) -> Variants:
    rows = Variants([], [], np.empty(0, dtype=np.int64), [], [])
    positions = []
    for line_number, line in enumerate(data.removesuffix(b"\n").split(b"\n"), start=first_line):
        fields = _fields(line, path, line_number, of.width)
        chrom, name, a1, a2 = (fields[column] for column in (of.chrom, of.id, of.a1, of.a2))
        positions.append(_position(fields[of.pos], f"(column {of.pos + 1}) of SNP {name}", path, line_number))
        for column, value in zip((rows.chrom, rows.id, rows.a1, rows.a2), (chrom, name, a1, a2), strict=True):
            column.append(value)
    return Variants(rows.chrom, rows.id, np.array(positions, dtype=np.int64), rows.a1, rows.a2)


def _position(text: str, of_what: str, path: Path, line_number: int) -> int:
    try:
        return int(np.int64(int(text)))
    except (ValueError, OverflowError):
        raise InputError(
            f"{path}, line {line_number}: the position {of_what} is {text!r}, not a whole number"
        ) from None


def open_bytes(path: PathLike) -> BinaryIO:
    """A file to be read as bytes. Raises StorageError where it cannot be."""
    try:
        return open(path, "rb")
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from None


def _fields(line: bytes, path: Path, line_number: int, width: int) -> list[str]:
    """The ``width`` fields of a line, separated by blanks or tabs."""
    fields = line.split()
    if len(fields) != width:
        if not fields:
            raise InputError(f"{path}, line {line_number} is empty, and lines with text follow")
        between_tabs = split_at_tabs(line.decode(errors="replace"))
        why = why_unclear(between_tabs) if len(between_tabs) > 1 else ""
        raise InputError(f"{path}, line {line_number} has {len(fields)} fields, not {width}{why}")
    try:
        return [item.decode() for item in fields]
    except UnicodeDecodeError:
        raise InputError(f"{path}, line {line_number} is not UTF-8 text") from None
