"""The rates of the GPUs of a machine: one short probe for each kind of work, on all of them at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np

from mpgls.device.card import PRODUCTS, Card
from mpgls.device.decoder import DeviceDecoder
from mpgls.device.operator import Panel, panel_sums
from mpgls.device.parts import PRECISIONS
from mpgls.device.products import COPIES, half_product, integer_product
from mpgls.engine.card_rates import FACTS
from mpgls.errors import MpglsError
from mpgls.mpi import agree
from mpgls.run.findings import Findings
from mpgls.run.world import World

ROUNDS = 3
SIZE, TERMS = 4096, 32_768
"""Rows and columns of a product, and its terms in low precision."""
FACTOR = 8192
"""Rows of the matrix of the Cholesky probe."""
SAMPLES, SNPS = 65_536, 2048
HEIGHT = 1024
COPIED = 256 << 20
Probe = tuple[float, Callable[[], object]]
"""Work, and what does it."""


def measure_card(found: Findings, world: World, card: Card) -> None:
    """The rates of each rank's card, of which the slowest counts, in a second or two. Collective.

    Raises, on all ranks, what a card that fails or has no room raises.
    """
    from mpi4py import MPI

    rates: dict[str, float] = {}
    for (name, unit), probe in zip(FACTS.items(), (*_PROBES, None), strict=True):
        problem, here = None, float(card.limit)
        if probe is not None:
            try:
                here = _best(card, world, *probe(card))
            except MpglsError as error:
                problem = error
        agree(world.comm, problem)
        rates[name] = world.comm.allreduce(here, op=MPI.MIN) / unit
    found.facts |= {"gpu": card.name, **rates}
    found.say(f"GPU of each rank, all at once: {card.name}", rate_lines(rates))


def rate_lines(rates: Mapping[str, float]) -> list[str]:
    """The rates for people."""
    return [
        f"GEMM          {rates['gpu_gemm_gflops_double'] / 1e3:,.3g} TFLOP/s float64, "
        f"{rates['gpu_gflops_half'] / 1e3:,.3g} float16, {rates['gpu_gops_int8'] / 1e3:,.3g} int8",
        f"Cholesky      {rates['gpu_potrf_gflops_double'] / 1e3:,.3g} TFLOP/s float64, n = {FACTOR:,}",
        f"copy          {rates['gpu_copy_mb_per_s'] / 1e3:,.3g} GB/s from the host",
        f"decode        {rates['gpu_decode_genotypes_per_s'] / 1e9:,.3g} billion genotypes/s",
        f"sums          {rates['gpu_sums_numbers_per_s'] / 1e9:,.3g} billion numbers/s",
        f"memory        {rates['gpu_memory_gib']:,.4g} GiB may be used",
    ]


def _best(card: Card, world: World, work: float, run: Callable[[], object]) -> float:
    """Work a second of the fastest of a few rounds, after one that does not count."""
    seconds = []
    with card.lane(PRODUCTS):
        for _ in range(ROUNDS + 1):
            card.settle()
            start = time.perf_counter()
            run()
            card.settle()
            seconds.append(time.perf_counter() - start)
    return work / min(seconds[1:])


def _gemm(card: Card) -> Probe:
    with card.lane(PRODUCTS):
        A = card.xp.ones((SIZE, SIZE))
    return 2.0 * SIZE**3, lambda: A @ A.T


def _cholesky(card: Card) -> Probe:
    xp = card.xp
    with card.lane(PRODUCTS):
        A = xp.full((FACTOR, FACTOR), 1e-3)
        A += 4.0 * xp.eye(FACTOR)
    return FACTOR**3 / 3, lambda: xp.linalg.cholesky(A)


def _half(card: Card) -> Probe:
    with card.lane(PRODUCTS):
        A = card.xp.ones((SIZE, TERMS), dtype=np.float16)
    return 2.0 * SIZE**2 * TERMS, lambda: half_product(card.xp, A, A)


def _int8(card: Card) -> Probe:
    with card.lane(PRODUCTS):
        A = card.xp.ones((SIZE, TERMS), dtype=np.int8)
    return 2.0 * SIZE**2 * TERMS, lambda: integer_product(card.xp, A, A, COPIES)


def _copy(card: Card) -> Probe:
    with card.lane(PRODUCTS):
        on_host, into = card.host_array((COPIED,), np.uint8), card.xp.empty(COPIED, dtype=np.uint8)
    return float(COPIED), lambda: card.copy_in(on_host, into)


def _decode(card: Card) -> Probe:
    xp = card.xp
    with card.lane(PRODUCTS):
        packed, c = xp.full((SNPS, SAMPLES // 4), 0b11100010, dtype=np.uint8), xp.ones(SNPS)
        decoder = DeviceDecoder(card, SAMPLES, np.arange(SAMPLES), PRECISIONS["exact"])
    return float(SAMPLES) * SNPS, lambda: decoder.genotypes(packed, c)


def _sums(card: Card) -> Probe:
    xp = card.xp
    with card.lane(PRODUCTS):
        product, d = xp.ones((HEIGHT, SIZE), dtype=np.float32), xp.zeros(SIZE)
        panel = Panel(None, xp.ones(HEIGHT), xp.zeros(HEIGHT), xp.ones((HEIGHT, 3)), True)
    return float(HEIGHT) * SIZE, lambda: panel_sums(xp, product, panel, d)


_PROBES: tuple[Callable[[Card], Probe], ...] = (
    _gemm, _cholesky, _half, _int8, _copy, _decode, _sums,
)  # fmt: skip
