"""What mpgls ridge keeps: a row for each target, null maxima, folds, and on request predictions and SNP weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mpgls.commands.ridge_parts.parcels import Parcels
from mpgls.commands.ridge_parts.targets import RidgeTargets
from mpgls.engine.fold_operators import FoldProblem
from mpgls.engine.genotype_blocks import GenotypeBlocks
from mpgls.engine.null_state import NullState
from mpgls.engine.permutation_tiles import Observed
from mpgls.engine.snp_weights import dual_of_all, snp_weights
from mpgls.report.figure import draw_all
from mpgls.report.ridge_plots import r2_against_null, r2_by_alpha
from mpgls.report.ridge_table import TargetRows, write_folds, write_null, write_targets, write_trait_file
from mpgls.report.weights_table import write_weights
from mpgls.run.job import Job
from mpgls.study.variants import VariantRows

if TYPE_CHECKING:
    from mpgls.commands.ridge_parts.options import Ridge

SHOWN = 5
"""Targets that the log names."""


class RidgeReport:
    """Writes the files of a finished scan. ``files``, ``tables`` and ``best`` targets are those written so far."""

    def __init__(self, options: Ridge, targets: RidgeTargets, null: NullState, job: Job) -> None:
        assert null.observed is not None
        self.options, self.targets, self.null, self.job = options, targets, null, job
        self.observed: Observed = null.observed
        self.alphas = np.array(options.penalties)
        self.files: list[Path] = []
        self.tables: dict[str, Path] = {}
        self.best: list[dict[str, Any]] = []

    def write(self, scale: np.ndarray, parcels: Parcels | None) -> None:
        """Tables, predictions, maps and plots; ``scale`` (t,) are the units of the residuals. Collective."""
        with self.job.world.phase("report"):
            made = self.job.world.on_root(lambda: self._write(scale, parcels))
        self.files, self.tables, self.best = made

    def _write(
        self, scale: np.ndarray, parcels: Parcels | None
    ) -> tuple[list[Path], dict[str, Path], list[dict[str, Any]]]:
        job, options, targets = self.job, self.options, self.targets
        rows = self._rows()
        names = ("targets", "folds", "null") if options.permutations else ("targets", "folds")
        tables, files = {name: job.path(f".{name}.tsv") for name in names}, []
        write_targets(tables["targets"], rows)
        write_folds(tables["folds"], targets.ids, *targets.folds.labels())
        if options.permutations:
            write_null(tables["null"], self.null.maxima)
        if self.observed.errors is not None:
            predicted = targets.read() - self.observed.errors * scale
            files.append(job.path(".predictions.h5"))
            write_trait_file(files[-1], predicted, targets.analysed, targets.ids)
        if parcels is not None:
            files += [parcels.table, *parcels.write_maps(job, rows.r2)]
        if not options.no_plots:
            title, observed, maxima = Path(job.prefix).name, self.observed, self.null.maxima
            pictures = {
                job.path(".null.png"): lambda path: r2_against_null(path, title, observed.mean, maxima),
                job.path(".alphas.png"): lambda path: r2_by_alpha(path, title, self.alphas, observed.by_alpha),
            }
            files += draw_all(pictures, job.world.log.info)
        return files, tables, self._say(rows, tables["targets"])

    def _rows(self) -> TargetRows:
        """The rows of all targets, those that were not analysed with their reason and no numbers."""
        targets, observed = self.targets, self.observed
        everyone, outer = len(targets.names), len(observed.r2)

        def spread(values: np.ndarray) -> np.ndarray:
            whole = np.full((*values.shape[:-1], everyone), np.nan)
            whole[..., targets.traits] = values
            return whole

        p, p_fwe = self.null.p_values(self.options.dtype)
        flags = [targets.reasons.get(j, "") for j in range(everyone)]
        for k, j in enumerate(targets.traits):
            if observed.constant[:, k].any():
                folds = ",".join(str(o + 1) for o in range(outer) if observed.constant[o, k])
                flags[j] = ";".join([*filter(None, [flags[j]]), f"constant in fold {folds}"])
        folds_r2 = np.where(observed.constant, np.nan, observed.r2)
        return TargetRows(
            targets.names, targets.n, spread(observed.mean), spread(observed.r.mean(axis=0)), spread(p), spread(p_fwe),
            spread(folds_r2), spread(self.alphas[observed.chosen]), flags,
        )  # fmt: skip

    def _say(self, rows: TargetRows, path: Path) -> list[dict[str, Any]]:
        """The best targets, in the log; returns them for the manifest."""
        log = self.job.world.log
        best = self.targets.traits[np.argsort(-rows.r2[self.targets.traits], kind="stable")[:SHOWN]]
        log.info(f"targets: {path}")
        for j in best:
            log.info(f"  {rows.names[j]}  R2 {rows.r2[j]:.4f}  r {rows.r[j]:.3f}  p {rows.p[j]:.3g}")
        return [{"target": rows.names[j], "r2": rows.r2[j], "p": rows.p[j], "p_fwe": rows.p_fwe[j]} for j in best]

    # -- SNP weights --------------------------------------------------------------------------------------------------

    def write_weights(self, problem: FoldProblem, genotypes: GenotypeBlocks, used: int, variants: VariantRows) -> None:
        """Weights of the model of all samples for the targets predicted best, per copy of EA. Collective.

        The penalty is the one with the largest mean R2 over the outer folds. ``problem`` has the kernel of all samples,
        made of ``used`` SNPs.
        """
        world, path = self.job.world, self.job.path(".weights.tsv")
        chosen = np.argsort(-self.observed.mean, kind="stable")[: self.options.weights]
        with world.phase("weights"):
            Y = world.on_root(lambda: self.targets.read()[:, chosen])
            a_rep = dual_of_all(problem, Y, self._best_penalties()[chosen], world)
            weights = snp_weights(genotypes, a_rep / used, "standardized", world)
            names = [self.targets.analysed[k] for k in chosen]
            world.on_root(lambda: write_weights(path, variants, weights, names))
        world.log.info(f"weights of {weights.rows.size:,} SNPs for {len(names)} targets: {path}")
        self.tables["weights"] = path

    def _best_penalties(self) -> np.ndarray:
        """The penalty (t,) of each target's model of all samples."""
        by_alpha = self.observed.by_alpha
        if self.options.one_for_all:
            by_alpha = np.broadcast_to(by_alpha.mean(axis=1, keepdims=True), by_alpha.shape)
        return self.alphas[by_alpha.argmax(axis=0)]
