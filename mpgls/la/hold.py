"""How the teams hold an operator: whole on every node, on a grid of each team, or by rows that stay where they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpgls.la import scalapack
from mpgls.la.grid_operator import GridBasis, GridFactor
from mpgls.la.layout import Block
from mpgls.la.matrix import GridMatrix
from mpgls.la.redistribute import GridToBlocks
from mpgls.la.row_operator import RowOperator
from mpgls.la.shared import split_node
from mpgls.la.shared_operator import SharedBasis, SharedFactor
from mpgls.la.teams import Team, TeamOperator


def hold_factor(L_grid: GridMatrix, team: Team, width: int, dtype: type) -> TeamOperator:
    """Give every team its own copy of the factor L, for blocks of ``width`` columns a rank. Collective."""
    if team.count < L_grid.grid.size:
        if team.solver == "grid":
            return GridFactor(L_grid, team, width, dtype)
        return RowOperator(_inverse(L_grid), team, width, dtype, lower=True)
    node = split_node(L_grid.grid.comm)
    factor = SharedFactor(L_grid, node, width, dtype)
    node.Free()
    return factor


def blocks_of_inverse(L_grid: GridMatrix, wanted: Sequence[Sequence[Block]]) -> list[np.ndarray]:
    """Of the blocks of L^-1 that each rank wants, this rank's, float64; zero above the diagonal. Collective."""
    blocks = GridToBlocks(_inverse(L_grid), wanted).run(np.float64)
    for (rows, cols), W in zip(wanted[L_grid.grid.comm.rank], blocks, strict=True):
        W[...] = np.tril(W, rows.start - cols.start)
    return blocks


def _inverse(L_grid: GridMatrix) -> GridMatrix:
    """W = L^-1, beside L."""
    W_grid = GridMatrix(L_grid.grid, L_grid.layout, local=L_grid.local.copy(order="F"))
    scalapack.trtri(W_grid)
    return W_grid


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
