"""BGEN files, version 1.2 and 1.3: samples, variants and genotype probabilities (Band, Marchini, bioRxiv 308296).

The dosage is the expected number of copies of the second allele. One pass over the file notes where each SNP lies, so
that every rank reads its own SNPs; what lies there is unpacked by zlib, or by the package zstandard.
"""

from __future__ import annotations

import functools
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NamedTuple

import numpy as np

from mpgls.errors import InputError, StorageError, UsageError
from mpgls.study.fam import Samples
from mpgls.study.genotype_files import Reading
from mpgls.study.genotypes import bytes_per_dosages, bytes_per_snp
from mpgls.study.oxford_sample import read_sample, samples_without_trait
from mpgls.study.packed_bits import pack_alt_counts
from mpgls.study.pgen import called
from mpgls.study.plink import Fileset
from mpgls.study.sample_ids import NO_FAMILY, OncePerSample, SampleId
from mpgls.study.variants import STRIDE, Variants, open_bytes

THRESHOLD = 0.1
"""PLINK 2's --hard-call-threshold."""
_NO_COMPRESSION, _ZLIB, _ZSTD = range(3)
ROW_BYTES = 40
"""Chromosome, ID, position and alleles of a SNP, as a rule."""
_BITS: dict[int, np.dtype] = {8: np.dtype("<u1"), 16: np.dtype("<u2"), 32: np.dtype("<u4")}
_MISSING, _PLOIDY, _DIPLOID = 0x80, 0x3F, 2


class _Variant(NamedTuple):
    """What stands before the genotypes of a SNP, and where they begin in its bytes."""

    id: str
    chrom: str
    pos: int
    alleles: list[str]
    at: int


def _variant(data: bytes) -> _Variant:
    """The entry of a SNP. Raises IndexError or struct.error where ``data`` ends within it."""
    texts, at = [], 0
    for _ in range(3):
        (length,) = struct.unpack_from("<H", data, at)
        texts.append(data[at + 2 : at + 2 + length])
        at += 2 + length
    pos, count = struct.unpack_from("<IH", data, at)
    at += 6
    alleles = []
    for _ in range(count):
        (length,) = struct.unpack_from("<I", data, at)
        alleles.append(data[at + 4 : at + 4 + length].decode(errors="replace"))
        at += 4 + length
    if at + 4 > len(data):
        raise IndexError
    other, rsid, chrom = (text.decode(errors="replace") for text in texts)
    return _Variant(rsid or other, chrom, pos, alleles, at)


@dataclass(frozen=True, eq=False)
class BgenVariants:
    """The variants of a .bgen, read from their places; a `variants.VariantRows`."""

    path: Path
    starts: np.ndarray
    """int64 (m+1,): where each SNP begins, and where the last one ends."""
    has_alt: ClassVar[bool] = True
    notes: ClassVar[tuple[str, ...]] = ()

    @property
    def count(self) -> int:
        """SNPs."""
        return self.starts.size - 1

    @property
    def row_bytes(self) -> int:
        """Bytes of a row as a table has it, about."""
        return ROW_BYTES

    @property
    def summary(self) -> str:
        """One line for the log."""
        return f"{self.path}: {self.count:,} SNPs"

    def read(self, start: int, stop: int) -> Variants:
        """The rows ``start`` to ``stop`` (exclusive); a1 is the second allele. Raises StorageError."""
        with open_bytes(self.path) as file:
            found = [_variant_at(file, *self.starts[k : k + 2].tolist()) for k in range(start, stop)]
        pos = np.array([one.pos for one in found], dtype=np.int64)
        second = [",".join(one.alleles[1:]) or "." for one in found]
        return Variants(
            [one.chrom for one in found], [one.id for one in found], pos, second, [one.alleles[0] for one in found]
        )

    def batches(self, size: int = STRIDE) -> Iterator[tuple[int, Variants]]:
        """All rows in order, as (number of the first row, at most ``size`` rows)."""
        for start in range(0, self.count, size):
            yield start, self.read(start, min(start + size, self.count))

    def place(self, row: int) -> str:
        """Where a row stands, as messages have it."""
        return f"{self.path}, SNP {row + 1}"


def _variant_at(file: BinaryIO, start: int, end: int) -> _Variant:
    """The entry of the SNP between two places of a file."""
    size = min(end - start, 512)
    while True:
        file.seek(start)
        data = file.read(size)
        try:
            return _variant(data)
        except (IndexError, struct.error):  # alleles may be long
            if size >= end - start:
                raise InputError(f"{file.name} is damaged at byte {start:,}: no SNP begins there") from None
            size = min(end - start, 16 * size)


@dataclass(frozen=True, eq=False)
class BgenFile:
    """A .bgen of n samples whose SNPs lie between ``starts`` (m+1,), and how it is read."""

    path: Path
    n: int
    starts: np.ndarray
    compression: int
    reading: Reading
    males: ClassVar[None] = None

    @property
    def m(self) -> int:
        """SNPs."""
        return self.starts.size - 1

    @property
    def dosages(self) -> bool:
        """Whether SNPs are read as dosages."""
        return self.reading.dosages(True)

    @property
    def snp_bytes(self) -> int:
        """Bytes of a SNP once it is read."""
        return bytes_per_dosages(self.n) if self.dosages else bytes_per_snp(self.n)

    @property
    def held_bytes(self) -> int:
        """What an open reader holds: the bytes of a SNP, packed and unpacked, and the places of all."""
        return 32 * self.n + self.starts.nbytes

    def reader(self) -> BgenRows:
        """Open it for reading. Raises StorageError."""
        return BgenRows(self)


class BgenRows:
    """SNPs of a .bgen, as dosages of the second allele or as .bed rows of which it is A1; for one thread at a time."""

    def __init__(self, file: BgenFile) -> None:
        self._file, self._source = file, open_bytes(file.path)
        self._unpack = _unpacker(file.compression)

    def read(self, rows: np.ndarray, out: np.ndarray) -> None:
        """The SNPs ``rows`` into ``out``, uint8 (rows, snp_bytes).

        Raises StorageError, and InputError naming a SNP that is damaged or not one of two alleles.
        """
        n, reading = self._file.n, self._file.reading
        if self._file.dosages:
            for row, target in zip(rows.tolist(), out.view(np.float32), strict=True):
                self._dosages(row, target)
            return
        dosages, calls = np.empty(n, dtype=np.float32), np.full((1, 4 * bytes_per_snp(n)), 2, dtype=np.int8)
        for k, row in enumerate(rows.tolist()):
            self._dosages(row, dosages)
            calls[0, :n] = called(dosages, THRESHOLD if reading.threshold is None else reading.threshold)
            out[k] = pack_alt_counts(calls)

    def _dosages(self, row: int, out: np.ndarray) -> None:
        """Of one SNP, (n,); -9 where missing."""
        start, end = self._file.starts[row : row + 2].tolist()
        try:
            data = os.pread(self._source.fileno(), end - start, start)
        except OSError as error:
            raise StorageError(f"cannot read {self._file.path}: {error.strerror}") from None
        try:
            variant = _variant(data)
            _decode(self._unpack(data[variant.at + 4 :]), self._file.n, out)
        except _Unfit as error:
            raise InputError(f"{self._file.path}: SNP {variant.id} {error}") from None
        except Exception as error:  # zlib's, zstandard's, or of bytes that are too few
            raise InputError(f"{self._file.path} is damaged: its SNP {row + 1} cannot be read ({error})") from None

    def close(self) -> None:
        """Close the file."""
        self._source.close()


class _Unfit(Exception):
    """Genotypes that are not those of two alleles in one or two copies."""


def _decode(data: bytes, n: int, out: np.ndarray) -> None:
    """Copies of the second allele that the probabilities of a SNP let expect, (n,) float32; -9 where missing."""
    samples, alleles, low, high = struct.unpack_from("<IHBB", data, 0)
    if samples != n:
        raise _Unfit(f"has {samples:,} samples, and the file {n:,}")
    if alleles != 2:
        raise _Unfit(f"has {alleles} alleles: leave it out with --exclude")
    if not 1 <= low <= high <= _DIPLOID:
        raise _Unfit(f"has genotypes of ploidy {low} to {high}, and mpgls reads 1 and 2: leave it out with --exclude")
    people = np.frombuffer(data, np.uint8, n, 8)
    phased, bits = bool(data[8 + n]), data[9 + n]
    if bits not in _BITS:
        raise _Unfit(f"has probabilities of {bits} bits, and mpgls reads 8, 16 and 32: rewrite the file with plink2")
    if (low, bits) == (_DIPLOID, 8):
        pairs = np.frombuffer(data, np.dtype("<u2"), n, 10 + n)
        np.take(_dosages_of_pairs(phased), pairs, out=out, mode="clip")
    else:
        ploidy = people & _PLOIDY
        values = np.frombuffer(data, _BITS[bits], int(ploidy.sum(dtype=np.int64)), 10 + n).astype(np.int64)
        first, second = values.reshape(n, 2).T if low == _DIPLOID else _pairs(values, ploidy, phased)
        out[:] = _expected(first, second, bits, phased)
    if people.max(initial=0) >= _MISSING:
        out[people >= _MISSING] = -9.0


def _pairs(values: np.ndarray, ploidy: np.ndarray, phased: bool) -> tuple[np.ndarray, np.ndarray]:
    """Two numbers of each person, where people of ``ploidy`` 1 have one: as of two copies that are alike.

    A single copy so counts twice, as in a .bed.
    """
    at, both = np.cumsum(ploidy, dtype=np.int64) - ploidy, ploidy == _DIPLOID
    first = values[at]
    alike = first if phased else np.zeros_like(first)  # haplotypes; or P(one copy)
    return first, np.where(both, values[np.minimum(at + 1, values.size - 1)], alike)


def _expected(first: np.ndarray, second: np.ndarray, bits: int, phased: bool) -> np.ndarray:
    """Copies expected from P(no copy) and P(one copy), or from P(no copy) of each haplotype, times 2^bits - 1."""
    whole = 2**bits - 1
    return (2 * whole - (first if phased else 2 * first) - second) / np.float64(whole)


@functools.cache
def _dosages_of_pairs(phased: bool) -> np.ndarray:
    """float32 (65536,): the dosage of each pair of bytes."""
    pairs = np.arange(65536)
    return _expected(pairs & 255, pairs >> 8, 8, phased).astype(np.float32)


def _unpacker(compression: int) -> Callable[[bytes], bytes]:
    """From the bytes after their length, which begin with the unpacked length if they are packed, to what they hold."""
    if compression == _NO_COMPRESSION:
        return bytes
    if compression == _ZLIB:
        return lambda data: zlib.decompress(memoryview(data)[4:])
    zstd = _zstandard().ZstdDecompressor()
    return lambda data: zstd.decompress(memoryview(data)[4:], max_output_size=struct.unpack_from("<I", data)[0])


def bgen_prefix(given: str) -> str:
    """The name of a .bgen without its suffix."""
    return given.removesuffix(".bgen")


def bgen_variants(prefix: str) -> BgenVariants:
    """The variants of ``prefix``.bgen alone. Raises as `open_bgen` does."""
    path = Path(f"{prefix}.bgen")
    with open_bytes(path) as file:
        return BgenVariants(path, _starts(file, _Header.read(file, path), path))


def open_bgen(prefix: str, sample: str | None, reading: Reading, known: Samples | None = None) -> Fileset:
    """Open ``prefix``.bgen and the file ``sample`` of its samples; without one, the file's own IDs are taken.

    ``known`` samples are taken where they are those of the same file.

    Raises
    ------
    StorageError : a file cannot be read.
    InputError : no .bgen of version 1.2 or 1.3, truncated, or without the samples' IDs or with another number of them.
    UsageError : zstandard is needed and not installed.
    """
    path = Path(f"{prefix}.bgen")
    with open_bytes(path) as file:
        header = _Header.read(file, path)
        if sample is None:
            said = f"FID is {NO_FAMILY}, IID is the ID in the file"
            samples = samples_without_trait(header.ids(file, path), [""] * header.n, str(path), said)
        else:
            samples = known if known is not None and known.path == sample else read_sample(sample)
        if samples.iid.size != header.n:
            raise InputError(f"{samples.path} lists {samples.iid.size:,} samples, and {path} has {header.n:,}")
        starts = _starts(file, header, path)
    _unpacker(header.compression)
    genotypes = BgenFile(path, header.n, starts, header.compression, reading)
    return Fileset(prefix, samples, BgenVariants(path, starts), genotypes)


@dataclass(frozen=True)
class _Header:
    """What the header of a .bgen says."""

    n: int
    m: int
    first: int
    compression: int
    ids_at: int | None

    @classmethod
    def read(cls, file: BinaryIO, path: Path) -> _Header:
        """Raises InputError."""
        start = file.read(20)
        if len(start) < 20 or start[16:] not in (b"bgen", bytes(4)):
            raise InputError(f"{path} is not a .bgen")
        offset, length, m, n = struct.unpack("<4I", start[:16])
        file.seek(length)  # 4 bytes of the offset, less those of the flags, which end the header
        flags = int.from_bytes(file.read(4), "little")
        layout, compression = flags >> 2 & 15, flags & 3
        if layout != 2 or compression > _ZSTD:
            what = "of version 1.1" if layout == 1 else f"with the flags {flags:08x}"
            raise InputError(f"{path} is a .bgen {what}, and mpgls reads 1.2 and 1.3: rewrite it with plink2")
        if not n or not m:
            raise InputError(f"{path} holds {m:,} SNPs of {n:,} samples")
        return cls(n, m, offset + 4, compression, length + 4 if flags >> 31 else None)

    def ids(self, file: BinaryIO, path: Path) -> list[SampleId]:
        """The IDs in the file. Raises InputError where there are none, or one stands there twice."""
        if self.ids_at is None:
            raise InputError(f"{path} has no IDs of samples: give --sample")
        file.seek(self.ids_at + 8)
        data, at, once = file.read(self.first - self.ids_at - 8), 0, OncePerSample(path)
        for k in range(self.n):
            length = int.from_bytes(data[at : at + 2], "little")
            once.add((NO_FAMILY, data[at + 2 : at + 2 + length].decode(errors="replace")), k + 1)
            at += 2 + length
        return list(once.line_of)


def _starts(file: BinaryIO, header: _Header, path: Path) -> np.ndarray:
    """Where each SNP begins, and where the last one ends. Raises InputError for a file that ends before."""
    size = file.seek(0, 2)
    starts = np.empty(header.m + 1, dtype=np.int64)
    at = header.first
    for k in range(header.m):
        starts[k] = at
        try:
            at += _variant_at(file, at, size).at
            file.seek(at)
            at += 4 + struct.unpack("<I", file.read(4))[0]
        except (InputError, struct.error):
            at = size + 1
        if at > size:
            raise InputError(f"{path} is truncated: it ends in SNP {k + 1:,} of {header.m:,}")
    starts[header.m] = at
    return starts


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError:
        raise UsageError(
            "a .bgen that is packed by zstd needs the Python package zstandard: pip install 'mpgls[bgen]'"
        ) from None
    return zstandard
