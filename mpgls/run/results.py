"""What a finished run left: its files, its manifest, and its tables as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mpgls.errors import UsageError
from mpgls.report.read_table import read_columns

FORMS = ("numpy", "arrow", "pandas")


@dataclass(frozen=True)
class Results:
    """The results of one run, the same on every rank.

    ``prefix`` is --out; ``manifest`` what PREFIX.json holds. ``nulls`` are the null models of a scan, one row a trait
    and left-out chromosome (`mpgls.model.null_record`), None where the command has none.
    """

    prefix: str
    manifest: Mapping[str, Any] = field(repr=False)
    nulls: np.ndarray | None = field(default=None, repr=False)

    @property
    def command(self) -> str:
        """The command that was run."""
        return str(self.manifest.get("command", ""))

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file of the run that is there."""
        return tuple(Path(path) for path in self.manifest.get("files", ()))

    @property
    def tables(self) -> dict[str, Path]:
        """The tables by name: a trait's, or what the ending of the file says, such as ``hits``."""
        return {name: Path(path) for name, path in self.manifest.get("tables", {}).items()}

    def table(self, name: str | None = None, form: str = "numpy") -> Any:
        """A table as NumPy structured array, pyarrow Table or pandas DataFrame; ``name`` where there are several.

        Missing values are NaN. Raises UsageError for a table or a form that there is not, StorageError when the file
        cannot be read.
        """
        if form not in FORMS:
            raise UsageError(f"a table comes as one of {', '.join(FORMS)}, not {form}")
        columns = read_columns(self._path(name))
        if form == "pandas":
            import pandas

            return pandas.DataFrame(columns)
        if form == "arrow":
            import pyarrow

            return pyarrow.table(columns)
        made = np.empty(
            len(next(iter(columns.values()), [])), dtype=[(key, values.dtype) for key, values in columns.items()]
        )
        for key, values in columns.items():
            made[key] = values
        return made

    def _path(self, name: str | None) -> Path:
        tables = self.tables
        if name is None and len(tables) == 1:
            return next(iter(tables.values()))
        if name not in tables:
            known = ", ".join(tables) or "none"
            raise UsageError(f"{self.command} {self.prefix} has no table {name!r}: choose one of {known}")
        return tables[name]
