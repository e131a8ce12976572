"""The significant pairs of trait and SNP, as a tab-separated table and as Parquet.

Columns: ``TRAIT CHR POS ID EA NEA EAF N BETA SE STAT LOG10P P``, with the meaning and the digits of
`mpgls.report.table`, sorted by trait (in the order of the analysis) and then by row of the .bim. Hits with further
fields, those of `mpgls.model.snp_ratio`, have their columns behind: ``H2 LOGL LOG10P_LRT P_LRT LOG10P_SCORE P_SCORE``.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mpgls.errors import StorageError
from mpgls.model.hits import further_of
from mpgls.model.pvalues import p_from_log10
from mpgls.report.table import _TEXT_P_FROM, BATCH, VariantReader, _take, columns_of, format_p, further_text

if TYPE_CHECKING:
    from mpgls.study.plink import Variants

COLUMNS = ("TRAIT", "CHR", "POS", "ID", "EA", "NEA", "EAF", "N", "BETA", "SE", "STAT", "LOG10P", "P")
_ROW = "%s\t%s\t%d\t%s\t%s\t%s\t%.10g\t%d\t%r\t%r\t%r\t%.15g\t%.10e\n"
# Chunks whose Python strings stay in the processor's cache; rows of a Parquet row group.
_CHUNK, _ROW_GROUP = 8192, 1 << 18


@dataclass(frozen=True)
class HitFiles:
    """What `write_hits` wrote: ``parquet`` is None, and ``note`` says why, where there is no Parquet file."""

    tsv: Path
    parquet: Path | None
    count: int
    note: str = ""


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


def write_hits(
    prefix: str | os.PathLike[str], hits: np.ndarray, traits: Sequence[str], variants: VariantReader
) -> HitFiles:
    """Write ``prefix.hits.tsv`` and ``prefix.hits.parquet`` from merged hits (model.hits). Call on one rank.

    ``traits`` are the names that ``hits['trait']`` counts. Without the pyarrow package only the .tsv is written, and
    the result's ``note`` says so. Files appear under their names when they are complete. Raises StorageError.
    """
    tsv, parquet = (Path(f"{os.fspath(prefix)}.hits.{suffix}") for suffix in ("tsv", "parquet"))
    found = HitVariants(variants, hits["row"])
    with _completed(tsv) as partial, open(partial, "w", encoding="utf-8", newline="\n") as file:
        file.write("\t".join((*COLUMNS, *_further_columns(hits[:0]))) + "\n")
        for part in _chunks(hits, _CHUNK):
            file.writelines(_with_further(_lines(_columns(part, traits, found)), part))
    if not _has_pyarrow():
        with contextlib.suppress(FileNotFoundError):
            parquet.unlink()
        return HitFiles(tsv, None, hits.size, f"{parquet} is not written: the Python package pyarrow is not installed")
    with _completed(parquet) as partial:
        names = (*COLUMNS, *_further_columns(hits[:0]))
        _write_parquet(partial, names, (_columns(part, traits, found) for part in _chunks(hits, _ROW_GROUP)))
    return HitFiles(tsv, parquet, hits.size)


def _chunks(hits: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Consecutive hits; at least one chunk, so that an empty file has its columns too."""
    for start in range(0, max(hits.size, 1), size):
        yield hits[start : start + size]


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
    usual = dict(zip(COLUMNS, (trait, chrom, found.pos[where], name, a1, a2, *figures), strict=True))
    return usual | _further_columns(part)


def _further_columns(part: np.ndarray) -> dict[str, np.ndarray]:
    """The columns of the further fields of hits, those of `mpgls.model.snp_ratio`."""
    columns = {}
    for name in further_of(part.dtype):
        for column in columns_of(name):
            columns[column] = p_from_log10(part[name]) if column.startswith("P_") else part[name]
    return columns


def _with_further(lines: list[str], part: np.ndarray) -> list[str]:
    """The lines of hits with the text of their further fields."""
    texts = further_text(part, further_of(part.dtype))
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


def _has_pyarrow() -> bool:
    try:
        importlib.import_module("pyarrow.parquet")
    except ImportError:
        return False
    return True


def _write_parquet(path: Path, names: Sequence[str], chunks: Iterable[dict[str, Any]]) -> None:
    # an optional package, so that type checking must not need it
    pyarrow, parquet = (importlib.import_module(name) for name in ("pyarrow", "pyarrow.parquet"))
    kinds = {
        "TRAIT": pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
        "CHR": pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
        "POS": pyarrow.int64(),
        "N": pyarrow.int32(),
        **dict.fromkeys(("ID", "EA", "NEA"), pyarrow.string()),
    }
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.float64())) for name in names])
    # pyarrow itself refuses a name that is not UTF-8
    with open(path, "wb") as file, parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for columns in chunks:
            arrays = [pyarrow.array(columns[field.name], field.type) for field in schema]
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))


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
