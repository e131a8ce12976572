"""The formats of tables, and what the files of a table are called in each."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

FACTS = "-meta.yaml"
"""What follows the name of a table of GWAS-SSF in that of its facts."""
INDEX = ".tbi"
"""The same of the index of a packed table."""
ENDINGS = {
    "tsv": (".tsv",),
    "tsv.gz": (".tsv.gz", f".tsv.gz{INDEX}"),
    "parquet": (".parquet",),
    "ssf": (".ssf.tsv", f".ssf.tsv{FACTS}"),
}
"""What a table's files are called, by format: the table, and what may stand beside it."""
ALL_ENDINGS = tuple(ending for endings in ENDINGS.values() for ending in endings)
SHARE = {"tsv": 1.0, "tsv.gz": 0.6, "parquet": 0.8, "ssf": 1.0}
"""Bytes of a table beside those of the plain text, at most about."""


def table_paths(start: str | os.PathLike[str], formats: Sequence[str]) -> dict[str, Path]:
    """The file of a table, by format; ``start`` is what comes before the ending."""
    return {form: Path(f"{os.fspath(start)}{ENDINGS[form][0]}") for form in formats}


def made_files(paths: Mapping[str, Path]) -> list[Path]:
    """All files that were made of a table at ``paths``, by format: index and facts as well."""
    beside = [
        Path(f"{path}{ending.removeprefix(ENDINGS[form][0])}")
        for form, path in paths.items()
        for ending in ENDINGS[form][1:]
    ]
    return [*paths.values(), *(path for path in beside if path.exists())]


def endings_of(formats: Sequence[str]) -> list[str]:
    """All endings of the files of a table."""
    return [ending for form in formats for ending in ENDINGS[form]]


def table_sizes(start: str, formats: Sequence[str], nbytes: int) -> dict[str, int]:
    """Bytes of a table's files, by name, about; ``nbytes`` of its plain text."""
    return {start + ENDINGS[form][0]: int(nbytes * SHARE[form]) for form in formats}
