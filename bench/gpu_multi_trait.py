"""The part of gpu.py that is multi-trait's: X~ = Z'X and the tiles of a pass, from packed genotypes in memory.

The basis is a reflection, Z = I - 2 v v'; traits and their heritabilities are made up, and one panel of them stands for
all. A sample of SNPs meets the panel in float64 on the host too: R / sqrt(d) may differ by so many standard errors.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from mpgls.device.card import Card
from mpgls.device.parts import PRECISIONS

REPEATS, SAMPLED = 2, 32
TOLERATED = {"mixed": 1e-3, "double": 1e-9}
"""Standard errors; see `gpu_parts.TOLERATED`."""


class Size(NamedTuple):
    """Samples, SNPs of a block, blocks, traits of a panel, and panels in each precision."""

    n: int
    width: int
    blocks: int
    panel: int
    panels: dict[str, int]


FULL = Size(20_480, 4096, 4, 2048, {"mixed": 8, "double": 1})
QUICK = Size(203, 48, 2, 40, {"mixed": 2, "double": 1})


def measure(card: Card, quick: bool) -> dict[str, float | str]:
    """Pairs of SNP and trait a second, rotation included; see gpu.py. Raises ValueError."""
    size = QUICK if quick else FULL
    rates = {precision: _pairs(card, precision, size, quick) for precision in TOLERATED}
    return {"multi_trait_pairs_per_s": rates["mixed"], "multi_trait_pairs_per_s_double": rates["double"]}


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


def _pairs(card: Card, precision: str, size: Size, quick: bool) -> float:
    """Pairs a second of a pass, 0.0 for a tiny problem."""
    from mpi4py import MPI

    from mpgls.engine.device_blocks import OnCard
    from mpgls.engine.tile_scan import OwnBlocks, ResidentPanel, TileTest
    from mpgls.engine.tiles_on_card import RotatedOnCard, TilesOnCard, TraitRows
    from mpgls.la.teams import Team
    from mpgls.model.gls import SnpTest
    from mpgls.model.work import Work
    from mpgls.run.world import World
    from mpgls.study.filters import SnpFilter
    from mpgls.study.reasons import Reasons

    n, rng, world, basis = size.n, np.random.default_rng(8), World(MPI.COMM_SELF), Reflection(size.n)
    packed = _known_genotypes(rng, size.width, n)
    bed = SimpleNamespace(n=n, snp_bytes=packed.shape[1], males=None, dosages=False)
    index = np.arange(size.width)
    blocks = OwnBlocks(range(size.blocks), [0] * size.blocks, [index] * size.blocks)
    at = OnCard(card, PRECISIONS[precision], size.width, card.limit)
    rotated = RotatedOnCard(basis, bed, blocks, np.arange(n), Team(0, 1, MPI.COMM_SELF), at, world)
    rows, test = TraitRows(card, at.precision, card.limit), TileTest(SnpTest("t", precision), 5e-8)
    Y_tilde = np.asfortranarray(rng.standard_normal((n, size.panel)))
    panel = test.panel(basis, Y_tilde, {"h2": rng.uniform(0.05, 0.95, size.panel)})
    on_card = [rows.take(panel)]
    _check(panel, on_card[0], rows, rotated, packed[:SAMPLED], basis, precision)
    on_card += [rows.take(panel) for _ in range(size.panels[precision] - 1)]
    numbers, work = np.arange(size.panel), Work()
    panels = [
        ResidentPanel(0, k * size.panel, numbers, panel, one, test.epilogue(panel, work))
        for k, one in enumerate(on_card)
    ]
    tiles = TilesOnCard(panels, rows, Reasons(SnpFilter()), None, world)

    def one_pass() -> float:
        card.settle()
        start = time.perf_counter()
        for block in rotated.rotate(packed for _ in range(size.blocks)):
            tiles.take(block)
        card.settle()
        return time.perf_counter() - start

    seconds = min([one_pass() for _ in range(1 + REPEATS)][1:])
    rotated.close()
    return 0.0 if quick else size.blocks * size.width * size.panel * float(len(panels)) / seconds


def _check(panel: Any, on_card: Any, rows: Any, rotated: Any, packed: np.ndarray, basis: Reflection, name: str) -> None:
    """ValueError where the card and float64 on the host differ."""
    from mpgls.engine.snp_scan import decoded
    from mpgls.model.tiles import LocalPanel
    from mpgls.study.snp_columns import ONE_COLUMN

    stats, X_tilde = rotated.rotated(packed)
    norm = stats.n * stats.variance
    R, d = rows.tile(panel, on_card, X_tilde, norm)
    X = basis.rotate(decoded(ONE_COLUMN, packed, rotated.samples, rotated.bed))
    local = LocalPanel(panel.WE.astype(float), panel.A.astype(float), on_card.nodes)
    right = panel.finish(local.partial_products(X), norm)
    error = float(np.abs(R / np.sqrt(d) - right.R / np.sqrt(right.d)).max() * np.sqrt(panel.n))
    if not error < TOLERATED[name]:
        raise ValueError(f"multi-trait, {name}: R / sqrt(d) differs by {error:.1e} standard errors")


def _known_genotypes(rng: np.random.Generator, snps: int, n: int) -> np.ndarray:
    """Packed genotypes (snps, bytes), none of them missing."""
    every = np.arange(256)
    known = every[((every[:, None] >> np.array([0, 2, 4, 6])) & 3 != 1).all(axis=1)].astype(np.uint8)
    return known[rng.integers(0, known.size, (snps, -(-n // 4)))]
