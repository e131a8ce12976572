"""The table of a voxelwise GWAS: one tab-separated row a SNP.

Columns: ``CHR POS ID EA NEA EAF N PEAK_VOXEL T LOG10P VOLUME SUM_LOG10P CLUSTER_VOLUME CLUSTER_MASS TFCE``, then
``FWE_P_`` with the name of each of the last six, then ``NOTE``. PEAK_VOXEL is the voxel with the smallest p value, as
its indices i,j,k in the image (counted from 0) where they are known, else as its column; T and LOG10P are Student's t
and minus log10 of the two-sided p value there. VOLUME counts the voxels beyond the sparsity threshold, SUM_LOG10P adds
up their -log10 p; CLUSTER_VOLUME and CLUSTER_MASS are the same of the largest cluster. A SNP without such a voxel has
``NA`` in PEAK_VOXEL, T and LOG10P. FWE_P_X is the p value of column X corrected for all SNPs and voxels. NOTE has the
reason where a SNP was not tested; ``gpd:`` with the columns whose p value comes from the fitted tail; else ``.``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mpgls.model.clusters import STATISTICS
from mpgls.model.extremes import Correction
from mpgls.model.gls import NOTE_TEXT, Note, is_filtered
from mpgls.report.table import ReadRecords, VariantReader, read_pieces
from mpgls.report.table_lines import Table

if TYPE_CHECKING:
    from mpgls.study.plink import Variants

_FIGURES = tuple(name.upper() for name in STATISTICS)
COLUMNS = (
    "CHR", "POS", "ID", "EA", "NEA", "EAF", "N", "PEAK_VOXEL", "T", *_FIGURES,
    *(f"FWE_P_{figure}" for figure in _FIGURES), "NOTE",
)  # fmt: skip

ROW_BYTES = 90
"""Of what follows a SNP's names, about."""

# Rows whose Python strings stay in the processor's cache.
_CHUNK = 4096


@dataclass(frozen=True)
class SnpRows:
    """The ``count`` SNPs of a table: ``read_records(start, stop)`` gives their RECORD_DTYPE of `mpgls.model.clusters`.

    ``index`` (count,) is the row of each among the ``variants``, None where these are the same.
    """

    variants: VariantReader
    read_records: ReadRecords
    count: int
    index: np.ndarray | None = None


def vgwas_table(snps: SnpRows, corrections: Mapping[str, Correction], coordinates: np.ndarray | None = None) -> Table:
    """The table of ``snps``, for `mpgls.report.table_files.write_rows`.

    ``corrections`` holds the `Correction` of each statistic that was taken, by its name in `STATISTICS`;
    the columns of the others are ``NA``, and so are corrected p values without maxima (no permutation).
    ``coordinates`` int (v, 3) are those of the voxels, None where unknown.
    """

    def text(start: int, stop: int) -> bytes:
        records = snps.read_records(start, stop)
        pieces = read_pieces(snps.variants, snps.index, start, stop)
        return b"".join(
            format_rows(piece, records[first - start : last - start], corrections, coordinates)
            for first, last, piece in pieces
        )

    return Table(COLUMNS, text, snps.count)


def format_rows(
    variants: Variants,
    records: np.ndarray,
    corrections: Mapping[str, Correction],
    coordinates: np.ndarray | None = None,
) -> bytes:
    """The table's rows of B SNPs as text, as `vgwas_table` has them; none for SNPs that a filter dropped."""
    lines: list[str] = []
    for start in range(0, len(records), _CHUNK):
        rows = slice(start, start + _CHUNK)
        lines += _lines(variants, rows, records[rows], corrections, coordinates)
    return "".join(lines).encode()


def _lines(
    variants: Variants,
    rows: slice,
    records: np.ndarray,
    corrections: Mapping[str, Correction],
    coordinates: np.ndarray | None,
) -> list[str]:
    tested = records["note"] == Note.OK
    found = tested & (records["peak_voxel"] >= 0)
    figures, p_values, continued = [], [], []
    for name in STATISTICS:
        correction = corrections.get(name)
        shown = found if name == "log10p" else tested
        figures.append(_texts(records[name], shown if correction else np.zeros_like(shown), "%.15g"))
        p, from_tail = _corrected(records[name], tested, correction)
        p_values.append(_texts(p, np.isfinite(p), "%.10g"))
        continued.append(from_tail)
    columns = [
        variants.chrom[rows],
        map(str, variants.pos[rows].tolist()),
        variants.id[rows],
        variants.a1[rows],
        variants.a2[rows],
        _texts(records["eaf"], np.isfinite(records["eaf"]), "%.10g"),
        map(str, records["n"].tolist()),
        _peaks(records["peak_voxel"], found, coordinates),
        _texts(records["t"], found, "%r"),
        *figures,
        *p_values,
        _notes(records["note"], continued),
    ]
    wanted = (~is_filtered(records["note"])).tolist()
    return ["\t".join(row) + "\n" for keep, row in zip(wanted, zip(*columns, strict=True), strict=True) if keep]


def _corrected(
    observed: np.ndarray, tested: np.ndarray, correction: Correction | None
) -> tuple[np.ndarray, np.ndarray]:
    """Corrected p values, NaN where there are none, and which of them come from the tail."""
    if correction is None or correction.maxima.size == 0:
        return np.full(observed.size, np.nan), np.zeros(observed.size, dtype=bool)
    return np.where(tested, correction.p(observed), np.nan), tested & correction.continued(observed)


def _texts(values: np.ndarray, shown: np.ndarray, form: str) -> list[str]:
    """Figures as text, NA where not ``shown``; adding zero turns -0.0 into 0."""
    return [form % value if show else "NA" for value, show in zip((values + 0).tolist(), shown.tolist(), strict=True)]


def _peaks(voxel: np.ndarray, found: np.ndarray, coordinates: np.ndarray | None) -> list[str]:
    if coordinates is None:
        return _texts(voxel, found, "%d")
    places = coordinates[np.where(found, voxel, 0)].tolist()
    return [f"{i},{j},{k}" if show else "NA" for (i, j, k), show in zip(places, found.tolist(), strict=True)]


def _notes(note: np.ndarray, continued: Sequence[np.ndarray]) -> list[str]:
    texts = [NOTE_TEXT[Note(code)] or "." for code in note.tolist()]
    for k in np.flatnonzero(np.any(continued, axis=0)).tolist():
        texts[k] = "gpd:" + ",".join(name for name, flags in zip(_FIGURES, continued, strict=True) if flags[k])
    return texts
