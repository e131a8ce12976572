"""Cholesky factors on a card: that of rank 0 has the triangle of A and that of a factor, and the other ranks wait.

A itself stays on the process grid. Its triangle comes to the card for the first product or factor, and leaves it when
L^-1 is asked for, unless it may stay. L becomes L^-1 in its place, whose rows go to the ranks that want them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from mpgls.device.card import PRODUCTS, Card
from mpgls.device.triangle import Triangle, panel_columns, triangle_size
from mpgls.engine.factor import FactorOnGrid, Factors, FactorsOnGrid, Powers
from mpgls.la.layout import Block
from mpgls.la.matrix import GridMatrix
from mpgls.la.redistribute import GridToBlocks
from mpgls.la.teams import Team, TeamOperator
from mpgls.run.world import World

if TYPE_CHECKING:
    from mpi4py import MPI

T = TypeVar("T")


def factors_of(A_grid: GridMatrix, world: World, card: Card | None, stays: bool = False) -> Factors:
    """Those of ``A_grid`` on the card of rank 0, where A ``stays`` or not, or on the grid where there are no cards."""
    return FactorsOnGrid(A_grid) if card is None else FactorsOnCard(A_grid, world, card, stays)


class FactorsOnCard:
    """`Factors` of ``A_grid`` [MC,MR] on ``card``, of which only that of rank 0 is used.

    ``stays``: A stays there while no factor is needed. A factor is gone when the next one is made. Its methods raise
    MemoryPlanError, on all ranks, where the card has no room, and StorageError where it fails.
    """

    def __init__(self, A_grid: GridMatrix, world: World, card: Card, stays: bool = False) -> None:
        self.A_grid, self.world, self.card, self.stays, self.n = A_grid, world, card, stays, A_grid.shape[0]
        self._loaded = False
        self._A: Triangle | None = None  # on rank 0, as what follows
        self._memory: Any = None  # of L in float64
        self._L: Triangle | None = None
        self._of_L: tuple[float, float] | None = None  # its a and b, where it is the float64 factor of all of A

    def product(self, C_rep: np.ndarray, kept: np.ndarray | None = None) -> tuple[np.ndarray, float]:
        """By panels."""
        self._load()

        def product() -> tuple[np.ndarray, float]:
            assert self._A is not None
            found, square = self._A.product(self.card.xp.asarray(C_rep), self._mask(kept))
            return self.card.to_host(found), square

        return self.on_card(product)

    def factor(self, a: float, b: float, dtype: type, kept: np.ndarray | None = None) -> FactorOnCard:
        """By panels, in ``dtype``."""
        self._load()
        whole = (a, b) if dtype == np.float64 and kept is None else None

        def factor() -> None:
            if whole is None or self._of_L != whole:
                assert self._A is not None
                self._of_L = None
                if self._memory is None:
                    self._memory = self.card.xp.empty(triangle_size(self.n))
                self._L = Triangle(self.card, self.n, self._memory.view(dtype)[: triangle_size(self.n)])
                self._L.fill(self._A, a, b, self._mask(kept))
                self._L.factorise()
                self._of_L = whole

        self.on_card(factor)
        return FactorOnCard(self, self._L)

    def on_card(self, action: Callable[[], T]) -> T:
        """What ``action`` gives on rank 0, in the lane of products; every rank has it, or raises alike. Collective."""

        def in_lane() -> T:
            with self.card.lane(PRODUCTS):
                return action()

        return self.world.on_root(in_lane)

    def leave(self) -> None:
        """The memory of factors is given back, and that of A unless it stays; a factor that is there keeps its own."""
        self._memory, self._L, self._of_L = None, None, None
        if not self.stays:
            self._loaded, self._A = False, None

    def _mask(self, kept: np.ndarray | None) -> Any:
        return None if kept is None else self.card.xp.asarray(kept.astype(np.float64))

    def _load(self) -> None:
        """The triangle of A to the card, unless it is there. Collective."""
        if self._loaded:
            return
        world, n = self.world, self.n

        def make_room() -> None:
            self._A = Triangle.empty(self.card, n)

        self.on_card(make_room)
        with world.phase("copy to the card", nbytes=8 * triangle_size(n) * (world.rank == 0)):
            for j, cols in enumerate(panel_columns(n)):
                below = Block(range(cols.start, n), cols)
                panels = GridToBlocks(self.A_grid, [[below], *[[]] * (world.size - 1)]).run(np.float64)
                with world.together(), self.card.lane(PRODUCTS):
                    for panel in panels:
                        assert self._A is not None
                        self._A.panels[j].whole[...] = self.card.xp.asarray(panel.T).T
        self.on_card(self.card.settle)
        self._loaded = True


class FactorOnCard:
    """L in ``triangle`` on the card of rank 0, None on the others; L^-1 when its rows have been asked for."""

    def __init__(self, owner: FactorsOnCard, triangle: Triangle | None) -> None:
        self._owner, self._triangle, self._inverted = owner, triangle, False
        self.world, self.card, self.n = owner.world, owner.card, owner.n

    def powers(self, C_rep: np.ndarray) -> Powers:
        """By three solves."""

        def powers() -> Powers:
            L = self._there()
            C = self._columns(C_rep)
            L.solve(C)  # C~ = L^-1 C
            once = self._gram(C)
            L.solve_transposed(C)  # U = L^-T C~ = M^-1 C
            twice = self._gram(C)
            L.solve(C)  # L^-1 U
            return Powers(L.log_det(), once, twice, self._gram(C))

        return self._owner.on_card(powers)

    def solve(self, C_rep: np.ndarray, transposed: bool = False) -> np.ndarray:
        """By L, or by L^-1 where L has become that."""

        def solve() -> np.ndarray:
            triangle, C = self._there(), self._columns(C_rep)
            if self._inverted:
                C = triangle.multiply_transposed(C) if transposed else triangle.multiply(C)
            elif transposed:
                triangle.solve_transposed(C)
            else:
                triangle.solve(C)
            return self.card.to_host(C.astype(np.float64))

        return self._owner.on_card(solve)

    def hold(self, team: Team, width: int, dtype: type) -> TeamOperator:
        """L comes to the grid, and is held as ranks do."""
        L_grid = GridMatrix(self._owner.A_grid.grid, self._owner.A_grid.layout)
        for j, cols in enumerate(panel_columns(self.n)):
            panel = self._owner.on_card(functools.partial(self._panel, j))
            rows, here = L_grid.row_indices >= cols.start, np.isin(L_grid.col_indices, cols)
            at = L_grid.row_indices[rows] - cols.start, L_grid.col_indices[here] - cols.start
            L_grid.local[np.ix_(rows, here)] = panel[np.ix_(*at)]
        return FactorOnGrid(L_grid).hold(team, width, dtype)

    def row_blocks(self, wanted: Sequence[Sequence[Block]]) -> Iterator[Any]:
        """L := L^-1; then rank 0 sends theirs to the others, and keeps its own on its card."""
        self._owner.leave()
        self._owner.on_card(lambda: self._there().invert())
        self._inverted = True
        comm = self.world.comm
        for k in range(max(map(len, wanted))):
            for rank, blocks in enumerate(wanted):
                if comm.rank == 0 < rank and k < len(blocks):
                    with self.card.lane(PRODUCTS):
                        W = self.card.to_host(self._there().block(blocks[k]))
                    comm.Send(W, dest=rank)
            if k < len(wanted[comm.rank]):
                yield self._here(wanted[comm.rank][k], comm)

    def flop_of_hold(self, team: Team) -> float:
        """Those of L^-1."""
        return self.n**3 / 3 / self.world.size

    def _there(self) -> Triangle:
        assert self._triangle is not None
        return self._triangle

    def _panel(self, j: int) -> np.ndarray:
        return self.card.to_host(self._there().panels[j].whole)

    def _columns(self, C_rep: np.ndarray) -> Any:
        return self.card.xp.array(C_rep, dtype=self._there().memory.dtype)

    def _gram(self, C: Any) -> np.ndarray:
        """C'C in float64."""
        C = C.astype(np.float64)
        return self.card.to_host(C.T @ C)

    def _here(self, block: Block, comm: MPI.Comm) -> Any:
        """A block of L^-1 on the card of rank 0, or from there on the host of another."""
        if comm.rank == 0:
            with self.card.lane(PRODUCTS):
                return self._there().block(block)
        W: np.ndarray = np.empty((len(block.rows), len(block.cols)))
        comm.Recv(W, source=0)
        return W
