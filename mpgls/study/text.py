"""One reader of text files, with one set of rules, for every file of text that a user brings.

- The bytes are UTF-8, or UTF-16 with a byte order mark, compressed by gzip or not, as the first bytes say. Lines end in
  LF, CR LF or CR.
- Fields are separated by blanks or tabs. Two tabs in a row enclose an empty field. Blanks and tabs at the end of a line
  and empty lines at the end of the file do not count; an empty line in the midst is an error.
- A table whose header has commas between its names has commas between its fields, and may have quotes around them.
- Every line has as many fields as the first one.
- `#` marks a header or a remark before it, and nothing else: in data it is a letter.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from mpgls.errors import InputError, StorageError

PathLike = str | os.PathLike[str]

BLANKS = " \t\r\f\v"
"""What separates fields. Other white space, such as the no-break space, is a letter, as PLINK has it."""

_BEFORE_NAMES = f"{BLANKS}#"
_CHUNK_CHARACTERS = 1 << 22
_GZIP = b"\x1f\x8b"
_ENCODINGS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_NOT_TEXT = {
    b"\x89HDF": "an HDF5 file",
    b"PK\x03\x04": "a zip archive or a workbook of a spreadsheet program: save it as text",
    b"\x28\xb5\x2f\xfd": "compressed by zstd: unpack it, or compress it by gzip",
    b"BZh": "compressed by bzip2: unpack it, or compress it by gzip",
    b"\xfd7zXZ": "compressed by xz: unpack it, or compress it by gzip",
    b"\x6c\x1b": "a PLINK .bed",
}
# the words that a header begins with: a line '# FID IID' is a header and no remark
_HEADER_WORDS = frozenset({"FID", "IID", "TRAIT"})


class TextLines:
    """The lines of a text file, each with its number from 1, without line ends, and without remarks before the header.

    Raises StorageError for a file that cannot be read; InputError, naming the line, for an empty line in the midst and
    for what is not text. `notes` says what was met, for the log; it is complete when the last line has been taken.
    """

    def __init__(self, path: PathLike, remarks: bool = True) -> None:
        self.path = os.fspath(path)
        self._remarks, self._met = remarks, dict.fromkeys(facts_of_bytes(self.path))
        self._lines = self._read()

    def __iter__(self) -> Iterator[tuple[int, str]]:
        return self._lines

    def first(self) -> tuple[int, str]:
        """The next line, which is the first; (1, "") of an empty file."""
        return next(self._lines, (1, ""))

    def note(self, fact: str) -> None:
        """Add a fact to `notes`."""
        self._met[fact] = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What was met so far."""
        return tuple(self._met)

    def _read(self) -> Iterator[tuple[int, str]]:
        empty = remarks = number = 0
        with reading(self.path), open_text(self.path) as stream:
            for number, line in enumerate(stream, start=1):
                line = line.rstrip("\n")
                if not line.strip(BLANKS):
                    empty = empty or number
                    continue
                if empty:
                    raise InputError(f"{self.path}, line {empty} is empty, and lines with text follow")
                check_utf8(line, self.path, number)
                if self._remarks and _is_remark(line):
                    remarks += 1
                    continue
                self._remarks = False
                yield number, line
            self._say_at_end(remarks, number - empty + 1 if empty else 0, stream.newlines)

    def _say_at_end(self, remarks: int, empty: int, newlines: str | tuple[str, ...] | None) -> None:
        if remarks:
            self.note(f"{remarks} line{'s' * (remarks > 1)} of remarks")
        if empty:
            self.note(f"{empty} empty line{'s' * (empty > 1)} at the end")
        if newlines is not None and newlines != "\n":
            self.note("lines end in CR LF" if newlines == "\r\n" else "lines end in CR or mixed")


class TextTable:
    """A text file with a header: ``header`` are its names, and `rows` the fields of each line after it.

    ``key`` is a name that the header must have: where it is not found between tabs the header is split at blanks, or at
    commas. ``line`` is the header's number. Raises InputError for a name that is empty or occurs twice; a trait in a
    column after the first ``own`` may be called as one of these is.
    """

    def __init__(self, path: PathLike, key: str, own: int = 0) -> None:
        self.lines = TextLines(path)
        self.path = self.lines.path
        self.line, self.text = self.lines.first()
        line = self.text.lstrip(_BEFORE_NAMES)
        self.header = split_at_tabs(line)
        if key not in self.header:
            self.header = words(line)
        self._commas = key not in self.header and key in split_at_commas(line, self.path, self.line)
        if self._commas:
            self.header = split_at_commas(line, self.path, self.line)
            self.lines.note("fields separated by commas")
        for column, name in enumerate(self.header):
            if not name and key in self.header:
                raise InputError(f"{self.path}, line {self.line}: column {column + 1} has no name")
            if name in self.header[own if column >= own else 0 : column] and key in self.header:
                raise InputError(f"{self.path}, line {self.line}: the header names column {name!r} twice")

    def refuse_header(self, wanted: str) -> InputError:
        """The error that says which header was expected."""
        return InputError(f"{self.path}, line {self.line}: expected a header {wanted}, found {self.text[:60]!r}")

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Each line's number and fields, as many as the header names. Raises InputError for another number of them."""
        width = len(self.header)
        for number, line in self.lines:
            fields = split_at_commas(line, self.path, number) if self._commas else split(line, width)
            if len(fields) != width:
                raise InputError(
                    f"{self.path}, line {number}: {len(fields)} fields, but the header names {width} columns"
                )
            yield number, fields


class TextRows:
    """The lines of a text file that need not have a header: all have as many fields as the first, at least ``least``.

    ``header`` are the names of a first line that begins with #FID, #IID, FID or IID, else None; ``width`` is the number
    of fields, ``line`` the number of the first line. A line with tabs is refused where an empty field or a blank
    within a field makes it unclear which field is which.
    """

    def __init__(self, path: PathLike, least: int, remarks: bool = True) -> None:
        self.lines = TextLines(path, remarks)
        self.path, self._least = self.lines.path, least
        self._first = self.lines.first()
        self.line = self._first[0]
        names = words(self._first[1].lstrip(_BEFORE_NAMES))
        self.header = names if names and names[0] in ("FID", "IID") else None
        self.width = len(words(self._first[1])) if self.header is None else len(names)

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        if self._first[1] and self.header is None:
            yield self._first[0], self._fields(*self._first)
        for number, line in self.lines:
            yield number, self._fields(number, line)

    def _fields(self, number: int, line: str) -> list[str]:
        fields = words(line)
        between_tabs = split_at_tabs(line) if "\t" in line else fields
        # only the first line can tell a blank between two fields from one within a field
        unclear = len(between_tabs) >= self._least and (
            len(between_tabs) > len(fields) or (number == self.line and len(between_tabs) < len(fields))
        )
        if len(fields) == self.width and not unclear:
            return fields
        so_far = "" if len(fields) == self.width else f", but line {self.line} has {self.width}"
        count = f"{len(fields)} field{'s' * (len(fields) != 1)}"
        raise InputError(f"{self.path}, line {number} has {count}{so_far}{why_unclear(between_tabs)}")


def read_words(path: PathLike) -> tuple[list[str], tuple[str, ...]]:
    """All words of a file, however many a line, and the notes on it; here empty lines mean nothing.

    Raises as `TextLines` does.
    """
    name = os.fspath(path)
    found: list[str] = []
    with reading(name), open_text(name) as stream:
        for number, line in enumerate(stream, start=1):
            check_utf8(line, name, number)
            found += words(line.rstrip("\n"))
    return found, tuple(facts_of_bytes(name))


def part_names(names: Sequence[str], known: frozenset[str] | set[str] | dict[str, int]) -> list[str]:
    """The names of a list in which commas may separate them too; what is ``known`` with its comma is one name."""
    apart: list[str] = []
    for name in names:
        apart += [name] if "," not in name or name in known else [part for part in name.split(",") if part]
    return apart


def words(line: str) -> list[str]:
    """The fields of a line, separated by blanks or tabs; never empty."""
    return line.split() if line.isascii() else [word for word in re.split(f"[{BLANKS}]+", line) if word]


def split_at_tabs(line: str) -> list[str]:
    """The fields between tabs, without blanks around them; empty ones at the end are left out."""
    return [field.strip(BLANKS) for field in line.rstrip(BLANKS).split("\t")]


def split_at_commas(line: str, path: str, number: int) -> list[str]:
    """The fields between commas, without blanks and quotes around them. Raises InputError for a quote left open."""
    try:
        (fields,) = csv.reader([line], skipinitialspace=True, strict=True)
    except csv.Error:
        raise InputError(
            f"{path}, line {number}: a quote is not closed, or something follows it in its field"
        ) from None
    return [field.strip(BLANKS) for field in fields]


def split(line: str, width: int) -> list[str]:
    """The fields of a line that should have ``width``: split at tabs if it has any, so that fields can be empty.

    A line that mixes tabs and blanks is split at both where the tabs alone do not give ``width`` fields.
    """
    if "\t" not in line:
        return words(line)
    fields = [field.strip(BLANKS) for field in line.split("\t")]
    while len(fields) > width and not fields[-1]:
        fields.pop()
    return words(line) if len(fields) != width and all(fields) else fields


def why_unclear(between_tabs: Sequence[str]) -> str:
    """What stands between tabs that should not, as the end of a sentence; or nothing."""
    for column, field in enumerate(between_tabs, start=1):
        if not field:
            return f": column {column} is empty (two tabs in a row)"
        if len(words(field)) > 1:
            return f": {field!r} in column {column} has a blank in it, which separates fields as a tab does"
    return ""


def open_text(path: str) -> io.TextIOWrapper:
    """The file as text: unpacked, decoded by its byte order mark, every line ending in a line feed.

    Bytes that are not UTF-8 become surrogates, which `check_utf8` finds. Raises StorageError; InputError for what is
    known not to be text.
    """
    packed = _first_bytes(path).startswith(_GZIP)
    stream: Any = gzip.open(path) if packed else open(path, "rb")  # noqa: SIM115, closed by the wrapper
    with reading(path):
        start = stream.read(6)
        stream.seek(0)
    known = next((what for magic, what in _NOT_TEXT.items() if start.startswith(magic)), None)
    if known is not None:
        stream.close()
        raise InputError(f"{path} is not text but {known}")
    encoding = next((name for mark, name in _ENCODINGS.items() if start.startswith(mark)), "utf-8")
    return io.TextIOWrapper(stream, encoding=encoding, errors="surrogateescape" if "8" in encoding else "strict")


def utf8_chunks(path: str) -> Iterator[bytes]:
    """The text of a file as UTF-8 without byte order mark, lines ending in a line feed, a few MB at a time."""
    with reading(path), open_text(path) as stream:
        while chunk := stream.read(_CHUNK_CHARACTERS):
            yield chunk.encode("utf-8", errors="surrogateescape")


@contextlib.contextmanager
def reading(path: str) -> Iterator[None]:
    """Errors of the system, of gzip and of decoding as ours: StorageError, or InputError for a damaged file."""
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path} is compressed by gzip, but damaged or truncated: {error}") from None
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} begins as a text in UTF-16, but is none: {error.reason}") from None


def check_utf8(line: str, path: str, number: int) -> None:
    """InputError, naming the line, unless it was decoded without fault."""
    if line.isascii():
        return
    wrong = next((letter for letter in line if "\udc80" <= letter <= "\udcff"), None)
    if wrong is not None:
        raise InputError(f"{path}, line {number} is not UTF-8 text: it has the byte {ord(wrong) - 0xDC00:02x}")


def facts_of_bytes(path: str) -> Iterator[str]:
    """What the first bytes say beyond plain UTF-8."""
    start = _first_bytes(path)
    if start.startswith(_GZIP):
        yield "gzip"
        with reading(path), gzip.open(path) as stream:
            start = stream.read(3)
    encoding = next((name for mark, name in _ENCODINGS.items() if start.startswith(mark)), None)
    if encoding is not None:
        yield "UTF-16" if encoding == "utf-16" else "byte order mark"


def _first_bytes(path: str) -> bytes:
    with reading(path), open(path, "rb") as stream:
        return stream.read(6)


def _is_remark(line: str) -> bool:
    """Whether a line before the header, or before the data, says something to people only."""
    first = words(line)
    if first[0].lstrip("#"):
        return first[0].startswith("##") and first[0].lstrip("#") not in _HEADER_WORDS
    return not (len(first) > 1 and first[1].split(",")[0].strip('"') in _HEADER_WORDS)
