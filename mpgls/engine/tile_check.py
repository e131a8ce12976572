"""Tiles of a GPU, checked: a sample of SNPs meets the first panel of traits in float64 on the ranks as well."""

from __future__ import annotations

import numpy as np

from mpgls.engine.eigenbasis import Eigenbasis
from mpgls.engine.mixed_check import MixedCheck, judge
from mpgls.engine.snp_scan import Streamed, decoded
from mpgls.engine.snp_stream import read_few
from mpgls.engine.tiles_on_card import PanelOnCard, RotatedOnCard, TraitRows
from mpgls.model.gls import Note
from mpgls.model.histograms import Statistic
from mpgls.model.tiles import LocalPanel, TraitPanel
from mpgls.run.world import World
from mpgls.study.snp_columns import ONE_COLUMN


class TileCheck:
    """Some SNPs, .bim rows ``sample``, in the ``basis`` in float64. Making it is collective."""

    def __init__(self, basis: Eigenbasis, rotated: RotatedOnCard, sample: np.ndarray, test: str, world: World) -> None:
        self.rotated, self.test, self.world = rotated, test, world
        self.packed = read_few(rotated.bed, sample, world).copy()
        self.X_tilde_rep = basis.rotate(decoded(ONE_COLUMN, self.packed, rotated.samples, rotated.bed))

    def compare(self, panel: TraitPanel, on_card: PanelOnCard, rows: TraitRows) -> MixedCheck:
        """The tile of the first ``panel`` of ``rows`` on the card beside that in float64; said in the log. Collective.

        Raises NumericalError where they have little in common.
        """
        stats, X_tilde = self.rotated.rotated(self.packed)
        x_norm_sq, statistic = stats.n * stats.variance, Statistic.of(panel.n, panel.q, self.test)
        nodes = LocalPanel(panel.WE.astype(np.float64), panel.A.astype(np.float64), len(panel.basis.nodes))
        right = panel.finish(nodes.partial_products(self.X_tilde_rep), x_norm_sq)
        R, d = rows.tile(panel, on_card, X_tilde, x_norm_sq)
        usable = np.ix_(panel.testable, right.note == Note.OK)
        scale = np.sqrt(panel.rss[panel.testable, None])
        found, expected = (
            statistic.estimates(np, R[usable], d[usable], np.clip(R[usable] ** 2 / d[usable], 0.0, 1.0), scale)
            for R, d in ((R, d), (right.R, right.d))
        )
        streamed = Streamed(f"{rows.precision.name} precision on the GPU", "--device cpu")
        with self.world.together():
            return judge(found, expected, len(self.packed), self.world.log, streamed)
