"""From the result store to what a person reads: table, plots, summary in the log and in the manifest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mpgls.commands.common.inputs import Study
from mpgls.commands.common.session import Session, refuse_overwriting
from mpgls.commands.mixed_model.loco import ScanPart
from mpgls.commands.mixed_model.null_figures import null_facts
from mpgls.errors import InputError
from mpgls.model.gls import NOTE_TEXT, Note
from mpgls.mpi import agree, on_root
from mpgls.report.loco_table import LocoRow, write_loco
from mpgls.report.plots import manhattan, qq
from mpgls.report.summary import Summary, reduce_summary
from mpgls.report.table import write_table
from mpgls.stream.store import ResultStore, create_store, fingerprint, open_store

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mpi4py import MPI


OUTPUTS_OF_TRAIT = (".tsv", ".loco.tsv", ".manhattan.png", ".qq.png")


def open_results(
    session: Session, study: Study, block: int, options: Mapping[str, Any], edges: np.ndarray
) -> ResultStore:
    """Create the result store, or open the one to resume. Collective.

    ``options`` are those that determine the results; ``edges`` are where blocks of at most ``block`` SNPs begin. Raises
    InputError when the store to resume belongs to others, UsageError when a table would overwrite an input. A fresh run
    removes the tables and plots of an earlier one.
    """
    path = session.path(".h5")
    mark = fingerprint({"command": session.command, "inputs": study.identities, "options": options})
    made = [str(session.path(f".{trait}{suffix}")) for trait in study.cohorts for suffix in OUTPUTS_OF_TRAIT]

    def make() -> ResultStore:
        refuse_overwriting(made, [identity["path"] for identity in study.identities])
        if session.options.resume and path.exists():
            store = open_store(path, mark)
            if store.block != block:
                raise InputError(
                    f"{path} was made in blocks of {store.block} SNPs, "
                    f"so it cannot be resumed with --block-size {block}"
                )
            done = sum(int(place.done.sum()) for place in store.traits)
            session.log.info(f"resume: {done:,} of {store.blocks * len(store.traits):,} blocks are done in {path}")
            return store
        if session.options.resume:
            session.log.info(f"resume: there is no {path}, so the run starts anew")
        for name in made:
            Path(name).unlink(missing_ok=True)
        assert study.selection is not None
        attributes = study.genotypes() | {"test": options["test"]}
        return create_store(path, study.selection.index, block, list(study.cohorts), mark, attributes, edges)

    return on_root(session.comm, make)


def stored_block(session: Session) -> int | None:
    """The block size of the store that this run resumes, if any."""
    path = session.path(".h5")
    return on_root(session.comm, lambda: open_store(path).block if session.options.resume and path.exists() else None)


def report_trait(
    session: Session, study: Study, store: ResultStore, trait: int, df: int, test: str, plots: bool
) -> dict[str, Any]:
    """Write the table (all ranks) and the plots (rank 0) of a finished trait; returns facts for the manifest."""
    comm, log, place = session.comm, session.log, store.traits[trait]
    table = session.path(f".{place.name}.tsv")
    summary = Summary()
    write_table(
        comm,
        table,
        study.fileset.variants,
        lambda start, stop: store.read(trait, start, stop),
        store.count,
        df,
        test,
        index=store.index,
        on_batch=summary.add,
    )
    whole = reduce_summary(comm, summary)
    if whole is None:
        return {}
    facts = _facts(whole) | {"table": str(table)}
    log.info(f"{place.name}: {_counts_text(whole)}; lambda GC {facts['lambda_gc']:.4f}; table {table}")
    for hit in whole.top_hits[:5]:
        log.info(f"  {hit.id}  chr {hit.chrom}:{hit.pos}  -log10 p {hit.log10p:.2f}  beta {hit.beta:.4g}")
    if plots:
        for name, draw in (("manhattan", manhattan), ("qq", qq)):
            picture = session.path(f".{place.name}.{name}.png")
            draw(whole, picture, place.name)
            facts[name] = str(picture)
    return facts


def tested_of_parts(store: ResultStore, trait: int, parts: Sequence[ScanPart], comm: MPI.Comm) -> list[int]:
    """How many SNPs of each part have a p value; the blocks are dealt to ranks. Collective. Raises StorageError."""
    tested, error = np.zeros(len(parts), dtype=np.int64), None
    try:
        for k, part in enumerate(parts):
            for block in part.blocks[comm.rank :: comm.size]:
                snps = store.block_range(block)
                tested[k] += np.count_nonzero(store.read(trait, snps.start, snps.stop)["note"] == Note.OK)
    except Exception as caught:
        error = caught
    agree(comm, error)
    comm.Allreduce(tested.copy(), tested)
    return tested.tolist()


def report_parts(
    session: Session,
    study: Study,
    store: ResultStore,
    trait: int,
    parts: Sequence[ScanPart],
    figures: Sequence[Mapping[str, Any]],
    test: str,
    plots: bool,
) -> dict[str, Any]:
    """Tables and plots of a finished trait, and its null models; returns facts for the manifest. Collective.

    ``figures`` are those of each part's null model (`null_figures`). Leaving chromosomes out makes a table of them.
    """
    name = store.traits[trait].name
    facts = report_trait(session, study, store, trait, int(figures[0]["df"]), test, plots)
    nulls = [null_facts(each) for each in figures]
    if parts[0].label is None:
        return facts | nulls[0]
    tested = tested_of_parts(store, trait, parts, session.comm)
    table = session.path(f".{name}.loco.tsv")
    rows = [_loco_row(name, *each) for each in zip(parts, tested, figures, strict=True)]
    on_root(session.comm, lambda: write_loco(table, rows))
    each_part = {
        str(part.label): null | {"left_out": part.left_out, "tested": count}
        for part, null, count in zip(parts, nulls, tested, strict=True)
    }
    return facts | {"loco_table": str(table), "loco": each_part}


def _loco_row(trait: str, part: ScanPart, tested: int, figures: Mapping[str, Any]) -> LocoRow:
    h2, h2_se, s2, likelihood = (float(figures.get(k, np.nan)) for k in ("h2", "h2_se", "s2", "log_likelihood"))
    return LocoRow(trait, str(part.label), part.left_out, tested, h2, h2_se, s2, likelihood)


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
