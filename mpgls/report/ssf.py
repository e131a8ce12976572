"""Summary statistics as GWAS-SSF 1.0, the GWAS Catalog's format, and the facts that go with them in YAML.

Hayhurst et al., "A community driven GWAS summary statistics standard", bioRxiv (2022). Columns and their order are the
format's: chromosome (1 to 22; 23 is X, 24 Y, 25 MT), base_pair_location, effect_allele, other_allele, beta,
standard_error, effect_allele_frequency, p_value or neg_log_10_p_value, then rsid, info and n, ``#NA`` where there is
none. A row that the format cannot hold is left out and counted: one without an estimate, with a standard error of 0, on
another chromosome, or whose alleles are no nucleotides.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpgls.mpi import on_root, together
from mpgls.report.genome_order import Run, in_genome_order, places_of, runs_of
from mpgls.report.shared_file import shared_file
from mpgls.report.table_formats import FACTS
from mpgls.report.table_lines import SsfFacts, Table
from mpgls.stream.files import write_text, writing
from mpgls.study.chromosome_names import canonical_chromosome
from mpgls.version import __version__

if TYPE_CHECKING:
    from mpi4py import MPI

LARGEST_LOG10P = 300.0
"""Beyond this p is near the smallest float64, and its logarithm is written instead."""
_LONGEST_ALLELE = 1000
_LONG = "LONG_STRING"
_NO_ESTIMATE, _CERTAIN = "without an estimate", "with a standard error of 0"
_NO_CHROMOSOME, _NO_ALLELES = "not on chromosomes 1 to 22, X, Y and MT", "with alleles that are no nucleotides"
_NO_POSITION = "with a negative position"
_NEEDED = ("CHR", "POS", "ID", "EA", "NEA", "EAF", "N", "BETA", "SE")
_HELD = {*_NEEDED, "STAT", "LOG10P", "P", "NOTE", "INFO"}
"""The columns that the format has, or that follow from others."""
_NONE = "#NA"


class Lines:
    """Turns the lines of a table with ``columns`` into those of GWAS-SSF; counts what is ``left_out``, by reason.

    ``samples`` is the largest N so far.
    """

    def __init__(self, columns: Sequence[str], facts: SsfFacts) -> None:
        self._at = {name: k for k, name in enumerate(columns)}
        self._p = "P" if facts.largest_log10p <= LARGEST_LOG10P else "LOG10P"
        self.left_out: Counter[str] = Counter()
        self.samples = 0

    @property
    def header(self) -> bytes:
        """The first line."""
        p = {"P": "p_value", "LOG10P": "neg_log_10_p_value"}[self._p]
        names = ["chromosome", "base_pair_location", "effect_allele", "other_allele", "beta", "standard_error",
                 "effect_allele_frequency", p, "rsid", *["info"] * ("INFO" in self._at), "n"]  # fmt: skip
        return "\t".join(names).encode() + b"\n"

    def convert(self, text: bytes) -> bytes:
        """The lines of ``text`` that the format can hold."""
        rows = (self._row(line.split("\t")) for line in text.decode().split("\n")[:-1])
        return "".join("\t".join(row) + "\n" for row in rows if row is not None).encode()

    def _row(self, fields: list[str]) -> list[str] | None:
        chrom, pos, name, ea, nea, eaf, n, beta, se = (fields[self._at[column]] for column in _NEEDED)
        number, alleles = _number(chrom), [_allele(ea), _allele(nea)]
        reasons = {
            _NO_ESTIMATE: beta == "NA",
            _CERTAIN: beta != "NA" and float(se) == 0,
            _NO_CHROMOSOME: number == "",
            _NO_POSITION: int(pos) < 0,
            _NO_ALLELES: "" in alleles,
        }
        reason = next((text for text, holds in reasons.items() if holds), None)
        if reason is not None:
            self.left_out[reason] += 1
            return None
        self.samples = max(self.samples, int(n))
        info = [_info(fields[self._at["INFO"]])] if "INFO" in self._at else []
        rsid = name if re.fullmatch(r"rs\d+", name) else _NONE
        return [number, pos, *alleles, beta, se, eaf, fields[self._at[self._p]], rsid, *info, n]


@lru_cache
def _number(chrom: str) -> str:
    """The chromosome as the format has it; nothing for one that it does not have. XY is part of X."""
    plain = canonical_chromosome(chrom)
    number = {"25": "23", "26": "25"}.get(plain, plain)
    return number if number in map(str, range(1, 26)) else ""


@lru_cache
def _allele(allele: str) -> str:
    """The allele as the format has it, nothing for one that it cannot hold."""
    if not re.fullmatch("[ACGT]+", allele, re.IGNORECASE):
        return ""
    return allele if len(allele) <= _LONGEST_ALLELE else _LONG


def _info(value: str) -> str:
    """From 0 to 1: MaCH's r2 may be larger by chance."""
    return _NONE if value == "NA" else value if float(value) <= 1 else "1"


@contextlib.contextmanager
def ssf_file(comm: MPI.Comm, path: Path, table: Table, notes: list[str]) -> Iterator[Callable[[bytes], None]]:
    """Takes the lines of each round; ``notes`` says which rows and columns are left out. Collective.

    Raises StorageError.
    """
    facts = table.ssf
    assert facts is not None
    lines, runs = Lines(table.columns, facts), list[Run]()
    with shared_file(comm, path) as file:

        def add(text: bytes) -> None:
            with together(comm):
                rows = lines.convert(text)
            runs.extend(runs_of(*places_of(rows), file.add(rows)))

        file.add_once(lines.header)
        yield add
    everywhere = comm.allgather((runs, lines.left_out, lines.samples))
    is_sorted = in_genome_order([run for part, _, _ in everywhere for run in part])
    samples = max(most for _, _, most in everywhere)
    on_root(comm, lambda: write_facts(path, facts, samples, is_sorted))
    left_out: Counter[str] = sum((part for _, part, _ in everywhere), Counter())
    if left_out:
        counts = ", ".join(f"{count:,} {reason}" for reason, count in left_out.most_common())
        notes.append(f"{path} has no rows of SNPs {counts}")
    further = [name for name in table.columns if name not in _HELD]
    if further:
        notes.append(f"{path} has not the columns {', '.join(further)}: GWAS-SSF has one effect and one test a SNP")


def write_facts(path: Path, facts: SsfFacts, samples: int, is_sorted: bool) -> None:
    """What the format wants to know of the table at ``path``: its -meta.yaml. On one rank. Raises StorageError."""
    entries: dict[str, Any] = {
        "date_metadata_last_modified": datetime.date.today().isoformat(),
        "trait_description": [facts.trait],
        "genome_assembly": f"GRCh{facts.build}" if facts.build else "NR",
        "coordinate_system": "1-based",
        "samples": {"sample_size": samples},
        "data_file_name": path.name,
        "file_type": "GWAS-SSF v1.0",
        "data_file_md5sum": _md5(path),
        "analysis_software": f"mpgls {__version__}",
        "adjusted_covariates": list(facts.covariates),
        "minor_allele_freq_lower_limit": facts.maf,
        "is_harmonised": False,
        "is_sorted": is_sorted,
    }
    write_text(f"{path}{FACTS}", _yaml({key: value for key, value in entries.items() if value != []}))


def _yaml(entries: dict[str, Any]) -> Iterator[str]:
    """The entries as YAML: texts as JSON has them are YAML as well."""
    for key, value in entries.items():
        if isinstance(value, dict):
            yield f"{key}:\n"
            yield from (f"{'-' if k == 0 else ' '} {name}: {one}\n" for k, (name, one) in enumerate(value.items()))
        elif isinstance(value, list):
            yield f"{key}:\n"
            yield from (f"- {json.dumps(one, ensure_ascii=False)}\n" for one in value)
        elif key.startswith("date"):
            yield f"{key}: {value}\n"
        else:
            yield f"{key}: {json.dumps(value, ensure_ascii=False)}\n"


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with writing(path), open(path, "rb") as file:
        while part := file.read(1 << 24):
            digest.update(part)
    return digest.hexdigest()
