"""The same model with n x n matrices, for as many similarity SNPs as samples: there G G' is smaller than G'G.

T        = G G'                                        once, on the grid
Phi_c    = (T - G_out G_out') / s_c                    without chromosome c's SNPs, G_out
h2       = argmax REML(h2),   L L' = h2 Phi_c + (1-h2) I
for every block X of c's SNPs: X~ = L^-1 X, ...        as single-trait does
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpgls.commands.common.machine import grid_block
from mpgls.commands.low_rank_parts.estimate import SimilarityPart
from mpgls.commands.low_rank_parts.inputs import SampleSet
from mpgls.commands.low_rank_parts.null import TOLERANCE
from mpgls.commands.low_rank_parts.results import LowRankResults
from mpgls.commands.low_rank_parts.run import Run
from mpgls.commands.low_rank_parts.similarity import Similarity
from mpgls.commands.mixed_model.null_figures import estimate_h2
from mpgls.commands.mixed_model.null_model import Covariance
from mpgls.commands.mixed_model.scan import SnpModel, SnpSolver, scan
from mpgls.la.grid import ProcessGrid
from mpgls.la.matrix import GridMatrix
from mpgls.la.teams import Team
from mpgls.runtime import Timings


def sample_products(G: Similarity, runs: Sequence[slice], grid: ProcessGrid, timings: Timings) -> GridMatrix:
    """G G' over the similarity SNPs of ``runs``, (n, n) [MC,MR], float64. No communication."""
    T_grid = GridMatrix.square(grid, G.n, grid_block(G.n, grid.shape))
    rows, cols = T_grid.row_indices, T_grid.col_indices
    for run in runs:
        for columns, D in G.panels(run):
            with timings.phase("GG'", flop=2.0 * rows.size * cols.size * D.shape[1]):
                G_panel = (D - G.off_center[columns]) / G.sd[columns]
                T_grid.local += G_panel[rows] @ G_panel[cols].T
    return T_grid


def scan_dense(run: Run, samples: SampleSet, G: Similarity, parts: Sequence[SimilarityPart], given: np.ndarray,
               team: Team, results: LowRankResults) -> None:  # fmt: skip
    """Null model and scan of every part and trait. Collective.

    ``given`` (parts, T) are h2 where the user gave one, NaN elsewhere. Raises Stopped, on all ranks, when a signal
    asked for it.
    """
    T_grid = sample_products(G, [slice(0, G.K)], run.grid, run.session.timings)
    for part, of_part in zip(parts, given, strict=True):
        left = [j for j, name in enumerate(samples.traits) if results.records([name]).left(part.blocks).size]
        Phi_grid = _without(T_grid, G, part, run) if left else T_grid
        for j in left:
            covariance = Covariance(Phi_grid, samples.F_of(j), run.session.timings, TOLERANCE)
            _scan_trait(run, samples, covariance, samples.traits[j], part, of_part[j], team, results)


def _without(T_grid: GridMatrix, G: Similarity, part: SimilarityPart, run: Run) -> GridMatrix:
    """Phi_c = (T - G_out G_out') / s_c, [MC,MR]."""
    Phi_grid = GridMatrix(run.grid, T_grid.layout, local=T_grid.local.copy(order="F"))
    if left_out := _runs_left_out(part):
        Phi_grid.local -= sample_products(G, left_out, run.grid, run.session.timings).local
    Phi_grid.local /= part.scale
    return Phi_grid


def _scan_trait(
    run: Run,
    samples: SampleSet,
    covariance: Covariance,
    name: str,
    part: SimilarityPart,
    given: float,
    team: Team,
    results: LowRankResults,
) -> None:
    """The blocks of one part against one trait, with the n x n factor."""
    session, config, bed = run.session, run.config, run.study.fileset.bed
    estimate = estimate_h2(given, covariance, results.store, results.place(name), part, session)
    sums = covariance.factorise_at(estimate["h2"])
    results.keep_null(name, part, samples, estimate, sums)
    with session.timings.phase("hand over factor"):
        factor = covariance.hold(team, results.store.block, config.dtype)
        F_rep = covariance.whiten(covariance.F_rep)
    model = SnpModel(sums, F_rep, samples.rows, config.test, config.precision)
    solver = SnpSolver(model, factor, bed, session.timings)
    records = results.records([name])
    scan(solver, bed, records, part.blocks, team, session.comm, session.log, session.stop, part.of(name))
    session.sample_memory()
    factor.close()


def _runs_left_out(part: SimilarityPart) -> list[slice]:
    """The similarity SNPs that the part's model does not have, as runs."""
    out = np.flatnonzero(~part.kept)
    return [slice(int(out[0]), int(out[-1]) + 1)] if out.size else []
