"""What a person reads of the scan of a trait: table, plots, null models by chromosome, and what the manifest says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mpgls.model import null_record
from mpgls.model.gls import FILTERS, NOTE_TEXT, Note
from mpgls.model.joint_fit import P_OF_JOINT
from mpgls.mpi import on_root, together
from mpgls.report.figure import draw_on_ranks
from mpgls.report.file_names import trait_parts
from mpgls.report.loco_table import LocoRow, write_loco
from mpgls.report.peaks_table import Signal, write_peaks
from mpgls.report.plots import manhattan, qq
from mpgls.report.summary import Summary, reduce_summary
from mpgls.report.table import ScanTable, VariantReader
from mpgls.report.table_formats import made_files, table_paths
from mpgls.report.table_lines import SsfFacts
from mpgls.stream.store import ResultStore, further_fields

if TYPE_CHECKING:
    from mpi4py import MPI

    from mpgls.study.variants import Variants


class Part(Protocol):
    """SNPs that share a null model: a chromosome, or (label None) all. Those of `mpgls.engine.parts` are such."""

    @property
    def label(self) -> str | None:
        """The chromosome."""

    @property
    def left_out(self) -> int:
        """SNPs that its model lost."""

    @property
    def blocks(self) -> np.ndarray:
        """The numbers of its blocks in the store."""


@dataclass
class ScanReport:
    """Writes the reports of finished traits in ``store``, and keeps what the manifest says of each.

    ``prefix`` of the files, ``formats`` of the tables; ``variants`` reads the .bim; ``say`` takes lines for the log.
    Methods are collective over ``comm``.
    """

    comm: MPI.Comm
    prefix: str
    formats: Sequence[str]
    store: ResultStore
    variants: VariantReader
    plots: bool
    say: Callable[[str], None]
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    tables: dict[str, Path] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)

    def trait(self, trait: int, parts: Sequence[Part], further: Mapping[str, Any]) -> None:
        """Table and plots of a trait that is scanned on all ``parts``; ``further`` facts go into the manifest.

        Raises StorageError on all ranks.
        """
        name = self.store.traits[trait].name
        facts = {**self._table(name, trait), **further}
        nulls = [self._null(trait, k) for k in range(len(parts))]
        self.facts[name] = facts | (nulls[0] if parts[0].label is None else self._loco(name, trait, parts, nulls))

    def peaks(self, trait: int, signals: Sequence[Signal]) -> None:
        """Table of the independent signals of a trait. Raises StorageError on all ranks."""
        name = self.store.traits[trait].name
        table = self._path(name, ".peaks.tsv")
        on_root(self.comm, lambda: write_peaks(table, signals, self.variants))
        self.tables[f"{name}.peaks"] = table
        self.facts[name] |= {"peaks": len(signals), "peaks_table": str(table)}
        self.say(f"{name}: {len(signals):,} independent signals; table {table}")

    @cached_property
    def _parts(self) -> dict[str, str]:
        """Of each trait its part in the names of files."""
        names = [place.name for place in self.store.traits]
        return dict(zip(names, trait_parts(names), strict=True))

    @property
    def _tested_by(self) -> str:
        """What stands before the p values that are summed up and drawn: of all columns of a SNP, if it has several."""
        return "joint " if P_OF_JOINT in further_fields(self.store.dtype) else ""

    def _path(self, name: str, suffix: str) -> Path:
        return Path(f"{self.prefix}.{self._parts[name]}{suffix}")

    def _null(self, trait: int, part: int) -> dict[str, Any]:
        """A null model as the manifest has it."""
        nulls = self.store.nulls
        effects, names = nulls.effects[trait][part].tolist(), nulls.covariates[trait]
        covariates = {name: [beta, se] for name, beta, se in zip(_told_apart(names), *effects, strict=True)}
        return null_record.facts(nulls.records[part, trait]) | {"covariates": covariates}

    def _table(self, name: str, trait: int) -> dict[str, Any]:
        """The table by all ranks, and the plots by one rank each."""
        store, summary, paths = self.store, Summary(), table_paths(self._path(name, ""), self.formats)
        df, test = int(store.nulls.records["df"][0, trait]), str(store.attributes["test"])
        rows = ScanTable(
            self.variants, lambda start, stop: store.read(trait, start, stop), store.count, df, test,
            store.index, further_fields(store.dtype), partial(_add, summary),
        )  # fmt: skip
        covariates = store.nulls.covariates[trait]
        for note in rows.write(self.comm, paths, SsfFacts.of(name, store.attributes["made_from"], covariates)):
            self.say(note)
        self.tables[name] = table = paths[self.formats[0]]
        self.files += on_root(self.comm, lambda: made_files(paths))
        whole = reduce_summary(self.comm, summary)
        facts = {} if whole is None else self._say(whole, name, table)
        return facts | (self._draw(whole, name) if self.plots else {})

    def _say(self, whole: Summary, name: str, table: Path) -> dict[str, Any]:
        """The best SNPs of a trait in the log; its facts for the manifest."""
        facts = _facts(whole) | {"table": str(table)}
        self.say(f"{name}: {_counts_text(whole)}; lambda GC {facts['lambda_gc']:.4f}; table {table}")
        for hit in whole.top_hits[:5]:
            tested = f"{self._tested_by}-log10 p {hit.log10p:.2f}"
            self.say(f"  {hit.id}  chr {hit.chrom}:{hit.pos}  {tested}  beta {hit.beta:.4g}")
        return facts

    def _draw(self, summary: Summary | None, name: str) -> dict[str, str]:
        """The plots of a trait, from the summary that rank 0 has; there, where each that was made is. Collective."""
        draws = {"manhattan": manhattan, "qq": qq}
        paths = {kind: self._path(name, f".{kind}.png") for kind in draws}
        title = f"{name}, {self._tested_by}test" if self._tested_by else name
        pictures = {
            paths[kind]: partial(draw, summary, title=title) for kind, draw in draws.items() if summary is not None
        }
        made = draw_on_ranks(self.comm, pictures, self.say)
        self.files += made
        return {kind: str(path) for kind, path in paths.items() if path in made}

    def _loco(self, name: str, trait: int, parts: Sequence[Part], nulls: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The table of the null models without each chromosome, and the same for the manifest."""
        tested, table = self._tested(trait, parts), self._path(name, ".loco.tsv")
        records = self.store.nulls.records[:, trait]
        rows = [
            LocoRow(
                name, str(part.label), part.left_out, count,
                *(float(records[column][k]) for column in ("h2", "h2_se", "s2", "log_likelihood")),
            )
            for k, (part, count) in enumerate(zip(parts, tested, strict=True))
        ]  # fmt: skip
        on_root(self.comm, lambda: write_loco(table, rows))
        self.files.append(table)
        models = {
            str(part.label): null | {"left_out": part.left_out, "tested": count}
            for part, null, count in zip(parts, nulls, tested, strict=True)
        }
        return {"loco_table": str(table), "loco": models}

    def _tested(self, trait: int, parts: Sequence[Part]) -> list[int]:
        """How many SNPs of each part have a p value; the blocks are dealt to ranks."""
        comm, tested = self.comm, np.zeros(len(parts), dtype=np.int64)
        with together(comm):
            for k, part in enumerate(parts):
                for block in part.blocks[comm.rank :: comm.size]:
                    snps = self.store.block_range(block)
                    tested[k] += np.count_nonzero(self.store.read(trait, snps.start, snps.stop)["note"] == Note.OK)
        comm.Allreduce(tested.copy(), tested)
        return tested.tolist()


def _add(summary: Summary, variants: Variants, records: np.ndarray, neg_log10_p: np.ndarray) -> None:
    """A batch into a summary, by the p values of the joint test where there is one."""
    joint = P_OF_JOINT in further_fields(records.dtype)
    summary.add(variants, records, records[P_OF_JOINT] if joint else neg_log10_p)


def _told_apart(names: Sequence[str]) -> list[str]:
    """``PC1`` of --covar and PC1 of --pcs as PC1 and PC1 (2), so that each has its own effect."""
    return [f"{name} ({names[: k + 1].count(name)})" if name in names[:k] else name for k, name in enumerate(names)]


def _facts(summary: Summary) -> dict[str, Any]:
    return {
        "rows": sum(count for note, count in summary.counts.items() if note not in FILTERS),
        "tested": summary.tested,
        "notes": {NOTE_TEXT[Note(note)]: count for note, count in summary.counts.items() if note != Note.OK and count},
        "lambda_gc": summary.lambda_gc(),
        "top": [hit._asdict() for hit in summary.top_hits[:10]],
    }


def _counts_text(summary: Summary) -> str:
    text = f"{summary.tested:,} SNPs tested"
    for note, count in summary.counts.items():
        if note != Note.OK and count:
            text += f", {count:,} {NOTE_TEXT[Note(note)]}"
    return text
