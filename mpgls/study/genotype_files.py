"""The genotypes of a study: one file, or several that are read as one, whatever their format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np


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
