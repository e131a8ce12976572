"""A table as BGZF, each rank packing its own blocks, and its index by chromosome and position."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mpgls.mpi import on_root, together
from mpgls.report import tabix
from mpgls.report.genome_order import Run, places_of, runs_of, why_unsorted
from mpgls.report.shared_file import shared_file
from mpgls.report.table_formats import INDEX
from mpgls.report.table_lines import Table
from mpgls.stream import bgzf
from mpgls.stream.files import replaced

if TYPE_CHECKING:
    from mpi4py import MPI

_COLUMNS = (1, 2)
"""Chromosome and position, from 1."""


@contextlib.contextmanager
def packed_file(comm: MPI.Comm, path: Path, table: Table, notes: list[str]) -> Iterator[Callable[[bytes], None]]:
    """Takes the lines of each round; ``notes`` has it where there is no index. Collective. Raises StorageError."""
    runs: list[Run] = []
    bins: list[tuple[int, list[tabix.Bin]]] = []
    with shared_file(comm, path) as file:

        def add(text: bytes) -> None:
            with together(comm):
                data, starts = bgzf.pack(text)
            begin = file.add(data)
            if table.is_by_snp:
                chrom, pos = places_of(text)
                runs.extend(runs_of(chrom, pos, begin))
                bins.append((begin, tabix.bins_of(chrom, pos, bgzf.virtual_offsets(begin + starts, _lines(text)))))

        file.add_once(bgzf.pack(table.header)[0])
        yield add
        file.add_once(bgzf.EOF)
    if table.is_by_snp:
        all_runs = [run for part in comm.allgather(runs) for run in part]
        all_bins = sorted((one for part in comm.allgather(bins) for one in part), key=lambda one: one[0])
        note = on_root(comm, lambda: _write_index(path, all_runs, [one for _, part in all_bins for one in part]))
        notes += [note] if note else []


def _lines(text: bytes) -> np.ndarray:
    """Where the lines of ``text`` begin, and where the last one ends."""
    return np.append(0, np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == ord("\n")) + 1)


def _write_index(path: Path, runs: Sequence[Run], bins: Sequence[tabix.Bin]) -> str:
    """Make the .tbi beside ``path``; returns why there is none, or nothing. On one rank. Raises StorageError."""
    reason = why_unsorted(runs)
    if reason is None and any(run.first < 1 or run.last > tabix.LAST for run in runs):
        reason = f"positions are not all from 1 to {tabix.LAST:,}"
    if reason is not None:
        return f"{path} has no index: {reason}"
    with replaced(f"{path}{INDEX}") as partial:
        partial.write_bytes(tabix.index(bins, _COLUMNS))
    return ""
