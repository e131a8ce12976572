"""The results of a low-rank scan: one store for all traits, then the tables, plots and facts of single-trait."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mpgls.commands.inputs import Study
from mpgls.commands.low_rank_config import LowRankConfig
from mpgls.commands.low_rank_estimate import NullTable, Part
from mpgls.commands.low_rank_inputs import SampleSet
from mpgls.commands.results import loco_row, open_results, report_trait, tested_of_parts
from mpgls.commands.session import Session
from mpgls.errors import agree, on_root
from mpgls.model.gls import NullSums, degrees_of_freedom, fit_null
from mpgls.report.loco_table import write_loco
from mpgls.stream.store import RECORD_DTYPE, ResultStore, TraitPlace, save_attributes
from mpgls.stream.writer import BlockWriter
from mpgls.study.chromosomes import Chromosomes


class TraitWriter:
    """Writes blocks of records of one trait to their place in the store."""

    def __init__(self, store: ResultStore, place: TraitPlace, checkpoint: float) -> None:
        self.store, self.place = store, place
        item = RECORD_DTYPE.itemsize
        self._writer = BlockWriter(store.path, place.done_offset, store.block * item, checkpoint)

    def write(self, block: int, records: np.ndarray) -> None:
        """Start to write the records of a block."""
        first = self.store.block_range(block).start
        self._writer.write(block, self.place.records_offset + first * RECORD_DTYPE.itemsize, records)

    def close(self) -> None:
        """Sync, mark and close."""
        self._writer.close()


class LowRankResults:
    """The store and what is said of every trait. Creating it and its methods are collective.

    ``codes`` (blocks,) is the number of the chromosome of each block; ``checked`` what the check in double found.
    """

    def __init__(
        self,
        config: LowRankConfig,
        study: Study,
        chromosomes: Chromosomes,
        block: int,
        similarity: list[dict[str, Any]],
        session: Session,
    ) -> None:
        self.config, self.study, self.session = config, study, session
        self.labels = chromosomes.labels
        edges, self.codes = chromosomes.blocks(block)
        options = config.determines_results() | {"similarity": similarity}
        self.store = open_results(session, study, block, options=options, edges=edges)
        self.checked: dict[str, float] | None = None
        self.facts: dict[str, Any] = {}
        self._places = {place.name: place for place in self.store.traits}
        self._nulls: dict[tuple[str, int], dict[str, Any]] = {}

    def left(self, names: Sequence[str], part: Part) -> np.ndarray:
        """The blocks of ``part`` that some of the traits still lack."""
        done = np.all([self._places[name].done[part.blocks] != 0 for name in names], axis=0)
        return part.blocks[~done]

    def place(self, name: str) -> TraitPlace:
        """Where the results of a trait lie."""
        return self._places[name]

    def writers(self, names: Sequence[str]) -> list[TraitWriter]:
        """One writer for each trait. Raises StorageError on all ranks."""
        writers, error = [], None
        try:
            for name in names:
                writers.append(TraitWriter(self.store, self._places[name], self.session.options.checkpoint))
        except Exception as caught:
            error = caught
        agree(self.session.comm, error)
        return writers

    def keep_null(self, name: str, number: int, h2: float, sums: NullSums) -> None:
        """The null model of a trait without chromosome ``number``, kept in the store for a run that resumes."""
        null = fit_null(h2, sums)
        found = {"h2": h2, "s2": null.s2, "log_likelihood": null.log_likelihood}
        self._nulls[name, number] = found
        on_root(self.session.comm, lambda: save_attributes(self.store.path, name, found, number))

    def report(self, samples: SampleSet, parts: Sequence[Part], nulls: NullTable) -> None:
        """Tables, plots and facts of the traits of a finished sample set."""
        session, comm = self.session, self.session.comm
        df = degrees_of_freedom(samples.rows.size, samples.q)
        for j, name in enumerate(samples.traits):
            trait = [place.name for place in self.store.traits].index(name)
            models = [self._model(name, c, nulls, j) for c in range(len(parts))]
            with session.timings.phase("report"):
                facts = report_trait(session, self.study, self.store, trait, df, self.config.test, self.config.plots)
                if self.config.loco:
                    tested = tested_of_parts(self.store, trait, parts, comm)
                    rows = [loco_row(name, *each) for each in zip(parts, tested, models, strict=True)]
                    table = session.path(f".{name}.loco.tsv")
                    on_root(comm, lambda table=table, rows=rows: write_loco(table, rows))  # type: ignore[misc]
                    facts["loco_table"] = str(table)
            self.facts[name] = facts | {
                "n": samples.rows.size,
                "df": df,
                "covariates": list(samples.cohort.covariate_names),
                "funnel": samples.cohort.funnel,
                "similarity_snps": int(parts[0].kept.size),
                **({"loco": dict(zip(self.labels, models, strict=True))} if self.config.loco else models[0]),
                **(self.checked or {}),
            }

    def _model(self, name: str, number: int, nulls: NullTable, j: int) -> dict[str, Any]:
        """The null model of one trait without one chromosome, computed by this run or by the one that it resumes."""
        kept = self._nulls.get((name, number)) or self._places[name].kept(number)
        found = {"h2_se": float(nulls.h2_se[j, number]), "h2_at_boundary": bool(nulls.boundary[j, number])}
        return {key: float(value) for key, value in kept.items()} | found
