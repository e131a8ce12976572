"""The same model with n x n matrices, for as many similarity SNPs as samples: there G G' is smaller than G'G.

T        = G G'                                        once, on the grid
Phi_c    = (T - G_out G_out') / s_c                    without chromosome c's SNPs, G_out
h2       = argmax REML(h2),   L L' = h2 Phi_c + (1-h2) I
for every block X of c's SNPs: X~ = L^-1 X, ...        as single-trait does
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpgls.commands.low_rank_estimate import NullTable, Part
from mpgls.commands.low_rank_inputs import SampleSet
from mpgls.commands.low_rank_null import TOLERANCE
from mpgls.commands.low_rank_results import LowRankResults
from mpgls.commands.low_rank_run import Run
from mpgls.commands.null_model import Covariance
from mpgls.commands.plan_scan import grid_block
from mpgls.commands.scan import SnpModel, SnpSolver, scan
from mpgls.commands.similarity import Similarity
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


def scan_dense(run: Run, samples: SampleSet, G: Similarity, parts: Sequence[Part], known: np.ndarray, team: Team,
               results: LowRankResults) -> NullTable:  # fmt: skip
    """Null model and scan of every part and trait. Collective; returns the estimates.

    ``known`` (T, parts) are given h2, NaN elsewhere. Raises Stopped, on all ranks, when a signal asked for it.
    """
    table = NullTable.empty(*known.shape)
    T_grid = sample_products(G, [slice(0, G.K)], run.grid, run.session.timings)
    for c, part in enumerate(parts):
        left_out = _runs_left_out(part)
        Phi_grid = GridMatrix(run.grid, T_grid.layout, local=T_grid.local.copy(order="F"))
        if left_out:
            Phi_grid.local -= sample_products(G, left_out, run.grid, run.session.timings).local
        Phi_grid.local /= part.scale
        for j, name in enumerate(samples.traits):
            if results.left([name], part).size:
                F = samples.F[:, [*range(samples.q), samples.q + j]]
                covariance = Covariance(Phi_grid, F, run.session.timings)
                _estimate(run, covariance, table, j, c, known[j, c])
                _scan_trait(run, samples, covariance, name, c, part, float(table.h2[j, c]), team, results)
    return table


def _estimate(run: Run, covariance: Covariance, table: NullTable, j: int, c: int, known: float) -> None:
    """h2 of one trait and part, given or by REML."""
    if not np.isnan(known):
        table.h2[j, c] = known
        return
    found = covariance.maximise(run.session.log, run.session.stop, TOLERANCE)
    table.h2[j, c], table.h2_se[j, c], table.boundary[j, c] = found.h2, found.h2_se, found.at_boundary


def _scan_trait(
    run: Run,
    samples: SampleSet,
    covariance: Covariance,
    name: str,
    number: int,
    part: Part,
    h2: float,
    team: Team,
    results: LowRankResults,
) -> None:
    """The blocks of one part against one trait, with the n x n factor."""
    session, config, bed = run.session, run.config, run.study.fileset.bed
    sums = covariance.factorise_at(h2)
    results.keep_null(name, number, h2, sums)
    with session.timings.phase("hand over factor"):
        factor = covariance.hold(team, results.store.block, config.dtype)
        F_rep = covariance.whiten(covariance.F_rep)
    model = SnpModel(sums, F_rep, samples.rows, config.test, config.precision, config.study.snps)
    solver = SnpSolver(model, factor, bed, session.timings)
    scan(
        solver, bed, results.store, results.place(name), part.blocks, team, session.comm, session.log, session.stop,
        session.options.checkpoint,
    )  # fmt: skip
    session.sample_memory()
    factor.close()


def _runs_left_out(part: Part) -> list[slice]:
    """The similarity SNPs that the part's model does not have, as runs."""
    out = np.flatnonzero(~part.kept)
    return [slice(int(out[0]), int(out[-1]) + 1)] if out.size else []
