"""Phi on the process grid: loaded once for the samples of all traits, handed out for the samples of each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpgls.commands.inputs import Study
from mpgls.commands.session import Session
from mpgls.la.grid import ProcessGrid
from mpgls.la.matrix import GridMatrix
from mpgls.la.redistribute import submatrix
from mpgls.stream.kinship_grid import load_kinship, scale_to_unit_diagonal


class KinshipOnGrid:
    """The kinship over all samples of a study, n_all x n_all [MC,MR] in square blocks, for its ``traits``.

    Creating it is collective; without traits nothing is loaded.
    """

    def __init__(self, study: Study, grid: ProcessGrid, block: int, traits: Sequence[str], session: Session) -> None:
        assert study.kinship is not None
        self.study, self.samples, self.block, self.session = study, study.samples, block, session
        self._left = list(traits)
        self._Phi_all_grid: GridMatrix | None = None
        if not self._left:
            return
        position = np.full(study.fileset.bed.n, -1, dtype=np.int64)
        for cohort in study.cohorts.values():
            position[cohort.rows] = cohort.kinship_index
        with session.timings.phase("load kinship") as loading:
            Phi_grid = GridMatrix.square(grid, self.samples.size, block)
            loading.nbytes += load_kinship(Phi_grid, study.kinship, position[self.samples])  # Phi_grid = Phi_cols
        self._Phi_all_grid = Phi_grid

    def take(self, trait: str) -> GridMatrix:
        """Phi over the samples of ``trait``, scaled to mean diagonal 1. Collective.

        Each trait is taken once; with the last one this object keeps no memory.
        """
        assert self._Phi_all_grid is not None
        rows = self.study.cohorts[trait].rows
        Phi_grid = self._Phi_all_grid
        with self.session.timings.phase("select samples"):
            if rows.size < self.samples.size:
                Phi_grid = submatrix(Phi_grid, np.searchsorted(self.samples, rows), self.block)
            mean = scale_to_unit_diagonal(Phi_grid)
        self._left.remove(trait)
        if not self._left:
            self._Phi_all_grid = None
        self.session.log.info(f"{trait}: n = {rows.size:,}; kinship divided by its mean diagonal, {mean:.8g}")
        return Phi_grid
