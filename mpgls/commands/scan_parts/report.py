"""From the result store to what a person reads: table, plots, summary in the log and in the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mpgls.engine.mixed_check import MixedCheck
from mpgls.engine.parts import ScanPart
from mpgls.model import null_record
from mpgls.model.gls import NOTE_TEXT, Note
from mpgls.report.loco_table import LocoRow, write_loco
from mpgls.report.plots import manhattan, qq
from mpgls.report.summary import Summary, reduce_summary
from mpgls.report.table import write_table
from mpgls.run.job import Job
from mpgls.run.slots import ScanLedger
from mpgls.study.plink import Fileset


@dataclass
class ScanReport:
    """Writes the finished traits of a scan, and keeps what the manifest says of each. Its methods are collective."""

    job: Job
    ledger: ScanLedger
    fileset: Fileset
    test: str
    plots: bool
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    tables: dict[str, Path] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    checks: dict[int, MixedCheck] = field(default_factory=dict)

    def note_check(self, trait: int, found: MixedCheck | None) -> None:
        """Note what a check of mixed precision found on one part; the manifest has the largest of all."""
        if found is not None:
            self.checks[trait] = found.larger(self.checks.get(trait, found))

    def trait(self, trait: int, parts: Sequence[ScanPart], **further: Any) -> None:
        """Table and plots of a trait that is scanned on all ``parts``; ``further`` facts go into the manifest."""
        name = self.ledger.traits[trait]
        with self.job.world.phase("report"):
            checked = self.checks[trait].facts() if trait in self.checks else {}
            facts = self._table(trait) | checked | further
            nulls = [self._null(trait, k) for k in range(len(parts))]
            if parts[0].label is None:
                self.facts[name] = facts | nulls[0]
            else:
                self.facts[name] = facts | self._loco(trait, parts, nulls)

    def _null(self, trait: int, part: int) -> dict[str, Any]:
        """A null model as the manifest has it."""
        effects = self.ledger.effects[trait][part]
        names = self.ledger.store.nulls.covariates[trait]
        covariates = {name: [beta, se] for name, beta, se in zip(names, *effects.tolist(), strict=True)}
        return null_record.facts(self.ledger.nulls[part, trait]) | {"covariates": covariates}

    def _table(self, trait: int) -> dict[str, Any]:
        """The table by all ranks, the plots by rank 0."""
        job, store, world = self.job, self.ledger.store, self.job.world
        name, df = self.ledger.traits[trait], int(self.ledger.nulls["df"][0, trait])
        table, summary = job.path(f".{name}.tsv"), Summary()
        write_table(
            world.comm, table, self.fileset.variants, lambda start, stop: store.read(trait, start, stop), store.count,
            df, self.test, index=store.index, on_batch=summary.add,
        )  # fmt: skip
        self.tables[name] = table
        whole = reduce_summary(world.comm, summary)
        pictures = {kind: job.path(f".{name}.{kind}.png") for kind in (("manhattan", "qq") if self.plots else ())}
        self.files += pictures.values()
        if whole is None:
            return {}
        facts = _facts(whole) | {"table": str(table)} | {kind: str(path) for kind, path in pictures.items()}
        world.log.info(f"{name}: {_counts_text(whole)}; lambda GC {facts['lambda_gc']:.4f}; table {table}")
        for hit in whole.top_hits[:5]:
            world.log.info(f"  {hit.id}  chr {hit.chrom}:{hit.pos}  -log10 p {hit.log10p:.2f}  beta {hit.beta:.4g}")
        for kind, draw in (("manhattan", manhattan), ("qq", qq)) if self.plots else ():
            draw(whole, pictures[kind], name)
        return facts

    def _loco(self, trait: int, parts: Sequence[ScanPart], nulls: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The table of the null models without each chromosome, and the same for the manifest."""
        job, name = self.job, self.ledger.traits[trait]
        tested = self._tested(trait, parts)
        table = job.path(f".{name}.loco.tsv")
        rows = [
            LocoRow(
                name, str(part.label), part.left_out, count,
                *(float(self.ledger.nulls[column][k, trait]) for column in ("h2", "h2_se", "s2", "log_likelihood")),
            )
            for k, (part, count) in enumerate(zip(parts, tested, strict=True))
        ]  # fmt: skip
        job.world.on_root(lambda: write_loco(table, rows))
        self.files.append(table)
        models = {
            str(part.label): null | {"left_out": part.left_out, "tested": count}
            for part, null, count in zip(parts, nulls, tested, strict=True)
        }
        return {"loco_table": str(table), "loco": models}

    def _tested(self, trait: int, parts: Sequence[ScanPart]) -> list[int]:
        """How many SNPs of each part have a p value; the blocks are dealt to ranks."""
        store, world = self.ledger.store, self.job.world
        tested = np.zeros(len(parts), dtype=np.int64)
        with world.together():
            for k, part in enumerate(parts):
                for block in part.blocks[world.rank :: world.size]:
                    snps = store.block_range(block)
                    tested[k] += np.count_nonzero(store.read(trait, snps.start, snps.stop)["note"] == Note.OK)
        world.comm.Allreduce(tested.copy(), tested)
        return tested.tolist()


def _facts(summary: Summary) -> dict[str, Any]:
    return {
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
