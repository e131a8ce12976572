"""A table as Parquet: the figures of its lines with their types, a row group for each batch of each rank."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpgls.errors import UsageError
from mpgls.mpi import agree, on_root, together
from mpgls.report.table_lines import Table
from mpgls.stream.files import replaced, writing

if TYPE_CHECKING:
    from mpi4py import MPI

_DICTIONARIES, _TEXTS = ("TRAIT", "CHR", "NOTE"), ("ID", "EA", "NEA", "PEAK_VOXEL")
_WHOLE = {"POS": "int64", "N": "int32"}


def check_pyarrow() -> None:
    """UsageError where Parquet cannot be written."""
    if importlib.util.find_spec("pyarrow") is None:
        raise UsageError("Parquet files need the Python package pyarrow: pip install 'mpgls[parquet]'")


@contextlib.contextmanager
def parquet_file(comm: MPI.Comm, path: Path, table: Table, notes: list[str]) -> Iterator[Callable[[bytes], None]]:
    """Takes the lines of each round. Ranks parse them; rank 0 writes the rows of one rank after those of another.

    Collective. Raises StorageError on all ranks.
    """
    schema, opened = _schema(table.columns), contextlib.ExitStack()
    try:
        write: Callable[[Any], None] = _nowhere

        def create() -> None:
            nonlocal write
            write = _open(path, schema, opened)

        on_root(comm, create)

        def add(text: bytes) -> None:
            with together(comm):
                rows = _rows(text, schema)
            _in_turn(comm, rows, write)

        yield add
        on_root(comm, opened.close)
    except BaseException as error:
        with contextlib.suppress(Exception):  # the file is removed in any case
            opened.__exit__(type(error), error, error.__traceback__)
        raise


def _nowhere(rows: Any) -> None:
    """What ranks other than 0 write."""


def _open(path: Path, schema: Any, opened: contextlib.ExitStack) -> Callable[[Any], None]:
    """Open the file, to be closed with ``opened``; returns what writes rows to it."""
    parquet = importlib.import_module("pyarrow.parquet")
    partial = opened.enter_context(replaced(path))
    file = opened.enter_context(partial.open("wb"))  # pyarrow itself refuses a name that is not UTF-8
    writer = opened.enter_context(parquet.ParquetWriter(file, schema, compression="zstd"))

    def write(rows: Any) -> None:
        with writing(path):
            if rows.num_rows:
                writer.write_table(rows)

    return write


def _in_turn(comm: MPI.Comm, rows: Any, write: Callable[[Any], None]) -> None:
    """Rank 0 writes its ``rows``, then those of each other rank. Collective; what fails is raised on all ranks."""
    error: Exception | None = None
    for rank in range(comm.size):
        if rank and comm.rank == rank:
            comm.send(rows, dest=0)
        elif comm.rank == 0:
            part = comm.recv(source=rank) if rank else rows
            try:
                if error is None:
                    write(part)
            except Exception as caught:
                error = caught  # the other ranks still send
    agree(comm, error)


def _schema(columns: Sequence[str]) -> Any:
    pyarrow = importlib.import_module("pyarrow")
    text = pyarrow.string()
    kinds = {
        **dict.fromkeys(_DICTIONARIES, pyarrow.dictionary(pyarrow.int32(), text)),
        **dict.fromkeys(_TEXTS, text),
        **{name: pyarrow.type_for_alias(kind) for name, kind in _WHOLE.items()},
    }
    return pyarrow.schema([(name, kinds.get(name, pyarrow.float64())) for name in columns])


def _rows(text: bytes, schema: Any) -> Any:
    """The lines ``text`` as a table of Arrow; NA is null in a column of numbers."""
    pyarrow = importlib.import_module("pyarrow")
    lines = [line.split("\t") for line in text.decode().split("\n")[:-1]]
    columns = zip(*lines, strict=True) if lines else [() for _ in schema]
    arrays = []
    for field, column in zip(schema, columns, strict=True):
        values: list[Any] = list(column)
        if field.name in _WHOLE:
            values = list(map(int, values))
        elif field.name not in (*_TEXTS, *_DICTIONARIES):
            values = [None if value == "NA" else float(value) for value in values]
        arrays.append(pyarrow.array(values, field.type))
    return pyarrow.Table.from_arrays(arrays, schema=schema)
