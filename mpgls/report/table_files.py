"""Tables as files: tab-separated text, the same in BGZF with an index, Parquet, and GWAS-SSF.

All are made of the same lines, in one pass: in each round every rank makes the text of one contiguous batch of rows,
once for all files. So a rank holds one batch at a time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mpgls.mpi import together
from mpgls.report.packed_table import packed_file
from mpgls.report.parquet import parquet_file
from mpgls.report.shared_file import shared_file
from mpgls.report.ssf import ssf_file
from mpgls.report.table_lines import Table

if TYPE_CHECKING:
    from mpi4py import MPI

BATCH = 65536


def write_rows(comm: MPI.Comm, paths: Mapping[str, Path], table: Table, batch: int = BATCH) -> list[str]:
    """Write a table to ``paths``, by format, from all ranks of ``comm``; returns what a person should know of it.

    Collective. A file has its name when it is complete and synced. Raises StorageError, or what ``table.text`` raised
    on any rank, on all ranks alike; no partial file is left.
    """
    notes: list[str] = []
    batch = max(1, min(batch, -(-table.count // comm.size)))
    with contextlib.ExitStack() as stack:
        adds = [stack.enter_context(_WRITERS[form](comm, Path(path), table, notes)) for form, path in paths.items()]
        for first in range(0, table.count, batch * comm.size):
            start = min(table.count, first + comm.rank * batch)
            stop = min(table.count, start + batch)
            with together(comm):
                text = table.text(start, stop) if start < stop else b""
            for add in adds:
                add(text)
    return notes


@contextlib.contextmanager
def _text_file(comm: MPI.Comm, path: Path, table: Table, notes: list[str]) -> Iterator[Callable[[bytes], object]]:
    """Takes the lines of each round. Collective. Raises StorageError."""
    with shared_file(comm, path) as file:
        file.add_once(table.header)
        yield file.add


_WRITERS = {"tsv": _text_file, "tsv.gz": packed_file, "parquet": parquet_file, "ssf": ssf_file}
