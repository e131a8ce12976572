"""What a multi-trait scan keeps: hits, one row a trait, histograms of all tests, and if asked every estimate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mpgls.commands.common.inputs import Study
from mpgls.commands.common.session import Session
from mpgls.commands.mixed_model.loco import ScanPart
from mpgls.commands.multi_trait_parts.config import MultiTraitConfig
from mpgls.commands.multi_trait_parts.dense import DenseTiles
from mpgls.commands.multi_trait_parts.plan import TilePlan
from mpgls.commands.multi_trait_parts.tile_scan import ResidentPanel, RotatedBlock
from mpgls.commands.multi_trait_parts.trait_groups import TraitGroup, TraitStudy
from mpgls.model.histograms import lambda_gc_of_counts
from mpgls.model.tiles import Tile
from mpgls.mpi import on_root
from mpgls.report.hits import HIT_DTYPE, gather_hits, merge_hits, write_hits
from mpgls.report.hits_map import genome_of, hits_map, pooled_qq
from mpgls.report.loco_table import LocoRow, write_loco
from mpgls.report.trait_table import Flag, TraitRows, write_traits
from mpgls.stream.histogram_file import Histograms
from mpgls.stream.progress import remove_progress, save_progress
from mpgls.stream.store import fingerprint

if TYPE_CHECKING:
    from mpgls.model.tiles import Epilogue, TraitPanel

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
class NullEstimates:
    """h2, its standard error and REML log-likelihood (NaN where given), and whether it is at a boundary, each (t,)."""

    h2: np.ndarray
    h2_se: np.ndarray
    log_likelihood: np.ndarray
    at_boundary: np.ndarray


@dataclass
class TraitState:
    """What rank 0 knows of all t traits so far; saved after every pass, so that a run can resume.

    ``nulls`` (C, t) are the null models of each part: one, or one for each chromosome; ``tested`` (C, t) its SNPs with
    a p value. ``passes`` are the finished ones: part, group, first trait, and the trait after the last.
    """

    nulls: dict[str, np.ndarray]
    tested: np.ndarray
    log10p_max: np.ndarray
    best_row: np.ndarray
    flags: list[list[Flag]]
    histograms: Histograms
    hits: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=HIT_DTYPE))
    passes: set[tuple[int, int, int, int]] = field(default_factory=set)


class MultiResults:
    """Collects the results of all panels; rank 0 has the traits' rows, every rank its own hits.

    ``parts`` share a kinship each, and have blocks of SNPs between ``edges``. Creating it is collective. Positions of
    traits are those in the traits' file.
    """

    def __init__(
        self,
        config: MultiTraitConfig,
        study: Study,
        traits: TraitStudy,
        plan: TilePlan,
        parts: Sequence[ScanPart],
        edges: np.ndarray,
        session: Session,
    ) -> None:
        self.config, self.study, self.traits, self.session = config, study, traits, session
        self.parts, self.edges = parts, edges
        sizes = {"block": plan.block, "panel": plan.panel, "resident": plan.resident}
        self._mark = fingerprint({"inputs": study.identities, "options": config.determines_results(), "sizes": sizes})
        self._progress = session.path(".progress")
        self.state = on_root(session.comm, self._start)
        self._hits: list[np.ndarray] = []
        selection = study.selection
        self.index = session.comm.bcast(selection.index if selection is not None else None, root=0)
        self.dense: DenseTiles | None = None
        if config.dense and traits.groups:
            resumed = bool(self.state.passes)
            self.dense = DenseTiles(config, study, traits, plan, self.index, edges, self._mark, resumed, session)

    def _start(self) -> TraitState:
        """The state of the run to resume, or that of a new one."""
        session, t = self.session, len(self.traits.matrix.names)
        state = session.progress_to_resume(self._progress, self._mark)
        if state is not None:
            session.log.info(f"resume: {len(state.passes)} pass(es) are done")
            return state
        shape = len(self.parts), t
        nulls = {name: np.full(shape, np.nan) for name in ("h2", "h2_se", "s2", "log_likelihood")}
        best = np.full(t, np.nan), np.full(t, -1, dtype=np.int64)
        flags = [list(flags) for flags in self.traits.flags]
        return TraitState(
            nulls, np.zeros(shape, dtype=np.int64), *best, flags, Histograms(session.path(".histograms.h5"))
        )

    def is_done(self, c: int, g: int, panels: list[tuple[int, int]]) -> bool:
        """Whether these panels of group g were finished, for part c, by the run that this one resumes."""
        return (c, g, panels[0][0], panels[-1][1]) in self.state.passes

    # -- during the scan ------------------------------------------------------------------------------------------

    def keep_null_models(
        self, c: int, group: TraitGroup, first: int, estimate: NullEstimates, panel: TraitPanel
    ) -> None:
        """The null models of the traits first.. of a group, for the SNPs of part c."""
        at = group.traits[first : first + panel.t]
        s2 = panel.rss / (group.n - panel.q)
        nulls, flags = self.state.nulls, self.state.flags
        for name in ("h2", "h2_se", "log_likelihood"):
            nulls[name][c, at] = np.where(panel.testable, getattr(estimate, name), np.nan)
        nulls["s2"][c, at] = s2
        for trait, testable, boundary in zip(at, panel.testable, estimate.at_boundary, strict=True):
            flag = Flag.COLLINEAR if not testable else Flag.BOUNDARY if boundary else None
            if flag is not None and flag not in flags[trait]:
                flags[trait].append(flag)
        if self.dense is not None:
            df = np.full(at.size, panel_df(group.n, panel.q, self.config.test))
            h2, h2_se = nulls["h2"][c, at], nulls["h2_se"][c, at]
            self.dense.keep_null_models(at[0], {"h2": h2, "h2_se": h2_se, "s2": s2, "df": df})

    def take(self, one: ResidentPanel, group: TraitGroup, g: int, block: RotatedBlock, tile: Tile) -> None:
        """A finished tile: its best SNPs, histogram and hits, and the estimates themselves into the dense store."""
        beta = se = None
        B = block.snps.size
        if self.dense is not None and B:
            beta, se = self.dense.room(one.panel.t, B)
        one.epilogue.add(tile, block.snps, beta, se)
        self._keep_hits(one, group, block)
        if self.dense is not None and B:
            self.dense.write(one, group, g, block, tile.note)

    def _keep_hits(self, one: ResidentPanel, group: TraitGroup, block: RotatedBlock) -> None:
        found = one.epilogue.take_hits()
        if found.trait.size:
            hits = np.empty(found.trait.size, dtype=HIT_DTYPE)
            here = found.snp - block.snps[0]
            hits["trait"], hits["row"] = group.traits[one.first + found.trait], self.index[found.snp]
            hits["beta"], hits["se"], hits["log10p"] = found.beta, found.se, found.log10_p
            hits["n"], hits["eaf"] = block.stats.n_obs[here], block.stats.eaf[here]
            self._hits.append(hits)

    def finish_pass(
        self, panels: list[ResidentPanel], group: TraitGroup, c: int, g: int, of_pass: list[tuple[int, int]]
    ) -> None:
        """These panels saw all SNPs of part c: join the ranks' accumulators on rank 0 and save them. Collective."""
        comm, state = self.session.comm, self.state
        if self.dense is not None:
            self.dense.checkpoint()
        for one in panels:
            epilogue, at = one.epilogue, group.traits[one.first : one.first + one.panel.t]
            counts = np.zeros_like(epilogue.counts) if comm.rank == 0 else None
            comm.Reduce(epilogue.counts, counts, root=0)
            others = comm.gather((epilogue.best_x, epilogue.best_snp, epilogue.tests), root=0)
            if others is None or counts is None:
                continue
            for best_x, best_snp, tests in others[1:]:
                epilogue.absorb(best_x, best_snp, None, tests)
            state.tested[c, at] = np.where(one.panel.testable, epilogue.tests, 0)
            self._keep_best(at, epilogue)
            state.histograms.add([self.traits.matrix.names[trait] for trait in at], counts, epilogue.bins)
        hits = gather_hits(comm, np.concatenate([np.empty(0, dtype=HIT_DTYPE), *self._hits]))
        self._hits.clear()
        if hits is not None:
            state.hits = merge_hits([state.hits, hits])
        state.passes.add((c, g, of_pass[0][0], of_pass[-1][1]))
        on_root(comm, lambda: save_progress(self._progress, self._mark, state))

    def _keep_best(self, at: np.ndarray, epilogue: Epilogue) -> None:
        """The best SNP of each of the traits ``at``, over all parts; of equally good ones the first of the .bim."""
        state, log10p = self.state, epilogue.best_log10_p()
        seen = epilogue.best_snp >= 0
        row = np.where(seen, self.index[epilogue.best_snp], -1)
        known, known_row = state.log10p_max[at], state.best_row[at]
        better = seen & ((known_row < 0) | (log10p > known) | ((log10p == known) & (row < known_row)))
        state.log10p_max[at[better]], state.best_row[at[better]] = log10p[better], row[better]

    # -- at the end -----------------------------------------------------------------------------------------------

    def finish(self) -> dict[str, Any]:
        """Write hits, trait table, histograms and pictures; returns facts for the manifest. Collective."""
        comm, session = self.session.comm, self.session
        if self.dense is not None:
            self.dense.close()
        return on_root(comm, lambda: self._write(session))

    def _write(self, session: Session) -> dict[str, Any]:
        names, variants = self.traits.matrix.names, self.study.fileset.variants
        state, hits = self.state, self.state.hits
        files = write_hits(session.prefix, hits, names, variants)
        if files.note:
            session.log.info(files.note)
        state.histograms.finish(len(self.parts))
        means = {name: mean_over_parts(state.nulls[name], state.tested) for name in ("h2", "h2_se", "s2")}
        rows = TraitRows(
            names=names, n=self.traits.samples, tested=state.tested.sum(axis=0), log10p_max=state.log10p_max,
            best_row=state.best_row, hits=np.bincount(hits["trait"], minlength=len(names)), flags=state.flags,
            lambda_gc=self._lambda_gc(), **means,
        )  # fmt: skip
        table = session.path(".traits.tsv")
        write_traits(table, rows, variants)
        if self.config.loco:
            self._write_loco(means)
        session.log.info(f"{hits.size:,} hits with p <= {self.config.p_threshold:g}: {files.tsv}; traits: {table}")
        if self.config.plots:
            self._draw(hits, session)
        remove_progress(self._progress)
        return {"hits": int(hits.size), "traits": len(names), "files": self._files(files.parquet, session)}

    def _lambda_gc(self) -> np.ndarray:
        """Genomic inflation of each trait over all SNPs (t,), from its histogram; NaN for a trait without one."""
        position = {name: j for j, name in enumerate(self.traits.matrix.names)}
        found = np.full(len(position), np.nan)
        for bins, names, counts in self.state.histograms.rows_of_traits():
            found[[position[name] for name in names]] = lambda_gc_of_counts(counts, bins)
        return found

    def _write_loco(self, means: dict[str, np.ndarray]) -> None:
        """The null models of every trait without each chromosome; the dense store gets their means."""
        nulls, tested = self.state.nulls, self.state.tested
        write_loco(
            self.session.path(".loco.tsv"),
            (
                LocoRow(
                    name, str(part.label), part.left_out, int(tested[c, j]),
                    *(float(nulls[column][c, j]) for column in ("h2", "h2_se", "s2", "log_likelihood")),
                )
                for j, name in enumerate(self.traits.matrix.names)
                for c, part in enumerate(self.parts)
            ),
        )  # fmt: skip
        if self.dense is not None:
            self.dense.keep_means(means)

    def _draw(self, hits: np.ndarray, session: Session) -> None:
        names, variants = self.traits.matrix.names, self.study.fileset.variants
        title = Path(session.prefix).name
        genome = genome_of(variants, self.index)
        threshold = self.config.p_threshold
        hits_map(session.path(".hits.png"), title, hits, names, variants, genome, threshold)
        pooled_qq(session.path(".qq.png"), title, self.state.histograms.groups())

    def _files(self, parquet: Path | None, session: Session) -> list[str]:
        made = [session.path(suffix) for suffix in SUFFIXES]
        return [str(path) for path in made if path.exists() and (path.suffix != ".parquet" or parquet is not None)]


def mean_over_parts(values: np.ndarray, tested: np.ndarray) -> np.ndarray:
    """The mean of ``values`` (C, t) over the parts, each weighted by its SNPs ``tested`` (C, t): (t,)."""
    if len(values) == 1:
        return values[0]
    with np.errstate(invalid="ignore"):
        return (values * tested).sum(axis=0) / tested.sum(axis=0)


def panel_df(n: int, q: int, test: str) -> int:
    """Degrees of freedom of a SNP's test."""
    return n - q - 1 if test == "t" else n - q
