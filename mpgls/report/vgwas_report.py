"""What a person looks at after a voxelwise GWAS: the table, how each statistic is corrected, pictures, maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mpgls.model.clusters import Neighbours, label_entries
from mpgls.model.extremes import Correction
from mpgls.model.gls import Note
from mpgls.report.brain_maps import draw_map, write_maps
from mpgls.report.figure import draw_all
from mpgls.report.file_names import snp_parts
from mpgls.report.null_plots import null_plot
from mpgls.report.table_files import write_rows
from mpgls.report.vgwas_table import SnpRows, vgwas_table
from mpgls.stream.vgwas_files import EntriesFile
from mpgls.study.count_filters import Dropped
from mpgls.study.images import VoxelMatrix
from mpgls.study.variants import VariantRows

if TYPE_CHECKING:
    from mpi4py import MPI

TOP = 20
"""SNPs whose statistics are marked in the picture of a null distribution."""


@dataclass(frozen=True)
class Found:
    """What a run has found: records and pairs in ``entries``, ``index`` (m,) the SNPs' rows among the ``variants``,
    ``corrections`` by statistic. All methods but ``write_table`` are for one rank."""

    variants: VariantRows
    index: np.ndarray
    entries: EntriesFile
    corrections: Mapping[str, Correction]

    def write_table(self, paths: Mapping[str, Path], coordinates: np.ndarray | None, comm: MPI.Comm) -> list[str]:
        """One row a SNP, see `mpgls.report.vgwas_table`; ``coordinates`` are the voxels'. Collective.

        Returns what a person should know of the files at ``paths``, by format.
        """
        snps = SnpRows(self.variants, self.entries.records, self.entries.count, self.index)
        return write_rows(comm, paths, vgwas_table(snps, self.corrections, coordinates))

    @cached_property
    def records(self) -> np.ndarray:
        """(m,), as in `mpgls.model.clusters.RECORD_DTYPE`."""
        return self.entries.records(0, self.entries.count)

    @property
    def tested(self) -> np.ndarray:
        """(m,) bool: SNPs that could be tested."""
        return self.records["note"] == Note.OK

    @property
    def dropped(self) -> str:
        """How many SNPs the filters of counts dropped, as the log has it."""
        dropped = Dropped()
        dropped.add(self.records["note"])
        return dropped.text

    def names(self, positions: np.ndarray) -> list[str]:
        """The IDs of SNPs."""
        return [self.variants.read(row, row + 1).id[0] for row in self.index[positions].tolist()]

    def facts(self) -> dict[str, Any]:
        """For the manifest: SNPs tested, those significant at 0.05 by each statistic, and the fitted tails."""
        tested = self.records[self.tested]
        counts = {name: int(np.count_nonzero(one.p(tested[name]) <= 0.05)) for name, one in self.corrections.items()}
        tails = {name: asdict(one.tail) for name, one in self.corrections.items() if one.tail}
        return {"snps": self.entries.count, "tested": tested.size, "significant_0.05": counts, "tails": tails}

    def draw_nulls(self, prefix: str, say: Callable[[str], None]) -> list[Path]:
        """PREFIX.null.STATISTIC.png: the maxima under permutation, and the best SNPs; those that were made."""
        return draw_all(
            {Path(f"{prefix}.null.{name}.png"): partial(self._null, name) for name in self.corrections}, say
        )

    def _null(self, name: str, path: Path) -> None:
        one, values = self.corrections[name], self.records[name]
        best = np.argsort(-np.where(self.tested, values, -np.inf), kind="stable")[:TOP]
        null_plot(path, name, one.maxima, values[best], self.names(best), one.tail)

    def most_significant(self, count: int) -> np.ndarray:
        """The ``count`` SNPs with the smallest corrected p of any statistic, then the largest -log10 p: positions."""
        candidates = np.flatnonzero(self.tested & (self.records["peak_voxel"] >= 0))
        smallest = np.ones(candidates.size)
        for name, one in self.corrections.items():
            if one.maxima.size:
                smallest = np.minimum(smallest, one.p(self.records[name][candidates]))
        return candidates[np.lexsort((-self.records["log10p"][candidates], smallest))[:count]]

    def parts(self, positions: np.ndarray) -> list[str]:
        """Of SNPs the part that files of maps have of them in their names."""
        return snp_parts(self.names(positions), self.index[positions].tolist())

    def draw_maps(
        self,
        prefix: str,
        part: str,
        position: int,
        matrix: VoxelMatrix,
        neighbours: Neighbours,
        say: Callable[[str], None],
    ) -> list[Path]:
        """Maps and, where it can be made, a picture of one SNP's pairs with the voxels of ``matrix``.

        ``part`` is its part of their names, as `parts` has it.
        """
        (name,), pairs = self.names(np.array([position])), self.entries.pairs(int(self.index[position]))
        labels = label_entries(np.zeros(pairs["snp"].size, dtype=np.int64), pairs["voxel"], neighbours)
        place = (matrix.grid, pairs["voxel"], pairs["log10p"])
        made = write_maps(prefix, part, *place, labels)
        picture = Path(f"{prefix}.{part}.map.png")
        return [*made, *draw_all({picture: lambda path: draw_map(path, name, *place)}, say)]


def correction_line(name: str, largest: np.ndarray, correction: Correction) -> str:
    """What the log says of a statistic; ``largest`` (1,) is that of the data."""
    text, tail = f"{name}: largest {largest[0]:.6g}", correction.tail
    if correction.maxima.size:
        text += f", corrected p {correction.p(largest)[0]:.4g} ({correction.maxima.size:,} permutations)"
    if tail is not None:
        verdict = "" if tail.good else ", not used"
        fitted = f"shape {tail.shape:.3f}, fit p {tail.p_fit:.3g}{verdict}"
        text += f"; Pareto tail: {fitted if tail.exceedances else 'too few maxima to fit one'}"
    return text
