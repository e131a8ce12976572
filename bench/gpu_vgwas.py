"""The search of a voxelwise GWAS on a card: associations a second, and that it finds what a rank finds.

n = 740, 51,792 voxels, a block of 1,024 SNPs and 10 confounds, p <= 1e-4: the size of [vGWAS], Figure 3. ``measure`` is
called by bench/gpu.py. Alone this file tries it with NumPy in place of a card, on a tiny problem, and times nothing.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mpgls.device.card import Card
from mpgls.device.nominate import Nominator, Threshold
from mpgls.model.mulm import CONSTANT_VOXEL, Pairs, Score, SnpBlock, TileScan, unit_residuals, whiten

FULL = {"n": 740, "voxels": 51_792, "snps": 1024, "confounds": 10, "permutations": 64}
TINY = {"n": 120, "voxels": 600, "snps": 64, "confounds": 4, "permutations": 3}
THRESHOLD = 1e-4
SAMPLED = 32
"""SNPs of the comparison with a rank."""
TILE, ROOM = 1 << 26, 1 << 20


def measure(card: Card, quick: bool) -> dict[str, float | str]:
    """vgwas_associations_per_s of the card alone, and the same with the scores that all cores make beside it.

    Raises ValueError where pairs of a sample, or their t, are not those of the search on a rank.
    """
    sizes = TINY if quick else FULL
    n, r = sizes["n"], sizes["confounds"]
    rng = np.random.default_rng(7)
    Z_w = whiten(np.column_stack([np.ones(n), rng.standard_normal((n, r - 1))]))
    R_Y = np.empty((sizes["voxels"], n), dtype=np.float32)
    unit_residuals(rng.standard_normal(R_Y.shape, dtype=np.float32), Z_w, R_Y, CONSTANT_VOXEL)
    X = rng.binomial(2, 0.3, (sizes["snps"], n)).astype(np.float64)
    snps = SnpBlock(X - X.mean(axis=1, keepdims=True), Z_w, np.float32)
    scan = TileScan(Score(n - r - 1, 0.01 if quick else THRESHOLD), r, n, np.float32)
    nominator = Nominator(card, Threshold(scan.score.share, n, r), TILE, ROOM)
    testable = np.ones(len(R_Y), dtype=bool)
    nominator.take_voxels(R_Y, testable)
    nominator.take_snps(snps.rows)
    orders = [np.random.default_rng(k).permutation(n) for k in range(sizes["permutations"])]

    def search(scored: bool) -> float:
        """Seconds of all permutations, one of them ahead on the card."""
        card.settle()
        begin, ahead = time.perf_counter(), nominator.start(orders[0])
        for k, order in enumerate(orders):
            place, ahead = ahead, nominator.start(orders[(k + 1) % len(orders)])
            pairs = Pairs(*nominator.finish(place))
            if scored:
                scan.scored(snps, order, R_Y, pairs, pool)
        nominator.finish(ahead)
        return time.perf_counter() - begin

    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
    search(scored=False)
    check(scan, nominator, snps, R_Y, orders[0])
    pairs = (1.0 + len(orders)) * X.shape[0] * len(R_Y)
    alone, beside = min(search(scored=False) for _ in range(1 if quick else 3)), search(scored=True)
    return {
        "vgwas_associations_per_s": 0.0 if quick else pairs / alone,
        "vgwas_associations_per_s_scored": 0.0 if quick else pairs / beside,
    }


def check(scan: TileScan, nominator: Nominator, snps: SnpBlock, R_Y: np.ndarray, order: np.ndarray) -> None:
    """ValueError where one search has pairs of some of the SNPs that the other has not, or with another t."""
    found = scan.scored(snps, order, R_Y, Pairs(*nominator.finish(nominator.start(order))))
    ZX = snps.permuted(order)[: scan.r + SAMPLED]
    expected = scan.scored(snps, order, R_Y, Pairs(*scan.candidates(ZX, R_Y, np.ones(len(R_Y), dtype=bool))))
    first, second = (
        set(zip(one.snp.tolist(), one.voxel.tolist(), one.t.tolist(), strict=True)) for one in (found, expected)
    )
    if not second:
        raise ValueError("no pair of the sample is beyond the threshold: there is nothing to compare")
    if {one for one in first if one[0] < SAMPLED} != second:
        raise ValueError("the pairs that the card nominates are not those of the search on a rank")
