"""The summary statistics table: one tab-separated row a SNP.

Columns: ``CHR POS ID EA NEA EAF N BETA SE STAT LOG10P P NOTE``. EA is the .bim's A1, STAT is BETA / SE (Student's
t, or the z value whose square is the Wald chi-square), LOG10P is minus the decimal logarithm of the two-sided p
value. BETA, SE and STAT have the shortest digits that read back to the same float64. Where a SNP has no estimate,
the figures are ``NA`` and NOTE has the reason; otherwise NOTE is ``.``. Records with more fields, those of
`mpgls.model.snp_ratio` and INFO of dosages, have their columns before NOTE: ``INFO H2 LOGL LOG10P_LRT P_LRT
LOG10P_SCORE P_SCORE``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from mpgls.model.gls import FILTERS, NOTE_TEXT, Note, is_filtered
from mpgls.model.pvalues import log10_p_chi2_1, log10_p_t, p_from_log10
from mpgls.mpi import together
from mpgls.report.table_files import BATCH, write_rows
from mpgls.report.table_lines import SsfFacts, Table
from mpgls.stream.store import further_fields

if TYPE_CHECKING:
    from mpi4py import MPI

    from mpgls.study.variants import VariantRows, Variants

COLUMNS = ("CHR", "POS", "ID", "EA", "NEA", "EAF", "N", "BETA", "SE", "STAT", "LOG10P", "P", "NOTE")
FURTHER = {
    "info": ("INFO",),
    "h2": ("H2",),
    "logl": ("LOGL",),
    "log10p_lrt": ("LOG10P_LRT", "P_LRT"),
    "log10p_score": ("LOG10P_SCORE", "P_SCORE"),
}
"""Columns of a record's further fields; those of several columns of a SNP are named by `columns_of`."""

# Chunks whose Python strings stay in the processor's cache.
_CHUNK = 8192
_ROW = "%s\t%d\t%s\t%s\t%s\t%.10g\t%d\t%r\t%r\t%r\t%.15g\t%.10e\t"
_NA_ROW = "%s\t%d\t%s\t%s\t%s\t%.10g\t%d\tNA\tNA\tNA\tNA\tNA\t"
# Beyond this, p is near the smallest float64 (1e-308) and is composed from its logarithm as text.
_TEXT_P_FROM = 300.0

ReadRecords = Callable[[int, int], np.ndarray]
OnBatch = Callable[["Variants", np.ndarray, np.ndarray], None]


FIGURES_BYTES, FIGURES_BYTES_EACH = 100, 30
"""Bytes of the figures of a row, about: three with all their digits, four short ones; and of each further field."""


class VariantReader(Protocol):
    """What is needed of `mpgls.study.variants.VariantRows`."""

    def read(self, start: int, stop: int) -> Variants:
        """Rows ``start`` to ``stop - 1`` of the .bim."""


def columns_of(field: str) -> tuple[str, ...]:
    """The columns of a further field: two of a p value, the first its logarithm."""
    if field in FURTHER:
        return FURTHER[field]
    what, _, of = field.partition("_")
    return (f"LOG10P_{of}", f"P_{of}") if what == "log10p" else (f"{what.upper()}_{of}",)


def table_bytes(variants: VariantRows, rows: int, figures: int = FIGURES_BYTES) -> int:
    """Bytes of a table of so many SNPs, about; ``figures`` of what follows a SNP's names."""
    return rows * (variants.row_bytes + figures)


def log10_p(records: np.ndarray, df: float, test: str) -> np.ndarray:
    """Minus log10 of the two-sided p values of ``records`` (B,); NaN where ``note`` is not 0.

    ``test`` is ``'t'`` (Student's t with ``df`` degrees of freedom) or ``'wald'`` (chi-square with 1; ``df`` unused).
    """
    stat = _statistic(records)
    if test == "t":
        return np.asarray(log10_p_t(stat, df))
    if test == "wald":
        return np.asarray(log10_p_chi2_1(stat))
    raise ValueError(f"test must be 't' or 'wald', not {test!r}")


def format_rows(
    variants: Variants, records: np.ndarray, df: float, test: str, neg_log10_p: np.ndarray | None = None
) -> bytes:
    """The table's rows of B SNPs as text; those dropped by a filter are left out.

    ``records`` (B,) has the dtype RECORD_DTYPE of `mpgls.stream.store`. ``neg_log10_p`` (B,) saves computing the p
    values again when `log10_p` has already been called.
    """
    if neg_log10_p is None:
        neg_log10_p = log10_p(records, df, test)
    parts = []
    for start in range(0, len(records), _CHUNK):
        rows = slice(start, start + _CHUNK)
        parts.append(_format_chunk(variants, rows, records[rows], neg_log10_p[rows]))
    return "".join(parts).encode()


def format_p(neg_log10_p: float) -> str:
    """The p value as text with 11 significant digits, for any exponent (1.0000000000e-1234 as well)."""
    if np.isnan(neg_log10_p):
        return "NA"
    if neg_log10_p < _TEXT_P_FROM:
        return f"{float(p_from_log10(neg_log10_p)):.10e}"
    if np.isinf(neg_log10_p):
        return "0.0000000000e+00"
    exponent = int(np.ceil(neg_log10_p))
    # p = mantissa 10^-exponent with 1 <= mantissa < 10; rounding may carry the mantissa to 10.
    mantissa = f"{10.0 ** (exponent - neg_log10_p):.10f}"
    if mantissa.startswith("10."):
        mantissa, exponent = f"{1:.10f}", exponent - 1
    return f"{mantissa}e-{exponent:02d}"


@dataclass(frozen=True)
class ScanTable:
    """The rows of ``count`` SNPs: ``read_records(start, stop)`` gives the records of rows start to stop - 1.

    ``df`` and ``test`` as in `log10_p`. ``index`` (count,), ascending, is the .bim row of each; without it they are the
    same. ``further`` are the fields of a record that have columns of their own. ``on_batch(variants, records, log10p)``
    sees each batch whose text is made, such as `mpgls.report.summary.Summary.add`.
    """

    variants: VariantReader
    read_records: ReadRecords
    count: int
    df: float
    test: str
    index: np.ndarray | None = None
    further: Sequence[str] = ()
    on_batch: OnBatch | None = None

    @property
    def columns(self) -> list[str]:
        """Their names."""
        return [*COLUMNS[:-1], *(column for name in self.further for column in columns_of(name)), COLUMNS[-1]]

    def text(self, start: int, stop: int) -> bytes:
        """The lines of rows start to stop - 1."""
        parts = []
        records = self.read_records(start, stop)
        for first, last, variants in read_pieces(self.variants, self.index, start, stop):
            piece = records[first - start : last - start]
            neg_log10_p = log10_p(piece, self.df, self.test)
            if self.on_batch is not None:
                self.on_batch(variants, piece, neg_log10_p)
            parts.append(format_rows(variants, piece, self.df, self.test, neg_log10_p))
        return b"".join(parts)

    def largest_log10p(self, comm: MPI.Comm) -> float:
        """The largest of all finite -log10 p; 0 where there is none. Collective; raises what reading raised."""
        largest = 0.0
        with together(comm):
            for start in range(comm.rank * BATCH, self.count, comm.size * BATCH):
                found = log10_p(self.read_records(start, min(self.count, start + BATCH)), self.df, self.test)
                largest = max(largest, float(found[np.isfinite(found)].max(initial=0.0)))
        return max(comm.allgather(largest))

    def write(self, comm: MPI.Comm, paths: Mapping[str, Path], facts: SsfFacts) -> list[str]:
        """`write_rows` of them; ``facts`` are for GWAS-SSF. Collective."""
        if "ssf" in paths:
            facts = replace(facts, largest_log10p=self.largest_log10p(comm))
        return write_rows(comm, paths, Table(self.columns, self.text, self.count, facts))


def read_pieces(
    variants: VariantReader, index: np.ndarray | None, start: int, stop: int
) -> Iterator[tuple[int, int, Variants]]:
    """(first, last, variants) of consecutive result rows; a piece spans at most BATCH rows of the .bim."""
    if index is None:
        yield start, stop, variants.read(start, stop)
        return
    while start < stop:
        base = int(index[start])
        last = min(stop, start + int(np.searchsorted(index[start:stop], base + BATCH)))
        rows = index[start:last] - base
        yield start, last, _take(variants.read(base, int(rows[-1]) + base + 1), rows)
        start = last


def _take(variants: Variants, rows: np.ndarray) -> Variants:
    if len(rows) == len(variants.id):
        return variants
    picked = rows.tolist()
    pick = {name: [getattr(variants, name)[k] for k in picked] for name in ("chrom", "id", "a1", "a2")}
    return type(variants)(pos=variants.pos[rows], **pick)


def _statistic(records: np.ndarray) -> np.ndarray:
    """BETA / SE (B,), NaN where there is no estimate; infinite where a SNP explains the trait completely, SE 0."""
    stat = np.full(len(records), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        np.divide(records["beta"], records["se"], out=stat, where=records["note"] == 0)
    return stat


def _format_chunk(variants: Variants, rows: slice, records: np.ndarray, neg_log10_p: np.ndarray) -> str:
    stat, note = _statistic(records), records["note"]
    names = (variants.chrom[rows], variants.pos[rows].tolist(), variants.id[rows], variants.a1[rows], variants.a2[rows])
    # adding zero turns the -0.0 of p = 1 into 0
    figures = (records["eaf"], records["n"], records["beta"], records["se"], stat, neg_log10_p + 0.0)
    plain = np.isfinite(records["beta"] + records["se"] + stat + records["eaf"]) & (neg_log10_p < _TEXT_P_FROM)
    plain &= note == 0
    empty = (note != 0) & np.isfinite(records["eaf"])
    all_figures: list[np.ndarray] = [*figures, p_from_log10(neg_log10_p)]
    further = further_text(records, further_fields(records.dtype))
    row = _ROW + ("%s.\n" if further else ".\n")
    behind = [np.array(further, dtype=object)] if further else []
    all_figures += behind
    if 2 * np.count_nonzero(plain) > plain.size:
        # To format a few rows in vain costs less than to pick the others.
        lines = list(map(row.__mod__, _zipped(names, all_figures)))
    else:
        lines = [""] * len(records)
        _fill(lines, plain, row, names, all_figures)
    for k in np.flatnonzero(is_filtered(note)).tolist():
        lines[k] = ""
    for code in np.unique(note[empty]).tolist():
        if code not in FILTERS:
            form = _NA_ROW + "%s" * len(behind) + NOTE_TEXT[Note(code)] + "\n"
            _fill(lines, empty & (note == code), form, names, [*figures[:2], *behind])
    for k in np.flatnonzero(~plain & ~empty & ~is_filtered(note)).tolist():
        values = (*(column[k] for column in names), *(column[k].item() for column in figures))
        lines[k] = _special_row(values, int(note[k]), further[k] if further else "")
    return "".join(lines)


def _zipped(names: Sequence[list], figures: Sequence[np.ndarray]) -> Iterator[tuple]:
    return zip(*names, *(column.tolist() for column in figures), strict=True)


def _fill(lines: list[str], mask: np.ndarray, form: str, names: Sequence[list], figures: Sequence[np.ndarray]) -> None:
    """Set the lines in ``mask`` from the template ``form``."""
    rows = np.flatnonzero(mask)
    picked = rows.tolist()
    values = _zipped([[column[k] for k in picked] for column in names], [column[rows] for column in figures])
    for k, line in zip(picked, map(form.__mod__, values), strict=True):
        lines[k] = line


def further_text(records: np.ndarray, fields: Sequence[str]) -> list[str]:
    """The columns of further ``fields`` of each record, each with a tab behind it; nothing where there are none."""
    columns: list[list[str]] = []
    for name in fields:
        values, is_p = records[name].tolist(), name.startswith("log10p")
        form = "%.10g" if name == "info" else "%.15g" if is_p or name.startswith("df") else "%r"
        columns.append([_na(value, form) for value in values])
        if is_p:
            columns.append([format_p(value) for value in values])
    return ["\t".join(row) + "\t" for row in zip(*columns, strict=True)]


def _special_row(values: tuple, note: int, further: str = "") -> str:
    """A row with figures that are not finite, or with a p value too small for float64."""
    names, (eaf, n), figures = values[:5], values[5:7], values[7:11]
    if note != 0:
        figures = (np.nan,) * 4
    texts = [_na(eaf, "%.10g"), str(n), *(_na(x, "%r") for x in figures[:3]), _na(figures[3], "%.15g")]
    reason = NOTE_TEXT[Note(note)] if note != 0 else "."
    return "\t".join([*map(str, names), *texts, format_p(figures[3]), further + reason]) + "\n"


def _na(value: float, form: str) -> str:
    return "NA" if np.isnan(value) else form % value
