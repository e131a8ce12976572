"""What a multi-trait scan keeps: hits, one row a trait, histograms of all tests, and if asked every estimate."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mpgls.commands.inputs import Study
from mpgls.commands.multi_config import MultiTraitConfig
from mpgls.commands.plan_tiles import TilePlan
from mpgls.commands.session import Session
from mpgls.commands.tile_scan import ResidentPanel, RotatedBlock
from mpgls.commands.trait_groups import TraitGroup, TraitStudy
from mpgls.errors import StorageError, agree, on_root
from mpgls.model.histograms import lambda_gc_of_counts
from mpgls.model.tiles import Tile
from mpgls.report.hits import HIT_DTYPE, gather_hits, merge_hits, write_hits
from mpgls.report.hits_map import genome_of, hits_map, pooled_qq
from mpgls.report.trait_table import Flag, TraitRows, write_traits
from mpgls.stream.dense_store import DenseStore, create_dense, open_dense, save_trait_values
from mpgls.stream.histogram_file import Histograms
from mpgls.stream.progress import load_progress, remove_progress, save_progress
from mpgls.stream.store import fingerprint
from mpgls.stream.writer import BlockWriter

if TYPE_CHECKING:
    from mpgls.model.tiles import TraitPanel

SUFFIXES = (
    ".h5",
    ".hits.tsv",
    ".hits.parquet",
    ".traits.tsv",
    ".histograms.h5",
    ".histograms.h5.partial",
    ".hits.png",
    ".qq.png",
    ".progress",
)


@dataclass(frozen=True)
class NullEstimates:
    """h2, its standard error (NaN where given), and whether it is at a boundary, each (t,)."""

    h2: np.ndarray
    h2_se: np.ndarray
    at_boundary: np.ndarray


@dataclass
class TraitState:
    """What rank 0 knows of all t traits so far; saved after every pass, so that a run can resume.

    ``passes`` are the finished ones: group, first trait, and the trait after the last.
    """

    values: dict[str, np.ndarray]
    tested: np.ndarray
    best_row: np.ndarray
    flags: list[list[Flag]]
    histograms: Histograms
    hits: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=HIT_DTYPE))
    passes: set[tuple[int, int, int]] = field(default_factory=set)


class MultiResults:
    """Collects the results of all panels; rank 0 has the traits' rows, every rank its own hits.

    Creating it is collective. Positions of traits are those in the traits' file, except in the dense store, whose
    traits are in the order of the groups.
    """

    def __init__(
        self, config: MultiTraitConfig, study: Study, traits: TraitStudy, plan: TilePlan, session: Session
    ) -> None:
        self.config, self.study, self.traits, self.session = config, study, traits, session
        sizes = {"block": plan.block, "panel": plan.panel, "resident": plan.resident}
        self._mark = fingerprint({"inputs": study.identities, "options": config.determines_results(), "sizes": sizes})
        self._progress = session.path(".progress")
        self.state = on_root(session.comm, self._start)
        self._hits: list[np.ndarray] = []
        selection = study.selection
        self.index = session.comm.bcast(selection.index if selection is not None else None, root=0)
        self.dense: DenseStore | None = None
        self._writer: BlockWriter | None = None
        self._tile: tuple[np.ndarray, np.ndarray] | None = None
        if config.dense and traits.groups:
            self._open_dense(plan.block, plan.panel)

    def _start(self) -> TraitState:
        """The state of the run to resume, or that of a new one."""
        session, t = self.session, len(self.traits.matrix.names)
        state = load_progress(self._progress, self._mark) if session.options.resume else None
        if state is not None:
            session.log.info(f"resume: {len(state.passes)} pass(es) are done")
            return state
        if session.options.resume:
            session.log.info(f"resume: there is no {self._progress}, so the run starts anew")
        values = {name: np.full(t, np.nan) for name in ("h2", "h2_se", "s2", "lambda_gc", "log10p_max")}
        tested, best_row = np.zeros(t, dtype=np.int64), np.full(t, -1, dtype=np.int64)
        histograms = Histograms(session.path(".histograms.h5"))
        return TraitState(values, tested, best_row, [list(flags) for flags in self.traits.flags], histograms)

    def is_done(self, g: int, panels: list[tuple[int, int]]) -> bool:
        """Whether these panels of group g were finished by the run that this one resumes."""
        return (g, panels[0][0], panels[-1][1]) in self.state.passes

    # -- during the scan ------------------------------------------------------------------------------------------

    def keep_null_models(self, group: TraitGroup, first: int, estimate: NullEstimates, panel: TraitPanel) -> None:
        """The null models of the traits first.. of a group."""
        at = group.traits[first : first + panel.t]
        s2 = panel.rss / (group.n - panel.q)
        values, flags = self.state.values, self.state.flags
        values["h2"][at] = np.where(panel.testable, estimate.h2, np.nan)
        values["h2_se"][at] = np.where(panel.testable, estimate.h2_se, np.nan)
        values["s2"][at] = s2
        for trait, testable, boundary in zip(at, panel.testable, estimate.at_boundary, strict=True):
            if not testable:
                flags[trait].append(Flag.COLLINEAR)
            elif boundary:
                flags[trait].append(Flag.BOUNDARY)
        if self.dense is not None:
            path, start = self.dense.path, self._dense_first(at[0])
            df = np.full(at.size, panel_df(group.n, panel.q, self.config.test))
            h2, h2_se = values["h2"][at], values["h2_se"][at]
            on_root(self.session.comm, lambda: save_trait_values(path, start, h2=h2, h2_se=h2_se, s2=s2, df=df))

    def take(self, one: ResidentPanel, group: TraitGroup, g: int, block: RotatedBlock, tile: Tile) -> None:
        """A finished tile: its best SNPs, histogram and hits, and the estimates themselves into the dense store."""
        beta = se = None
        B = block.snps.size
        if self._writer is not None and self._tile is not None and B:
            beta, se = (out[: one.panel.t, :B] for out in self._tile)
        one.epilogue.add(tile, block.snps, beta, se)
        self._keep_hits(one, group, block)
        if beta is not None:
            self._write_tile(one, group, g, block, tile.note)

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
        self, panels: list[ResidentPanel], group: TraitGroup, g: int, of_pass: list[tuple[int, int]]
    ) -> None:
        """All SNPs were seen by these panels: join the ranks' accumulators on rank 0 and save them. Collective."""
        comm, state = self.session.comm, self.state
        if self._writer is not None:
            self._writer.checkpoint()
        for one in panels:
            epilogue, at = one.epilogue, group.traits[one.first : one.first + one.panel.t]
            counts = np.zeros_like(epilogue.counts) if comm.rank == 0 else None
            comm.Reduce(epilogue.counts, counts, root=0)
            others = comm.gather((epilogue.best_x, epilogue.best_snp, epilogue.tests), root=0)
            if others is None or counts is None:
                continue
            for best_x, best_snp, tests in others[1:]:
                epilogue.absorb(best_x, best_snp, None, tests)
            state.values["lambda_gc"][at] = lambda_gc_of_counts(counts, epilogue.bins)
            state.values["log10p_max"][at] = epilogue.best_log10_p()
            state.tested[at] = np.where(one.panel.testable, epilogue.tests, 0)
            seen = epilogue.best_snp >= 0
            state.best_row[at[seen]] = self.index[epilogue.best_snp[seen]]
            state.histograms.add([self.traits.matrix.names[trait] for trait in at], counts, epilogue.bins)
        hits = gather_hits(comm, np.concatenate([np.empty(0, dtype=HIT_DTYPE), *self._hits]))
        self._hits.clear()
        if hits is not None:
            state.hits = merge_hits([state.hits, hits])
        state.passes.add((g, of_pass[0][0], of_pass[-1][1]))
        on_root(comm, lambda: save_progress(self._progress, self._mark, state))

    # -- the dense store ------------------------------------------------------------------------------------------

    def _open_dense(self, block: int, panel: int) -> None:
        comm, traits, config = self.session.comm, self.traits, self.config
        order = np.concatenate([group.traits for group in traits.groups])
        of_group = np.repeat(np.arange(len(traits.groups)), [group.traits.size for group in traits.groups])
        names = [traits.matrix.names[trait] for trait in order]
        self._dense_position = np.full(len(traits.matrix.names), -1, dtype=np.int64)
        self._dense_position[order] = np.arange(order.size)
        where = {"bfile": os.path.abspath(config.study.bfile), "bim_rows": self.study.fileset.variants.count}
        path, mark = self.session.path(".h5"), self._mark

        def make() -> DenseStore:
            if self.state.passes:
                return open_dense(path, mark)
            return create_dense(path, self.index, block, names, mark, config.test, of_group, panel, where)

        self.dense = on_root(comm, make)
        self._tile = tuple(np.full((panel, block), np.nan, dtype=np.float32) for _ in range(2))  # type: ignore[assignment]
        error = None
        try:
            self._writer = BlockWriter(
                self.dense.path, self.dense.offsets["done"], 4 * panel * block, self.session.options.checkpoint
            )
        except StorageError as caught:
            error = caught
        agree(comm, error)

    def _dense_first(self, trait: int) -> int:
        return int(self._dense_position[trait])

    def _write_tile(self, one: ResidentPanel, group: TraitGroup, g: int, block: RotatedBlock, note: np.ndarray) -> None:
        """Start to write a tile's effects and standard errors; it is marked done when both are on disk."""
        assert self.dense is not None and self._writer is not None and self._tile is not None
        first = self._dense_first(group.traits[one.first])
        panel = int(np.searchsorted(self.dense.panels[:, 1], first, side="right"))
        if one.first == 0:
            self.dense.write_snps(g, block.k, block.stats.eaf, block.stats.n_obs, note)
        for name, mark, tile in zip(("beta", "se"), (None, self.dense.mark(panel, block.k)), self._tile, strict=True):
            tile[:, block.snps.size :] = np.nan
            self._writer.write(mark, self.dense.tile_offset(name, block.k, first), tile[: one.panel.t])

    # -- at the end -----------------------------------------------------------------------------------------------

    def finish(self) -> dict[str, Any]:
        """Write hits, trait table, histograms and pictures; returns facts for the manifest. Collective."""
        comm, session = self.session.comm, self.session
        if self._writer is not None:
            self._writer.close()
        return on_root(comm, lambda: self._write(session))

    def _write(self, session: Session) -> dict[str, Any]:
        names, variants = self.traits.matrix.names, self.study.fileset.variants
        state, hits = self.state, self.state.hits
        files = write_hits(session.prefix, hits, names, variants)
        if files.note:
            session.log.info(files.note)
        rows = TraitRows(
            names=names, n=self.traits.samples, tested=state.tested, best_row=state.best_row,
            hits=np.bincount(hits["trait"], minlength=len(names)), flags=state.flags, **state.values,
        )  # fmt: skip
        table = session.path(".traits.tsv")
        write_traits(table, rows, variants)
        state.histograms.finish()
        session.log.info(f"{hits.size:,} hits with p <= {self.config.p_threshold:g}: {files.tsv}; traits: {table}")
        if self.config.plots:
            self._draw(hits, session)
        remove_progress(self._progress)
        return {"hits": int(hits.size), "traits": len(names), "files": self._files(files.parquet, session)}

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


def panel_df(n: int, q: int, test: str) -> int:
    """Degrees of freedom of a SNP's test."""
    return n - q - 1 if test == "t" else n - q
