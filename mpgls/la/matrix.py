"""A dense matrix in [MC,MR] distribution: a layout, a grid, and this process's Fortran-ordered block."""

from __future__ import annotations

import functools

import numpy as np

from mpgls.la import scalapack
from mpgls.la.grid import ProcessGrid
from mpgls.la.layout import GridLayout


class GridMatrix:
    """An m x n matrix dealt block-cyclically to a process grid.

    ``local`` is this process's block: Fortran order, float64 or float32, rows ``row_indices`` and columns
    ``col_indices`` of the whole. ``local`` may be given (a part of a larger buffer, say); it is not copied.
    """

    def __init__(
        self, grid: ProcessGrid, layout: GridLayout, dtype: type = np.float64, local: np.ndarray | None = None
    ):
        self.grid, self.layout = grid, layout
        shape = layout.local_shape(grid.row, grid.col)
        scalapack.check_local_block(layout.shape, shape, grid.size)
        if local is None:
            local = np.zeros(shape, dtype=dtype, order="F")
        if local.shape != shape or not local.flags.f_contiguous:
            raise ValueError(f"the local block must be Fortran-ordered {shape}, not {local.shape}")
        self.local = local

    @classmethod
    def square(cls, grid: ProcessGrid, n: int, block: int, dtype: type = np.float64) -> GridMatrix:
        """An n x n matrix of zeros in square blocks."""
        return cls(grid, GridLayout.of((n, n), (block, block), grid.shape), dtype)

    @property
    def shape(self) -> tuple[int, int]:
        """Global shape."""
        return self.layout.shape

    @property
    def dtype(self) -> np.dtype:
        """Element type of the local block."""
        return self.local.dtype

    @functools.cached_property
    def row_indices(self) -> np.ndarray:
        """Global row of each local row."""
        return self.layout.rows.indices(self.grid.row)

    @functools.cached_property
    def col_indices(self) -> np.ndarray:
        """Global column of each local column."""
        return self.layout.cols.indices(self.grid.col)

    @functools.cached_property
    def diagonal_positions(self) -> tuple[np.ndarray, np.ndarray]:
        """Local (rows, columns) of the diagonal elements that this process owns."""
        _, rows, cols = np.intersect1d(self.row_indices, self.col_indices, assume_unique=True, return_indices=True)
        return rows, cols

    @property
    def descriptor(self) -> np.ndarray:
        """ScaLAPACK's array descriptor."""
        (m, n), rows, cols = self.shape, self.layout.rows, self.layout.cols
        leading = max(1, self.local.shape[0])
        return np.array([1, self.grid.context, m, n, rows.block, cols.block, 0, 0, leading], dtype=np.int32)
