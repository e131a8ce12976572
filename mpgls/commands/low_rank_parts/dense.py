"""The same model with n x n matrices, for as many similarity SNPs as samples: there G G' is smaller than G'G.

T        = G G'                                        once, on the grid
Phi_c    = (T - G_out G_out') / s_c                    without chromosome c's SNPs, G_out
h2       = argmax REML(h2),   L L' = h2 Phi_c + (1-h2) I
for every block X of c's SNPs: X~ = L^-1 X, ...        by single-trait's scan_trait
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mpgls.commands.low_rank_parts.estimate import SimilarityPart
from mpgls.commands.low_rank_parts.inputs import SampleSet
from mpgls.commands.low_rank_parts.null import TOLERANCE
from mpgls.commands.low_rank_parts.results import LowRankResults
from mpgls.commands.low_rank_parts.run import Run
from mpgls.commands.low_rank_parts.similarity import Similarity
from mpgls.commands.mixed_model.null_model import Covariance
from mpgls.commands.single_trait import scan_trait
from mpgls.la.grid import ProcessGrid
from mpgls.la.matrix import GridMatrix
from mpgls.la.teams import Team
from mpgls.run.clock import Clock
from mpgls.run.plan import grid_block
from mpgls.study.align import Cohort


def sample_products(G: Similarity, runs: Sequence[slice], grid: ProcessGrid, timings: Clock) -> GridMatrix:
    """G G' over the similarity SNPs of ``runs``, (n, n) [MC,MR], float64. No communication."""
    T_grid = GridMatrix.square(grid, G.n, grid_block(G.n, grid.shape))
    rows, cols = T_grid.row_indices, T_grid.col_indices
    for run in runs:
        for columns, D in G.panels(run):
            with timings.phase("GG'", flop=2.0 * rows.size * cols.size * D.shape[1]):
                G_panel = (D - G.off_center[columns]) / G.sd[columns]
                T_grid.local += G_panel[rows] @ G_panel[cols].T
    return T_grid


@dataclass(frozen=True)
class DenseModels:
    """Hands out the covariance of each trait over ``Phi_grid`` n x n [MC,MR], as `NullModels` does. Collective."""

    Phi_grid: GridMatrix
    samples: SampleSet
    timings: Clock

    def take(self, trait: str, label: str) -> tuple[Covariance, Cohort]:
        """The covariance and the samples of ``trait``; ``label`` is not needed."""
        F_rep = self.samples.F_of(self.samples.traits.index(trait))
        return Covariance(self.Phi_grid, F_rep, self.timings, TOLERANCE), self.samples.cohort


def scan_dense(run: Run, samples: SampleSet, G: Similarity, parts: Sequence[SimilarityPart], given: np.ndarray,
               team: Team, results: LowRankResults) -> None:  # fmt: skip
    """Null model and scan of every part and trait. Collective.

    ``given`` (parts, T) are h2 where the user gave one, NaN elsewhere. Raises Stopped, on all ranks, when a signal
    asked for it.
    """
    T_grid = sample_products(G, [slice(0, G.K)], run.grid, run.session.timings)
    for part, of_part in zip(parts, given, strict=True):
        left = [j for j, name in enumerate(samples.traits) if results.records([name]).left(part.blocks).size]
        if not left:
            continue
        models = DenseModels(_without(T_grid, G, part, run), samples, run.session.timings)
        for j in left:
            name = samples.traits[j]
            results.figures[name, part.number] = scan_trait(
                run.config, part, results.store, results.place(name), models.take, of_part[j], run.study.fileset.bed,
                team, run.session,
            )  # fmt: skip


def _without(T_grid: GridMatrix, G: Similarity, part: SimilarityPart, run: Run) -> GridMatrix:
    """Phi_c = (T - G_out G_out') / s_c, [MC,MR]."""
    Phi_grid = GridMatrix(run.grid, T_grid.layout, local=T_grid.local.copy(order="F"))
    if left_out := _runs_left_out(part):
        Phi_grid.local -= sample_products(G, left_out, run.grid, run.session.timings).local
    Phi_grid.local /= part.scale
    return Phi_grid


def _runs_left_out(part: SimilarityPart) -> list[slice]:
    """The similarity SNPs that the part's model does not have, as runs."""
    out = np.flatnonzero(~part.kept)
    return [slice(int(out[0]), int(out[-1]) + 1)] if out.size else []
