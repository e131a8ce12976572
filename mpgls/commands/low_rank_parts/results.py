"""The results of a low-rank scan: one store for all traits, then the tables, plots and facts of single-trait."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mpgls.commands.common.inputs import Study
from mpgls.commands.common.session import Session
from mpgls.commands.low_rank_parts.config import LowRankConfig
from mpgls.commands.low_rank_parts.estimate import SimilarityPart
from mpgls.commands.low_rank_parts.inputs import SampleSet
from mpgls.commands.mixed_model.null_figures import keep, null_figures
from mpgls.commands.mixed_model.records import Records
from mpgls.commands.mixed_model.results import open_results, report_parts
from mpgls.model.gls import NullSums
from mpgls.stream.store import TraitPlace
from mpgls.study.chromosomes import Chromosomes


class LowRankResults:
    """The store and what is said of every trait. Creating it and its methods are collective.

    ``figures`` are those of each null model, by trait and part; ``checked`` is what the check in double found, with
    K x K matrices; ``facts`` of each trait go into the manifest.
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
        edges, _ = chromosomes.blocks(block)
        options = config.determines_results() | {"similarity": similarity}
        self.store = open_results(session, study, block, options=options, edges=edges)
        self.checked: dict[str, float] = {}
        self.facts: dict[str, Any] = {}
        self._position = {place.name: k for k, place in enumerate(self.store.traits)}
        self.figures: dict[tuple[str, int | None], dict[str, Any]] = {}

    def place(self, name: str) -> TraitPlace:
        """Where the results of a trait lie, and what was kept of it by the run that this one resumes."""
        return self.store.traits[self._position[name]]

    def records(self, names: Sequence[str]) -> Records:
        """Where the effects on these traits go."""
        places = [self.place(name) for name in names]
        return Records(self.store, places, self.config.study.snps, self.session.options.checkpoint)

    def keep_null(
        self, name: str, part: SimilarityPart, samples: SampleSet, estimate: dict[str, Any], sums: NullSums
    ) -> None:
        """The null model of a trait for the SNPs of a part, kept in the store for a run that resumes."""
        figures = estimate | null_figures(estimate["h2"], sums, samples.cohort.covariate_names)
        self.figures[name, part.number] = figures
        keep(self.store, self.place(name), part, figures, self.session)

    def report(self, samples: SampleSet, parts: Sequence[SimilarityPart]) -> None:
        """Tables, plots and facts of the traits of a finished sample set."""
        for name in samples.traits:
            figures = [self.figures.get((name, p.number)) or self.place(name).kept(p.number) for p in parts]
            with self.session.timings.phase("report"):
                self.facts[name] = report_parts(
                    self.session, self.study, self.store, self._position[name], parts, figures, self.config.test,
                    self.config.plots,
                )  # fmt: skip
            self.facts[name] |= {
                "n": samples.rows.size,
                "funnel": samples.cohort.funnel,
                "similarity_snps": int(parts[0].kept.size),
                **self.checked,
            }
