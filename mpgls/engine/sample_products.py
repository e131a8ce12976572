"""G G' over the samples (n x n), for as many similarity SNPs as samples: there it is smaller than G'G."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mpgls.engine.cholesky import CholeskyCovariance
from mpgls.engine.low_rank_nulls import SimilarityPart
from mpgls.engine.similarity import Similarity
from mpgls.la.grid import ProcessGrid
from mpgls.la.matrix import GridMatrix
from mpgls.model import reml
from mpgls.run.plan import grid_block
from mpgls.run.world import World
from mpgls.study.align import Cohort


def sample_products(G: Similarity, runs: Sequence[slice], grid: ProcessGrid, world: World) -> GridMatrix:
    """G G' over the similarity SNPs of ``runs``, (n, n) [MC,MR], float64. No communication."""
    T_grid = GridMatrix.square(grid, G.n, grid_block(G.n, grid.shape))
    rows, cols = T_grid.row_indices, T_grid.col_indices
    for run in runs:
        for columns, D in G.panels(run):
            with world.phase("GG'", flop=2.0 * rows.size * cols.size * D.shape[1]):
                G_panel = (D - G.off_center[columns]) / G.sd[columns]
                T_grid.local += G_panel[rows] @ G_panel[cols].T
    return T_grid


def without(T_grid: GridMatrix, G: Similarity, part: SimilarityPart, world: World) -> GridMatrix:
    """Phi_c = (T - G_out G_out') / s_c, [MC,MR]."""
    Phi_grid = GridMatrix(T_grid.grid, T_grid.layout, local=T_grid.local.copy(order="F"))
    out = np.flatnonzero(~part.kept)
    if out.size:
        left_out = [slice(int(out[0]), int(out[-1]) + 1)]  # a chromosome's similarity SNPs are neighbours
        Phi_grid.local -= sample_products(G, left_out, T_grid.grid, world).local
    Phi_grid.local /= part.scale
    return Phi_grid


@dataclass(frozen=True)
class SampleModels:
    """`models.Models` of traits that share ``Phi_grid``, made of the SNPs of the fileset ``source``."""

    Phi_grid: GridMatrix
    cohorts: Mapping[str, Cohort]
    source: str
    world: World

    def take(self, trait: str, label: str) -> tuple[CholeskyCovariance, Cohort]:
        """V = h2 Phi + (1-h2) I. Collective."""
        return CholeskyCovariance(self.Phi_grid, self.world, reml.TOLERANCE), self.cohorts[trait]
