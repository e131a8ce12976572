"""Options that say as what tables are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mpgls.errors import UsageError
from mpgls.report.parquet import check_pyarrow
from mpgls.report.table_formats import ENDINGS
from mpgls.run.options import Check, Options, option


def _formats(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(one.strip() for one in text.split(",")))


@dataclass(frozen=True, kw_only=True)
class TableOptions(Options):
    """Of commands that write a row for each SNP."""

    has_ssf: ClassVar[bool] = True
    """Whether its tables are the summary statistics of a trait."""
    keeps_records: ClassVar[bool] = True
    """Whether a run that is complete still has all that its tables are made of."""

    format: str = option(
        "tsv",
        "tsv, tsv.gz (BGZF with a tabix index), parquet or ssf (GWAS-SSF), or several with commas (tsv)",
        group="output",
        metavar="FORMAT",
        check=Check(f"one or several of {', '.join(ENDINGS)}", lambda text: set(_formats(text)) <= set(ENDINGS)),
        changes_results=False,
    )

    def check(self) -> None:
        super().check()
        if "parquet" in self.formats:
            check_pyarrow()
        if "ssf" in self.formats and not self.has_ssf:
            raise UsageError(
                f"--format ssf is for summary statistics of one trait, and {self.command} writes none: give another "
                "format; mpgls export makes it from the store of multi-trait --dense"
            )

    def lacks_tables(self, manifest: Mapping[str, Any]) -> bool:
        """Whether the run that has ended, with this ``manifest``, wrote no tables in a format that is wanted.

        Raises UsageError where it could only be done all over again.
        """
        written = manifest.get("formats", ["tsv"])
        lacking = not set(self.formats) <= set(written)
        if lacking and not self.keeps_records:
            same = f"--format {','.join(written)}"
            raise UsageError(
                f"the run is complete, and would begin anew to make tables in another format than {same}: give "
                "that one; mpgls export makes tables of what a run has kept"
            )
        return lacking

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats, the first one first: it is the one that programs read."""
        return _formats(self.format)
