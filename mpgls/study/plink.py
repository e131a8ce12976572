"""PLINK 1 filesets: samples (.fam), variants (.bim) and the layout of the packed genotypes (.bed).

Everything here is small and can be sent, so one rank opens the files and broadcasts what it found.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from filecmp import cmp
from pathlib import Path
from typing import ClassVar

import numpy as np

from mpgls.errors import InputError
from mpgls.study.fam import Samples, read_fam
from mpgls.study.genotype_files import Genotypes
from mpgls.study.genotypes import bytes_per_snp, keep_bytes
from mpgls.study.text import PathLike
from mpgls.study.variants import VariantRows, Variants, VariantTable, open_bytes

__all__ = [
    "BedFile", "Fileset", "Samples", "VariantTable", "Variants", "bfile_prefix", "open_fileset", "read_fam",
]  # fmt: skip

_GZIP = b"\x1f\x8b"
_BED_MAGIC = b"\x6c\x1b"
_SNP_MAJOR = 1
_LOOKED_AT = 1 << 20


@dataclass(frozen=True)
class BedFile:
    """Where the packed genotypes of the m SNPs over n samples lie in a .bed: SNP k at ``offset(k)``, whole bytes."""

    path: Path
    n: int
    m: int
    HEADER: ClassVar[int] = 3
    dosages: ClassVar[bool] = False
    held_bytes: ClassVar[int] = 0

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
        with open_bytes(path) as file:
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
    """Samples, variants and genotypes, opened and found to agree; ``prefix`` is what the user calls them."""

    prefix: str
    samples: Samples = field(repr=False)
    variants: VariantRows = field(repr=False)
    bed: Genotypes


def bfile_prefix(given: PathLike) -> str:
    """The prefix that --bfile means: without the suffix .bed, .bim or .fam, if one of the three files was named."""
    name = os.fspath(given)
    stem, suffix = os.path.splitext(name)
    return stem if suffix in (".bed", ".bim", ".fam") and not os.path.exists(f"{name}.bed") else name


def open_fileset(prefix: PathLike, missing_codes: Sequence[float] = (), known: Samples | None = None) -> Fileset:
    """Open ``prefix``.bed, .bim and .fam; ``prefix`` may be the name of one of them. ``missing_codes``: see `read_fam`.

    ``known`` samples are taken where the .fam is a copy of theirs.

    Raises
    ------
    StorageError : one of them is missing or cannot be read.
    InputError : one is malformed, or they disagree about their sizes.
    """
    name = bfile_prefix(prefix)
    bed, bim, fam = (f"{name}{suffix}" for suffix in (".bed", ".bim", ".fam"))
    for path in (bed, bim, fam):
        with open_bytes(path) as file:
            if path == bed and file.read(len(_GZIP)) == _GZIP:
                raise InputError(f"{path} is compressed: unpack it with gunzip")
    copy = known is not None and cmp(known.path, fam, shallow=False)
    samples = known if known is not None and copy else read_fam(fam, missing_codes)
    variants = VariantTable.open(bim)
    try:
        found = BedFile.open(bed, samples.iid.size, variants.count)
    except InputError:
        # a wrong line of the .bim changes its count: that is the fact to report, not the size of the .bed
        for _ in variants.batches():
            pass
        raise
    return Fileset(name, samples, variants, found)
