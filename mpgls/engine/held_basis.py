"""The eigenbasis of a group of traits where its products are made: on teams of ranks, or on their cards."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mpgls.engine.device_blocks import OnCard
from mpgls.engine.eigenbasis import Eigenbasis
from mpgls.engine.mixed_check import MixedCheck
from mpgls.engine.refit import GroupNodes, Refit, model_of_panel
from mpgls.engine.tile_check import TileCheck
from mpgls.engine.tile_scan import (
    OwnBlocks,
    PassTiles,
    ResidentPanel,
    RotatedBlocks,
    RotatedSnps,
    TilesOnRanks,
    TileTest,
    scratch_file,
)
from mpgls.engine.tiles_on_card import PanelOnCard, RotatedOnCard, TilesOnCard, TraitRows
from mpgls.la.teams import Team, TeamOperator
from mpgls.model.tiles import LocalPanel, TraitPanel
from mpgls.model.work import Work
from mpgls.run.world import World
from mpgls.study.genotype_files import Genotypes
from mpgls.study.reasons import Reasons
from mpgls.study.snp_columns import SnpColumns

if TYPE_CHECKING:
    import numpy as np

    from mpgls.engine.dense_tiles import DenseTiles


@dataclass(frozen=True)
class GroupSnps:
    """What a group of traits sees of the SNPs: this rank's ``blocks`` of ``bed``, over the samples ``rows`` (n,).

    ``columns`` are those of each SNP, one of them; ``width`` SNPs at most are in a block of a rank. ``sample`` are .bim
    rows of some SNPs of all ranks.
    """

    bed: Genotypes
    blocks: OwnBlocks
    rows: np.ndarray
    columns: SnpColumns
    width: int
    sample: np.ndarray


class HeldBasis(Protocol):
    """Where X~ = Z'X and its products with traits are made."""

    @property
    def snps(self) -> RotatedBlocks:
        """This rank's blocks, rotated."""

    @property
    def work(self) -> Work:
        """Arrays that the panels of a pass share."""

    @property
    def checked(self) -> MixedCheck | None:
        """What a comparison with float64 found, where there is one."""

    def begin_pass(self) -> None:
        """The traits of the pass before are not needed any more."""

    def rows_of(self, panel: TraitPanel) -> Any:
        """What the products need of a panel, which forgets it."""

    def refit(self, panel: TraitPanel, rows: Any) -> Refit | None:
        """What fits pairs of the panel anew, if that is asked for. Collective."""

    def tiles(self, panels: Sequence[ResidentPanel], reasons: Reasons, dense: DenseTiles | None) -> PassTiles:
        """The tiles of a pass."""


@dataclass
class BasisOnRanks:
    """A basis that teams of ranks hold; ``nodes`` of h2, where pairs are fitted anew."""

    snps: RotatedSnps
    nodes: GroupNodes | None
    test: TileTest
    team: Team
    world: World
    work: Work = field(default_factory=Work)
    checked = None

    @property
    def Z_team(self) -> TeamOperator:
        """The basis."""
        return self.snps.Z_team

    def begin_pass(self) -> None:
        """Other panels may have other sizes."""
        self.work = Work()

    def rows_of(self, panel: TraitPanel) -> LocalPanel:
        """The rows that this rank has of X~ too."""
        return panel.local(self.Z_team.rows, self.work)

    def refit(self, panel: TraitPanel, rows: LocalPanel) -> Refit | None:
        """As `HeldBasis.refit`."""
        if self.nodes is None:
            return None
        with self.world.phase("nodes of h2"):
            model = model_of_panel(self.nodes.design, panel, self.test.test, self.world)
        return Refit(model, self.nodes, rows.WE, panel.h2, self.Z_team, self.team)

    def tiles(self, panels: Sequence[ResidentPanel], reasons: Reasons, dense: DenseTiles | None) -> TilesOnRanks:
        """As `HeldBasis.tiles`."""
        return TilesOnRanks(panels, self.Z_team, reasons, dense, self.world)


@contextlib.contextmanager
def basis_on_ranks(
    basis: Eigenbasis, snps: GroupSnps, test: TileTest, scratch: tuple[Path, str] | None, team: Team, world: World
) -> Iterator[BasisOnRanks]:
    """``basis`` on the teams of ranks, given back in the end. Collective.

    ``scratch``: directory and name of the files for rotated SNPs, where there are several passes.
    """
    directory, name = scratch or (None, "")
    with world.phase("hand over basis"):
        Z_team = basis.hold(team, snps.width, test.test.dtype)
    with Z_team, scratch_file(directory, name, Z_team, world) as file:
        nodes = None
        if test.refit_p is not None:
            with world.phase("nodes of h2"):
                nodes = GroupNodes.of(basis, Z_team)
        rotated = RotatedSnps(snps.bed, snps.blocks, snps.rows, Z_team, file, world, snps.columns)
        yield BasisOnRanks(rotated, nodes, test, team, world)


@dataclass
class BasisOnCards:
    """A basis that teams of cards hold; traits are in parts of the same precision."""

    snps: RotatedOnCard
    at: OnCard
    room: int
    """Bytes of a card for rows of traits."""
    check: TileCheck
    world: World
    work: Work = field(default_factory=Work)
    checked: MixedCheck | None = None

    def begin_pass(self) -> None:
        """The card has room for its traits."""
        self._rows = TraitRows(self.at.card, self.at.precision, self.room)

    def rows_of(self, panel: TraitPanel) -> PanelOnCard:
        """All rows, on this rank's card; the first panel is compared with float64."""
        rows = self._rows.take(panel)
        if self.checked is None:
            with self.world.phase("check in double"):
                self.checked = self.check.compare(panel, rows, self._rows)
        return rows

    def refit(self, panel: TraitPanel, rows: PanelOnCard) -> None:
        """None: pairs are fitted anew on ranks only."""

    def tiles(self, panels: Sequence[ResidentPanel], reasons: Reasons, dense: DenseTiles | None) -> TilesOnCard:
        """As `HeldBasis.tiles`."""
        return TilesOnCard(panels, self._rows, reasons, dense, self.world)


@contextlib.contextmanager
def basis_on_cards(
    basis: Eigenbasis, snps: GroupSnps, test: TileTest, at: tuple[OnCard, int], team: Team, world: World
) -> Iterator[BasisOnCards]:
    """``basis`` on the cards of the teams, given back in the end. Collective. ``at``: as `basis_on_card` says."""
    on_card, room = at
    with world.phase("hand over basis"):
        rotated = RotatedOnCard(basis, snps.bed, snps.blocks, snps.rows, team, on_card, world)
    world.log.info(rotated.text())
    with world.phase("check in double"):
        check = TileCheck(basis, rotated, snps.sample, test.test.test, world)
    with rotated:
        yield BasisOnCards(rotated, on_card, room, check, world)
