"""How a team of several ranks should hold its operator: by rows of L^-1 or Z' ("inverse"), or on a grid ("grid").

Rows multiply nearly as fast as the local product; the distributed solve and product wait for messages, the more so the
more ranks a team has. But L has to be inverted first. So the inverse is for streams that are long beside n.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from mpgls.la.redistribute import DEALT_BYTES
from mpgls.la.row_operator import SMALLEST
from mpgls.run.plan import Machine

OF_ROWS = 0.9
"""Rate of the product of rows, as a share of the GEMM rate of the team's ranks."""
OF_GRID, GRID_FALLS = 0.61, 0.47
"""The same of the solve on a grid of two ranks, and the power of R/2 that it falls with: 0.23 on 16."""
OF_INVERSION = 0.3
"""Rate of p?trtri on the grid of all ranks, as a share of their GEMM rate in float64."""
MESSAGES = 3 * DEALT_BYTES
"""Bytes that are packed, sent and received in a round of dealing rows, at most."""


class Held(NamedTuple):
    """Ranks of a team, and how they hold the operator: "local" by one rank, otherwise "inverse" or "grid"."""

    team: int
    solver: str


@dataclass(frozen=True)
class TeamWork:
    """What the teams are for: m columns through an n x n operator, numbers of ``item`` bytes.

    ``triangle``: the operator is L^-1, which has to be made of L; otherwise it is Z', which is there.
    """

    n: int
    m: int
    item: int
    triangle: bool = True

    def times(self, team: int) -> dict[str, float]:
        """Expected time of each solver in teams of that size; the bare product at the GEMM rate takes 1."""
        # n^3/3 in float64 beside n^2 m, which takes half as long in float32
        inversion = self.triangle * self.n / (3 * self.m) * (self.item / 8) ** -1 / OF_INVERSION
        return {"inverse": 1 / OF_ROWS + inversion, "grid": (team / 2) ** GRID_FALLS / OF_GRID}

    def ways(self, solver: str, teams: Iterable[int]) -> Iterator[Held]:
        """Teams of these sizes with the ``solver``, or with both where it is "auto", the faster one first."""
        for team in teams:
            times = self.times(team)
            both = sorted(times, key=times.__getitem__) if solver == "auto" else [solver]
            yield from (Held(team, one) for one in (both if team > 1 else ["local"]))

    def why(self, held: Held) -> str:
        """What speaks for the solver, or against it; empty for teams of one."""
        if held.team == 1:
            return ""
        times = self.times(held.team)
        other = "grid" if held.solver == "inverse" else "inverse"
        making = ", inverting L included" if self.triangle else ""
        return f"{times[held.solver] / times[other]:.2g} times the time of {other} expected{making}"

    def operator_bytes(self, held: Held, machine: Machine) -> int:
        """Bytes of the operator on a rank."""
        whole = self.item * self.n**2
        if held.team == 1:
            return whole // machine.ranks_per_node
        if held.solver == "inverse" and self.triangle:
            whole = self.item * self.n * (self.n + min(self.n, SMALLEST)) // 2
        return whole // held.team

    def hand_over_bytes(self, held: Held, machine: Machine) -> int:
        """Bytes a rank beside L or Z and the operator, while it is made."""
        if held.solver == "inverse":  # L^-1 on the grid of all ranks
            return self.triangle * 8 * self.n**2 // machine.ranks + MESSAGES
        return self.operator_bytes(held, machine) * (held.solver == "grid" and self.item == 4)

    def columns_bytes(self, held: Held, width: int, machine: Machine) -> int:
        """Bytes a rank of X and X~ for ``width`` columns a rank, which overwrite each other in teams of one."""
        nodes = -(-held.team // machine.ranks_per_node)  # each of a team's nodes has all of its columns
        buffers = {"local": 1, "grid": 2, "inverse": 1 + nodes}
        return self.n * self.item * width * buffers[held.solver]


def teams_text(held: Held, why: str) -> str:
    """As it stands in the log."""
    return f"teams of {held.team}" + (f" by {held.solver} ({why})" if why else "")
