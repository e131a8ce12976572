"""Tables of summary statistics that were made of parts of the SNPs, one after the other, as one table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mpgls.errors import InputError
from mpgls.report.table import COLUMNS
from mpgls.report.table_lines import SsfFacts, Table
from mpgls.stream.mark import Mark
from mpgls.study.snp_keys import snp_keys
from mpgls.study.text import check_utf8, open_text, reading
from mpgls.study.variants import Variants

_BATCH = 65536
JOINED = "joined"
"""What a manifest calls the table that was joined."""
SAME_FILES = ("--pheno", "--covar", "--keep", "--remove")
"""Inputs that jobs of one analysis share; their genotypes and kinships may be those of a chromosome."""
OF_PARTS = ("--chr", "--not-chr", "--autosome", "--from-bp", "--to-bp", "--exclude-negative-bp", "--precision")
"""Options in which they may differ."""
_TEXTS, _WHOLE = ("CHR", "ID", "EA", "NEA", "NOTE"), ("POS", "N")
"""Columns of words, and of whole numbers; the others have numbers or NA."""


class TableJob(NamedTuple):
    """The run that made a table: trait, `stream.mark` and covariates; rows of the table, None if it does not say."""

    trait: str
    made_from: str
    covariates: Sequence[str] = ()
    rows: int | None = None


@dataclass(frozen=True)
class TableParts:
    """The tables at ``paths``, in their order: their ``columns``, rows of all, and the largest finite LOG10P.

    ``jobs`` has the runs that are known, by path.
    """

    paths: tuple[str, ...]
    columns: tuple[str, ...]
    count: int
    largest_log10p: float
    jobs: dict[str, TableJob]

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
        for path, keys in zip(paths, before, strict=True):
            if path in jobs and jobs[path].rows not in (None, keys.size):
                raise InputError(
                    f"{path} has {keys.size:,} rows, and its run wrote {jobs[path].rows:,}: it was changed or cut off"
                )
        return cls(tuple(paths), columns, sum(keys.size for keys in before), largest, jobs)

    @property
    def job(self) -> dict[str, Any] | None:
        """What the manifest says of the run of all parts, for the next one who joins; None where one is unknown."""
        known = list(self.jobs.values())
        return known[0]._replace(rows=self.count)._asdict() if len(known) == len(self.paths) else None

    @property
    def unknown(self) -> list[str]:
        """Those of which no manifest says how they were made."""
        return [path for path in self.paths if path not in self.jobs]

    def table(self) -> Table:
        """For `table_files.write_rows` of one rank: its text is asked for in order."""
        lines = (line for path in self.paths for line in _lines(path))
        unknown = TableJob(Path(self.paths[0]).name.split(".")[0], "{}")
        job = next(iter(self.jobs.values()), unknown)
        facts = SsfFacts.of(job.trait, job.made_from, job.covariates, largest_log10p=self.largest_log10p)
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
    """A key of each row's SNP, and the largest finite LOG10P. Raises InputError, naming the line of what is no row."""
    lines, found = _lines(path), list[np.ndarray]()
    largest, before = 0.0, 1
    while batch := list(islice(lines, _BATCH)):
        if not batch[-1].endswith("\n"):
            raise InputError(f"{path}, line {before + len(batch)} has no end: the file was cut off there")
        for number, line in enumerate(batch, start=before + 1):
            check_utf8(line, path, number)
        rows = [line[:-1].split("\t") for line in batch]
        odd = next((k for k, fields in enumerate(rows) if len(fields) != len(columns)), None)
        if odd is not None:
            count = len(rows[odd])
            raise InputError(f"{path}, line {before + odd + 1} has {count} fields, and the header {len(columns)}")
        texts = dict(zip(columns, zip(*rows, strict=True), strict=True))
        figures = {name: _figures(path, name, texts[name], before) for name in columns if name not in _TEXTS}
        found.append(snp_keys(Variants(list(texts["CHR"]), list(texts["ID"]), figures["POS"], [], [])))
        log10p = figures["LOG10P"]
        largest = max(largest, log10p[np.isfinite(log10p)].max(initial=0.0))
        before += len(batch)
    return np.concatenate([np.empty(0, dtype=np.uint64), *found]), float(largest)


def _figures(path: str, name: str, texts: Sequence[str], before: int) -> np.ndarray:
    """A column as numbers (rows,), NaN for NA; ``before`` lines stand above. Raises InputError for what is none."""
    kind, what = (np.int64, "whole number") if name in _WHOLE else (np.float64, "number")
    numbers = [text if text != "NA" or name in _WHOLE else "nan" for text in texts]
    try:
        return np.array(numbers, dtype=kind)
    except (ValueError, OverflowError):
        wrong = next(k for k, text in enumerate(numbers) if not _is_number(text, kind))
        raise InputError(f"{path}, line {before + wrong + 1}: {name} is no {what}: {texts[wrong]!r}") from None


def _is_number(text: str, kind: type) -> bool:
    try:
        np.array([text], dtype=kind)
    except (ValueError, OverflowError):
        return False
    return True


def _check_apart(other: str, theirs: np.ndarray, path: str, keys: np.ndarray) -> None:
    """InputError if two tables have SNPs in common."""
    common = np.flatnonzero(np.isin(keys, theirs))
    if common.size:
        name = next(islice(_lines(path), int(common[0]), None)).split("\t")[2]
        raise InputError(f"SNP {name} is in {other} and in {path}: a SNP may be in one of the tables only")


def _job_of(path: Path) -> TableJob | None:
    """The run that made a table, by the manifest beside it; None where there is none that can be read."""
    parts = path.name.split(".")
    for k in range(1, len(parts)):
        manifest = path.with_name(".".join(parts[:k]) + ".json")
        if manifest.is_file():
            found = _manifest(manifest)
            for name, made in found.get("tables", {}).items():
                if _start(Path(made).name) == _start(path.name):  # it has the first of the formats only
                    return _job(found, name)
    return None


def _start(name: str) -> str:
    """The name of a table without its ending."""
    return name.removesuffix(".gz").removesuffix(".tsv")


def _manifest(path: Path) -> dict[str, Any]:
    """What it says; nothing where it is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _job(manifest: dict[str, Any], name: str) -> TableJob | None:
    """That of the table ``name`` of a run; of a joined table the job of its parts."""
    if name == JOINED and manifest.get("command") == "merge":
        return TableJob(**manifest["job"]) if manifest.get("job") else None
    if "made_from" not in manifest:
        return None
    facts = manifest["traits"][name]
    null = next(iter(facts["loco"].values())) if facts.get("loco") else facts
    return TableJob(name, manifest["made_from"], list(null["covariates"]), facts.get("rows"))


def _check_jobs(jobs: dict[str, TableJob]) -> None:
    """InputError unless the runs that are known analysed the same."""
    if not jobs:
        return
    first, job = next(iter(jobs.items()))
    expected = _of_analysis(job.made_from)
    for path, other in jobs.items():
        if other.trait != job.trait:
            raise InputError(f"{first} is of trait {job.trait!r}, and {path} of {other.trait!r}")
        if _of_analysis(other.made_from).text != expected.text:
            difference = _of_analysis(other.made_from).difference(expected.text)
            raise InputError(f"{first} and {path} are of different analyses: {difference}")


def _of_analysis(made_from: str) -> Mark:
    """What jobs of parts of the SNPs have in common."""
    facts = json.loads(made_from)
    options = {name: value for name, value in facts.get("options", {}).items() if name not in OF_PARTS}
    inputs = {name: value for name, value in facts.get("inputs", {}).items() if name in SAME_FILES}
    return Mark({"command": facts.get("command"), "options": options, "inputs": inputs})
