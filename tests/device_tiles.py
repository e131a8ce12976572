"""A pass of made-up traits over made-up SNPs on a card, and by the products of the ranks, for tests of both."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from mpgls.device.card import PRODUCTS
from mpgls.device.parts import PRECISIONS
from mpgls.engine.tile_scan import ResidentPanel, RotatedBlock, TilesOnRanks, TileTest
from mpgls.engine.tiles_on_card import TilesOnCard, TraitRows
from mpgls.model.gls import SnpTest
from mpgls.model.work import Work
from mpgls.run.world import World
from mpgls.study.filters import SnpFilter
from mpgls.study.reasons import Reasons
from mpgls.study.snp_stats import SnpStats

N, Q, T, B = 70, 2, 13, 9


def blocks_of(card, dtype):
    """Two blocks in an eigenbasis; the second SNP is a covariate, the fifth is not there, four are the same."""
    rng = np.random.default_rng(4)
    X_L, same = np.asfortranarray(rng.normal(size=(N, Q))), rng.normal(size=N)
    for k in range(2):
        X = rng.normal(size=(N, B)).astype(dtype)
        X[:, 1], X[:, 4], X[:, 2], X[:, 7] = X_L[:, 1], 0.0, same, same
        total = np.full(B, 2.0 * N * 0.3)
        stats = SnpStats(np.full(B, N, dtype=np.int32), total, np.where(X.any(axis=0), 2 * total, total**2 / N), N)
        X = np.asfortranarray(X)
        if card is not None:
            with card.lane(PRODUCTS):
                X = card.xp.asarray(X)
        yield X_L, RotatedBlock(k, k * B, np.arange(k * B, (k + 1) * B), stats, X)


def found_by(card, precision, p_threshold=0.3):
    """Per panel of traits: hits, counts, best x and best SNP, tests; None for the ``card``: by the ranks' products."""
    from mpi4py import MPI

    rng, world, work = np.random.default_rng(5), World(MPI.COMM_SELF), Work()
    test = TileTest(SnpTest("t", precision), p_threshold)
    X_L = next(blocks_of(None, float))[0]
    basis = SimpleNamespace(lam=np.sort(rng.gamma(2.0, 0.5, N)), X_L_tilde_rep=X_L)
    rows, panels = None if card is None else TraitRows(card, PRECISIONS[precision], 2**30), []
    for k in range(2):
        Y, h2 = np.asfortranarray(rng.normal(size=(N, T))), rng.uniform(0.0, 0.95, T)
        Y[:, 3] = X_L[:, 0]  # nothing is left of it
        panel = test.panel(basis, Y, {"h2": h2})
        local = panel.local(work=work) if rows is None else rows.take(panel)
        panels.append(ResidentPanel(0, k * T, np.arange(k * T, (k + 1) * T), panel, local, test.epilogue(panel, work)))
    reasons, Z_team = Reasons(SnpFilter()), SimpleNamespace(sum_over_rows=lambda sums: sums)
    tiles = TilesOnRanks(panels, Z_team, reasons, None, world)
    if rows is not None:
        tiles = TilesOnCard(panels, rows, reasons, None, world)
    for _, block in blocks_of(card, test.test.dtype):
        tiles.take(block)
    tiles.finish()
    of_epilogues = [(e.counts, e.best_x, e.best_snp, e.tests) for e in (one.epilogue for one in panels)]
    return [(np.concatenate(one.hits), *kept) for one, kept in zip(panels, of_epilogues, strict=True)]


def assert_same(found, expected, precision):
    """All panels alike."""
    rtol = {"double": 1e-9, "exact": 1e-9, "mixed": 2e-5}[precision]
    for (hits, counts, best_x, best_snp, tests), wanted in zip(found, expected, strict=True):
        order, by_rank = (np.lexsort((one["row"], one["trait"])) for one in (hits, wanted[0]))
        assert hits.size > T
        for name in ("trait", "row", "beta", "se", "log10p", "n", "eaf"):
            np.testing.assert_allclose(hits[name][order], wanted[0][name][by_rank], rtol=rtol, err_msg=name)
        assert tests == wanted[4] == 2 * (B - 2) and counts.sum() == wanted[1].sum() == tests * (T - 1)
        assert np.abs(counts.astype(int) - wanted[1]).sum() <= (0 if rtol < 1e-8 else 4)
        np.testing.assert_allclose(best_x, wanted[2], rtol=rtol)
        np.testing.assert_array_equal(best_snp, wanted[3])
        assert best_snp[3] == -1 and 2 in best_snp and not np.isin(best_snp, [1, 4, 7, B + 2, B + 7]).any()
