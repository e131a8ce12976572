"""The operator of a team of several ranks on the team's own R x 1 grid: A in [MC,MR] distribution.

With one process column a single Alltoallv brings the whole block of columns, and A never travels.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mpgls.la import scalapack
from mpgls.la.grid import ProcessGrid
from mpgls.la.layout import BlockCyclic, GridLayout
from mpgls.la.matrix import GridMatrix
from mpgls.la.redistribute import PanelsToGrid
from mpgls.la.teams import Closing, Made, Team, sum_over_team
from mpgls.la.triangular import ColumnSolve


class _GridOperator(Closing):
    """A on the team's grid, and the plan that brings columns to it."""

    def __init__(self, A_grid: GridMatrix, team: Team, width: int, dtype: type) -> None:
        n, block = A_grid.shape[0], A_grid.layout.rows.block
        self.grid = ProcessGrid(team.comm, (team.comm.size, 1))
        self._A_grid = _copy_to_teams(A_grid, self.grid, team, dtype)
        p_r, p_c = self.grid.shape
        rows = BlockCyclic(n, block, p_r)
        self.row_panels = [rows.indices(r) for r in range(p_r)]
        self.rows = self.row_panels[self.grid.row]
        self._plan = PanelsToGrid(self.grid, rows, width, dtype)
        self.columns = width * p_r
        self.dtype: np.dtype = np.dtype(dtype)
        self._layout = GridLayout(rows, BlockCyclic(width * p_r * p_c, width * p_r, p_c))
        self._X_grid = GridMatrix(self.grid, self._layout, dtype, local=self._plan.X_grid)

    def exchange(self, sources: np.ndarray) -> Iterator[Made]:
        """Every rank makes its own columns, cut into one panel for each process row."""
        yield sources, [panel[:, : len(sources)] for panel in self._plan.panels]

    def sum_over_rows(self, partial: np.ndarray) -> np.ndarray:
        """Sum over the process column; each rank receives the sums of the columns that it brought."""
        return sum_over_team(partial, self.grid.column_comm)

    def close(self) -> None:
        """Free the team's grid. Collective over the team."""
        self.grid.close()


class GridFactor(_GridOperator):
    """X~ = L^-1 X on the team's grid."""

    def __init__(self, L_grid: GridMatrix, team: Team, width: int, dtype: type) -> None:
        super().__init__(L_grid, team, width, dtype)
        self._solve = ColumnSolve(self._A_grid, self._X_grid)

    def apply(self, used: int | None = None) -> np.ndarray:
        """X_grid = X_cols by one Alltoallv; X~ = L^-1 X, in place."""
        self._plan.run()
        self._solve.run()
        return self._X_grid.local


class GridBasis(_GridOperator):
    """X~ = Z'X on the team's grid."""

    def __init__(self, Z_grid: GridMatrix, team: Team, width: int, dtype: type) -> None:
        super().__init__(Z_grid, team, width, dtype)
        self._X_tilde_grid = GridMatrix(self.grid, self._layout, dtype)

    def apply(self, used: int | None = None) -> np.ndarray:
        """X_grid = X_cols by one Alltoallv; X~ = Z'X by p?gemm."""
        self._plan.run()
        scalapack.gemm(self._A_grid, self._X_grid, self._X_tilde_grid, trans_a=True)
        return self._X_tilde_grid.local


def _copy_to_teams(A_grid: GridMatrix, grid: ProcessGrid, team: Team, dtype: type) -> GridMatrix:
    """A on every team's grid: one p?gemr2d a team, in which all ranks of the world take part."""
    n, block = A_grid.shape[0], A_grid.layout.rows.block
    source_grid = A_grid
    if A_grid.dtype != np.dtype(dtype):
        source_grid = GridMatrix(A_grid.grid, A_grid.layout, dtype, np.asfortranarray(A_grid.local, dtype=dtype))
    target_grid = GridMatrix.square(grid, n, block, dtype)
    for t in range(team.count):
        mine = target_grid if t == team.index else None
        scalapack.copy_between_grids((n, n), source_grid.dtype, source_grid, mine, A_grid.grid.context)
    return target_grid
