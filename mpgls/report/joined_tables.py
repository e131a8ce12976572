"""Tables of summary statistics that were made of parts of the SNPs, one after the other, as one table."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from mpgls.errors import InputError
from mpgls.report.table import COLUMNS
from mpgls.report.table_lines import SsfFacts, Table
from mpgls.stream.mark import Mark
from mpgls.study.snp_keys import snp_keys
from mpgls.study.text import open_text, reading
from mpgls.study.variants import Variants

_BATCH = 65536
SAME_FILES = ("--pheno", "--covar", "--keep", "--remove")
"""Inputs that jobs of one analysis share; their genotypes and kinships may be those of a chromosome."""
OF_PARTS = ("--chr", "--not-chr", "--autosome", "--from-bp", "--to-bp", "--exclude-negative-bp", "--precision")
"""Options in which they may differ."""


@dataclass(frozen=True)
class TableParts:
    """The tables at ``paths``, in their order: their ``columns``, rows of all, and the largest finite LOG10P.

    ``jobs`` has, of those whose run is known, the trait and what it was made from.
    """

    paths: tuple[str, ...]
    columns: tuple[str, ...]
    count: int
    largest_log10p: float
    jobs: dict[str, tuple[str, str]]

    @classmethod
    def open(cls, paths: Sequence[str]) -> TableParts:
        """Read and compare them. On one rank. Raises StorageError, and InputError for what is no part of one table."""
        columns, largest = _header(paths[0]), 0.0
        before: list[np.ndarray] = []
        for path in paths:
            if _header(path) != columns:
                raise InputError(f"{paths[0]} and {path} do not have the same columns")
            keys, of_part = _look_through(path, columns)
            for other, theirs in zip(paths, before, strict=False):
                _check_apart(other, theirs, path, keys)
            before.append(keys)
            largest = max(largest, of_part)
        jobs = {path: job for path in paths if (job := _job_of(Path(path))) is not None}
        _check_jobs(jobs)
        return cls(tuple(paths), columns, sum(keys.size for keys in before), largest, jobs)

    @property
    def unknown(self) -> list[str]:
        """Those of which no manifest says how they were made."""
        return [path for path in self.paths if path not in self.jobs]

    def table(self) -> Table:
        """For `table_files.write_rows` of one rank: its text is asked for in order."""
        lines = (line for path in self.paths for line in _lines(path))
        trait, made_from = next(iter(self.jobs.values()), (Path(self.paths[0]).name.split(".")[0], "{}"))
        facts = SsfFacts.of(trait, made_from, largest_log10p=self.largest_log10p)
        return Table(self.columns, lambda start, stop: "".join(islice(lines, stop - start)).encode(), self.count, facts)


def _header(path: str) -> tuple[str, ...]:
    with reading(path), open_text(path) as stream:
        names = tuple(stream.readline().rstrip("\n").split("\t"))
    if not set(COLUMNS) <= set(names) or names[:3] != COLUMNS[:3]:
        raise InputError(
            f"{path} is no table of summary statistics, with the columns {' '.join(COLUMNS)}: only such tables are "
            "joined, as text or packed by gzip"
        )
    return names


def _lines(path: str) -> Iterator[str]:
    """The rows of a table."""
    with reading(path), open_text(path) as stream:
        stream.readline()
        yield from stream


def _look_through(path: str, columns: tuple[str, ...]) -> tuple[np.ndarray, float]:
    """A key of each row's SNP, and the largest finite LOG10P."""
    lines, at = _lines(path), columns.index("LOG10P")
    keys, largest, before = [np.empty(0, dtype=np.uint64)], 0.0, 1
    while batch := [line.rstrip("\n").split("\t") for line in islice(lines, _BATCH)]:
        odd = next((k for k, fields in enumerate(batch) if len(fields) != len(columns)), None)
        if odd is not None:
            fields = len(batch[odd])
            raise InputError(f"{path}, line {before + odd + 1} has {fields} fields, and the header {len(columns)}")
        keys.append(_keys(path, batch, before))
        figures = [float(fields[at]) for fields in batch if fields[at] != "NA"]
        largest, before = max([largest, *filter(math.isfinite, figures)]), before + len(batch)
    return np.concatenate(keys), largest


def _check_apart(other: str, theirs: np.ndarray, path: str, keys: np.ndarray) -> None:
    """InputError if two tables have SNPs in common."""
    common = np.flatnonzero(np.isin(keys, theirs))
    if common.size:
        name = next(islice(_lines(path), int(common[0]), None)).split("\t")[2]
        raise InputError(f"SNP {name} is in {other} and in {path}: a SNP may be in one of the tables only")


def _keys(path: str, batch: list[list[str]], before: int) -> np.ndarray:
    chrom, pos, name = ([fields[k] for fields in batch] for k in range(3))
    try:
        return snp_keys(Variants(chrom, name, np.array(pos, dtype=np.int64), name, name))
    except ValueError:
        wrong = next(k for k, one in enumerate(pos) if not one.lstrip("-").isdigit())
        raise InputError(f"{path}, line {before + wrong + 1}: POS is no whole number: {pos[wrong]!r}") from None


def _job_of(path: Path) -> tuple[str, str] | None:
    """Trait and ``made_from`` of the run that made a table, by the manifest beside it; None where there is none."""
    parts = path.name.split(".")
    for k in range(1, len(parts)):
        manifest = path.with_name(".".join(parts[:k]) + ".json")
        if manifest.is_file():
            found = json.loads(manifest.read_text(encoding="utf-8"))
            for trait, made in found.get("tables", {}).items():
                if Path(made).name == path.name and "made_from" in found:
                    return trait, found["made_from"]
    return None


def _check_jobs(jobs: dict[str, tuple[str, str]]) -> None:
    """InputError unless the runs that are known analysed the same."""
    if not jobs:
        return
    first, (trait, made_from) = next(iter(jobs.items()))
    expected = _of_analysis(made_from)
    for path, (other, made) in jobs.items():
        if other != trait:
            raise InputError(f"{first} is of trait {trait!r}, and {path} of {other!r}")
        if _of_analysis(made).text != expected.text:
            difference = _of_analysis(made).difference(expected.text)
            raise InputError(f"{first} and {path} are of different analyses: {difference}")


def _of_analysis(made_from: str) -> Mark:
    """What jobs of parts of the SNPs have in common."""
    facts = json.loads(made_from)
    options = {name: value for name, value in facts.get("options", {}).items() if name not in OF_PARTS}
    inputs = {name: value for name, value in facts.get("inputs", {}).items() if name in SAME_FILES}
    return Mark({"command": facts.get("command"), "options": options, "inputs": inputs})
