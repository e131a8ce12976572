"""What mpgls ridge keeps: a row for each target, null maxima, folds, and on request predictions and SNP weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mpgls.commands.common.inputs import Study, read_snps
from mpgls.commands.common.session import Session
from mpgls.commands.ridge_parts.config import RidgeConfig
from mpgls.commands.ridge_parts.scan import TIE, NullState, Observed
from mpgls.commands.ridge_parts.targets import RidgeTargets
from mpgls.la.shared import SharedArray
from mpgls.model.kernel_ridge import dual_coefficients, residual_operator
from mpgls.mpi import agree, on_root
from mpgls.report.brain_maps import write_parcel_map
from mpgls.report.ridge_plots import r2_against_null, r2_by_alpha
from mpgls.report.ridge_table import TargetRows, write_folds, write_null, write_targets, write_trait_file, write_weights
from mpgls.stream.progress import remove_progress
from mpgls.study.filters import passes
from mpgls.study.genotypes import Decoder

SUFFIXES = (
    ".targets.tsv", ".null.tsv", ".folds.tsv", ".predictions.h5", ".weights.tsv", ".null.png", ".alphas.png",
    ".parcels.h5", ".parcels.nii.gz", ".r2.nii.gz", ".voxels.h5", ".progress",
)  # fmt: skip
SHOWN = 5
"""Targets that the log names."""
WEIGHT_BLOCK = 1024
"""SNPs of a block while weights are made."""


class RidgeResults:
    """Writes the files of a finished scan. ``scale`` (t,) are units of the residuals, ``used`` the kernel's SNPs."""

    def __init__(
        self, config: RidgeConfig, study: Study, targets: RidgeTargets, scale: np.ndarray, used: int,
        geometry: dict[str, Any], session: Session,
    ) -> None:  # fmt: skip
        self.config, self.study, self.targets, self.session = config, study, targets, session
        self.scale, self.used, self.geometry = scale, used, geometry
        self.alphas = np.array(config.alphas)

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
        targets, P = self.targets, self.config.permutations
        everyone, outer = len(targets.names), len(observed.r2)

        def spread(values: np.ndarray) -> np.ndarray:
            whole = np.full((*values.shape[:-1], everyone), np.nan)
            whole[..., targets.traits] = values
            return whole

        p = (1.0 + state.counts) / (P + 1.0)
        ordered = np.sort(state.maxima)
        reached = observed.mean - TIE[np.dtype(self.config.dtype)]
        p_fwe = (1.0 + P - np.searchsorted(ordered, reached)) / (P + 1.0)
        if P == 0:
            p[:] = p_fwe[:] = np.nan
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

    # -- SNP weights --------------------------------------------------------------------------------------------------

    def write_weights(self, state: NullState, K: SharedArray) -> dict[str, Any]:
        """Weights of the model of all samples for the targets predicted best, per copy of EA. Collective.

        The penalty is the one with the largest mean R2 over the outer folds. With a = V^-1 (y - C b) the weights of
        standardised SNPs are X'a / m.
        """
        observed = state.observed
        assert observed is not None
        chosen = np.argsort(-observed.mean, kind="stable")[: self.config.save_weights]
        with self.session.timings.phase("weights"):
            a = on_root(self.session.comm, lambda: self._dual(observed, chosen, K.array))
            index, eaf, weights = self._project(a)

            def write() -> None:
                names = [self._analysed_names()[k] for k in chosen]
                path = self.session.path(".weights.tsv")
                write_weights(path, self.study.fileset.variants, index, eaf, weights, names)
                self.session.log.info(f"weights of {index.size:,} SNPs for {len(names)} targets: {path}")

            on_root(self.session.comm, write)
        return {"weights": str(self.session.path(".weights.tsv"))}

    def _dual(self, observed: Observed, chosen: np.ndarray, K: np.ndarray) -> np.ndarray:
        """Dual coefficients (n, k) of the chosen targets, in the targets' units."""
        by_alpha = observed.by_alpha
        if self.config.alpha_choice == "shared":
            by_alpha = np.broadcast_to(by_alpha.mean(axis=1, keepdims=True), by_alpha.shape)
        best = by_alpha.argmax(axis=0)[chosen]
        Y = self.targets.read()[:, chosen]
        a = np.empty_like(Y)
        for penalty in np.unique(best):
            D = K.copy(order="F")
            residual_operator(D, self.targets.group.X_L, self.alphas[penalty])
            a[:, best == penalty] = dual_coefficients(D, Y[:, best == penalty], self.alphas[penalty])
        return a

    def _project(self, a: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """.bim rows, frequencies of A1 and weights (m, k) of all SNPs, on rank 0. Collective."""
        comm, study, bed = self.session.comm, self.study, self.study.fileset.bed
        index = comm.bcast(study.selection.index if study.selection is not None else None, root=0)
        rows = self.targets.group.rows
        blocks = [index[start : start + WEIGHT_BLOCK] for start in range(0, index.size, WEIGHT_BLOCK)]
        mine = blocks[comm.rank :: comm.size]
        decoder, X_block = Decoder(bed.n, [rows], np.float64), np.empty((rows.size, WEIGHT_BLOCK), order="F")
        reader = read_snps(bed, mine, comm)
        found, error = [], None
        try:
            for wanted, (_, packed) in zip(mine, reader, strict=True):
                X = X_block[:, : packed.shape[0]]
                stats = decoder.decode(packed, [X])
                kept = passes(stats, self.config.study.snps) & ~stats.monomorphic
                weights = (X.T @ a)[kept] / (self.used * stats.variance[kept, None])
                found.append((wanted[kept], stats.eaf[kept], weights))
        except Exception as caught:
            error = caught
        agree(comm, error)
        everyone = [part for theirs in comm.gather(found, root=0) or [] for part in theirs]
        if not everyone:
            return index[:0], np.empty(0), np.empty((0, a.shape[1]))
        index, eaf, weights = (np.concatenate(column) for column in zip(*everyone, strict=True))
        order = np.argsort(index)
        return index[order], eaf[order], weights[order]
