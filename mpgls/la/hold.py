"""How the teams hold an operator: whole on every node, on a grid of each team, or by rows that stay where they are."""

from __future__ import annotations

from mpgls.la import scalapack
from mpgls.la.grid_operator import GridBasis, GridFactor
from mpgls.la.matrix import GridMatrix
from mpgls.la.row_operator import RowOperator
from mpgls.la.shared import split_node
from mpgls.la.shared_operator import SharedBasis, SharedFactor
from mpgls.la.teams import Team, TeamOperator


def hold_factor(L_grid: GridMatrix, team: Team, width: int, dtype: type) -> TeamOperator:
    """Give every team its own copy of the factor L, for blocks of ``width`` columns a rank. Collective."""
    if team.count < L_grid.grid.size:
        if team.solver == "grid":
            return GridFactor(L_grid, team, width, dtype)
        W_grid = GridMatrix(L_grid.grid, L_grid.layout, local=L_grid.local.copy(order="F"))
        scalapack.trtri(W_grid)  # W = L^-1
        return RowOperator(W_grid, team, width, dtype, lower=True)
    node = split_node(L_grid.grid.comm)
    factor = SharedFactor(L_grid, node, width, dtype)
    node.Free()
    return factor


def factor_flop(n: int, team: Team, ranks: int) -> float:
    """Operations of each of the ``ranks`` in `hold_factor` of order ``n``: those of L^-1, where it is made."""
    return n**3 / 3 / ranks if team.count < ranks and team.solver != "grid" else 0.0


def hold_basis(Z_grid: GridMatrix, team: Team, width: int, dtype: type) -> TeamOperator:
    """Give every team its own copy of the basis Z, for blocks of ``width`` columns a rank. Collective."""
    if team.count < Z_grid.grid.size:
        if team.solver == "grid":
            return GridBasis(Z_grid, team, width, dtype)
        return RowOperator(Z_grid, team, width, dtype, transposed=True)
    node = split_node(Z_grid.grid.comm)
    basis = SharedBasis(Z_grid, node, width, dtype)
    node.Free()
    return basis
