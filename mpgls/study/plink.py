"""PLINK 1 filesets: samples (.fam), variants (.bim) and the layout of the packed genotypes (.bed).

Everything here is small and can be sent, so one rank opens the files and broadcasts what it found. A .bim of any
length stays on disk; only the offset of every 65,536th line is held. A .bim keeps the rules of `mpgls.study.text`, but
is read by blocks of lines.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, ClassVar

import numpy as np

from mpgls.errors import InputError, StorageError
from mpgls.study.fam import Samples, read_fam
from mpgls.study.genotypes import bytes_per_snp, keep_bytes
from mpgls.study.text import PathLike, facts_of_bytes, open_text, reading, split_at_tabs, utf8_chunks, why_unclear

__all__ = [
    "BedFile", "Fileset", "Samples", "VariantTable", "Variants", "bfile_prefix", "open_fileset", "read_fam",
]  # fmt: skip

STRIDE = 65536
_CHUNK_BYTES = 16 << 20
_NEWLINE = ord("\n")
_LAST_BLANK = ord(" ")
_GZIP = b"\x1f\x8b"
_MARK = b"\xef\xbb\xbf"
_BED_MAGIC = b"\x6c\x1b"
_SNP_MAJOR = 1
_LOOKED_AT = 1 << 20


@dataclass(frozen=True, eq=False)
class Variants:
    """Rows of a .bim; ``a1`` is the allele that PLINK counts, the effect allele of every result."""

    chrom: list[str]
    id: list[str]
    pos: np.ndarray
    """int64, in base pairs."""
    a1: list[str]
    a2: list[str]

    def __len__(self) -> int:
        return len(self.id)


@dataclass(frozen=True, eq=False)
class VariantTable:
    """Random access to the rows of a .bim of any length."""

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

    @classmethod
    def open(cls, path: str | Path) -> VariantTable:
        """Count the lines of a .bim and note where every 65,536th begins, in one pass.

        Raises
        ------
        StorageError : the file cannot be read.
        InputError : it is empty, no text, or its first line is none of a .bim.
        """
        name = str(path)
        notes, plain, begin = _form(name)
        lines = _LineCount(begin)
        for chunk in _raw_chunks(name, begin) if plain else utf8_chunks(name):
            lines.add(chunk)
        if lines.count == 0:
            raise InputError(f"{path} lists no SNP")
        if lines.empty:
            notes.append(f"{lines.empty} empty line{'s' * (lines.empty > 1)} at the end")
        table = cls(Path(path), lines.count, STRIDE, lines.offsets(), plain, tuple(notes))
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
        InputError : a row without six fields or whose position is not a whole number, with its line.
        """
        if not 0 <= start <= stop <= self.count:
            raise ValueError(f"rows {start} to {stop} of a .bim of {self.count} lines")
        if start == stop:
            return Variants([], [], np.empty(0, dtype=np.int64), [], [])
        data = self._lines(start, stop)
        fast = _parse_regular(data, stop - start)
        return fast if fast is not None else _parse_lines(data, self.path, start + 1)

    def batches(self, size: int = STRIDE) -> Iterator[tuple[int, Variants]]:
        """All rows in order, as (number of the first row, at most ``size`` rows)."""
        for start in range(0, self.count, size):
            yield start, self.read(start, min(start + size, self.count))

    def _lines(self, start: int, stop: int) -> bytes:
        """The bytes of the lines ``start`` to ``stop`` (exclusive)."""
        first_block, last_block = start // self.stride, -(-stop // self.stride)
        begin, end = int(self.offsets[first_block]), int(self.offsets[last_block])
        if self.plain:
            with _open(self.path) as file:
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
    with _open(path) as file:
        start = file.read(_CHUNK_BYTES)
    old_lines = b"\r" in start and b"\n" not in start
    if old_lines or "gzip" in notes or "UTF-16" in notes:
        return notes + ["lines end in CR"] * old_lines, False, 0
    return notes + ["lines end in CR LF"] * (b"\r\n" in start), True, len(_MARK) if start.startswith(_MARK) else 0


def _raw_chunks(path: str, begin: int) -> Iterator[bytes]:
    with _open(path) as file:
        file.seek(begin)
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def _parse_regular(data: bytes, count: int) -> Variants | None:
    """Rows split all at once; None if a line is malformed or unusual, which only the slow way can tell."""
    if not (data.isascii() and _six_fields_a_line(data, count)):
        return None
    fields = data.decode("ascii").split()
    if len(fields) != 6 * count:
        return None
    try:
        pos = np.fromiter(map(int, fields[3::6]), dtype=np.int64, count=count)
    except (ValueError, OverflowError):
        return None
    return Variants(fields[0::6], fields[1::6], pos, fields[4::6], fields[5::6])


def _six_fields_a_line(data: bytes, count: int) -> bool:
    text = np.frombuffer(data, dtype=np.uint8)
    blank = text <= _LAST_BLANK
    starts = np.flatnonzero(blank[:-1] > blank[1:]) + 1
    if not blank[0]:
        starts = np.concatenate([[0], starts])
    ends = np.flatnonzero(text == _NEWLINE)
    if ends.size < count:
        ends = np.append(ends, text.size)
    if starts.size != 6 * count or ends.size != count:
        return False
    # the sixth field of a line begins before its end, and the first of the next after it
    return bool(np.all(starts[5::6] < ends) and np.all(starts[6::6] > ends[:-1]))


def _parse_lines(data: bytes, path: Path, first_line: int) -> Variants:
    rows = Variants([], [], np.empty(0, dtype=np.int64), [], [])
    positions = []
    for line_number, line in enumerate(data.removesuffix(b"\n").split(b"\n"), start=first_line):
        chrom, name, _, pos, a1, a2 = _fields(line, path, line_number)
        positions.append(_position(pos, name, path, line_number))
        for column, value in zip((rows.chrom, rows.id, rows.a1, rows.a2), (chrom, name, a1, a2), strict=True):
            column.append(value)
    return Variants(rows.chrom, rows.id, np.array(positions, dtype=np.int64), rows.a1, rows.a2)


def _position(text: str, name: str, path: Path, line_number: int) -> int:
    try:
        return int(np.int64(int(text)))
    except (ValueError, OverflowError):
        raise InputError(
            f"{path}, line {line_number}: the position (column 4) of SNP {name} is {text!r}, not a whole number"
        ) from None


@dataclass(frozen=True)
class BedFile:
    """Where the packed genotypes of the m SNPs over n samples lie in a .bed: SNP k at ``offset(k)``, whole bytes."""

    path: Path
    n: int
    m: int
    HEADER: ClassVar[int] = 3

    @property
    def snp_bytes(self) -> int:
        """Bytes of one SNP: four samples each."""
        return bytes_per_snp(self.n)

    @property
    def males(self) -> np.ndarray | None:
        """(n,) bool, where rows depend on sex; else None."""
        return None

    def offset(self, k: int) -> int:
        """Byte offset of SNP ``k``."""
        return self.HEADER + k * self.snp_bytes

    @classmethod
    def open(cls, path: str | Path, n: int, m: int) -> BedFile:
        """Check the header of a .bed and its size against the .fam (``n`` samples) and the .bim (``m`` SNPs).

        Raises
        ------
        StorageError : the file cannot be read.
        InputError : not a .bed, sample-major, truncated, too long, or of more samples than the .fam.
        """
        with _open(path) as file:
            header = file.read(cls.HEADER)
            size = file.seek(0, 2)
            file.seek(cls.HEADER)
            first = file.read(max(_LOOKED_AT, bytes_per_snp(n)))
        if header[:2] != _BED_MAGIC[: len(header)] or not header:
            raise InputError(f"{path} is not a PLINK 1 .bed: it begins with {header[:2].hex() or 'nothing'}, not 6c1b")
        if len(header) == cls.HEADER and header[2] != _SNP_MAJOR:
            raise InputError(
                f"{path} is not SNP-major (its third byte is {header[2]:02x}, not 01): "
                "rewrite it with PLINK 1.9, --make-bed"
            )
        bed = cls(Path(path), n, m)
        _check_size(bed, size)
        _check_padding(bed, np.frombuffer(first, np.uint8))
        return bed


def _check_padding(bed: BedFile, first: np.ndarray) -> None:
    """InputError where the ``first`` bytes of genotypes have bits after the last sample, which PLINK leaves zero."""
    last = first[bed.snp_bytes - 1 :: bed.snp_bytes]
    filled = np.flatnonzero(last & ~keep_bytes(np.arange(bed.n), bed.n)[-1])
    if filled.size:
        which = f"SNP {filled[0] + 1} has a genotype after the last"
        raise InputError(f"{bed.path} has more samples than the {bed.n} of the .fam: {which}")


def _check_size(bed: BedFile, size: int) -> None:
    expected = bed.offset(bed.m)
    wanted = f"the .bim and .fam want {bed.m} SNPs of {bed.n} samples, {expected} bytes"
    if size < expected:
        whole = max(0, size - bed.HEADER) // bed.snp_bytes
        raise InputError(f"{bed.path} is truncated: its {size} bytes hold {whole} whole SNPs, but {wanted}")
    if size > expected:
        raise InputError(f"{bed.path} is too long: it has {size} bytes, but {wanted}")


@dataclass(frozen=True, eq=False)
class Fileset:
    """The three files of one PLINK prefix, opened and found to agree."""

    prefix: str
    samples: Samples = field(repr=False)
    variants: VariantTable = field(repr=False)
    bed: BedFile


def bfile_prefix(given: PathLike) -> str:
    """The prefix that --bfile means: without the suffix .bed, .bim or .fam, if one of the three files was named."""
    name = os.fspath(given)
    stem, suffix = os.path.splitext(name)
    return stem if suffix in (".bed", ".bim", ".fam") and not os.path.exists(f"{name}.bed") else name


def open_fileset(prefix: PathLike, missing_codes: Sequence[float] = ()) -> Fileset:
    """Open ``prefix``.bed, .bim and .fam; ``prefix`` may be the name of one of them. ``missing_codes``: see `read_fam`.

    Raises
    ------
    StorageError : one of them is missing or cannot be read.
    InputError : one is malformed, or they disagree about their sizes.
    """
    name = bfile_prefix(prefix)
    bed, bim, fam = (f"{name}{suffix}" for suffix in (".bed", ".bim", ".fam"))
    for path in (bed, bim, fam):
        with _open(path) as file:
            if path == bed and file.read(len(_GZIP)) == _GZIP:
                raise InputError(f"{path} is compressed: unpack it with gunzip")
    samples, variants = read_fam(fam, missing_codes), VariantTable.open(bim)
    try:
        found = BedFile.open(bed, samples.iid.size, variants.count)
    except InputError:
        # a wrong line of the .bim changes its count: that is the fact to report, not the size of the .bed
        for _ in variants.batches():
            pass
        raise
    return Fileset(name, samples, variants, found)


def _open(path: PathLike) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from None


def _fields(line: bytes, path: Path, line_number: int) -> list[str]:
    """The six fields of a line, separated by blanks or tabs."""
    fields = line.split()
    if len(fields) != 6:
        if not fields:
            raise InputError(f"{path}, line {line_number} is empty, and lines with text follow")
        between_tabs = split_at_tabs(line.decode(errors="replace"))
        why = why_unclear(between_tabs) if len(between_tabs) > 1 else ""
        raise InputError(f"{path}, line {line_number} has {len(fields)} fields, not 6{why}")
    try:
        return [item.decode() for item in fields]
    except UnicodeDecodeError:
        raise InputError(f"{path}, line {line_number} is not UTF-8 text") from None
