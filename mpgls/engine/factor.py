"""Cholesky factors L L' = a A + b I of a symmetric matrix A, for many a and b: on the process grid.

Who needs them does not know where they lie: on the grid here, or on a card (`mpgls.engine.factor_on_card`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from mpgls.la import scalapack
from mpgls.la.eigen import multiply, sum_of_squares
from mpgls.la.few_columns import columns_gram, columns_on_grid, whole_columns
from mpgls.la.hold import blocks_of_inverse, factor_flop, hold_factor
from mpgls.la.layout import Block
from mpgls.la.matrix import GridMatrix
from mpgls.la.redistribute import one_by_one
from mpgls.la.teams import Team, TeamOperator


class Powers(NamedTuple):
    """Of M = L L' and few columns C (n, k): log|M|, and C'M^-1C, C'M^-2C, C'M^-3C."""

    log_det: float
    once: np.ndarray
    twice: np.ndarray
    thrice: np.ndarray


class Factor(Protocol):
    """L (n, n). It is valid until another one of the same matrix is made. All but `flop_of_hold` is collective."""

    def powers(self, C_rep: np.ndarray) -> Powers:
        """What the likelihood needs of a few columns C (n, k)."""

    def solve(self, C_rep: np.ndarray, transposed: bool = False) -> np.ndarray:
        """L^-1 C (n, k), or L^-T C, float64 on every rank."""

    def hold(self, team: Team, width: int, dtype: type) -> TeamOperator:
        """X~ = L^-1 X on every team of ranks, for blocks of ``width`` columns a rank."""

    def row_blocks(self, wanted: Sequence[Sequence[Block]]) -> Iterator[np.ndarray]:
        """Of the blocks of L^-1 that each rank wants, this rank's, one after the other, zero above the diagonal.

        Float64, of the host or of this rank's card. To be iterated to its end.
        """

    def flop_of_hold(self, team: Team) -> float:
        """Floating-point operations of a rank in `hold`."""


class Factors(Protocol):
    """A symmetric matrix A (n, n), and its factors. ``kept`` (n,) bool: rows and columns that are not are zero."""

    def product(self, C_rep: np.ndarray, kept: np.ndarray | None = None) -> tuple[np.ndarray, float]:
        """A C (n, k) of a few columns, float64 on every rank, and the sum of the squares of A. Collective."""

    def factor(self, a: float, b: float, dtype: type, kept: np.ndarray | None = None) -> Factor:
        """L L' = a A + b I in this precision. Collective. Raises NotPositiveDefinite on every rank."""

    def leave(self) -> None:
        """No factor is needed for a while: a card is left to others."""


class FactorsOnGrid:
    """`Factors` of ``A_grid`` [MC,MR], in one work buffer beside it: a factor is gone when the next one is made."""

    def __init__(self, A_grid: GridMatrix) -> None:
        self.A_grid = A_grid
        self._work = np.empty(A_grid.local.size, dtype=np.float64)
        self._in_work: tuple[float, float] | None = None  # a and b of the float64 factor of all of A that is there

    def product(self, C_rep: np.ndarray, kept: np.ndarray | None = None) -> tuple[np.ndarray, float]:
        """By `mpgls.la.eigen`."""
        chosen_grid = self.A_grid if kept is None else self._scaled(1.0, np.float64, kept)
        return multiply(chosen_grid, C_rep), sum_of_squares(chosen_grid)

    def factor(self, a: float, b: float, dtype: type, kept: np.ndarray | None = None) -> FactorOnGrid:
        """By p?potrf."""
        whole = dtype == np.float64 and kept is None
        if whole and self._in_work == (a, b):
            return FactorOnGrid(self._in_buffer(dtype))
        L_grid = self._scaled(a, dtype, kept)
        L_grid.local[L_grid.diagonal_positions] += b
        scalapack.potrf(L_grid)
        self._in_work = (a, b) if whole else None
        return FactorOnGrid(L_grid)

    def leave(self) -> None:
        """The grid is nobody else's."""

    def _in_buffer(self, dtype: type) -> GridMatrix:
        """A matrix like A in the work buffer."""
        local = self.A_grid.local
        flat: np.ndarray = self._work.view(dtype)[: local.size]
        return GridMatrix(self.A_grid.grid, self.A_grid.layout, dtype, flat.reshape(local.shape[::-1]).T)

    def _scaled(self, a: float, dtype: type, kept: np.ndarray | None) -> GridMatrix:
        """a A of what is kept, in the work buffer."""
        self._in_work = None
        scaled_grid = self._in_buffer(dtype)
        np.multiply(self.A_grid.local, a, out=scaled_grid.local, casting="same_kind")
        if kept is not None:
            scaled_grid.local[np.flatnonzero(~kept[self.A_grid.row_indices])] = 0.0
            scaled_grid.local[:, np.flatnonzero(~kept[self.A_grid.col_indices])] = 0.0
        return scaled_grid


class FactorOnGrid:
    """L in the lower triangle of ``L_grid`` [MC,MR]."""

    def __init__(self, L_grid: GridMatrix) -> None:
        self.L_grid = L_grid

    def powers(self, C_rep: np.ndarray) -> Powers:
        """By three solves."""
        L_grid = self.L_grid
        C_grid = columns_on_grid(L_grid, C_rep)
        scalapack.trsm(L_grid, C_grid)  # C~ = L^-1 C
        once = columns_gram(C_grid)
        scalapack.trsm(L_grid, C_grid, transposed=True)  # U = L^-T C~ = M^-1 C
        twice = columns_gram(C_grid)
        scalapack.trsm(L_grid, C_grid)  # L^-1 U
        diagonal = L_grid.local[L_grid.diagonal_positions].astype(np.float64)
        log_det = 2.0 * L_grid.grid.comm.allreduce(float(np.log(diagonal).sum()))
        return Powers(log_det, once, twice, columns_gram(C_grid))

    def solve(self, C_rep: np.ndarray, transposed: bool = False) -> np.ndarray:
        """By p?trsm."""
        C_grid = columns_on_grid(self.L_grid, C_rep)
        scalapack.trsm(self.L_grid, C_grid, transposed=transposed)
        return whole_columns(C_grid)

    def hold(self, team: Team, width: int, dtype: type) -> TeamOperator:
        """As `mpgls.la.hold` does."""
        return hold_factor(self.L_grid, team, width, dtype)

    def row_blocks(self, wanted: Sequence[Sequence[Block]]) -> Iterator[np.ndarray]:
        """From L^-1 on the grid."""
        return one_by_one(blocks_of_inverse(self.L_grid, wanted))

    def flop_of_hold(self, team: Team) -> float:
        """Those of the inverse, where it is made."""
        return factor_flop(self.L_grid.shape[0], team, self.L_grid.grid.size)
