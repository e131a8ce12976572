"""PLINK 1 filesets: samples (.fam), variants (.bim) and the layout of the packed genotypes (.bed).

Everything here is small and can be pickled, so one rank opens the files and broadcasts what it found. A .bim of any
length stays on disk; only the offset of every 65,536th line is held.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, ClassVar

import numpy as np

from mpgls.errors import InputError, StorageError
from mpgls.study.genotypes import bytes_per_snp

STRIDE = 65536
_CHUNK_BYTES = 16 << 20
_GZIP = b"\x1f\x8b"
_NEWLINE = ord("\n")
_LAST_BLANK = ord(" ")
_MISSING_PHENOTYPES = frozenset({"-9", "na", "nan"})
_BED_MAGIC = b"\x6c\x1b"
_SNP_MAJOR = 1


@dataclass(frozen=True, eq=False)
class Samples:
    """The n samples of a .fam, in its order."""

    fid: np.ndarray
    """(n,) str: family."""
    iid: np.ndarray
    """(n,) str: individual within the family."""
    phenotype: np.ndarray
    """(n,) float64: the sixth column; NaN for -9, NA and nan."""

    def ids(self) -> list[tuple[str, str]]:
        """(FID, IID) of every sample."""
        return list(zip(self.fid.tolist(), self.iid.tolist(), strict=True))


def read_fam(path: str | Path) -> Samples:
    """Read a .fam; columns after the sixth, where GEMMA keeps more phenotypes, are left out.

    Raises
    ------
    StorageError : the file cannot be read.
    InputError : no sample, a line of less than six fields, text as phenotype (with the line), a sample listed twice
        (with both lines).
    """
    rows: dict[tuple[str, str], tuple[int, float]] = {}
    with _open(path) as file:
        for line_number, line in enumerate(file, start=1):
            fields = _fields(line, path, line_number, further=True)
            sample = (fields[0], fields[1])
            if sample in rows:
                raise InputError(
                    f"{path} lists sample {sample[0]} {sample[1]} twice, on lines {rows[sample][0]} and {line_number}"
                )
            rows[sample] = (line_number, _phenotype(fields[5], path, line_number))
    if not rows:
        raise InputError(f"{path} lists no sample")
    fid, iid = zip(*rows, strict=True)
    return Samples(np.array(fid), np.array(iid), np.array([value for _, value in rows.values()]))


def _phenotype(text: str, path: str | Path, line_number: int) -> float:
    if text.lower() in _MISSING_PHENOTYPES:
        return np.nan
    try:
        value = float(text)
    except ValueError:
        value = np.inf
    if not np.isfinite(value):
        raise InputError(f"{path}, line {line_number}: the phenotype (column 6) is {text!r}, not a number")
    return np.nan if value == -9 else value


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
    """Lines, so SNPs."""
    stride: int
    offsets: np.ndarray
    """int64: byte offset of the lines 0, stride, 2 stride, ..., and then the size of the file."""

    @classmethod
    def open(cls, path: str | Path) -> VariantTable:
        """Count the lines of a .bim and note where every 65,536th begins, in one pass.

        Raises
        ------
        StorageError : the file cannot be read.
        InputError : it is empty.
        """
        offsets, count, size, last = [0], 0, 0, _NEWLINE
        with _open(path) as file:
            while chunk := file.read(_CHUNK_BYTES):
                newline = np.frombuffer(chunk, dtype=np.uint8) == _NEWLINE
                found = int(np.count_nonzero(newline))
                # the lines that end here are count .. count + found - 1; after every stride-th, note the next line
                first = STRIDE - 1 - count % STRIDE
                if first < found:
                    offsets += (np.flatnonzero(newline)[first::STRIDE] + size + 1).tolist()
                count, size, last = count + found, size + len(chunk), chunk[-1]
        count += last != _NEWLINE
        if count == 0:
            raise InputError(f"{path} lists no SNP")
        if offsets[-1] != size:
            offsets.append(size)
        return cls(Path(path), count, STRIDE, np.array(offsets, dtype=np.int64))

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
        with _open(self.path) as file:
            file.seek(begin)
            data = file.read(end - begin)
        if len(data) != end - begin:
            raise StorageError(f"{self.path} has become shorter since it was opened")
        skip, last = start - first_block * self.stride, stop - first_block * self.stride
        if skip == 0 and stop == min(last_block * self.stride, self.count):
            return data
        ends = np.flatnonzero(np.frombuffer(data, dtype=np.uint8) == _NEWLINE) + 1
        return data[ends[skip - 1] if skip else 0 : ends[last - 1] if last <= ends.size else len(data)]


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

    def offset(self, k: int) -> int:
        """Byte offset of SNP ``k``."""
        return self.HEADER + k * self.snp_bytes

    @classmethod
    def open(cls, path: str | Path, n: int, m: int) -> BedFile:
        """Check the header of a .bed and its size against the .fam (``n`` samples) and the .bim (``m`` SNPs).

        Raises
        ------
        StorageError : the file cannot be read.
        InputError : not a .bed, sample-major, truncated, or too long.
        """
        with _open(path) as file:
            header = file.read(cls.HEADER)
            size = file.seek(0, 2)
        if header[:2] != _BED_MAGIC[: len(header)] or not header:
            raise InputError(f"{path} is not a PLINK 1 .bed: it begins with {header[:2].hex() or 'nothing'}, not 6c1b")
        if len(header) == cls.HEADER and header[2] != _SNP_MAJOR:
            raise InputError(
                f"{path} is not SNP-major (its third byte is {header[2]:02x}, not 01): "
                "rewrite it with PLINK 1.9, --make-bed"
            )
        bed = cls(Path(path), n, m)
        _check_size(bed, size)
        return bed


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


def open_fileset(prefix: str | Path) -> Fileset:
    """Open ``prefix``.bed, .bim and .fam.

    Raises
    ------
    StorageError : one of them is missing or cannot be read.
    InputError : one is malformed, or they disagree about their sizes.
    """
    bed, bim, fam = (f"{prefix}{suffix}" for suffix in (".bed", ".bim", ".fam"))
    for path in (bed, bim, fam):
        with _open(path) as file:
            if file.read(len(_GZIP)) == _GZIP:
                raise InputError(f"{path} is compressed: unpack it with gunzip")
    samples, variants = read_fam(fam), VariantTable.open(bim)
    return Fileset(str(prefix), samples, variants, BedFile.open(bed, samples.iid.size, variants.count))


def _open(path: str | Path) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from None


def _fields(line: bytes, path: str | Path, line_number: int, further: bool = False) -> list[str]:
    """The first six blank-separated fields of a line; more are an error unless ``further`` ones may be there."""
    fields = line.split()
    if len(fields) < 6 or (len(fields) > 6 and not further):
        raise InputError(f"{path}, line {line_number} has {len(fields)} fields, not 6{' or more' if further else ''}")
    try:
        return [item.decode() for item in fields[:6]]
    except UnicodeDecodeError:
        raise InputError(f"{path}, line {line_number} is not UTF-8 text") from None
