"""The stream of SNPs through one operator: [Elem] Algorithm 3, lines 5-11, on teams of ranks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from mpgls.engine.panel_decoder import PanelDecoder
from mpgls.engine.snp_stream import SnpStream
from mpgls.la.teams import Closing, Team, TeamOperator
from mpgls.model.gls import NullSums, SnpFit, SnpTest, fit_snps
from mpgls.model.products import partial_products
from mpgls.run.slots import Slots
from mpgls.run.world import World
from mpgls.study.genotype_files import Genotypes
from mpgls.study.genotypes import SnpStats


class Block(NamedTuple):
    """A block of this rank: its ``number`` in the store (-1: none, to step along), and its packed genotypes."""

    number: int
    packed: np.ndarray


class Streamed(NamedTuple):
    """How SNPs are streamed, in words, and what would be more accurate."""

    how: str
    better: str


MIXED = Streamed("mixed precision", "--precision double")


class SnpSums(NamedTuple):
    """Of B SNPs: counts, S_BL (q, B) = X_L~'X~, b_B (B,) = y~'X~, S_BR (B,) = x~'x~, and |x|^2 of the centred SNPs."""

    stats: SnpStats
    S_BL: np.ndarray
    b_B: np.ndarray
    S_BR: np.ndarray
    norm: np.ndarray

    def fit(self, null: NullSums, test: SnpTest) -> SnpFit:
        """Effects by the Schur complement of S_BR in the normal equations, see `gls.fit_snps`."""
        return fit_snps(null, self.S_BL, self.S_BR, self.b_B, self.norm, test.test, test.tolerance, test.complete)


class WhitenedSnps(Closing):
    """From packed genotypes to the sums that a SNP's effect needs, one block at a time.

    ``L_team`` whitens, X~ = L^-1 X; ``F_tilde_rep`` (n, q+1) = L^-1 [X_L | y]; ``rows`` (n,) are the samples' positions
    in the .fam. Its methods are collective over a team.
    """

    def __init__(
        self, L_team: TeamOperator, F_tilde_rep: np.ndarray, rows: np.ndarray, bed: Genotypes, world: World
    ) -> None:
        self.L_team, self.F_tilde_rep, self.rows, self.bed, self.world = L_team, F_tilde_rep, rows, bed, world
        self.F_tilde_team = np.asfortranarray(F_tilde_rep[L_team.rows], dtype=L_team.dtype)
        self.decode = PanelDecoder(L_team, rows, bed, world).decode  # X_cols, centred
        self.streamed = MIXED

    def stream(self, blocks: Iterable[Block]) -> Iterator[tuple[Block, SnpSums]]:
        """Each block with its sums."""
        for block in blocks:
            yield block, self.sums_of(block.packed)

    def sums_of(self, packed: np.ndarray) -> SnpSums:
        """S_BL, b_B, S_BR of the SNPs of a block."""
        stats = self.decode(packed)
        X_tilde_team = self.whiten(len(packed))  # X~ = L^-1 X
        return self.sums(stats, X_tilde_team)

    def whiten(self, B: int) -> np.ndarray:
        """X~ = L^-1 X, this rank's rows."""
        with self.world.phase("solve", flop=float(self.rows.size) ** 2 * B):
            return self.L_team.apply(B)

    def sums(self, stats: SnpStats, X_tilde_team: np.ndarray) -> SnpSums:
        """p+1 numbers a SNP, summed over the rows of all ranks of the team."""
        with self.world.phase("statistics"):
            B, q = stats.n_obs.size, self.F_tilde_team.shape[1] - 1
            S = self.L_team.sum_over_rows(partial_products(self.F_tilde_team, X_tilde_team))[:, :B]
            return SnpSums(stats, S[:q], S[q], S[q + 1], self.rows.size * stats.variance)

    def close(self) -> None:
        """Give back the operator. Collective over the team."""
        self.L_team.close()


def left_blocks(
    bed: Genotypes, slots: Slots, wanted: np.ndarray, team: Team, world: World, label: str
) -> Iterator[Block]:
    """Those of the blocks ``wanted`` that ``slots`` lack: dealt to ranks and read ahead. Collective over the world.

    In step s rank r has block s P + r of them, so all ranks of a team step together. ``label`` is what the log calls
    the scan. Ends with Stopped, on all ranks, when a signal asked for it.
    """
    numbers = own_blocks(wanted, slots.left(wanted), team, world)
    stream = SnpStream(bed, [slots.snps(number) for number in numbers], world)
    progress, done = world.progress(f"scan of {label}", stream.snps, "SNPs"), 0
    for k, packed in stream:
        yield Block(numbers[k], packed)
        done += packed.shape[0]
        progress.at(done)
        if team.any(world.stop.requested):
            break
    world.raise_if_stopped()


def own_blocks(wanted: np.ndarray, left: np.ndarray, team: Team, world: World) -> list[int]:
    """This rank's block in each step that its team takes; -1 where it has none, or none that is ``left``.

    ``wanted`` are dealt to ranks in turn whatever is done already: the columns of a block stand at the same place in
    the team's product in an interrupted run and in one that was not, and get the same bits.
    """
    comm = world.comm
    first, undone = comm.rank - team.comm.rank, set(left.tolist())
    own = []
    for start in range(0, wanted.size, comm.size):
        step = wanted[start : start + comm.size].tolist()
        mine = step[comm.rank] if comm.rank < len(step) else -1
        if undone.intersection(step[first : first + team.comm.size]):
            own.append(mine if mine in undone else -1)
    return own
