"""The part of gpu.py that is multi-trait's: X~ = Z'X and the tiles of a pass, from packed genotypes in memory.

The basis is a reflection, Z = I - 2 v v', the traits and their heritabilities are made up. A sample of SNPs and traits
is checked in float64 on the host: the largest difference of R / sqrt(d), in standard errors.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from mpgls.device.card import Card
from mpgls.device.parts import PRECISIONS

TRAITS, FEW_TRAITS, BLOCKS, REPEATS, SAMPLED = 16_384, 40, 4, 2, 32
TOLERATED = {"mixed": 1e-4, "double": 1e-9}
"""Standard errors."""


class Reflection:
    """The basis Z = I - 2 v v' of n samples, its spectrum, and covariates in it."""

    def __init__(self, n: int) -> None:
        rng = np.random.default_rng(7)
        v = rng.standard_normal(n)
        self.v = v / np.linalg.norm(v)
        self.lam = np.sort(rng.gamma(2.0, 0.5, n))
        self.X_L_tilde_rep = self.rotate(np.column_stack([np.ones(n), rng.standard_normal((n, 3))]))

    def rotate(self, C: np.ndarray) -> np.ndarray:
        """Z'C."""
        return np.asfortranarray(C - 2.0 * np.outer(self.v, self.v @ C))

    def row_blocks(self, wanted: Sequence[Sequence[Any]]) -> list[np.ndarray]:
        """Rows of Z', of the first rank."""
        blocks = []
        for rows, _ in wanted[0]:
            Z_rows = np.outer(-2.0 * self.v[rows.start : rows.stop], self.v)
            Z_rows[np.arange(len(rows)), np.arange(rows.start, rows.stop)] += 1.0
            blocks.append(Z_rows)
        return blocks


def multi_trait_tiles(card: Card, options: Any, packed: np.ndarray, timed: bool, results: dict[str, Any]) -> None:
    """Pairs of SNP and trait a second, in mixed precision and, of fewer traits, in double; and their errors."""
    for precision, traits in (("mixed", TRAITS), ("double", TRAITS // 8)):
        name = "" if precision == "mixed" else f"_{precision}"
        rate, error = _pairs(card, precision, options.samples, traits if timed else FEW_TRAITS, packed, timed)
        results[f"multi_trait_pairs_per_s{name}"] = rate
        results["errors"][f"multi_trait_{precision}"] = error


def _pairs(card: Card, precision: str, n: int, t: int, packed: np.ndarray, timed: bool) -> tuple[float | None, float]:
    """Pairs a second of a pass of ``t`` traits, None where nothing is timed, and the error on a sample."""
    from mpi4py import MPI

    from mpgls.engine.device_blocks import OnCard
    from mpgls.engine.snp_scan import decoded
    from mpgls.engine.tile_scan import OwnBlocks, ResidentPanel, TileTest
    from mpgls.engine.tiles_on_card import RotatedOnCard, TilesOnCard, TraitRows
    from mpgls.la.teams import Team
    from mpgls.model.gls import SnpTest
    from mpgls.model.tiles import LocalPanel
    from mpgls.run.world import World
    from mpgls.study.filters import SnpFilter
    from mpgls.study.reasons import Reasons
    from mpgls.study.snp_columns import ONE_COLUMN

    world, basis, everyone = World(MPI.COMM_SELF), Reflection(n), np.arange(n)
    bed = SimpleNamespace(n=n, snp_bytes=packed.shape[1], males=None, dosages=False)
    index = np.arange(len(packed))
    blocks = OwnBlocks(range(BLOCKS), [0] * BLOCKS, [index] * BLOCKS)
    at = OnCard(card, PRECISIONS[precision], len(packed), card.limit)
    rotated = RotatedOnCard(basis, bed, blocks, everyone, Team(0, 1, MPI.COMM_SELF), at, world)
    rows, test, panels = TraitRows(card, at.precision, card.limit), TileTest(SnpTest("t", precision), 5e-8), []
    rng, error = np.random.default_rng(8), 0.0
    for first in range(0, t, 2048):
        Y_tilde = np.asfortranarray(rng.standard_normal((n, min(2048, t - first))))
        nulls = {"h2": rng.uniform(0.05, 0.95, Y_tilde.shape[1])}
        panel = test.panel(basis, Y_tilde, nulls)
        on_card = rows.take(panel)
        if first == 0:
            sampled = packed[:SAMPLED]
            stats, X_tilde = rotated.rotated(sampled)
            norm = stats.n * stats.variance
            R, d = rows.tile(panel, on_card, X_tilde, norm)
            X = basis.rotate(decoded(ONE_COLUMN, sampled, everyone, bed))
            local = LocalPanel(panel.WE.astype(float), panel.A.astype(float), on_card.nodes)
            right = panel.finish(local.partial_products(X), norm)
            error = float(np.abs(R / np.sqrt(d) - right.R / np.sqrt(right.d)).max() * np.sqrt(n))
        panel.forget_rows()
        at_file = np.arange(first, first + panel.t)
        panels.append(ResidentPanel(0, first, at_file, panel, on_card, test.epilogue(panel, None)))
    tiles = TilesOnCard(panels, rows, Reasons(SnpFilter()), None, world)

    def one_pass() -> float:
        card.settle()
        start = time.perf_counter()
        for block in rotated.rotate(packed for _ in range(BLOCKS)):
            tiles.take(block)
        card.settle()
        return time.perf_counter() - start

    seconds = [one_pass() for _ in range(1 + REPEATS * timed)][1:]
    rotated.close()
    return (BLOCKS * float(t) * len(packed) / min(seconds) if timed else None), error
