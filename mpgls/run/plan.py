"""What every plan must fit, and the sizes of blocks that all of them choose from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from mpgls.errors import MemoryPlanError, UsageError

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
    """What the plan must fit: ranks in all, ranks of the fullest node, bytes a rank may use, bytes it uses already.

    ``free``: a rank's share of what is free on its node, which holds for what is faster but can be done without.
    """

    ranks: int
    ranks_per_node: int
    limit: int | None
    base: int
    free: int | None = None

    @property
    def spare(self) -> Machine:
        """The machine for a plan that takes memory to be faster: without a limit what is free is one."""
        return replace(self, limit=self.free if self.limit is None else self.limit)


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


@dataclass(frozen=True)
class Plan:
    """Sizes that a whole run keeps to. ``stages`` are bytes a rank, by name; a command's plan has sizes of its own."""

    stages: dict[str, int]

    @property
    def peak(self) -> int:
        """Bytes of the largest stage."""
        return max(self.stages.values())

    @property
    def largest(self) -> str:
        """The name of the largest stage."""
        return max(self.stages, key=self.stages.__getitem__)

    def fits(self, machine: Machine) -> bool:
        """Whether every stage is within the machine's limit."""
        return machine.limit is None or self.peak <= machine.limit

    def memory_text(self, machine: Machine) -> str:
        """The line of the log that says how much memory a rank takes."""
        limit = f" of {machine.limit / GIB:.2f} GiB allowed" if machine.limit else ""
        sizes = ", ".join(f"{name} {size / GIB:.2f}" for name, size in self.stages.items())
        return f"plan: at most {self.peak / GIB:.2f} GiB a rank{limit} ({sizes})"


P = TypeVar("P", bound=Plan)


def first_that_fits(
    machine: Machine,
    candidates: Iterable[P],
    what: Callable[[P], str] = lambda plan: f"the stage {plan.largest}",
    ways: Sequence[str] = (),
    spreads: bool = False,
) -> P:
    """The first of the ``candidates``, the best first, that fits; they are made one by one.

    Raises MemoryPlanError, see `does_not_fit`, when none does: about the last one, as ``what`` calls it.
    """
    plan = None
    for plan in candidates:
        if plan.fits(machine):
            return plan
    if plan is None:
        raise ValueError("there is no candidate")
    raise does_not_fit(machine, what(plan), plan.peak, *ways, spreads=spreads)


def check_team_size(team_size: int | None, machine: Machine) -> None:
    """UsageError for a team of more ranks than there are."""
    if team_size is not None and not 1 <= team_size <= machine.ranks:
        raise UsageError(f"--team-size must be from 1 to the number of ranks, {machine.ranks}, not {team_size}")
