"""What a person reads of a scan of many traits: hits, one row a trait, null models by chromosome, and pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mpgls.model.histograms import lambda_gc_of_counts
from mpgls.model.trait_records import TraitRecords
from mpgls.report.figure import draw_all
from mpgls.report.hits import hits_table
from mpgls.report.hits_map import genome_of, hits_map, pooled_qq
from mpgls.report.loco_table import LocoRow, write_loco
from mpgls.report.table import VariantReader
from mpgls.report.table_files import write_rows
from mpgls.report.trait_table import TraitRows, write_traits
from mpgls.stream.histogram_file import Histograms


class LeftOut(NamedTuple):
    """A chromosome, and how many of its SNPs the kinship lost with it."""

    label: str
    snps: int


@dataclass(frozen=True)
class TraitReport:
    """The reports of t traits under ``prefix``, made on one rank from the ``records`` and finished ``histograms``.

    ``samples`` (t,) of each trait; ``variants`` reads the .bim. Every method raises StorageError.
    """

    prefix: str
    names: Sequence[str]
    samples: np.ndarray
    variants: VariantReader
    records: TraitRecords
    histograms: Histograms

    def write_hits(self, paths: Mapping[str, Path], dosages: bool) -> list[str]:
        """The hits, to the files ``paths`` by format, with INFO of ``dosages``. Returns what a person should know."""
        from mpi4py import MPI

        return write_rows(MPI.COMM_SELF, paths, hits_table(self.records.hits, self.names, self.variants, dosages))

    def write_traits(self) -> None:
        """The traits, PREFIX.traits.tsv."""
        records, hits = self.records, self.records.hits
        rows = TraitRows(
            names=self.names, n=self.samples, tested=records.tested.sum(axis=0), log10p_max=records.log10p_max,
            best_row=records.best_row, hits=np.bincount(hits["trait"], minlength=len(self.names)),
            flags=records.flags, lambda_gc=self.lambda_gc(), h2=records.mean("h2"), h2_se=records.mean("h2_se"),
            s2=records.mean("s2"),
        )  # fmt: skip
        write_traits(self._path(".traits.tsv"), rows, self.variants)

    def write_loco(self, parts: Sequence[LeftOut]) -> None:
        """The null models of every trait without each chromosome: PREFIX.loco.tsv."""
        nulls, tested = self.records.nulls, self.records.tested
        figures = ("h2", "h2_se", "s2", "log_likelihood")
        write_loco(
            self._path(".loco.tsv"),
            (
                LocoRow(name, *part, int(tested[c, j]), *(float(nulls[figure][c, j]) for figure in figures))
                for j, name in enumerate(self.names)
                for c, part in enumerate(parts)
            ),
        )

    def draw(self, index: np.ndarray, p_threshold: float, say: Callable[[str], None]) -> None:
        """The map of hits and the pooled QQ plot; ``index`` are the .bim rows that were scanned."""
        title, hits = os.path.basename(self.prefix), self.records.hits
        genome = genome_of(self.variants, index)
        pictures: dict[Path, Callable[[Path], None]] = {
            Path(self._path(".hits.png")): lambda path: hits_map(
                path, title, hits, self.names, self.variants, genome, p_threshold
            ),
            Path(self._path(".qq.png")): lambda path: pooled_qq(path, title, self.histograms.groups()),
        }
        draw_all(pictures, say)

    def lambda_gc(self) -> np.ndarray:
        """Genomic inflation of each trait over all SNPs (t,), from its histogram; NaN for a trait without one."""
        position = {name: j for j, name in enumerate(self.names)}
        found = np.full(len(position), np.nan)
        for bins, names, counts in self.histograms.rows_of_traits():
            found[[position[name] for name in names]] = lambda_gc_of_counts(counts, bins)
        return found

    def _path(self, suffix: str) -> str:
        return self.prefix + suffix
