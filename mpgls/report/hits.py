"""The significant pairs of trait and SNP.

Columns: ``TRAIT CHR POS ID EA NEA EAF N BETA SE STAT LOG10P P``, with the meaning and the digits of
`mpgls.report.table`, sorted by trait (in the order of the analysis) and then by row of the .bim. ``INFO`` of dosages is
behind, and hits with further fields, those of `mpgls.model.snp_ratio`, have their columns after it: ``H2 LOGL
LOG10P_LRT P_LRT LOG10P_SCORE P_SCORE``.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mpgls.errors import StorageError
from mpgls.model.hits import further_of
from mpgls.model.pvalues import p_from_log10
from mpgls.report.table import _TEXT_P_FROM, VariantReader, _take, columns_of, format_p, further_text
from mpgls.report.table_files import BATCH
from mpgls.report.table_lines import Table
from mpgls.stream.store import OF_GENOTYPES

if TYPE_CHECKING:
    from mpgls.study.plink import Variants

COLUMNS = ("TRAIT", "CHR", "POS", "ID", "EA", "NEA", "EAF", "N", "BETA", "SE", "STAT", "LOG10P", "P")
_ROW = "%s\t%s\t%d\t%s\t%s\t%s\t%.10g\t%d\t%r\t%r\t%r\t%.15g\t%.10e\n"
# Chunks whose Python strings stay in the processor's cache.
_CHUNK = 8192


class HitVariants:
    """The .bim's entries of some rows: `at` finds them for any of these rows, in any order."""

    def __init__(self, variants: VariantReader, rows: np.ndarray) -> None:
        self.rows = np.unique(np.asarray(rows, dtype=np.int64))
        self.chrom: list[str] = []
        self.id: list[str] = []
        self.a1: list[str] = []
        self.a2: list[str] = []
        self.pos = np.empty(self.rows.size, dtype=np.int64)
        for first, last, piece in pieces(variants, self.rows):
            self.pos[first:last] = piece.pos
            for mine, theirs in zip(self._texts(), (piece.chrom, piece.id, piece.a1, piece.a2), strict=True):
                mine.extend(theirs)

    def at(self, rows: np.ndarray) -> np.ndarray:
        """Where the .bim rows ``rows`` (k,) stand in ``chrom``, ``pos``, ``id``, ``a1`` and ``a2``."""
        return np.searchsorted(self.rows, rows)

    def _texts(self) -> tuple[list[str], ...]:
        return self.chrom, self.id, self.a1, self.a2


def pieces(variants: VariantReader, rows: np.ndarray) -> Iterator[tuple[int, int, Variants]]:
    """(first, last, variants) of consecutive parts of the ascending .bim rows ``rows``, each spanning at most BATCH."""
    start = 0
    while start < len(rows):
        base = int(rows[start])
        last = start + int(np.searchsorted(rows[start:], base + BATCH))
        yield start, last, _take(variants.read(base, int(rows[last - 1]) + 1), rows[start:last] - base)
        start = last


def hits_table(hits: np.ndarray, traits: Sequence[str], variants: VariantReader, dosages: bool = False) -> Table:
    """The table of merged hits (model.hits), for `mpgls.report.table_files.write_rows`.

    ``traits`` are the names that ``hits['trait']`` counts. Of ``dosages`` it has INFO as the last column.
    """
    found, fields = HitVariants(variants, hits["row"]), (*OF_GENOTYPES[: int(dosages)], *further_of(hits.dtype))
    columns = (*COLUMNS, *(column for name in fields for column in columns_of(name)))

    def text(start: int, stop: int) -> bytes:
        parts = (hits[at : min(at + _CHUNK, stop)] for at in range(start, stop, _CHUNK))
        lines = (_with_further(_lines(_columns(part, traits, found)), part, fields) for part in parts)
        return "".join(line for of_part in lines for line in of_part).encode()

    return Table(columns, text, hits.size)


def _columns(part: np.ndarray, traits: Sequence[str], found: HitVariants) -> dict[str, Any]:
    """The columns of consecutive hits."""
    where = found.at(part["row"])
    chrom, name, a1, a2 = ([texts[k] for k in where.tolist()] for texts in found._texts())
    with np.errstate(divide="ignore", invalid="ignore"):
        stat = part["beta"] / part["se"]  # infinite where a SNP explains the trait completely
    # adding zero turns the -0.0 of p = 1 into 0
    log10p = part["log10p"] + 0.0
    trait = [traits[k] for k in part["trait"].tolist()]
    figures = (part["eaf"], part["n"], part["beta"], part["se"], stat, log10p, p_from_log10(log10p))
    return dict(zip(COLUMNS, (trait, chrom, found.pos[where], name, a1, a2, *figures), strict=True))


def _with_further(lines: list[str], part: np.ndarray, fields: Sequence[str]) -> list[str]:
    """The lines of hits with the text of their further ``fields``."""
    texts = further_text(part, fields)
    return [f"{line[:-1]}\t{text[:-1]}\n" for line, text in zip(lines, texts, strict=True)] if texts else lines


def _lines(columns: dict[str, Any]) -> list[str]:
    """The text of the hits in ``columns``."""
    lists = [c.tolist() if isinstance(c, np.ndarray) else c for c in (columns[name] for name in COLUMNS)]
    lines = list(map(_ROW.__mod__, zip(*lists, strict=True)))
    log10p = columns["LOG10P"]
    usual = np.isfinite(columns["EAF"] + columns["BETA"] + columns["SE"] + columns["STAT"]) & (log10p < _TEXT_P_FROM)
    for k in np.flatnonzero(~usual).tolist():
        lines[k] = _special_line([column[k] for column in lists], lines[k])
    return lines


def _special_line(values: list, line: str) -> str:
    """``line`` with NA for figures that are not finite, and with a p value that is too small for float64."""
    fields = line.rstrip("\n").split("\t")
    for k, value in enumerate(values):
        if isinstance(value, float) and math.isnan(value):
            fields[k] = "NA"
    fields[-1] = format_p(values[COLUMNS.index("LOG10P")])
    return "\t".join(fields) + "\n"


@contextlib.contextmanager
def _completed(path: Path) -> Iterator[Path]:
    """A name to write to, renamed to ``path`` when the body is done; StorageError when it cannot be written."""
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
