"""The stream of SNPs through one basis and many traits: [Elem] Algorithms 5-7 on teams of ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mpgls.commands.common.inputs import read_snps
from mpgls.la.teams import Team, TeamOperator
from mpgls.model.gls import Note
from mpgls.model.tiles import Epilogue, LocalPanel, Partial, Tile, TraitPanel
from mpgls.mpi import agree
from mpgls.run.log import Progress
from mpgls.stream.scratch import ScratchFile
from mpgls.study.filters import SnpFilter, passes
from mpgls.study.genotypes import Decoder, SnpStats

if TYPE_CHECKING:
    from mpgls.commands.common.session import Session
    from mpgls.commands.multi_trait_parts.trait_groups import TraitGroup
    from mpgls.study.plink import BedFile


class RotatedBlock(NamedTuple):
    """A block of SNPs in the eigenbasis: its number (-1: none), positions among the selected SNPs, counts, and X~.

    Of X~ = Z'X these are the rows here.
    """

    k: int
    snps: np.ndarray
    stats: SnpStats
    X: np.ndarray


@dataclass
class ResidentPanel:
    """A panel of traits ``first``.. of the group on this rank: its rows, and what is kept of its tiles."""

    first: int
    panel: TraitPanel
    local: LocalPanel
    epilogue: Epilogue


class RotatedSnps:
    """The blocks of this rank, rotated: X~ = Z'X from the .bed in the first pass, from a scratch file afterwards.

    ``numbers`` are its blocks, as many as the other ranks of its team have, -1 where it has none; block k holds the
    positions ``edges[k]`` to ``edges[k+1]`` of ``index``. Iterating is collective over a team.
    """

    def __init__(
        self,
        bed: BedFile,
        group: TraitGroup,
        index: np.ndarray,
        edges: np.ndarray,
        numbers: Sequence[int],
        operator: TeamOperator,
        scratch: ScratchFile | None,
        session: Session,
    ) -> None:
        self.bed, self.index, self.operator, self.scratch, self.session = bed, index, operator, scratch, session
        self.numbers = numbers
        self.snps = [np.arange(edges[k], edges[k + 1]) if k >= 0 else np.arange(0) for k in numbers]
        self.decoder = Decoder(bed.n, [group.rows[panel] for panel in operator.row_panels], operator.panels[0].dtype)
        self._stats: list[SnpStats] = []
        self._in_scratch = False

    def __iter__(self) -> Iterator[RotatedBlock]:
        source = self._from_scratch() if self._in_scratch else self._from_genotypes()
        for step, (stats, X) in enumerate(source):
            yield RotatedBlock(self.numbers[step], self.snps[step], stats, X)

    def _from_genotypes(self) -> Iterator[tuple[SnpStats, np.ndarray]]:
        timings, n = self.session.timings, float(self.decoder.n)
        stream = iter(read_snps(self.bed, [self.index[snps] for snps in self.snps], self.session.comm))
        for _ in self.snps:
            with timings.phase("read (waiting)") as reading:
                _, packed = next(stream)
                reading.nbytes += packed.size
            with timings.phase("decode", nbytes=packed.size):
                stats = self.decoder.decode(packed, [panel[:, : len(packed)] for panel in self.operator.panels])
            with timings.phase("rotate SNPs", flop=2.0 * n * n * len(packed)):
                X = self.operator.apply()  # X~ = Z'X
            if self.scratch is not None:
                self._stats.append(stats)
                with timings.phase("scratch", nbytes=X.nbytes):
                    self.scratch.write(X)
            yield stats, X
        if self.scratch is not None:
            self.scratch.finish_writing()
            self._in_scratch = True

    def _from_scratch(self) -> Iterator[tuple[SnpStats, np.ndarray]]:
        assert self.scratch is not None
        stream = self.scratch.read()
        for stats in self._stats:
            with self.session.timings.phase("scratch") as reading:
                X = next(stream)
                reading.nbytes += X.nbytes
            yield stats, X


def scan_tiles(
    blocks: RotatedSnps,
    panels: Sequence[ResidentPanel],
    operator: TeamOperator,
    team: Team,
    snp_filter: SnpFilter,
    keep: Callable[[ResidentPanel, RotatedBlock, Tile], None],
    session: Session,
    label: str,
) -> None:
    """Every block of SNPs against every resident panel; ``keep`` takes each tile. Collective.

    Raises Stopped, on all ranks, when a signal asked for it.
    """
    timings, traits = session.timings, sum(one.panel.t for one in panels)
    progress = Progress(session.log, label, sum(map(len, blocks.snps)), "SNPs")
    done, stopped = 0, False
    for block in blocks:
        B, n = block.snps.size, blocks.decoder.n
        filtered = ~passes(block.stats, snp_filter)
        for one in panels:
            with timings.phase("tiles", flop=2.0 * n * B * one.panel.t):
                partial = one.local.partial_products(block.X)  # R = (W o E~)'X~, and the sums at the nodes
                partial = Partial(*(operator.sum_over_rows(sums)[:, :B] for sums in partial))
                tile = one.panel.finish(partial, n * block.stats.variance)  # d = B'D
            with timings.phase("epilogue"):
                note = tile.note.copy()
                note[block.stats.n_obs == 0] = Note.ALL_MISSING
                note[filtered] = Note.FILTERED
                keep(one, block, Tile(tile.R, tile.d, note))
        done += B
        progress.at(done)
        stopped = session.stop.requested if team.comm.size == 1 else team.comm.allreduce(session.stop.requested)
        if stopped:
            break
    agree(session.comm, session.stop.problem("run the same command again"))
    snps = session.comm.allreduce(done)
    session.log.info(f"{label}: {snps:,} SNPs x {traits:,} traits done")
