"""The parts of bench/gpu.py that multiply genotypes: the scan, products of counts, and the rates of a card."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from mpgls.device.card import PRODUCTS, Card
from mpgls.device.cross import centred_product, counted
from mpgls.device.decoder import DeviceDecoder
from mpgls.device.operator import row_panels
from mpgls.device.outer import EXACT, OuterSums
from mpgls.device.parts import PRECISIONS
from mpgls.device.products import COPIES

FULL = {"n": 20_480, "width": 8192, "long": 262_144, "similarity": 4096}
QUICK = {"n": 203, "width": 48, "long": 300, "similarity": 64}
"""Samples and SNPs of a block of the scan and of kinship; samples and similarity SNPs of low-rank."""
REPEATS, SAMPLED, BLOCKS = 3, 32, 4
TOLERATED = {"double": 1e-12, "mixed": 2e-5, "exact": 1e-12}
"""In ``mixed`` matrix units cut float32 sums off, towards zero, after every 16 terms or so: by up to 2^-23."""


def card_rates(card: Card, quick: bool) -> dict[str, float | str]:
    """Its name, and the rates that `mpgls doctor --device gpu` measures."""
    if quick:
        return {"card": card.name}
    from mpi4py import MPI

    from mpgls.engine.card_probes import measure_card
    from mpgls.run.findings import Findings
    from mpgls.run.world import World

    found = Findings()
    measure_card(found, World(MPI.COMM_SELF), card)
    return {"card": found.facts.pop("gpu"), **found.facts}


def random_genotypes(seed: int, snps: int, n: int) -> np.ndarray:
    """Packed genotypes (snps, bytes) of n samples, none of them missing."""
    every = np.arange(256)
    known = every[((every[:, None] >> np.array([0, 2, 4, 6])) & 3 != 1).all(axis=1)].astype(np.uint8)
    return known[np.random.default_rng(seed).integers(0, known.size, (snps, -(-n // 4)), dtype=np.uint8)]


def seconds_of(card: Card, action: Callable[[], object], prepare: Callable[[], object] = lambda: None) -> float:
    """Seconds of an action, the best of several after one that does not count; ``prepare`` goes before each."""
    found = []
    for _ in range(REPEATS + 1):
        prepare()
        card.settle()
        start = time.perf_counter()
        action()
        card.settle()
        found.append(time.perf_counter() - start)
    return min(found[1:])


def rate(card: Card, quick: bool, amount: float, action: Callable[[], object]) -> float:
    """``amount`` a second; 0.0 where nothing is timed."""
    return 0.0 if quick else amount / seconds_of(card, action)


def refuse(error: float, tolerated: float, what: str) -> None:
    """ValueError for an error that is too large."""
    if not error <= tolerated:
        raise ValueError(f"{what} is wrong by {error:.3g}, beyond {tolerated:.3g}")


# -- the scan -----------------------------------------------------------------------------------------------------


class MadeUpFactor:
    """L^-1 (n, n) with ones on its diagonal and N(0, 1/(16 n)) below, by blocks."""

    triangle = True

    def __init__(self, n: int) -> None:
        self.n = n

    def row_blocks(self, wanted: Sequence[Sequence[Any]]) -> list[np.ndarray]:
        """The blocks of the first rank."""
        return [self.rows(block.rows, block.cols) for block in wanted[0]]

    def rows(self, rows: range, cols: range) -> np.ndarray:
        """Some rows of it."""
        W = np.random.default_rng(rows.start).standard_normal((len(rows), len(cols)), dtype=np.float32)
        W = np.tril(W * (0.25 / np.sqrt(self.n)), rows.start - 1).astype(np.float64)
        W[np.arange(len(rows)), np.arange(rows.start, rows.stop)] = 1.0
        return W


def scan(card: Card, quick: bool, precision: str) -> dict[str, float | str]:
    """SNPs a second of the stream through L^-1, from memory of the host, and of the products alone; x'M^-1x is checked.

    Raises ValueError where it is wrong.
    """
    from mpi4py import MPI

    from mpgls.engine.device_blocks import OnCard
    from mpgls.engine.device_scan import DeviceSnps
    from mpgls.engine.snp_scan import Block, decoded
    from mpgls.la.teams import Team
    from mpgls.run.world import World
    from mpgls.study.snp_columns import ONE_COLUMN

    size = QUICK if quick else FULL
    n, packed, world = size["n"], random_genotypes(1, size["width"], size["n"]), World(MPI.COMM_SELF)
    bed = SimpleNamespace(n=n, snp_bytes=packed.shape[1], males=None, dosages=False)
    L, rows, sampled = MadeUpFactor(n), np.arange(n), packed[:SAMPLED]
    F, X = np.random.default_rng(2).standard_normal((n, 4)), decoded(ONE_COLUMN, sampled, rows, bed)
    right = sum(np.square(L.rows(*block) @ X[: block.cols.stop]).sum(axis=0) for block in row_panels(n, 1, True)[0])
    at = OnCard(card, PRECISIONS[precision], len(packed), card.limit)
    with DeviceSnps(L, F, rows, bed, Team(0, 1, MPI.COMM_SELF), at, world) as snps:
        _, sums = snps.sums_of(sampled)
        error = float(np.max(np.abs(sums.S_BR / right - 1)))
        refuse(error, TOLERATED[precision], f"x'M^-1x in {precision}")
        blocks = [Block(k, packed) for k in range(BLOCKS)]
        streamed = rate(card, quick, BLOCKS * len(packed), lambda: list(snps.stream(blocks)))
    return {f"scan_snps_per_s_{precision}": streamed, f"scan_error_{precision}": error}


# -- products of counts -------------------------------------------------------------------------------------------


def similarity_products(card: Card, quick: bool) -> dict[str, float | str]:
    """G'X of raw counts: operations a second, also where G is decoded anew. Raises ValueError where it is not exact."""
    size, xp = QUICK if quick else FULL, card.xp
    n, K, B = size["long"], size["similarity"], size["width"]
    decoder, none = DeviceDecoder(card, n, np.arange(n), EXACT), np.empty(0, dtype=np.int64)
    card.settle()
    with card.lane(PRODUCTS):
        packed = [xp.asarray(random_genotypes(seed, snps, n)) for seed, snps in ((3, K), (1, B))]
        G, X = (counted(card, decoder, one, np.ones(len(one)), none) for one in packed)
        found = card.to_host(centred_product(xp, G, X, n)[:SAMPLED, :SAMPLED])
        a, x = (card.to_host(one.a.parts[0][:SAMPLED]).astype(np.float64) for one in (G, X))
        refuse(float(np.abs(found - a @ x.T).max()), 0.0, "G'X")

        def anew() -> Any:
            return centred_product(xp, counted(card, decoder, packed[0], np.ones(K), none), X, n)

        alone = rate(card, quick, 2.0 * n * K * B, lambda: centred_product(xp, G, X, n))
        return {"lowrank_ops_per_s": alone, "lowrank_ops_per_s_decoding": rate(card, quick, 2.0 * n * K * B, anew)}


def kinship_products(card: Card, quick: bool) -> dict[str, float | str]:
    """S += A A' of the whole numbers of a block: operations a second. Raises ValueError where it is not exact."""
    size, xp = QUICK if quick else FULL, card.xp
    n, B = size["n"], size["width"]
    decoder, everyone = DeviceDecoder(card, n, np.arange(n), EXACT), np.arange(n)
    card.settle()
    with card.lane(PRODUCTS):
        packed = xp.asarray(random_genotypes(1, B, n))
        A = xp.ascontiguousarray(decoder.genotypes(packed, xp.ones(B)).parts[0].T)
        sums = OuterSums(card, everyone, everyone)
        sums.add_whole(A, A, COPIES)
        a = card.to_host(A).astype(np.float64)
        found = card.to_host(sums.S[n - SAMPLED :, :SAMPLED])
        refuse(float(np.abs(found - a[n - SAMPLED : n] @ a[:SAMPLED].T).max()), 0.0, "the kinship")
        return {"kinship_ops_per_s": rate(card, quick, sums.flop * B, lambda: sums.add_whole(A, A, COPIES))}
