"""The stream of SNPs through one operator: [Elem] Algorithm 3, lines 5-11, on teams of ranks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from mpgls.engine.panel_decoder import PanelDecoder
from mpgls.engine.snp_stream import SnpStream
from mpgls.la.teams import Closing, Team, TeamOperator
from mpgls.model.gls import NullSums, SnpFit, SnpTest, fit_null, fit_snps
from mpgls.model.joint_fit import JointFit, JointModel, JointSums
from mpgls.run.slots import Slots
from mpgls.run.world import World
from mpgls.study.genotype_files import Genotypes
from mpgls.study.genotypes import Decoder
from mpgls.study.snp_columns import ONE_COLUMN, SnpColumns
from mpgls.study.snp_stats import SnpStats


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
    """Of B SNPs: S_BL (q, B) = X_L~'X~, b_B (B,) = y~'X~, S_BR (B,) = x~'x~, and |x|^2 of the centred SNPs."""

    S_BL: np.ndarray
    b_B: np.ndarray
    S_BR: np.ndarray
    norm: np.ndarray

    def fit(self, null: NullSums, test: SnpTest) -> SnpFit:
        """Effects by the Schur complement of S_BR in the normal equations, see `gls.fit_snps`."""
        return fit_snps(null, self.S_BL, self.S_BR, self.b_B, self.norm, test.test, test.tolerance, test.complete)


class SeveralSums(NamedTuple):
    """Of B SNPs of several columns: the sums, what the columns mean, and M (B, k, k) where errors are HC3's."""

    sums: JointSums
    model: JointModel
    meat: np.ndarray | None = None

    def fit(self, null: NullSums, test: SnpTest) -> JointFit:
        """Effects and joint tests, see `joint_fit`."""
        fitted = fit_null(np.nan, null)
        return self.model.fit(self.sums.solve(fitted, test.tolerance), fitted, test, self.meat if test.robust else None)


def sums_of(columns: SnpColumns, products: np.ndarray, norm: np.ndarray) -> SnpSums | SeveralSums:
    """From the `products` of [X_L~ | y~] and the ``columns`` of SNPs with squared norms ``norm`` (B,)."""
    if columns.model is not None:
        return SeveralSums(JointSums.of(products, columns.count, norm), columns.model)
    *S_BL, b_B, S_BR = products
    return SnpSums(np.array(S_BL), b_B, S_BR, norm)


class TestedBlock(NamedTuple):
    """A block by its ``number``, with the counts and the sums of its SNPs."""

    number: int
    stats: SnpStats
    sums: SnpSums | SeveralSums


class WhitenedSnps(Closing):
    """From packed genotypes to the sums that a SNP's effect needs, one block at a time.

    ``L_team`` whitens, X~ = L^-1 X; ``F_tilde_rep`` (n, q+1) = L^-1 [X_L | y]; ``rows`` (n,) are the samples' positions
    in the .fam; ``columns`` are those of each SNP. Its methods are collective over a team.
    """

    def __init__(
        self,
        L_team: TeamOperator,
        F_tilde_rep: np.ndarray,
        rows: np.ndarray,
        bed: Genotypes,
        world: World,
        columns: SnpColumns = ONE_COLUMN,
    ) -> None:
        self.columns = columns
        self.L_team, self.F_tilde_rep, self.rows, self.bed, self.world = L_team, F_tilde_rep, rows, bed, world
        self.F_tilde_team = np.asfortranarray(F_tilde_rep[L_team.rows], dtype=L_team.dtype)
        self.decode = PanelDecoder(L_team, rows, bed, world, columns).decode  # X_cols, centred

    def whiten(self, B: int) -> np.ndarray:
        """X~ = L^-1 X of B SNPs, this rank's rows."""
        count = B * self.columns.count
        with self.world.phase("solve", flop=float(self.rows.size) ** 2 * count):
            return self.L_team.apply(count)

    def sums(self, stats: SnpStats, X_tilde_team: np.ndarray) -> SnpSums | SeveralSums:
        """p+1 numbers a SNP, or p+k a column, summed over the rows of all ranks of the team."""
        with self.world.phase("statistics"):
            count = stats.n_obs.size * self.columns.count
            S = self.L_team.sum_over_rows(self.columns.products(self.F_tilde_team, X_tilde_team))[:, :count]
            return sums_of(self.columns, S, self.rows.size * stats.variance)

    streamed = MIXED

    def stream(self, blocks: Iterable[Block]) -> Iterator[TestedBlock]:
        """The sums of each block."""
        for block in blocks:
            yield TestedBlock(block.number, *self.sums_of(block.packed))

    def sums_of(self, packed: np.ndarray) -> tuple[SnpStats, SnpSums | SeveralSums]:
        """The counts of the SNPs of a block, and S_BL, b_B, S_BR."""
        stats = self.decode(packed)
        X_tilde_team = self.whiten(len(packed))  # X~ = L^-1 X
        return stats, self.sums(stats, X_tilde_team)

    def plain(self, packed: np.ndarray) -> np.ndarray:
        """The columns X (n, B k) of the SNPs ``packed``, float64, before they are whitened."""
        return decoded(self.columns, packed, self.rows, self.bed)

    def close(self) -> None:
        """Give back the operator. Collective over the team."""
        self.L_team.close()


def decoded(columns: SnpColumns, packed: np.ndarray, rows: np.ndarray, bed: Genotypes) -> np.ndarray:
    """X (n, B k), float64, of the SNPs ``packed`` over the samples ``rows`` (n,) of the .fam."""
    X = np.empty((rows.size, len(packed) * columns.count), order="F")
    Decoder(bed.n, [rows], np.float64, bed.males, columns.coding).decode(columns.sources(packed, bed.n), [X])
    columns.multiply(X, np.arange(rows.size))
    return X


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
