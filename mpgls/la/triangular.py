"""X := L^-1 X on a column of processes, by local matrix products and one broadcast a block row.

A team's factor stays where it is while thousands of blocks of columns pass through it. On an R x 1 grid every process
holds whole rows of L, so only the finished rows of X travel: for block row k

    X_k  := L_kk^-1 X_k                 on its owner
    X_k  -> all processes               broadcast
    X_i  := X_i - L_ik X_k, i > k       each process its own rows, one matrix product

(the right-looking variant, as Elemental's Trsm LLN). p?trsm does the same on any grid, with more copies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mpgls.la import scalapack
from mpgls.la.matrix import GridMatrix

if TYPE_CHECKING:
    from mpgls.la.grid import ProcessGrid


class ColumnSolve:
    """Plan of X := L^-1 X for ``L_grid`` (n x n) and ``X_grid`` (n x k), both [MC,MR] on an R x 1 grid."""

    def __init__(self, L_grid: GridMatrix, X_grid: GridMatrix) -> None:
        self.grid: ProcessGrid = L_grid.grid
        if self.grid.shape[1] != 1:
            raise ValueError(f"the grid must have one process column, not {self.grid.shape[1]}")
        self.L, self.X = L_grid.local, X_grid.local
        self.n, self.block = L_grid.shape[0], L_grid.layout.rows.block
        rows = L_grid.layout.rows
        starts = np.arange(0, self.n, self.block)
        self.owner = rows.owner(starts)
        # the first local row after each block, so that the rows still to be updated are one slice
        self.below = np.searchsorted(L_grid.row_indices, np.minimum(starts + self.block, self.n))
        self.local = np.where(self.owner == self.grid.row, rows.local(starts), -1)
        self._X_k = np.empty((self.block, self.X.shape[1]), dtype=self.X.dtype, order="F")

    def run(self) -> None:
        """Solve in place. Collective over the grid."""
        from scipy.linalg import blas

        trsm = blas.dtrsm if self.X.dtype == np.float64 else blas.strsm
        for k, start in enumerate(range(0, self.n, self.block)):
            size = min(self.block, self.n - start)
            X_k = self._X_k[:size] if size == self.block else np.empty((size, self.X.shape[1]), self.X.dtype, order="F")
            if self.owner[k] == self.grid.row:
                here = slice(self.local[k], self.local[k] + size)
                X_k[...] = trsm(1.0, self.L[here, start : start + size], self.X[here], lower=1)  # X_k = L_kk^-1 X_k
                self.X[here] = X_k
            self.grid.column_comm.Bcast(X_k.T, root=int(self.owner[k]))
            below = slice(self.below[k], None)
            scalapack.add_product(self.X[below], self.L[below, start : start + size], X_k, -1.0)
