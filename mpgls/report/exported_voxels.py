"""The SNPs of a voxelwise GWAS: the table that vgwas writes, of PREFIX.voxels.h5 and PREFIX.maxima.h5."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mpgls.errors import UsageError
from mpgls.model.extremes import Correction
from mpgls.report.table import table_bytes
from mpgls.report.vgwas_report import Found
from mpgls.report.vgwas_table import ROW_BYTES
from mpgls.stream.mark import Mark
from mpgls.stream.vgwas_files import EntriesFile, load_maxima, open_entries
from mpgls.study.variants import VariantRows

if TYPE_CHECKING:
    from mpi4py import MPI

ENDING = ".voxels.h5"
"""Of the file, after the prefix of the run."""


@dataclass(frozen=True)
class SnpsOfVoxels:
    """The one table of a voxelwise GWAS. Picklable: rank 0 opens it and broadcasts."""

    source: EntriesFile
    found: Found
    coordinates: np.ndarray | None

    @classmethod
    def of(cls, source: EntriesFile, variants: VariantRows, tail: bool) -> SnpsOfVoxels:
        """Of an open file; with ``tail`` corrected p goes on in a fitted tail. On one rank.

        Raises UsageError where the maxima are not beside it, InputError where they are not of the same run.
        """
        path = Path(str(source.path).removesuffix(ENDING) + ".maxima.h5")
        if not path.exists():
            raise UsageError(f"{source.path} has no maxima beside it: there is no {path}")
        maxima = load_maxima(path, Mark(json.loads(source.attributes["made_from"])))
        corrections = {name: Correction.of(values, tail) for name, values in maxima.items()}
        return cls(source, Found(variants, source.index, source, corrections), source.coordinates)

    @property
    def table_bytes(self) -> int:
        """Of the table, about."""
        return table_bytes(self.found.variants, self.source.count, ROW_BYTES)

    def write(self, name: str, paths: Mapping[str, Path], comm: MPI.Comm) -> list[str]:
        """Write it to ``paths``, by format; returns what a person should know of them. Collective."""
        return self.found.write_table(paths, self.coordinates, comm)


def open_snps(path: Path, has_traits: bool, formats: tuple[str, ...]) -> EntriesFile:
    """Open PREFIX.voxels.h5. Raises UsageError where traits are asked for, or GWAS-SSF, which has effects."""
    if has_traits:
        raise UsageError(f"{path} has no traits to choose: its one table has a row for each SNP")
    if "ssf" in formats:
        raise UsageError(f"{path} has no effects on a trait, so it cannot be GWAS-SSF: give another --format")
    return open_entries(path)
