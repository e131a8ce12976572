"""The stream of SNPs through one basis and many traits: [Elem] Algorithms 5-7 on teams of ranks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from mpgls.engine.panel_decoder import PanelDecoder
from mpgls.engine.refit import Refit
from mpgls.engine.snp_stream import SnpStream
from mpgls.la.teams import Team, TeamOperator
from mpgls.model.epilogue import Epilogue, Hits
from mpgls.model.gls import SnpTest
from mpgls.model.h2_basis import TOLERANCE
from mpgls.model.hits import hit_dtype, merge_hits, no_hits
from mpgls.model.tiles import Partial, Tile, TraitPanel
from mpgls.model.trait_records import PanelTotals
from mpgls.model.work import Work
from mpgls.run.world import World
from mpgls.stream.scratch import ScratchFile
from mpgls.study.count_filters import Dropped
from mpgls.study.genotype_files import Genotypes
from mpgls.study.reasons import Reasons
from mpgls.study.snp_columns import ONE_COLUMN, SnpColumns
from mpgls.study.snp_stats import SnpStats

if TYPE_CHECKING:
    from mpi4py import MPI

    from mpgls.engine.dense_tiles import DenseTiles
    from mpgls.engine.eigenbasis import Eigenbasis


@dataclass(frozen=True, eq=False)
class SnpBlocks:
    """The selected SNPs, .bim rows ``index`` (m,): block k has the positions ``edges[k]`` to ``edges[k+1] - 1``."""

    index: np.ndarray
    edges: np.ndarray

    def take(self, numbers: Sequence[int]) -> OwnBlocks:
        """Some blocks, in this order; -1 is none."""
        first = [int(self.edges[k]) if k >= 0 else 0 for k in numbers]
        rows = [self.index[self.edges[k] : self.edges[k + 1]] if k >= 0 else self.index[:0] for k in numbers]
        return OwnBlocks(numbers, first, rows)

    def sample(self, numbers: np.ndarray, count: int) -> np.ndarray:
        """At most ``count`` evenly spaced SNPs of the blocks ``numbers``, .bim rows, no more than are in a block."""
        at = np.concatenate([np.arange(self.edges[k], self.edges[k + 1]) for k in numbers])
        count = min(count, int(np.diff(self.edges)[numbers].max()))
        return self.index[at[np.linspace(0, at.size - 1, count).astype(np.int64)]]


@dataclass(frozen=True, eq=False)
class OwnBlocks:
    """A rank's blocks of SNPs, one a step: their ``numbers``, -1 in a step without one, and .bim ``rows``.

    ``first`` are the positions of their first SNPs among all selected SNPs.
    """

    numbers: Sequence[int]
    first: Sequence[int]
    rows: Sequence[np.ndarray]

    @property
    def snps(self) -> int:
        """SNPs of all blocks."""
        return sum(map(len, self.rows))


class RotatedBlock(NamedTuple):
    """A block of SNPs in the eigenbasis: its number (-1: none), the position of its first SNP, .bim rows, counts, X~.

    ``X_tilde_team`` are the rows of X~ = Z'X that this rank holds, for the SNPs of its whole team; or all rows for its
    own SNPs, on its card.
    """

    number: int
    first: int
    rows: np.ndarray
    stats: SnpStats
    X_tilde_team: Any

    @property
    def snps(self) -> np.ndarray:
        """Positions among the selected SNPs."""
        return np.arange(self.first, self.first + len(self.rows))


class RotatedBlocks(Protocol):
    """The blocks of this rank, rotated, in one pass after the other."""

    @property
    def blocks(self) -> OwnBlocks:
        """Of the SNPs."""

    def __iter__(self) -> Iterator[RotatedBlock]: ...


class RotatedSnps:
    """The blocks of this rank, rotated: X~ = Z'X from the genotypes in the first pass, from ``scratch`` afterwards.

    ``blocks`` are as many as the other ranks of its team have; ``samples`` (n,) are the .fam rows of the analysis;
    ``columns`` are those of each SNP, one of them.
    Making it is collective; iterating is over a team.
    """

    def __init__(
        self,
        bed: Genotypes,
        blocks: OwnBlocks,
        samples: np.ndarray,
        Z_team: TeamOperator,
        scratch: ScratchFile | None,
        world: World,
        columns: SnpColumns = ONE_COLUMN,
    ) -> None:
        self.blocks, self.Z_team, self.scratch, self.world = blocks, Z_team, scratch, world
        self.n = samples.size
        self._decoder = PanelDecoder(Z_team, samples, bed, world, columns)
        self._stream: SnpStream | None = SnpStream(bed, blocks.rows, world)
        self._stats: list[SnpStats] = []

    def __iter__(self) -> Iterator[RotatedBlock]:
        of, source = self.blocks, self._from_scratch() if self._stream is None else self._from_genotypes(self._stream)
        for step, (stats, X_tilde_team) in enumerate(source):
            yield RotatedBlock(of.numbers[step], of.first[step], of.rows[step], stats, X_tilde_team)

    def _from_genotypes(self, stream: SnpStream) -> Iterator[tuple[SnpStats, np.ndarray]]:
        world, Z_team = self.world, self.Z_team
        for _, packed in stream:
            stats = self._decoder.decode(packed)
            with world.phase("rotate SNPs", flop=2.0 * self.n**2 * len(packed)):
                X_tilde_team = Z_team.apply()  # X~ = Z'X
            if self.scratch is not None:
                self._stats.append(stats)
                with world.phase("scratch", nbytes=X_tilde_team.nbytes):
                    self.scratch.write(X_tilde_team)
            yield stats, X_tilde_team
        if self.scratch is not None:
            self.scratch.finish_writing()
            self._stream = None

    def _from_scratch(self) -> Iterator[tuple[SnpStats, np.ndarray]]:
        assert self.scratch is not None
        stream = self.scratch.read()
        for stats in self._stats:
            with self.world.phase("scratch") as reading:
                X_tilde_team = next(stream)
                reading.nbytes += X_tilde_team.nbytes
            yield stats, X_tilde_team


@contextlib.contextmanager
def scratch_file(directory: Path | None, name: str, Z_team: TeamOperator, world: World) -> Iterator[ScratchFile | None]:
    """This rank's file NAME.scratch.RANK for rotated SNPs, removed in the end; None without a ``directory``.

    Collective. Raises StorageError on all ranks.
    """
    if directory is None:
        yield None
        return
    with world.together():
        shape = Z_team.rows.size, Z_team.columns
        scratch = ScratchFile(directory / f"{name}.scratch.{world.rank}", shape, Z_team.dtype)
    try:
        yield scratch
    finally:
        scratch.remove()


@dataclass(frozen=True)
class TileTest:
    """How SNPs are tested on traits, and the largest p of a hit.

    ``refit_p``: the largest p by the null model's ratio of a pair that is fitted anew; None: no pair is.
    """

    test: SnpTest
    p_threshold: float
    refit_p: float | None = None

    def panel(self, basis: Eigenbasis, Y_tilde_rep: np.ndarray, nulls: np.ndarray) -> TraitPanel:
        """What the SNPs need to know of the traits Y~ (n, t), whose null models (t,) have h2."""
        h2 = np.nan_to_num(nulls["h2"])  # that of a trait without one is flagged, and any value will do in the tiles
        tolerance = TOLERANCE[self.test.precision]
        return TraitPanel(basis.lam, basis.X_L_tilde_rep, Y_tilde_rep, h2, self.test.dtype, tolerance)

    def epilogue(self, panel: TraitPanel, work: Work) -> Epilogue:
        """What is kept of a panel's tiles; those that are used in turn share ``work``."""
        return Epilogue(panel.rss, panel.n, panel.q, self.test.test, self.p_threshold, work=work, refit_p=self.refit_p)


@dataclass
class ResidentPanel:
    """A panel of traits on this rank: its rows, and what is kept of its tiles.

    ``traits`` (t,) are the positions of its traits in their file, ``first`` that of the first one in its ``group``;
    ``local`` are its rows, on this rank or its card. ``refit`` fits pairs anew, if that is asked for, ``refitted`` of
    them so far.
    """

    group: int
    first: int
    traits: np.ndarray
    panel: TraitPanel
    local: Any
    epilogue: Epilogue
    refit: Refit | None = None
    refitted: int = 0
    hits: list[np.ndarray] = field(default_factory=list)

    @property
    def fields(self) -> tuple[str, ...]:
        """What a hit has beyond the usual fields."""
        return self.refit.fields if self.refit is not None else ()

    def take(self, block: RotatedBlock, tile: Tile, dense: DenseTiles | None, world: World) -> None:
        """A finished tile: its best SNPs, histogram and hits, and the estimates themselves into the dense store.

        Collective over the team.
        """
        B = len(block.rows)
        estimates = dense.room(self.panel.t, B) if dense is not None and B else {}
        with world.phase("epilogue"):
            self.epilogue.add(tile, block.snps, estimates.get("beta"), estimates.get("se"))
            found = self.epilogue.take_hits()
        if self.refit is not None:
            with world.phase("refits"):
                found = self._fit_anew(self.refit, block, found, estimates)
        self.keep(block, found)
        if dense is not None and B:
            self.write(block, tile.note, dense)

    def keep(self, block: RotatedBlock, found: Hits) -> None:
        """The hits of a tile."""
        if found.trait.size:
            hits, here = np.empty(found.trait.size, dtype=hit_dtype(self.fields)), found.snp - block.first
            hits["trait"], hits["row"] = self.traits[found.trait], block.rows[here]
            hits["beta"], hits["se"], hits["log10p"] = found.beta, found.se, found.log10_p
            hits["n"], hits["eaf"] = block.stats.n_obs[here], block.stats.eaf[here]
            hits["info"] = block.stats.info[here]
            for name, values in found.ratio.items():
                hits[name] = values
            self.hits.append(hits)

    def write(self, block: RotatedBlock, note: np.ndarray, dense: DenseTiles) -> None:
        """The tile that lies in the room of the dense store; ``note`` (B,) are those of the SNPs."""
        if self.first == 0:
            dense.write_snps(block.number, self.group, block.stats, note)
        dense.write(block.number, self.traits, len(block.rows))

    def _fit_anew(self, refit: Refit, block: RotatedBlock, found: Hits, estimates: dict[str, np.ndarray]) -> Hits:
        """Those of the nominated pairs that are hits by their own ratio, which all of them have from now on."""
        found = refit.anew(block.X_tilde_team, block.first, found)
        self.epilogue.settle(found.trait, found.snp, found.x)
        self.refitted += found.trait.size
        at = found.trait, found.snp - block.first
        for name, tile in estimates.items():
            tile[at] = found.ratio[name] if name in found.ratio else getattr(found, name)
        return found.some(found.x >= self.epilogue.threshold)

    def totals(self, index: np.ndarray, comm: MPI.Comm) -> PanelTotals | None:
        """What all ranks saw, on rank 0; None elsewhere. Collective. ``index`` are the .bim rows of selected SNPs."""
        epilogue = self.epilogue
        counts = np.zeros_like(epilogue.counts) if comm.rank == 0 else None
        comm.Reduce(epilogue.counts, counts, root=0)
        others = comm.gather((epilogue.best_x, epilogue.best_snp, epilogue.tests), root=0)
        if others is None or counts is None:
            return None
        for best_x, best_snp, tests in others[1:]:
            epilogue.absorb(best_x, best_snp, None, tests)
        tested = np.where(self.panel.testable, epilogue.tests, 0)
        best_row = np.where(epilogue.best_snp >= 0, index[epilogue.best_snp], -1)
        return PanelTotals(self.traits, tested, best_row, epilogue.best_log10_p(), counts, epilogue.bins)


class PassTiles(Protocol):
    """The tiles of a pass: its ``panels`` take the blocks of SNPs."""

    @property
    def panels(self) -> Sequence[ResidentPanel]:
        """Of its traits."""

    def take(self, block: RotatedBlock) -> np.ndarray:
        """A block against every panel; returns the notes of its SNPs. Collective over the team."""

    def finish(self) -> None:
        """All blocks were taken: what is kept of the tiles lies with the panels."""


@dataclass(frozen=True)
class TilesOnRanks:
    """Tiles of the rows that the ranks of a team hold of X~ and of the traits; ``Z_team`` sums over them."""

    panels: Sequence[ResidentPanel]
    Z_team: TeamOperator
    reasons: Reasons
    dense: DenseTiles | None
    world: World

    def take(self, block: RotatedBlock) -> np.ndarray:
        """As `PassTiles.take`."""
        B, stats, n = len(block.rows), block.stats, self.panels[0].panel.n
        for one in self.panels:
            with self.world.phase("tiles", flop=2.0 * n * B * one.panel.t):
                partial = one.local.partial_products(block.X_tilde_team)  # R = (W o E~)'X~, and the sums at the nodes
                partial = Partial(*(self.Z_team.sum_over_rows(sums)[:, :B] for sums in partial))
                tile = one.panel.finish(partial, n * stats.variance)  # d = B'D
            note = self.reasons.notes(tile.note, stats, block.rows)
            one.take(block, Tile(tile.R, tile.d, note), self.dense, self.world)
        return note

    def finish(self) -> None:
        """The panels have it all."""


def scan_tiles(blocks: RotatedBlocks, tiles: PassTiles, team: Team, world: World, label: str) -> None:
    """Every block of SNPs against every resident panel, which takes the tiles. Collective.

    ``team`` holds the basis. Raises Stopped, on all ranks, when a signal asked for it.
    """
    panels = tiles.panels
    traits = sum(one.panel.t for one in panels)
    progress = world.progress(label, blocks.blocks.snps, "SNPs")
    done, dropped = 0, Dropped()
    for block in blocks:
        dropped.add(tiles.take(block))
        done += len(block.rows)
        progress.at(done)
        if team.any(world.stop.requested):
            break
    world.raise_if_stopped()
    tiles.finish()
    snps, dropped.counts = world.comm.allreduce(done), world.comm.allreduce(dropped.counts)
    also = f", {dropped.text}" if dropped.text else ""
    if any(one.refit is not None for one in panels):
        also += f", {world.comm.allreduce(sum(one.refitted for one in panels)):,} pairs fitted anew"
    world.log.info(f"{label}: {snps:,} SNPs x {traits:,} traits done{also}")


def gather_hits(panels: Sequence[ResidentPanel], comm: MPI.Comm) -> np.ndarray | None:
    """All ranks' hits of these panels merged on rank 0, None elsewhere; the panels forget them. Collective."""
    mine = [no_hits(panels[0].fields), *(hits for one in panels for hits in one.hits)]
    parts = comm.gather(np.concatenate(mine), root=0)
    for one in panels:
        one.hits.clear()
    return None if parts is None else merge_hits(parts)
