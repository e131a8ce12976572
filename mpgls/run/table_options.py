"""Options that say as what tables are written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

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

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats, the first one first: it is the one that programs read."""
        return _formats(self.format)
