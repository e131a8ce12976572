"""Chromosomes dealt to worlds: groups of ranks that each take a part by themselves, its sum or its null model and scan.

An n x n matrix on a grid of R ranks waits for messages, so W worlds of P/W ranks each do more than P ranks together, as
long as the parts can be dealt evenly.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from mpgls.engine.parts import ScanPart
from mpgls.run.plan import Machine

REML_FALLS = 0.45
"""Power of R by which the rate of p?potrf on R ranks stays behind that of all of them: 0.68 on 2, 0.30 on 16."""
NULL_MODEL = 5.0
"""Float64 factorisations, n^3/3 each, that a null model takes about; those in float32 count half."""
BASIS = 4.5
"""The same of an eigendecomposition, 9 n^3, in units of the 2 n^3 by which a SNP is multiplied there."""
SAVED_SUM = 1000.0
"""SNPs that take as long to add to a kinship as the sum of a chromosome to mirror and to write."""


def in_world(machine: Machine, worlds: int) -> Machine:
    """What each of so many worlds of neighbouring ranks has of the machine."""
    ranks = machine.ranks // worlds
    return replace(machine, ranks=ranks, ranks_per_node=min(ranks, machine.ranks_per_node))


def null_snps(n: int, basis: bool) -> float:
    """SNPs of n samples that take as long to scan as a null model to make, on one rank."""
    return BASIS * n if basis else NULL_MODEL / 3.0 * n


def deal_parts(loads: Sequence[float], worlds: int) -> np.ndarray:
    """(parts,): the world of each part, the largest loads first, each to the world that has the least."""
    world_of = np.empty(len(loads), dtype=np.int64)
    least = [(0.0, world) for world in range(worlds)]
    for part in sorted(range(len(loads)), key=lambda part: -loads[part]):
        load, world = heapq.heappop(least)
        world_of[part] = world
        heapq.heappush(least, (load + loads[part], world))
    return world_of


def world_counts(ranks: int, snps: Sequence[int], null: float) -> Iterator[int]:
    """Numbers of worlds of equal size, the fastest expected first, down to one world.

    ``snps`` of each part, beside work on n x n matrices that takes as long as ``null`` of them on one rank.
    """

    def time(worlds: int) -> float:
        R = ranks // worlds
        return busiest_world([null * R**REML_FALLS + count for count in snps], worlds) / R

    several = (one for one in range(min(ranks, len(snps)), 1, -1) if ranks % one == 0 and time(one) < time(1))
    yield from [*sorted(several, key=time), 1]


def dealt_text(labels: Sequence[str], world_of: np.ndarray, worlds: int) -> str:
    """Which world has which of the parts ``labels``, for the log."""
    shares = ([labels[part] for part in np.flatnonzero(world_of == number)] for number in range(worlds))
    return "\n".join(
        f"world {number} of {worlds}: chromosomes {', '.join(mine) or 'none'}" for number, mine in enumerate(shares, 1)
    )


def loads_of(parts: Sequence[ScanPart], left: Sequence[list[int]], edges: np.ndarray, null: float) -> list[float]:
    """The work of each part, in SNPs: a null model and blocks, cut at ``edges``, for each of its traits ``left``."""
    sizes = np.diff(edges)
    return [len(traits) * (null + float(sizes[one.blocks].sum())) for one, traits in zip(parts, left, strict=True)]


def busiest_world(loads: Sequence[float], worlds: int) -> float:
    """The load of the world that has most."""
    return float(np.bincount(deal_parts(loads, worlds), loads, minlength=worlds).max())
