"""What every plan must fit, and the sizes of blocks that all of them choose from."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from mpgls.errors import MemoryPlanError

GIB = 2**30

GRID_BLOCK = 128
"""Largest block of the block-cyclic distribution; p?potrf is flat around it."""
WIDEST, NARROWEST = 1024, 32
"""SNPs of a block, chosen automatically between these."""
FEWEST_ROUNDS = 2
"""Blocks of a rank at least, so that reading one can hide behind working on another."""


def memory_for(need: float) -> str:
    """The --memory, in GiB, that lets ``need`` bytes fit: 2 % more, rounded up."""
    return f"{math.ceil(need / GIB * 102) / 100:.2f}"


@dataclass(frozen=True)
class Machine:
    """What the plan must fit: ranks in all, ranks of the fullest node, bytes a rank may use, bytes it uses already."""

    ranks: int
    ranks_per_node: int
    limit: int | None
    base: int


def does_not_fit(machine: Machine, what: str, need: int, *ways: str, spreads: bool = False) -> MemoryPlanError:
    """What is said of ``what`` that needs ``need`` bytes a rank, and of the ``ways`` out beside more memory.

    ``spreads``: ranks share what it holds beyond the program, so more of them would do.
    """
    assert machine.limit is not None
    short = f"{what} needs {need / GIB:.2f} GiB a rank, --memory allows {machine.limit / GIB:.2f}"
    memory, room = f"--memory {memory_for(need)}", machine.limit - machine.base
    if room <= 0:
        return MemoryPlanError(f"{short}: the program alone takes {machine.base / GIB:.2f}; give {memory}")
    if spreads:
        ranks = -(-machine.ranks * (need - machine.base) // room)
        ways = (f"at least {ranks} ranks with as much memory each", *ways)
    return MemoryPlanError(f"{short}: " + (f"use {', '.join(ways)}, or {memory}" if ways else f"give {memory}"))


def grid_block(n: int, grid: tuple[int, int]) -> int:
    """Block of the n x n distribution: large for speed, small enough that every process row has a few blocks."""
    return max(1, min(GRID_BLOCK, -(-n // (4 * max(grid)))))


def block_within(wanted: int | None, m: int) -> int | None:
    """The block that the user asks for, no wider than the m SNPs there are; None where the plan may choose."""
    return None if wanted is None else min(wanted, m)


def block_widths(m: int, ranks: int) -> Iterator[int]:
    """Block widths to try, the best first: wide enough for the BLAS, and as many full blocks for every rank."""
    rounds = max(FEWEST_ROUNDS, -(-m // (ranks * WIDEST)))
    width = max(NARROWEST, -(-m // (ranks * rounds)))
    while True:
        yield width
        if width <= NARROWEST:
            return
        width = max(NARROWEST, -(-width // 2))
