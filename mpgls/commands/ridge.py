"""mpgls ridge: how well do all SNPs together predict each target, and is that more than chance? ([Ridge])

    K       = X X' / m                      X standardised SNPs, streamed once;  penalties relative to mean diag K
    D_alpha = alpha (V^-1 - V^-1 C (C'V^-1 C)^-1 C'V^-1),   V = K + alpha I,   C covariates with the intercept
    for every permutation pi of the residuals of Y on C, the identity first, in tiles of columns:
        R   = D_alpha Y_pi                  one product for all folds of a penalty
        e_I = rows I of (D_SS)^-1 R_S       errors for inner fold I without outer fold O, S = I u O
        e_O = (D_OO)^-1 R_O                 errors for outer fold O
        alpha_O = argmax mean_I R2(e_I)     for each target, or for all
        R2  = mean_O R2(e_O at alpha_O)     p: how often a permutation reaches it; its maximum over targets

Permuting the residuals of the covariates is Freedman and Lane's scheme, and prediction errors do not depend on what
covariates explain, so the residuals alone are enough.
"""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING

import numpy as np

from mpgls.commands.common.inputs import Study, open_study
from mpgls.commands.common.session import Session
from mpgls.commands.ridge_parts.config import RidgeConfig
from mpgls.commands.ridge_parts.plan import RidgeSizes, plan_kernel, plan_penalties
from mpgls.commands.ridge_parts.results import SUFFIXES, RidgeResults
from mpgls.commands.ridge_parts.targets import RidgeTargets, open_targets, share_targets, with_parcels
from mpgls.engine.fold_operators import FoldProblem, Kind, PenaltyOperators
from mpgls.engine.genotype_blocks import GenotypeBlocks
from mpgls.engine.kernel import genotype_kernel, given_kernel
from mpgls.engine.null_state import NullState
from mpgls.engine.permutation_tiles import Permutations, TileScanner, all_tiles, tile_width
from mpgls.errors import Stopped
from mpgls.la.shared import SharedArray, split_node
from mpgls.model.kernel_ridge import Direct
from mpgls.model.nested_scores import Scatter
from mpgls.mpi import on_root
from mpgls.run.plan import GIB
from mpgls.run.world import World
from mpgls.stream.progress import save_progress
from mpgls.stream.store import fingerprint

if TYPE_CHECKING:
    from mpi4py import MPI


def run(config: RidgeConfig, comm: MPI.Comm) -> None:
    """Predict every target of the study. Collective over ``comm``. Raises MpglsError, the same on all ranks."""
    import scipy.linalg  # noqa: F401  its BLAS must be there when the session limits threads

    session = Session("ridge", config.run, comm, SUFFIXES, config.inputs())
    with session.timings.phase("open and check"):
        study = open_study(config.study, comm, session.log, traits=False, further=config.tables())
        options, geometry = with_parcels(config, study, session)
        targets = open_targets(config, options, study, session)
    if session.is_complete(study.identities, config):
        return
    world = World(comm, session.log, session.timings, session.stop)
    ridge = Ridge(config, study, targets, session, world)
    n, t, node = targets.n, targets.t, split_node(comm)
    K_node = SharedArray(node, (n, n), np.float64, "kernel")
    Y_node = SharedArray(node, (t, n), config.dtype, "targets")
    used = ridge.make_kernel(K_node)
    scale = share_targets(Y_node, targets, world)
    null, problem = ridge.permute(K_node, Y_node)
    results = RidgeResults(config, study, targets, scale, used, geometry, session)
    with session.timings.phase("report"):
        facts = results.write(null)
    if config.save_weights:
        if problem.kernel_of_fold is not None:
            ridge.make_kernel(K_node)
        facts |= results.write_weights(null, problem, ridge.genotypes)
    K_node.close()
    Y_node.close()
    node.Free()
    session.finish({"inputs": study.identities, **ridge.facts, **facts})


class Ridge:
    """What the steps of the run share. Creating it is collective."""

    def __init__(
        self, config: RidgeConfig, study: Study, targets: RidgeTargets, session: Session, world: World
    ) -> None:
        self.config, self.study, self.targets, self.session, self.world = config, study, targets, session, world
        self.by_fold, self.shared = config.standardize == "fold", config.alpha_choice == "shared"
        self.machine = session.machine()
        self.sizes = RidgeSizes(
            targets.n, targets.t, targets.group.X_L.shape[1], np.dtype(config.dtype).itemsize,
            study.fileset.bed.snp_bytes, tile_width(targets.t, self.shared),
        )  # fmt: skip
        plan = plan_kernel(self.machine, self.sizes, config.block_size)
        session.log.info(plan.text(self.machine))
        index = world.comm.bcast(study.selection.index if study.selection is not None else None, root=0)
        self.genotypes = GenotypeBlocks(study.fileset.bed, targets.group.rows, index, config.study.snps, plan.block)
        self.progress = session.path(".progress")
        self.mark = fingerprint({"inputs": study.identities, "options": config.determines_results()})
        self.facts: dict[str, object] = {}

    def make_kernel(self, K_node: SharedArray) -> int:
        """K over all samples; returns the SNPs that it is made of, if they are the study's own. Collective."""
        log, kinship = self.session.log, self.study.kinship
        if kinship is not None:
            mean = given_kernel(K_node, kinship, self.targets.group.kinship_index, self.world)
            log.info(f"kernel: {kinship.path}, divided by its mean diagonal, {mean:.8g}")
            self.facts["mean_diagonal"] = mean
            return 0
        used = genotype_kernel(K_node, self.genotypes, self.world)
        log.info(f"kernel: {used:,} standardised SNPs; penalties of ridge regression on them are {used:,} alpha")
        self.facts["snps"] = used
        return used

    def permute(self, K_node: SharedArray, Y_node: SharedArray) -> tuple[NullState, FoldProblem]:
        """Observed targets, then all permutations; the result is on every rank. Collective."""
        config, world, folds, C_rep = self.config, self.world, self.targets.folds, self.targets.group.X_L

        def kernel_of_fold(k: int) -> None:
            used = self.facts["snps"]
            assert isinstance(used, int)
            genotype_kernel(K_node, self.genotypes, world, folds.training(k), used)

        problem = FoldProblem(K_node, C_rep, folds, config.dtype, kernel_of_fold if self.by_fold else None)
        largest = problem.largest_eigenvalue(world)
        kinds = problem.kinds(config.alphas, largest)
        groups = self._plan(kinds, largest)
        scanner = TileScanner(
            Y_node.array, Scatter(folds, C_rep, config.dtype), Permutations(config.seed, self.targets.blocks),
            len(config.alphas), self.shared, config.save_predictions,
        )  # fmt: skip
        with PenaltyOperators(problem, config.alphas, kinds, world) as penalties:
            return self._permute(penalties, groups, scanner), problem

    def _permute(self, penalties: PenaltyOperators, groups: list[range], scanner: TileScanner) -> NullState:
        """Every batch of tiles through every group of penalties. Collective."""
        world, several = self.world, len(groups) > 1
        tiles = all_tiles(self.targets.t, self.config.permutations, self.shared)
        null = self._start(groups)
        fits = len(self.config.alphas) * len(self.targets.folds.tests)
        watch = world.progress("permutations", fits * sum(tile.width for tile in tiles[null.tiles_done :]), "fits")
        done, saved = 0, time.perf_counter()
        waiting = 16 * len(self.config.alphas) * len(self.targets.folds.outer) if several else None
        while null.tiles_done < len(tiles):
            batch = null.next_batch(tiles, world.size, waiting)
            for group in groups:
                if group.start < null.penalties_done:
                    continue
                operators = penalties.hold(group)
                self.session.sample_memory()
                for start in range(0, len(batch), world.size):
                    if start:
                        world.raise_if_stopped()
                    of_round = batch[start : start + world.size]
                    for number, tile in of_round[world.rank :: world.size]:
                        with world.phase("permutations", flop=2.0 * penalties.multiplications * tile.width):
                            null.pending[number] = scanner.score(tile, operators, group.start, null.pending.get(number))
                    done += sum(tile.width for _, tile in of_round) * len(group) * len(self.targets.folds.tests)
                    watch.at(done)
                if several:
                    null.penalties_done = group.stop
                    self._save(null)
            with world.phase("join ranks"):
                null.join(batch, scanner, world.comm)
            try:
                world.raise_if_stopped()
            except Stopped:
                self._save(null)
                raise
            if world.comm.bcast(time.perf_counter() - saved > self.session.options.checkpoint, root=0):
                self._save(null)
                saved = time.perf_counter()
        return null

    def _plan(self, kinds: list[Kind], largest: float) -> list[range]:
        """Which penalties are held together, in the log."""
        config, log, folds = self.config, self.session.log, self.targets.folds
        numbers = [kind.size(folds) for kind in kinds]
        groups, need = plan_penalties(self.machine, self.sizes, folds, numbers, self.by_fold)
        direct = [f"{alpha:g}" for alpha, kind in zip(config.alphas, kinds, strict=True) if kind is Direct]
        flop = 2.0 * sum(numbers) * self.targets.t
        if direct:
            log.info(
                f"plan: smoothers of each training set for the penalties {', '.join(direct)} "
                + ("(a kernel for each fold)" if self.by_fold else f"(largest eigenvalue of the kernel {largest:.4g})")
            )
        if self.by_fold:
            log.info(f"plan: the genotypes are read {len(folds.tests) + 1} times, once for each training set")
        log.info(
            f"plan: {max(map(len, groups))} of {len(config.alphas)} penalties at a time, {need / GIB:.2f} GiB a rank; "
            f"{flop / 1e9:,.1f} Gflop a permutation"
        )
        fits = len(folds.tests) * self.targets.t * len(config.alphas)
        self.facts |= {"gflop_per_permutation": flop / 1e9, "largest_eigenvalue": largest, "fits_per_permutation": fits}
        return groups

    # -- restart ------------------------------------------------------------------------------------------------------

    def _start(self, groups: list[range]) -> NullState:
        """The state of the run to resume, or that of a new one. Collective."""
        session = self.session
        found = on_root(session.comm, lambda: session.progress_to_resume(self.progress, self.mark))
        if found is None:
            return NullState.start(self.config.permutations, self.targets.t)
        null = NullState.unpack(*found)
        session.log.info(f"resume: {null.tiles_done:,} tiles are done, {len(null.pending):,} begun")
        if null.penalties_done not in [group.stop for group in groups]:
            null.penalties_done = 0  # begun with other groups of penalties: score these tiles anew
        return null

    def _save(self, null: NullState) -> None:
        """Everything so far in PREFIX.progress. Collective."""
        with self.world.phase("save"):
            whole = null.gather(self.world.comm)
            on_root(self.world.comm, functools.partial(self._write, whole))

    def _write(self, whole: NullState | None) -> None:
        assert whole is not None
        save_progress(self.progress, self.mark, whole.pack())
