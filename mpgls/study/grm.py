"""Kinship (genetic relationship) matrices on disk: mpgls HDF5, GCTA's binary triangle and GEMMA's text.

A `Kinship` is opened by one rank, which checks sizes and IDs, and broadcast; it holds no matrix, and every
rank then reads the rows that it needs.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from mpgls.errors import InputError, StorageError, UsageError
from mpgls.study.checked_rows import CheckedRows
from mpgls.study.chromosome_names import positions_of
from mpgls.study.kinship_h5 import read_kinship_h5
from mpgls.study.tables import IdList, PathLike, SampleId, index_ids, read_ids, show_sample

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_CHUNK = 16 << 20


class RowSource(Protocol):
    """Random access to the rows of an n x n matrix in a file."""

    def read(self, start: int, stop: int, n: int) -> np.ndarray:
        """Rows [start, stop) as (stop-start, n) float64."""


@dataclass(frozen=True)
class Kinship:
    """A kinship matrix Phi (n, n) on disk, with its n sample IDs (FID, IID) in row order.

    ``packed_lower`` says that the file holds the lower triangle only; ``snps`` is the number of SNPs that
    the matrix was made of, where the file tells (GCTA: the count of its first sample). ``files`` hold matrix and IDs.
    ``sums`` are those of each chromosome, where the file has them (mpgls kinship --loco); ``has_keys`` says that it
    tells which SNPs it was made of.
    """

    path: str
    ids: list[SampleId]
    n: int
    packed_lower: bool
    snps: int | None
    source: RowSource
    files: tuple[str, ...]
    sums: tuple[ChromosomeSum, ...] = ()
    has_keys: bool = False
    notes: tuple[str, ...] = ()
    """How its files were understood."""

    @property
    def summary(self) -> str:
        """One line for the log."""
        return "; ".join([f"{self.path}: {self.n:,} samples", *self.notes])

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows [start, stop) as (stop-start, n) float64; zero right of the diagonal if ``packed_lower``.

        Raises InputError for an entry that is not a finite number, naming its two samples, or for a line of
        text that does not hold n numbers; StorageError if the file cannot be read.
        """
        if not 0 <= start <= stop <= self.n:
            raise ValueError(f"rows {start}:{stop} of a kinship of {self.n} samples")
        block = self.source.read(start, stop, self.n)
        # A sum is finite only if every entry is: one pass without a temporary array.
        if not np.isfinite(block.sum()) and not np.isfinite(block).all():
            row, column = np.argwhere(~np.isfinite(block))[0]
            one, other = show_sample(self.ids[start + row]), show_sample(self.ids[column])
            raise InputError(f"{self.path}: the kinship of samples {one} and {other} is not a finite number")
        return block

    def snps_of(self, chromosome: str) -> int:
        """SNPs of the kinship on a chromosome, as far as ``sums`` tell."""
        return sum(one.snps for one in self._sums_of(chromosome))

    def chromosomes(self) -> list[str]:
        """The chromosomes that the kinship has SNPs of, as its file names them, as far as ``sums`` tell."""
        return [one.chromosome for one in self.sums if one.snps]

    def _sums_of(self, chromosome: str) -> list[ChromosomeSum]:
        found = [one for one in self.sums if one.snps]
        return [found[k] for k in positions_of(chromosome, self.chromosomes())]

    def kept(self) -> Kinship:
        """The same, whose rows stay in memory once this process has read them: for `without` of many chromosomes."""
        return dataclasses.replace(self, source=_KeptRows(self.source))

    def without(self, chromosome: str) -> Kinship:
        """Phi_c, the mean over the SNPs that are not on ``chromosome``; Phi where the kinship has none of them.

        Raises InputError when all of the kinship lies on that chromosome.
        """
        assert self.snps is not None
        left = self.snps - self.snps_of(chromosome)
        if left == 0:
            raise InputError(
                f"{self.path}: all {self.snps:,} SNPs of the kinship are on chromosome {chromosome}, so nothing is "
                "left when it is left out: make the kinship of more chromosomes, or scan without --loco"
            )
        source, snps = self.source, self.snps
        for one in self._sums_of(chromosome):
            source = _RowsWithout(source, one.source, snps, snps - one.snps)
            snps -= one.snps
        return self if source is self.source else dataclasses.replace(self, source=source, snps=snps)


@dataclass(frozen=True)
class ChromosomeSum:
    """S_c = sum of x x' over the ``snps`` SNPs of one chromosome, n x n, not divided by their number."""

    chromosome: str
    snps: int
    source: RowSource


def open_kinship(path: PathLike, id_path: PathLike | None = None, known: Sequence[SampleId] | None = None) -> Kinship:
    """Open a kinship in any of three forms, told apart by signature and name.

    - mpgls HDF5 (any name), which carries its sample IDs;
    - GCTA: ``path`` is PREFIX, PREFIX.grm or PREFIX.grm.bin, with PREFIX.grm.id beside it (or ``id_path``);
    - GEMMA ``NAME.cXX.txt`` or ``NAME.sXX.txt`` (or any .txt): n lines of n numbers, samples in the order of
      ``id_path``, a .fam; without it NAME.fam.

    ``known`` are the samples of the genotypes, which give FIDs to a list of IDs that has none.

    Raises InputError (sizes that disagree with the IDs, a missing ID file, a sample that occurs twice, an
    unknown format), StorageError (no such file) and UsageError (``id_path`` for a file with its own IDs).
    """
    name = os.fspath(path)
    if os.path.isfile(name):
        if _starts_as_hdf5(name):
            if id_path is not None:
                raise UsageError(f"{name} carries its own sample IDs: leave out --grm-id")
            return _open_h5(name)
        if not name.endswith((".grm.bin", ".grm")):
            return _open_text(name, id_path, known)
    prefix = name.removesuffix(".bin").removesuffix(".grm")
    if os.path.isfile(f"{prefix}.grm.bin"):
        return _open_gcta(prefix, id_path, known)
    raise StorageError(f"there is no kinship at {name}: neither that file nor {prefix}.grm.bin exists")


def kinship_files(path: PathLike) -> list[str]:
    """The files that ``open_kinship`` would read of a kinship of this name, as far as they are there."""
    name = os.fspath(path)
    prefix = name.removesuffix(".bin").removesuffix(".grm")
    if os.path.isfile(name) and (_starts_as_hdf5(name) or not name.endswith((".grm.bin", ".grm"))):
        return [name]
    return [f"{prefix}.grm.bin", f"{prefix}.grm.id"] if os.path.exists(f"{prefix}.grm.bin") else [name]


def write_grm_id(prefix: PathLike, ids: Sequence[SampleId]) -> None:
    """Write PREFIX.grm.id, GCTA's sample list: FID, tab, IID. StorageError if that is not possible."""
    path = f"{os.fspath(prefix)}.grm.id"
    try:
        with open(path, "w", encoding="utf-8") as stream:
            stream.writelines(f"{fid}\t{iid}\n" for fid, iid in ids)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error


@dataclass(frozen=True)
class _SquareRows:
    """n x n float64, row by row, in a file of mpgls; messages call them by the samples ``ids``."""

    rows: CheckedRows
    what: str
    ids: list[SampleId]

    def read(self, start: int, stop: int, n: int) -> np.ndarray:
        return self.rows.read(start, stop, lambda i, *_: f"the row of sample {show_sample(self.ids[i])} in {self.what}")


@dataclass(frozen=True)
class _KeptRows:
    """Rows that are read once; nobody changes them."""

    source: RowSource
    rows: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)

    def read(self, start: int, stop: int, n: int) -> np.ndarray:
        if (start, stop) not in self.rows:
            self.rows[start, stop] = self.source.read(start, stop, n)
        return self.rows[start, stop]


@dataclass(frozen=True)
class _RowsWithout:
    """Phi_c = (m Phi - S_c) / (m - m_c), row by row, so that it takes no more memory than Phi."""

    total: RowSource
    part: RowSource
    snps: int
    left: int

    def read(self, start: int, stop: int, n: int) -> np.ndarray:
        rows = self.total.read(start, stop, n) * (self.snps / self.left)
        part = self.part.read(start, stop, n)
        part /= self.left
        rows -= part
        return rows


@dataclass(frozen=True)
class _PackedRows:
    """The lower triangle with its diagonal, row by row, float32: row i starts at element i(i+1)/2."""

    path: str

    def read(self, start: int, stop: int, n: int) -> np.ndarray:
        first = _triangle(start)
        numbers = _read_numbers(self.path, "<f4", 4 * first, _triangle(stop) - first)
        rows = np.zeros((stop - start, n), dtype=np.float64)
        for row in range(start, stop):
            begin = _triangle(row) - first
            rows[row - start, : row + 1] = numbers[begin : begin + row + 1]
        return rows


@dataclass(frozen=True)
class _TextRows:
    """Lines of n numbers in decimal; ``offsets`` (lines + 1,) int64 are where the lines start and the last ends."""

    path: str
    offsets: np.ndarray

    def read(self, start: int, stop: int, n: int) -> np.ndarray:
        rows = np.empty((stop - start, n), dtype=np.float64)
        try:
            with open(self.path, "rb") as stream:
                stream.seek(int(self.offsets[start]))
                for row in range(start, stop):
                    rows[row - start] = _parse_line(self.path, row + 1, stream.readline(), n)
        except OSError as error:
            raise StorageError(f"cannot read {self.path}: {error.strerror or error}") from error
        return rows


def _open_h5(path: str) -> Kinship:
    file = read_kinship_h5(path)
    index_ids(file.ids, path)
    sums = tuple(
        ChromosomeSum(one.chromosome, one.snps, _SquareRows(one.rows, f"/loco/{k}", file.ids))
        for k, one in enumerate(file.sums)
    )
    source, notes = _SquareRows(file.rows, "/kinship", file.ids), file.rows.notes
    return Kinship(path, file.ids, len(file.ids), False, file.snps, source, (path,), sums, file.has_keys, notes)


def _open_gcta(prefix: str, id_path: PathLike | None, known: Sequence[SampleId] | None) -> Kinship:
    path = f"{prefix}.grm.bin"
    id_name = f"{prefix}.grm.id" if id_path is None else os.fspath(id_path)
    listed = _read_kinship_ids(path, id_name, known)
    n = len(listed.ids)
    size = os.path.getsize(path)
    if size != 4 * _triangle(n):
        fits = _triangle_order(size)
        what = f"holds {fits} samples" if fits is not None else f"of {size} bytes is truncated or not float32"
        raise InputError(f"{path} {what}, but {id_name} lists {n}, which take {4 * _triangle(n)} bytes")
    snps, files = _gcta_snps(prefix), (path, id_name)
    return Kinship(path, listed.ids, n, True, snps, _PackedRows(path), files, notes=_id_notes(listed))


def _gcta_snps(prefix: str) -> int | None:
    """The number of SNPs of the first sample, the first float32 of PREFIX.grm.N.bin; None without that file."""
    path = Path(f"{prefix}.grm.N.bin")
    if not path.is_file() or path.stat().st_size < 4:
        return None
    count = float(_read_numbers(str(path), "<f4", 0, 1)[0])
    return int(count) if math.isfinite(count) else None


def _open_text(path: str, id_path: PathLike | None, known: Sequence[SampleId] | None) -> Kinship:
    if not path.endswith(".txt"):
        raise InputError(
            f"{path} is not a kinship that mpgls reads: mpgls HDF5, GCTA PREFIX.grm.bin or GEMMA NAME.cXX.txt"
        )
    if id_path is None:
        stem = path.removesuffix(".txt").removesuffix(".cXX").removesuffix(".sXX")
        id_name = f"{stem}.fam"
        if not os.path.isfile(id_name):
            raise InputError(f"{path} has no sample IDs: name its .fam with --grm-id ({id_name} does not exist)")
    else:
        id_name = os.fspath(id_path)
    listed = _read_kinship_ids(path, id_name, known)
    n = len(listed.ids)
    offsets = _line_offsets(path)
    lines = len(offsets) - 1
    columns = _columns_of_first_line(path)
    if lines != n or columns != n:
        raise InputError(f"{path} has {lines} rows and {columns} columns, but {id_name} lists {n} samples")
    rows, files = _TextRows(path, offsets), (path, id_name)
    return Kinship(path, listed.ids, n, False, None, rows, files, notes=_id_notes(listed))


def _id_notes(listed: IdList) -> tuple[str, ...]:
    return (f"samples of {listed.path}", *listed.notes)


def _read_kinship_ids(path: str, id_name: str, known: Sequence[SampleId] | None) -> IdList:
    """The IDs in the file ``id_name`` of the kinship at ``path``; InputError if absent, empty or repeated."""
    if not os.path.isfile(id_name):
        raise InputError(f"the sample IDs of {path} are missing: there is no file {id_name}")
    listed = read_ids(id_name, known, remarks=False)
    if not listed.ids:
        raise InputError(f"{id_name} lists no samples")
    index_ids(listed.ids, id_name)
    return listed


def _starts_as_hdf5(path: str) -> bool:
    try:
        with open(path, "rb") as stream:
            return stream.read(len(_HDF5_SIGNATURE)) == _HDF5_SIGNATURE
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error


def _read_numbers(path: str, dtype: str, offset: int, count: int) -> np.ndarray:
    """``count`` numbers from a byte offset; InputError if the file ends before."""
    try:
        numbers = np.fromfile(path, dtype=dtype, count=count, offset=offset)
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from error
    if numbers.size != count:
        raise InputError(f"{path} is truncated: it ends {count - numbers.size} numbers too early")
    return numbers


def _line_offsets(path: str) -> np.ndarray:
    """Where each line starts, and where the last one ends, without blank lines at the end of the file."""
    ends: list[np.ndarray] = []
    position = last_ink = 0
    with open(path, "rb") as stream:
        while chunk := stream.read(_CHUNK):
            ends.append(np.flatnonzero(np.frombuffer(chunk, dtype=np.uint8) == ord("\n")) + position)
            ink = len(chunk.rstrip())
            last_ink = position + ink if ink else last_ink
            position += len(chunk)
    starts = np.concatenate([np.zeros(1, dtype=np.int64), *(end + 1 for end in ends)])
    return np.append(starts[starts < last_ink], position).astype(np.int64)


def _columns_of_first_line(path: str) -> int:
    with open(path, "rb") as stream:
        return len(stream.readline().split())


def _parse_line(path: str, number: int, line: bytes, n: int) -> np.ndarray:
    """The n numbers of a line; InputError with line and column otherwise."""
    fields = line.split()
    if len(fields) != n:
        raise InputError(f"{path}, line {number}: {len(fields)} numbers, expected {n}")
    try:
        return np.fromiter(map(float, fields), np.float64, n)
    except ValueError:
        column = next(k for k, field in enumerate(fields) if not _is_number(field))
        text = fields[column].decode(errors="replace")
        raise InputError(f"{path}, line {number}, column {column + 1}: {text!r} is not a number") from None


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _triangle(rows: int) -> int:
    """Elements in the first ``rows`` rows of a lower triangle with its diagonal."""
    return rows * (rows + 1) // 2


def _triangle_order(size: int) -> int | None:
    """The n for which ``size`` bytes are a float32 triangle, or None."""
    n = (math.isqrt(8 * (size // 4) + 1) - 1) // 2
    return n if 4 * _triangle(n) == size else None
