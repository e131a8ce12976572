"""The genotypes of a study: one file, or several that are read as one, whatever their format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np


class RowReader(Protocol):
    """An open file whose SNPs a library decodes; for one thread at a time."""

    def read(self, rows: np.ndarray, out: np.ndarray) -> None:
        """The SNPs ``rows``, ascending, into ``out``, uint8 (rows, snp_bytes). Raises StorageError and InputError."""

    def close(self) -> None:
        """Close the file."""


class Genotypes(Protocol):
    """Genotypes of m SNPs over n samples, ``snp_bytes`` bytes a SNP once they are read."""

    @property
    def path(self) -> Path:
        """The file, or what messages call several files."""

    @property
    def n(self) -> int:
        """Samples."""

    @property
    def m(self) -> int:
        """SNPs."""

    @property
    def snp_bytes(self) -> int:
        """Bytes of a SNP as `mpgls.stream.packed.read_snps` gives it."""

    @property
    def dosages(self) -> bool:
        """Whether a SNP is float32 dosages; else it is packed, 2 bits a genotype."""

    @property
    def held_bytes(self) -> int:
        """Bytes that an open reader holds, its blocks apart."""

    @property
    def males(self) -> np.ndarray | None:
        """(n,) bool, where rows end in the kind of their chromosome; else None."""


class DecodedFile(Genotypes, Protocol):
    """Genotypes that a library decodes."""

    def reader(self) -> RowReader:
        """Open the file for reading. Raises StorageError and InputError."""


@dataclass(frozen=True)
class Reading:
    """What is read of a file that has dosages: these ("auto"), or hard calls ("hard-call").

    With a ``threshold`` hard calls are made anew: the nearest whole number, missing if it is farther away than that.
    """

    dosage: str = "auto"
    threshold: float | None = None

    def dosages(self, present: bool) -> bool:
        """Whether dosages are read of a file in which they are ``present``."""
        return present and self.dosage == "auto"


AS_STORED = Reading()
"""What the files have."""


@dataclass(frozen=True, eq=False)
class GenotypeFiles:
    """Several files of one format over the same samples, one file's SNPs after the other's, read as one.

    The samples have the order of the first file. ``orders[f]`` (n,) is where each of them stands in file f, None where
    the order is the same. ``edges`` (files+1,) is the number of each file's first SNP, and then of all SNPs.
    """

    files: tuple[Genotypes, ...]
    orders: tuple[np.ndarray | None, ...]
    edges: tuple[int, ...]

    @classmethod
    def of(cls, files: Sequence[Genotypes], orders: Sequence[np.ndarray | None]) -> GenotypeFiles:
        """``files`` in this order."""
        return cls(tuple(files), tuple(orders), tuple(np.cumsum([0, *(file.m for file in files)]).tolist()))

    def split(self, block: np.ndarray) -> Iterator[tuple[int, slice]]:
        """Which SNPs of ``block``, ascending numbers, each file has: (file, where they stand in the block)."""
        edges = np.searchsorted(block, self.edges).tolist()
        for file, (first, last) in enumerate(pairwise(edges)):
            if first < last:
                yield file, slice(first, last)

    @property
    def path(self) -> Path:
        """What messages call them."""
        return Path(f"{self.files[0].path} to {self.files[-1].path}")

    @property
    def n(self) -> int:
        """Samples."""
        return self.files[0].n

    @property
    def m(self) -> int:
        """SNPs of all files."""
        return self.edges[-1]

    @property
    def snp_bytes(self) -> int:
        """Bytes of a SNP."""
        return self.files[0].snp_bytes

    @property
    def dosages(self) -> bool:
        """Whether a SNP is float32 dosages."""
        return self.files[0].dosages

    @property
    def males(self) -> None:
        """Rows are as the files have them."""

    @property
    def held_bytes(self) -> int:
        """Bytes that open readers of all files hold."""
        return sum(file.held_bytes for file in self.files)
