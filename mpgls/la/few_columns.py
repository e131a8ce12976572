"""A few columns beside a large factor, such as covariates and a trait: everybody has them before and after."""

from __future__ import annotations

import numpy as np

from mpgls.la.layout import GridLayout
from mpgls.la.matrix import GridMatrix


def columns_on_grid(L_grid: GridMatrix, C_rep: np.ndarray) -> GridMatrix:
    """A few replicated columns (n, k) as a right-hand side for ``L_grid``: all in process column 0, same precision."""
    n, k = C_rep.shape
    layout = GridLayout.of((n, k), (L_grid.layout.rows.block, k), L_grid.grid.shape)
    C_grid = GridMatrix(L_grid.grid, layout, L_grid.dtype.type)
    C_grid.local[...] = C_rep[np.ix_(C_grid.row_indices, C_grid.col_indices)]
    return C_grid


def columns_gram(C_grid: GridMatrix) -> np.ndarray:
    """C'C (k, k) in float64 on every rank, for columns made by ``columns_on_grid``. Collective."""
    k = C_grid.shape[1]
    C = C_grid.local.astype(np.float64, copy=False)
    partial = C.T @ C if C.shape[1] == k else np.zeros((k, k))
    total = np.empty((k, k))
    C_grid.grid.comm.Allreduce(np.ascontiguousarray(partial), total)
    return total


def whole_columns(C_grid: GridMatrix) -> np.ndarray:
    """C (n, k) in float64, all of it on every rank. Collective."""
    C = np.zeros(C_grid.shape)
    C[np.ix_(C_grid.row_indices, C_grid.col_indices)] = C_grid.local
    C_grid.grid.comm.Allreduce(C.copy(), C)
    return C
