"""Tiles of a GPU, checked: a sample of SNPs meets the first panel of traits in float64 on the ranks as well."""

from __future__ import annotations

import numpy as np

from mpgls.engine.eigenbasis import Eigenbasis
from mpgls.engine.mixed_check import MixedCheck, judge
from mpgls.engine.snp_scan import Streamed, decoded
from mpgls.engine.snp_stream import read_few
from mpgls.engine.tiles_on_card import PanelOnCard, RotatedOnCard, TraitRows
from mpgls.model.gls import Note
from mpgls.model.histograms import Statistic, all_of_it
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
        scale, whole = np.sqrt(panel.rss[panel.testable, None]), all_of_it(panel.dtype)

        def fit(R: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            x = R * R / d
            return statistic.estimates(np, R, d, np.where(x >= whole, 1.0, x), scale)

        found, expected = fit(R[usable], d[usable]), fit(right.R[usable], right.d[usable])
        streamed = Streamed(f"{rows.precision.name} precision on the GPU", "--device cpu")
        with self.world.together():
            return judge(found, expected, len(self.packed), self.world.log, streamed)
