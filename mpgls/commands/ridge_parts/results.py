"""What mpgls ridge keeps: a row for each target, null maxima, folds, and on request predictions and SNP weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mpgls.commands.common.inputs import Study
from mpgls.commands.common.session import Session
from mpgls.commands.ridge_parts.config import RidgeConfig
from mpgls.commands.ridge_parts.targets import RidgeTargets
from mpgls.engine.fold_operators import FoldProblem
from mpgls.engine.genotype_blocks import GenotypeBlocks
from mpgls.engine.null_state import NullState
from mpgls.engine.permutation_tiles import Observed
from mpgls.engine.snp_weights import dual_of_all, snp_weights
from mpgls.mpi import on_root
from mpgls.report.brain_maps import write_parcel_map
from mpgls.report.ridge_plots import r2_against_null, r2_by_alpha
from mpgls.report.ridge_table import TargetRows, write_folds, write_null, write_targets, write_trait_file, write_weights
from mpgls.run.world import World
from mpgls.stream.progress import remove_progress

SUFFIXES = (
    ".targets.tsv", ".null.tsv", ".folds.tsv", ".predictions.h5", ".weights.tsv", ".null.png", ".alphas.png",
    ".parcels.h5", ".parcels.nii.gz", ".r2.nii.gz", ".voxels.h5", ".progress",
)  # fmt: skip
SHOWN = 5
"""Targets that the log names."""


class RidgeResults:
    """Writes the files of a finished scan. ``scale`` (t,) are units of the residuals, ``used`` the kernel's SNPs."""

    def __init__(
        self, config: RidgeConfig, study: Study, targets: RidgeTargets, scale: np.ndarray, used: int,
        geometry: dict[str, Any], session: Session,
    ) -> None:  # fmt: skip
        self.config, self.study, self.targets, self.session = config, study, targets, session
        self.scale, self.used, self.geometry = scale, used, geometry
        self.alphas = np.array(config.alphas)
        self.world = World(session.comm, session.log, session.timings, session.stop)

    def write(self, state: NullState) -> dict[str, Any]:
        """Tables, predictions, maps and plots; returns facts for the manifest. Collective."""
        return on_root(self.session.comm, lambda: self._write(state))

    def _write(self, state: NullState) -> dict[str, Any]:
        session, targets = self.session, self.targets
        observed = state.observed
        assert observed is not None
        rows = self._rows(observed, state)
        write_targets(session.path(".targets.tsv"), rows)
        write_folds(session.path(".folds.tsv"), targets.ids, *targets.folds.labels())
        if self.config.permutations:
            write_null(session.path(".null.tsv"), state.maxima)
        if observed.errors is not None:
            predicted = targets.read() - observed.errors * self.scale
            write_trait_file(session.path(".predictions.h5"), predicted, self._analysed_names(), targets.ids)
        if self.geometry:
            self._write_maps(rows.r2)
        if self.config.plots:
            title = Path(session.prefix).name
            r2_against_null(session.path(".null.png"), title, observed.mean, state.maxima)
            r2_by_alpha(session.path(".alphas.png"), title, self.alphas, observed.by_alpha)
        remove_progress(session.path(".progress"))
        best = self._say(rows)
        made = [str(path) for suffix in SUFFIXES if (path := session.path(suffix)).exists()]
        return {"targets": targets.t, "n": targets.n, "best": best, "files": made}

    def _rows(self, observed: Observed, state: NullState) -> TargetRows:
        """The rows of all targets, those that were not analysed with their reason and no numbers."""
        targets = self.targets
        everyone, outer = len(targets.names), len(observed.r2)

        def spread(values: np.ndarray) -> np.ndarray:
            whole = np.full((*values.shape[:-1], everyone), np.nan)
            whole[..., targets.traits] = values
            return whole

        p, p_fwe = state.p_values(self.config.dtype)
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

    def _write_maps(self, r2: np.ndarray) -> None:
        """Parcels, from 1, and the R2 of each as images; parcels without a result are NaN."""
        place = {name: self.geometry[name] for name in ("shape", "affine", "coordinates", "labels")}
        for suffix, values in ((".parcels.nii.gz", np.arange(1.0, r2.size + 1)), (".r2.nii.gz", r2)):
            write_parcel_map(self.session.path(suffix), values=values, **place)

    def _say(self, rows: TargetRows) -> list[dict[str, Any]]:
        """The best targets, in the log; returns them for the manifest."""
        log = self.session.log
        best = self.targets.traits[np.argsort(-rows.r2[self.targets.traits], kind="stable")[:SHOWN]]
        log.info(f"targets: {self.session.path('.targets.tsv')}")
        for j in best:
            log.info(f"  {rows.names[j]}  R2 {rows.r2[j]:.4f}  r {rows.r[j]:.3f}  p {rows.p[j]:.3g}")
        return [{"target": rows.names[j], "r2": rows.r2[j], "p": rows.p[j], "p_fwe": rows.p_fwe[j]} for j in best]

    def _analysed_names(self) -> list[str]:
        return [self.targets.names[j] for j in self.targets.traits]

    def write_weights(self, state: NullState, problem: FoldProblem, genotypes: GenotypeBlocks) -> dict[str, Any]:
        """Weights of the model of all samples for the targets predicted best, per copy of EA. Collective.

        The penalty is the one with the largest mean R2 over the outer folds. ``problem`` has the kernel of all samples.
        """
        observed = state.observed
        assert observed is not None
        chosen = np.argsort(-observed.mean, kind="stable")[: self.config.save_weights]
        Y = on_root(self.session.comm, lambda: self.targets.read()[:, chosen])
        with self.world.phase("weights"):
            a_rep = dual_of_all(problem, Y, self._best_penalties(observed)[chosen], self.world)
            index, eaf, weights = snp_weights(genotypes, a_rep, self.used, self.world)

            def write() -> None:
                names = [self._analysed_names()[k] for k in chosen]
                path = self.session.path(".weights.tsv")
                write_weights(path, self.study.fileset.variants, index, eaf, weights, names)
                self.session.log.info(f"weights of {index.size:,} SNPs for {len(names)} targets: {path}")

            on_root(self.session.comm, write)
        return {"weights": str(self.session.path(".weights.tsv"))}

    def _best_penalties(self, observed: Observed) -> np.ndarray:
        """The penalty (t,) of each target's model of all samples."""
        by_alpha = observed.by_alpha
        if self.config.alpha_choice == "shared":
            by_alpha = np.broadcast_to(by_alpha.mean(axis=1, keepdims=True), by_alpha.shape)
        return self.alphas[by_alpha.argmax(axis=0)]
