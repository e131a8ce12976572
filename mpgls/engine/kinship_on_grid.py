"""Phi on the process grid: loaded once for all samples, handed out for the samples of each trait or group of traits."""

from __future__ import annotations

import numpy as np

from mpgls.engine.kinship_grid import center, load_kinship, scale_to_unit_diagonal
from mpgls.la.grid import ProcessGrid
from mpgls.la.matrix import GridMatrix
from mpgls.la.redistribute import submatrix
from mpgls.run.world import World
from mpgls.study.grm import Kinship


class KinshipOnGrid:
    """The kinship over ``samples`` (.fam rows, ascending), n x n [MC,MR] in square blocks, to be taken ``uses`` times.

    ``index`` are the positions of the samples in the kinship; ``centered`` takes row and column means away before the
    scaling, over the samples taken. It is centred and scaled over all samples when it is loaded, so that what is taken
    has the same bits whatever was taken before, as in a run that resumes. Creating it is collective; without uses
    nothing is loaded.
    """

    def __init__(
        self,
        kinship: Kinship,
        samples: np.ndarray,
        index: np.ndarray,
        uses: int,
        grid: ProcessGrid,
        block: int,
        world: World,
        centered: bool = False,
    ) -> None:
        self.path, self.centered = kinship.path, centered
        self.samples, self.block, self.world, self._left = samples, block, world, uses
        self._Phi_all_grid: GridMatrix | None = None
        if uses:
            with world.phase("load kinship") as loading:
                Phi_grid = GridMatrix.square(grid, samples.size, block)
                loading.nbytes += load_kinship(Phi_grid, kinship, index)  # Phi_grid = Phi_cols
            self._Phi_all_grid, self._divided_by = Phi_grid, self._scale(Phi_grid)

    def _scale(self, Phi_grid: GridMatrix) -> float:
        """Centre it, if asked for, and divide by the mean diagonal, which is returned."""
        if self.centered:
            center(Phi_grid)
        return scale_to_unit_diagonal(Phi_grid, self.path)

    def take(self, rows: np.ndarray, label: str, to_destroy: bool = False) -> GridMatrix:
        """Phi over the .fam rows ``rows``, scaled to mean diagonal 1. Collective.

        ``to_destroy``: the caller overwrites it, so it may not be the one that later takes need. With the last of its
        uses this object keeps no memory.
        """
        assert self._Phi_all_grid is not None
        Phi_grid, mean = self._Phi_all_grid, self._divided_by
        if rows.size < self.samples.size:
            with self.world.phase("select samples"):
                Phi_grid = submatrix(Phi_grid, np.searchsorted(self.samples, rows), self.block)
                mean *= self._scale(Phi_grid)
        self._left -= 1
        if not self._left:
            self._Phi_all_grid = None
        elif to_destroy and Phi_grid is self._Phi_all_grid:
            Phi_grid = GridMatrix(Phi_grid.grid, Phi_grid.layout, Phi_grid.dtype.type, Phi_grid.local.copy(order="F"))
        how = "centred and divided by" if self.centered else "divided by"
        self.world.log.info(f"{label}: n = {rows.size:,}; kinship {how} its mean diagonal, {mean:.8g}")
        return Phi_grid
