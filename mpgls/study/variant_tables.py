"""Several tables of variants that are read as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mpgls.study.variants import STRIDE, VariantRows, Variants


@dataclass(frozen=True, eq=False)
class VariantTables:
    """The rows of several tables, one table after the other, read as one."""

    tables: tuple[VariantRows, ...]
    edges: np.ndarray
    """int64 (tables+1,): the number of each table's first row, and then of all rows."""

    @classmethod
    def of(cls, tables: Sequence[VariantRows]) -> VariantTables:
        """``tables`` in this order."""
        return cls(tuple(tables), np.cumsum([0, *(table.count for table in tables)]))

    @property
    def path(self) -> Path:
        """What messages call them."""
        return Path(f"{self.tables[0].path} to {self.tables[-1].path}")

    @property
    def has_alt(self) -> bool:
        """Whether a1 is ALT."""
        return self.tables[0].has_alt

    @property
    def count(self) -> int:
        """Rows of all tables."""
        return int(self.edges[-1])

    @property
    def notes(self) -> tuple[str, ...]:
        """How the files were understood, where that is to be said."""
        return tuple(f"{table.path}: {'; '.join(table.notes)}" for table in self.tables if table.notes)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of the longest, about."""
        return max(table.row_bytes for table in self.tables)

    @property
    def summary(self) -> str:
        """One line for the log: how the files were understood."""
        return "; ".join([f"{self.path}: {self.count:,} SNPs in {len(self.tables)} files", *self.notes])

    def read(self, start: int, stop: int) -> Variants:
        """The rows ``start`` to ``stop`` (exclusive). Raises as `VariantTable.read` does."""
        edges = self.edges.tolist()
        met = [k for k in range(len(self.tables)) if edges[k] < stop and start < edges[k + 1]]
        parts = [self.tables[k].read(max(start - edges[k], 0), min(stop, edges[k + 1]) - edges[k]) for k in met]
        if len(parts) == 1:
            return parts[0]
        texts = ([text for part in parts for text in getattr(part, name)] for name in ("chrom", "id", "a1", "a2"))
        chrom, ids, a1, a2 = texts
        pos = np.concatenate([np.empty(0, dtype=np.int64), *(part.pos for part in parts)])
        return Variants(chrom, ids, pos, a1, a2)

    def batches(self, size: int = STRIDE) -> Iterator[tuple[int, Variants]]:
        """All rows in order, as (number of the first row, at most ``size`` rows), none across two tables."""
        for table, first in zip(self.tables, self.edges.tolist(), strict=False):
            for start, rows in table.batches(size):
                yield first + start, rows

    def place(self, row: int) -> str:
        """Where a row stands, as messages have it: file and line."""
        k = int(np.searchsorted(self.edges, row, side="right")) - 1
        return self.tables[k].place(row - int(self.edges[k]))


def variant_files(variants: VariantRows) -> list[Path]:
    """The files that hold the rows."""
    return [table.path for table in variants.tables] if isinstance(variants, VariantTables) else [variants.path]
