"""The ledger of a multi-trait scan, new or resumed, and the reports that are made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mpgls.commands.common.inputs import Study
from mpgls.commands.common.session import Session
from mpgls.commands.multi_trait_parts.config import MultiTraitConfig
from mpgls.commands.multi_trait_parts.plan import TilePlan
from mpgls.engine.dense_tiles import DenseTiles, TraitOrder
from mpgls.engine.parts import ScanPart
from mpgls.engine.trait_ledger import TraitLedger
from mpgls.model.trait_records import Pass, TraitRecords
from mpgls.report.multi_trait import LeftOut, TraitReport
from mpgls.run.world import World
from mpgls.stream.dense_store import DenseStore, create_dense, open_dense
from mpgls.stream.histogram_file import Histograms
from mpgls.stream.progress import remove_progress, save_progress
from mpgls.stream.store import fingerprint
from mpgls.study.trait_groups import TraitStudy

SUFFIXES = (
    ".h5",
    ".hits.tsv",
    ".hits.parquet",
    ".traits.tsv",
    ".loco.tsv",
    ".histograms.h5",
    ".histograms.h5.partial",
    ".hits.png",
    ".qq.png",
    ".progress",
)


@dataclass(frozen=True)
class ProgressFile:
    """The state of a run in its progress file."""

    path: Path
    mark: str

    def save(self, facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Replace what was saved before. Call on one rank."""
        save_progress(self.path, self.mark, (facts, arrays))


def open_ledger(
    config: MultiTraitConfig,
    study: Study,
    traits: TraitStudy,
    plan: TilePlan,
    edges: np.ndarray,
    parts: int,
    session: Session,
    world: World,
) -> TraitLedger:
    """The ledger of the run to resume, or of a new one. Collective. Raises InputError where other options were used."""
    sizes = {"block": plan.block, "panel": plan.panel, "resident": plan.resident}
    mark = fingerprint({"inputs": study.identities, "options": config.determines_results(), "sizes": sizes})
    records = TraitRecords.empty(parts, traits.flags)
    histograms = Histograms(session.path(".histograms.h5"))
    state = ProgressFile(session.path(".progress"), mark)

    def load() -> set[Pass]:
        nonlocal records, histograms
        found = session.progress_to_resume(state.path, mark)
        if found is None:
            return set()
        facts, arrays = found
        records, histograms = TraitRecords.of_arrays(arrays), Histograms.of_facts(histograms.path, facts["histograms"])
        session.log.info(f"resume: {len(records.passes)} pass(es) are done")
        return records.passes

    done = world.on_root(load)
    selection = study.selection
    index = world.comm.bcast(selection.index if selection is not None else None, root=0)
    dense = None
    if config.dense and traits.groups:
        path, names = session.path(".h5"), traits.matrix.names
        order = TraitOrder(traits.groups, len(names))

        def make() -> DenseStore:
            if done:
                return open_dense(path, mark)
            of_store = [names[trait] for trait in order.traits]
            return create_dense(
                path, index, plan.block, of_store, mark, config.test, order.group, plan.panel, study.genotypes(), edges
            )

        dense = DenseTiles(world.on_root(make), order, plan.panel, config.run.checkpoint, world)
    return TraitLedger(traits.matrix.names, index, done, records, histograms, state, dense, world)


def report(
    config: MultiTraitConfig,
    study: Study,
    traits: TraitStudy,
    parts: Sequence[ScanPart],
    ledger: TraitLedger,
    session: Session,
) -> dict[str, Any]:
    """Write hits, trait table, histograms and pictures; returns facts for the manifest. Collective."""
    names, dense, records = traits.matrix.names, ledger.dense, ledger.records
    if dense is not None:
        dense.close()

    def write() -> dict[str, Any]:
        ledger.histograms.finish(len(parts))
        variants = study.fileset.variants
        made = TraitReport(session.prefix, names, traits.samples, variants, records, ledger.histograms)
        files = made.write_tables()
        if files.note:
            session.log.info(files.note)
        if config.loco:
            made.write_loco([LeftOut(str(part.label), part.left_out) for part in parts])
            if dense is not None:
                dense.keep_means({name: records.mean(name) for name in ("h2", "h2_se", "s2")})
        hits, table = records.hits.size, session.path(".traits.tsv")
        session.log.info(f"{hits:,} hits with p <= {config.p_threshold:g}: {files.tsv}; traits: {table}")
        if config.plots:
            made.draw(ledger.index, config.p_threshold)
        remove_progress(session.path(".progress"))
        return {"hits": hits, "traits": len(names), "files": existing(session, files.parquet is not None)}

    return ledger.world.on_root(write)


def existing(session: Session, parquet: bool) -> list[str]:
    """The files that the run made."""
    made = [session.path(suffix) for suffix in SUFFIXES]
    return [str(path) for path in made if path.exists() and (path.suffix != ".parquet" or parquet)]
