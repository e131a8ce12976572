"""PLINK 2 filesets: samples (.psam), variants (.pvar) and genotypes (.pgen), which the package pgenlib reads.

A .pgen counts copies of ALT. It holds hard calls, and beside them dosages of some SNPs, in steps of 1/16384 (the PGEN
specification, version 1.1). Phase is not looked at: only the sum of both copies enters a scan.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from filecmp import cmp
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mpgls.errors import InputError, UsageError
from mpgls.study.fam import Samples, read_fam
from mpgls.study.genotype_files import Reading
from mpgls.study.genotypes import bytes_per_dosages, bytes_per_snp
from mpgls.study.packed_bits import pack_alt_counts
from mpgls.study.plink import Fileset
from mpgls.study.text import PathLike
from mpgls.study.variants import VariantTable, open_bytes

_MAGIC = b"\x6c\x1b"
_BED, _FIXED, _VARIABLE = 0x01, 0x02, 0x10
_INDEX_BLOCK = 65536
_MULTIALLELIC, _DOSAGE = 0x08, 0x60
"""Bits of a record's type."""
_STEP_BYTES = 1 << 20


@dataclass(frozen=True, eq=False)
class PgenFile:
    """A .pgen of m SNPs over n samples, and how it is read.

    ``alleles`` (m+1,) are the edges of each SNP's alleles among all, where some SNP has more than two; else None.
    """

    path: Path
    n: int
    m: int
    has_dosages: bool
    reading: Reading
    alleles: np.ndarray | None = None
    males: ClassVar[None] = None

    @property
    def dosages(self) -> bool:
        """Whether SNPs are read as dosages."""
        return self.reading.dosages(self.has_dosages)

    @property
    def snp_bytes(self) -> int:
        """Bytes of a SNP once it is read."""
        return bytes_per_dosages(self.n) if self.dosages else bytes_per_snp(self.n)

    @property
    def held_bytes(self) -> int:
        """What an open reader holds: the place and the type of every SNP."""
        return 9 * self.m

    @classmethod
    def open(cls, path: str | Path, samples: Samples, variants: VariantTable, reading: Reading) -> PgenFile:
        """Check the header and the size of a .pgen against its .psam and its .pvar.

        Raises
        ------
        StorageError : the file cannot be read.
        InputError : no .pgen, truncated, or of other sizes.
        UsageError : pgenlib is not installed.
        """
        _pgenlib()
        header = _Header.read(path)
        n, m = samples.iid.size, variants.count
        if (header.n, header.m) != (n, m):
            raise InputError(
                f"{path} holds {header.m:,} SNPs of {header.n:,} samples, but {variants.path} lists {m:,} SNPs and "
                f"{samples.path} {n:,} samples"
            )
        alleles = _allele_edges(variants) if header.has_multiallelic else None
        return cls(Path(path), n, m, header.has_dosages, reading, alleles)

    def reader(self) -> PgenRows:
        """Open it for reading. Raises StorageError."""
        return PgenRows(self)


class PgenRows:
    """SNPs of a .pgen, as .bed rows whose A1 is ALT or as dosages of ALT; for one thread at a time."""

    def __init__(self, file: PgenFile) -> None:
        self._file = file
        try:
            self._reader = _pgenlib().PgenReader(os.fsencode(file.path), file.n, file.m, None, file.alleles)
        except RuntimeError as error:
            raise InputError(f"{file.path} is not a .pgen that pgenlib can read: {_sentence(error)}") from None
        self._step = max(1, _STEP_BYTES // max(1, file.n))
        self._calls = np.full((self._step, 4 * bytes_per_snp(file.n)), 2, dtype=np.int8)

    def read(self, rows: np.ndarray, out: np.ndarray) -> None:
        """The SNPs ``rows`` into ``out``, uint8 (rows, snp_bytes). Raises InputError for a damaged record."""
        try:
            self._read(rows, out)
        except RuntimeError as error:
            if rows.size > 1:  # one after the other, to tell which
                for k in range(rows.size):
                    self.read(rows[k : k + 1], out[k : k + 1])
            what = f"its SNP {rows[0] + 1} cannot be read ({_sentence(error)})"
            raise InputError(f"{self._file.path} is damaged: {what}") from None

    def _read(self, rows: np.ndarray, out: np.ndarray) -> None:
        if self._file.dosages:
            self._reader.read_dosages_list(rows.astype(np.uint32), out.view(np.float32))
            return
        for start in range(0, rows.size, self._step):
            part = slice(start, start + self._step)
            out[part] = pack_alt_counts(self._hard_calls(rows[part].astype(np.uint32)))

    def _hard_calls(self, rows: np.ndarray) -> np.ndarray:
        """Copies of ALT, int8 (rows, 4 w): as they are stored, or anew from dosages by the threshold."""
        calls, threshold = self._calls[: rows.size], self._file.reading.threshold
        if threshold is None or not self._file.has_dosages:
            self._reader.read_list(rows, calls)
        else:
            dosages = np.empty((rows.size, self._file.n), dtype=np.float32)
            self._reader.read_dosages_list(rows, dosages)
            calls[:, : self._file.n] = called(dosages, threshold)
        return calls

    def close(self) -> None:
        """Close the file."""
        self._reader.close()


def called(dosages: np.ndarray, threshold: float) -> np.ndarray:
    """The nearest whole number to each dosage, int8; -9 where it is missing or farther away than ``threshold``."""
    nearest = np.rint(dosages)
    # as PLINK 2 does: in whole steps of 2^-14, of a dosage the nearest, of the threshold those that lie within
    steps, within = np.rint(np.abs(dosages - nearest) * 2.0**14), np.floor(threshold * 2.0**14 * (1 + 2.0**-40))
    sure = (steps <= within) & (dosages >= 0)
    return np.where(sure, nearest, -9.0).astype(np.int8)


@dataclass(frozen=True)
class _Header:
    """What the header of a .pgen says of its SNPs."""

    n: int
    m: int
    has_dosages: bool = False
    has_multiallelic: bool = False

    @classmethod
    def read(cls, path: str | Path) -> _Header:
        """Raises StorageError and InputError."""
        with open_bytes(path) as file:
            start = file.read(12)
            if start[:2] != _MAGIC[: len(start)] or not start:
                raise InputError(f"{path} is not a .pgen: it begins with {start[:2].hex() or 'nothing'}, not 6c1b")
            if len(start) > 2 and start[2] == _BED:
                raise InputError(f"{path} is a PLINK 1 .bed: give it to --bfile")
            if len(start) < 12:
                raise InputError(f"{path} is truncated: it has {len(start)} bytes, not even a header")
            if start[2] not in (_FIXED, _VARIABLE) or start[11] & 8:
                raise InputError(
                    f"{path} has storage mode {start[2]:02x}, which mpgls does not know: rewrite it with plink2, "
                    "--make-pgen"
                )
            m, n = struct.unpack("<II", start[3:11])
            types, end = _index(file, start, m, n)
            size = file.seek(0, 2)
        if types is None or size < end:
            raise InputError(f"{path} is truncated: it has {size:,} bytes, and its header tells of more")
        return cls(n, m, bool((types & _DOSAGE).any()), bool((types & _MULTIALLELIC).any()))


def _index(file: Any, start: bytes, m: int, n: int) -> tuple[np.ndarray | None, int]:
    """The type of each record, uint8 (m,), and where the last one ends; no types where the index is cut off."""
    control = start[11]
    if start[2] == _FIXED:
        flags = (m + 7) // 8 if control >> 6 == 3 else 0
        return np.zeros(0, dtype=np.uint8), 12 + flags + m * bytes_per_snp(n)
    wide, length_bytes, allele_bytes = bool(control & 4), (control & 3) + 1, control >> 4 & 3
    blocks = -(-m // _INDEX_BLOCK)
    offsets = file.read(8 * blocks)
    types, end = [np.empty(0, dtype=np.uint8)], 0
    for k in range(blocks):
        count = min(_INDEX_BLOCK, m - k * _INDEX_BLOCK)
        of_types = file.read(count if wide else (count + 1) // 2)
        lengths = file.read(count * length_bytes)
        file.seek(count * allele_bytes + ((count + 7) // 8 if control >> 6 == 3 else 0), 1)
        if len(lengths) < count * length_bytes:
            return None, 0
        packed = np.frombuffer(of_types, dtype=np.uint8)
        types.append(packed if wide else np.column_stack([packed & 15, packed >> 4]).reshape(-1)[:count])
        digits = np.frombuffer(lengths, dtype=np.uint8).reshape(count, length_bytes).astype(np.int64)
        end = int(struct.unpack_from("<Q", offsets, 8 * k)[0]) + int((digits << 8 * np.arange(length_bytes)).sum())
    return np.concatenate(types), end


def _allele_edges(variants: VariantTable) -> np.ndarray:
    """uintp (m+1,): where the alleles of each SNP begin among those of all."""
    counts = [2 + alt.count(",") for _, rows in variants.batches() for alt in rows.a1]
    return np.cumsum([0, *counts]).astype(np.uintp)


def pfile_prefix(given: PathLike) -> str:
    """The prefix that --pfile means: without the suffix, if one of the three files was named."""
    name = os.fspath(given)
    stem, suffix = os.path.splitext(name)
    return stem if suffix in (".pgen", ".pvar", ".psam") and not os.path.exists(f"{name}.pgen") else name


def open_pfile(prefix: PathLike, missing_codes: Sequence[float], known: Samples | None, reading: Reading) -> Fileset:
    """Open ``prefix``.pgen, .pvar and .psam; ``prefix`` may be the name of one of them.

    ``missing_codes``: see `read_fam`. ``known`` samples are taken where the .psam is a copy of theirs.

    Raises
    ------
    StorageError : one of them is missing or cannot be read.
    InputError : one is malformed, or they disagree about their sizes.
    UsageError : pgenlib is not installed.
    """
    name = pfile_prefix(prefix)
    pgen, pvar, psam = (f"{name}{suffix}" for suffix in (".pgen", ".pvar", ".psam"))
    if not os.path.exists(pvar) and os.path.exists(f"{pvar}.zst"):
        raise InputError(f"{pvar}.zst is compressed by zstd: unpack it with plink2 --zst-decompress {pvar}.zst {pvar}")
    for path in (pgen, pvar, psam):
        open_bytes(path).close()
    copy = known is not None and cmp(known.path, psam, shallow=False)
    samples = known if known is not None and copy else read_fam(psam, missing_codes)
    variants = VariantTable.open(pvar, pvar=True)
    return Fileset(name, samples, variants, PgenFile.open(pgen, samples, variants, reading))


def _pgenlib() -> Any:
    try:
        import pgenlib
    except ImportError:
        raise UsageError("--pfile needs the Python package pgenlib: pip install 'mpgls[pgen]'") from None
    return pgenlib


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
