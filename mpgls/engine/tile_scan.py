"""The stream of SNPs through one basis and many traits: [Elem] Algorithms 5-7 on teams of ranks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mpgls.la.teams import TeamOperator
from mpgls.model.gls import Note
from mpgls.model.hits import HIT_DTYPE, merge_hits, no_hits
from mpgls.model.tiles import Epilogue, LocalPanel, Partial, Tile, TraitPanel
from mpgls.model.trait_records import PanelTotals
from mpgls.stream.scratch import ScratchFile
from mpgls.study.filters import SnpFilter, passes
from mpgls.study.genotypes import Decoder, SnpStats

if TYPE_CHECKING:
    from mpi4py import MPI

    from mpgls.engine.dense_tiles import DenseTiles
    from mpgls.run.world import World


@dataclass(frozen=True)
class SnpBlocks:
    """A rank's blocks of SNPs in the order of their steps: ``numbers`` (-1: no block in this step) and .bim ``rows``.

    ``first`` are the positions of their first SNPs among all selected SNPs.
    """

    numbers: Sequence[int]
    first: Sequence[int]
    rows: Sequence[np.ndarray]

    @classmethod
    def of(cls, numbers: Sequence[int], index: np.ndarray, edges: np.ndarray) -> SnpBlocks:
        """Block k holds the positions ``edges[k]`` to ``edges[k+1] - 1`` of ``index``, the selected rows."""
        first = [int(edges[k]) if k >= 0 else 0 for k in numbers]
        rows = [index[edges[k] : edges[k + 1]] if k >= 0 else index[:0] for k in numbers]
        return cls(numbers, first, rows)

    @property
    def snps(self) -> int:
        """SNPs of all blocks."""
        return sum(map(len, self.rows))


class RotatedBlock(NamedTuple):
    """A block of SNPs in the eigenbasis: its number (-1: none), the position of its first SNP, .bim rows, counts, X~.

    ``X_tilde_team`` are the rows of X~ = Z'X that this rank holds, for the SNPs of its whole team.
    """

    number: int
    first: int
    rows: np.ndarray
    stats: SnpStats
    X_tilde_team: np.ndarray

    @property
    def snps(self) -> np.ndarray:
        """Positions among the selected SNPs."""
        return np.arange(self.first, self.first + len(self.rows))


class RotatedSnps:
    """The blocks of this rank, rotated: X~ = Z'X from the genotypes in the first pass, from ``scratch`` afterwards.

    ``blocks`` are as many as the other ranks of its team have. ``reader`` yields (step, packed genotypes) of each;
    ``samples`` are the .fam rows of the analysis. Iterating is collective over a team.
    """

    def __init__(
        self,
        blocks: SnpBlocks,
        reader: Iterable[tuple[int, np.ndarray]],
        decoder: Decoder,
        operator: TeamOperator,
        scratch: ScratchFile | None,
        world: World,
    ) -> None:
        self.blocks, self.reader, self.decoder = blocks, reader, decoder
        self.operator, self.scratch, self.world = operator, scratch, world
        self._stats: list[SnpStats] = []
        self._in_scratch = False

    @property
    def n(self) -> int:
        """Samples."""
        return self.decoder.n

    def __iter__(self) -> Iterator[RotatedBlock]:
        source = self._from_scratch() if self._in_scratch else self._from_genotypes()
        of = self.blocks
        for step, (stats, X_tilde_team) in enumerate(source):
            yield RotatedBlock(of.numbers[step], of.first[step], of.rows[step], stats, X_tilde_team)

    def _from_genotypes(self) -> Iterator[tuple[SnpStats, np.ndarray]]:
        world, operator, n = self.world, self.operator, float(self.n)
        stream = iter(self.reader)
        for _ in self.blocks.numbers:
            with world.phase("read (waiting)") as reading:
                _, packed = next(stream)
                reading.nbytes += packed.size
            with world.phase("decode", nbytes=packed.size):
                stats = self.decoder.decode(packed, [panel[:, : len(packed)] for panel in operator.panels])
            with world.phase("rotate SNPs", flop=2.0 * n * n * len(packed)):
                X_tilde_team = operator.apply()  # X~ = Z'X
            if self.scratch is not None:
                self._stats.append(stats)
                with world.phase("scratch", nbytes=X_tilde_team.nbytes):
                    self.scratch.write(X_tilde_team)
            yield stats, X_tilde_team
        if self.scratch is not None:
            self.scratch.finish_writing()
            self._in_scratch = True

    def _from_scratch(self) -> Iterator[tuple[SnpStats, np.ndarray]]:
        assert self.scratch is not None
        stream = self.scratch.read()
        for stats in self._stats:
            with self.world.phase("scratch") as reading:
                X_tilde_team = next(stream)
                reading.nbytes += X_tilde_team.nbytes
            yield stats, X_tilde_team


@dataclass
class ResidentPanel:
    """A panel of traits on this rank: its rows, and what is kept of its tiles.

    ``traits`` (t,) are the positions of its traits in their file, ``first`` that of the first one in its ``group``.
    """

    group: int
    first: int
    traits: np.ndarray
    panel: TraitPanel
    local: LocalPanel
    epilogue: Epilogue
    hits: list[np.ndarray] = field(default_factory=list)

    def take(self, block: RotatedBlock, tile: Tile, dense: DenseTiles | None) -> None:
        """A finished tile: its best SNPs, histogram and hits, and the estimates themselves into the dense store."""
        B = len(block.rows)
        beta, se = dense.room(self.panel.t, B) if dense is not None and B else (None, None)
        self.epilogue.add(tile, block.snps, beta, se)
        found = self.epilogue.take_hits()
        if found.trait.size:
            hits, here = np.empty(found.trait.size, dtype=HIT_DTYPE), found.snp - block.first
            hits["trait"], hits["row"] = self.traits[found.trait], block.rows[here]
            hits["beta"], hits["se"], hits["log10p"] = found.beta, found.se, found.log10_p
            hits["n"], hits["eaf"] = block.stats.n_obs[here], block.stats.eaf[here]
            self.hits.append(hits)
        if dense is not None and B:
            dense.write(self, block, tile.note)

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


def scan_tiles(
    blocks: RotatedSnps,
    panels: Sequence[ResidentPanel],
    snp_filter: SnpFilter,
    dense: DenseTiles | None,
    team: World,
    world: World,
    label: str,
) -> None:
    """Every block of SNPs against every resident panel, which takes the tiles. Collective.

    ``team`` are the ranks that hold the basis together. Raises Stopped, on all ranks, when a signal asked for it.
    """
    operator, n, traits = blocks.operator, blocks.n, sum(one.panel.t for one in panels)
    progress = world.progress(label, blocks.blocks.snps, "SNPs")
    done = 0
    for block in blocks:
        B, stats = len(block.rows), block.stats
        filtered = ~passes(stats, snp_filter)
        for one in panels:
            with world.phase("tiles", flop=2.0 * n * B * one.panel.t):
                partial = one.local.partial_products(block.X_tilde_team)  # R = (W o E~)'X~, and the sums at the nodes
                partial = Partial(*(operator.sum_over_rows(sums)[:, :B] for sums in partial))
                tile = one.panel.finish(partial, n * stats.variance)  # d = B'D
            with world.phase("epilogue"):
                note = tile.note.copy()
                note[stats.n_obs == 0] = Note.ALL_MISSING
                note[filtered] = Note.FILTERED
                one.take(block, Tile(tile.R, tile.d, note), dense)
        done += B
        progress.at(done)
        stopped = world.stop.requested
        if stopped if team.size == 1 else team.comm.allreduce(stopped):
            break
    world.raise_if_stopped()
    snps = world.comm.allreduce(done)
    world.log.info(f"{label}: {snps:,} SNPs x {traits:,} traits done")


def gather_hits(panels: Sequence[ResidentPanel], comm: MPI.Comm) -> np.ndarray | None:
    """All ranks' hits of these panels merged on rank 0, None elsewhere; the panels forget them. Collective."""
    parts = comm.gather(np.concatenate([no_hits(), *(hits for one in panels for hits in one.hits)]), root=0)
    for one in panels:
        one.hits.clear()
    return None if parts is None else merge_hits(parts)
