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

import time
from typing import TYPE_CHECKING

import numpy as np

from mpgls.commands.common.inputs import Study, open_study
from mpgls.commands.common.session import Session
from mpgls.commands.ridge_parts.config import RidgeConfig
from mpgls.commands.ridge_parts.kernel import genotype_kernel, given_kernel
from mpgls.commands.ridge_parts.operators import HeldOperators, Kind, kinds
from mpgls.commands.ridge_parts.plan import RidgeSizes, plan_kernel, plan_penalties, tile_width
from mpgls.commands.ridge_parts.results import SUFFIXES, RidgeResults
from mpgls.commands.ridge_parts.scan import (
    NullPart,
    NullState,
    Observed,
    Tile,
    TileScanner,
    TileScores,
    join,
    tiles_of,
)
from mpgls.commands.ridge_parts.targets import RidgeTargets, open_targets, share_targets, with_parcels
from mpgls.la.shared import SharedArray, split_node
from mpgls.model.kernel_ridge import Direct, largest_eigenvalue
from mpgls.model.nested_scores import Scatter
from mpgls.mpi import agree, on_root
from mpgls.run.log import Progress, duration
from mpgls.run.plan import GIB
from mpgls.stream.progress import save_progress
from mpgls.stream.store import fingerprint

if TYPE_CHECKING:
    from mpi4py import MPI

PENDING_BYTES = 1 << 30
"""Scores of all ranks that wait for the next penalties, where memory does not hold the operators of all at once."""


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
    node = split_node(comm)
    ridge = Ridge(config, study, targets, node, session)
    ridge.make_kernel()
    state = ridge.scan()
    results = RidgeResults(config, study, targets, ridge.scale, ridge.used, geometry, session)
    with session.timings.phase("report"):
        facts = results.write(state)
    if config.save_weights:
        facts |= results.write_weights(state, ridge.kernel_of_all())
    ridge.close()
    node.Free()
    session.finish({"inputs": study.identities, **ridge.facts, **facts})


class Ridge:
    """The kernel, the operators of the penalties and the loop over permutations. Creating it is collective."""

    def __init__(
        self, config: RidgeConfig, study: Study, targets: RidgeTargets, node: MPI.Comm, session: Session
    ) -> None:
        self.config, self.study, self.targets, self.session = config, study, targets, session
        self.folds, self.C, self.by_fold = targets.folds, targets.group.X_L, config.standardize == "fold"
        shared = config.alpha_choice == "shared"
        self.machine = session.machine()
        self.sizes = RidgeSizes(
            targets.n, targets.t, self.C.shape[1], np.dtype(config.dtype).itemsize, study.fileset.bed.snp_bytes,
            tile_width(targets.t, shared),
        )  # fmt: skip
        plan = plan_kernel(self.machine, self.sizes, config.block_size)
        session.log.info(plan.text(self.machine))
        self.block = plan.block
        self.K = SharedArray(node, (targets.n, targets.n), np.float64, "kernel")
        self.Y, self.scale = share_targets(targets, config.dtype, node, session)
        scatter = Scatter(self.folds, self.C, config.dtype)
        self.scanner = TileScanner(
            self.Y.array, scatter, config.seed, targets.blocks, len(config.alphas), shared, config.save_predictions
        )
        self.progress = session.path(".progress")
        options = config.determines_results()
        self.mark = fingerprint({"inputs": study.identities, "options": options})
        self.used = 0
        self.facts: dict[str, object] = {}

    # -- kernel -------------------------------------------------------------------------------------------------------

    def make_kernel(self) -> None:
        """K over all samples. Collective."""
        log, group = self.session.log, self.targets.group
        if self.study.kinship is not None:
            mean = given_kernel(self.K, self.study, group.kinship_index, self.session)
            log.info(f"kernel: {self.study.kinship.path}, divided by its mean diagonal, {mean:.8g}")
            self.facts["mean_diagonal"] = mean
            return
        self.used = genotype_kernel(
            self.K, self.study, group.rows, self.config.study.snps, self.block, self.session
        )  # fmt: skip
        log.info(
            f"kernel: {self.used:,} standardised SNPs; penalties of ridge regression on them are {self.used:,} alpha"
        )
        self.facts["snps"] = self.used

    def kernel_of_all(self) -> SharedArray:
        """K over all samples again, if it was overwritten. Collective."""
        if self.by_fold:
            self.make_kernel()
        return self.K

    def kernel_of_fold(self, k: int) -> None:
        """K with SNPs standardised over training set k. Collective."""
        training = self.folds.training(k)
        genotype_kernel(
            self.K, self.study, self.targets.group.rows, self.config.study.snps, self.block, self.session, training,
            self.used,
        )  # fmt: skip

    # -- permutations -------------------------------------------------------------------------------------------------

    def scan(self) -> NullState:
        """Observed targets, then all permutations; the result is on every rank. Collective."""
        config, session = self.config, self.session
        largest = on_root(session.comm, lambda: largest_eigenvalue(self.K.array, self.C))
        chosen = kinds(config.alphas, largest, config.dtype, self.by_fold)
        groups = self._plan(chosen, largest)
        state = on_root(session.comm, self._start)
        if state.penalties_done not in [group.start for group in groups]:
            state.penalties_done = 0  # begun with other groups of penalties: score these tiles anew
        whole = config.alpha_choice == "shared"
        tiles = [
            *tiles_of(self.targets.t, 0, 1, whole),
            *tiles_of(self.targets.t, 1, config.permutations + 1, whole),
        ]
        held: HeldOperators | None = None
        left = sum(tile.width for tile in tiles[state.tiles_done :]) * len(config.alphas)
        self.watch, self.fits = Progress(session.log, "permutations", left * len(self.folds.tests), "fits"), 0
        saved = time.perf_counter()
        while state.tiles_done < len(tiles):
            batch = self._batch(tiles, state.tiles_done, len(groups))
            for group in groups:
                if group.start < state.penalties_done:
                    continue
                if held is None or len(groups) > 1:
                    held = self._hold(group, chosen, held)
                self._score(batch, group, held, state)
                if len(groups) > 1:
                    self._save(state, group.stop)
            self._finish_batch(batch, state)
            problem = session.stop.problem()
            stopping = session.comm.allreduce(problem is not None)
            if session.comm.bcast(time.perf_counter() - saved > session.options.checkpoint or stopping, root=0):
                self._save(state, 0)
                saved = time.perf_counter()
            agree(session.comm, problem)
        if held is not None:
            held.close()
        return state

    def _plan(self, chosen: list[Kind], largest: float) -> list[range]:
        """Which penalties are held together, in the log."""
        config, log = self.config, self.session.log
        numbers = [kind.size(self.folds) for kind in chosen]
        groups, need = plan_penalties(self.machine, self.sizes, self.folds, numbers, self.by_fold)
        direct = [f"{alpha:g}" for alpha, kind in zip(config.alphas, chosen, strict=True) if kind is Direct]
        flop = 2.0 * sum(numbers) * self.targets.t
        if direct:
            log.info(
                f"plan: smoothers of each training set for the penalties {', '.join(direct)} "
                + ("(a kernel for each fold)" if self.by_fold else f"(largest eigenvalue of the kernel {largest:.4g})")
            )
        if self.by_fold:
            log.info(f"plan: the genotypes are read {len(self.folds.tests) + 1} times, once for each training set")
        log.info(
            f"plan: {max(map(len, groups))} of {len(config.alphas)} penalties at a time, {need / GIB:.2f} GiB a rank; "
            f"{flop / 1e9:,.1f} Gflop a permutation"
        )
        fits = len(self.folds.tests) * self.targets.t * len(config.alphas)
        self.facts |= {"gflop_per_permutation": flop / 1e9, "largest_eigenvalue": largest, "fits_per_permutation": fits}
        return groups

    def _batch(self, tiles: list[Tile], first: int, groups: int) -> list[tuple[int, Tile]]:
        """The next tiles: the observed targets alone, or one tile a rank; all where operators come and go."""
        numbered = list(enumerate(tiles))[first:]
        if groups > 1:
            each = 16 * len(self.config.alphas) * len(self.folds.outer) * self.sizes.width
            return numbered[: max(1, PENDING_BYTES // each)]
        if first == 0:
            return [one for one in numbered if one[1].first == 0]
        return numbered[: self.session.comm.size]

    def _hold(self, group: range, chosen: list[Kind], held: HeldOperators | None) -> HeldOperators:
        """The operators of the penalties ``group``, in place of those held. Collective."""
        if held is not None:
            held.close()
        alphas, theirs = self.config.alphas[group.start : group.stop], chosen[group.start : group.stop]
        start = time.perf_counter()
        made = HeldOperators(alphas, theirs, self.folds, self.config.dtype, self.session, self.K, self.C)
        if self.by_fold:
            made.build_by_fold(self.kernel_of_fold)
        else:
            made.build()
        named = ", ".join(f"{alpha:g}" for alpha in alphas)
        self.session.log.info(f"operators: penalties {named} in {duration(time.perf_counter() - start)}")
        self.session.sample_memory()
        return made

    def _score(self, batch: list[tuple[int, Tile]], group: range, held: HeldOperators, state: NullState) -> None:
        """This rank's tiles of a batch with the penalties held; the scores wait in ``state.pending``."""
        comm, timings = self.session.comm, self.session.timings
        for start in range(0, len(batch), comm.size):
            if start:
                agree(comm, self.session.stop.problem())
            for number, tile in batch[start : start + comm.size][comm.rank :: comm.size]:
                with timings.phase("permutations", flop=2.0 * held.multiplications * tile.width):
                    state.pending[number] = self.scanner.score(tile, held.each, group.start, state.pending.get(number))
            width = sum(tile.width for _, tile in batch[start : start + comm.size])
            self.fits += width * len(group) * len(self.folds.tests)
            self.watch.at(self.fits)

    def _finish_batch(self, batch: list[tuple[int, Tile]], state: NullState) -> None:
        """Choose penalties and join what all ranks found. Collective."""
        comm, scanner, timings = self.session.comm, self.scanner, self.session.timings
        mine: list[tuple[Tile, TileScores]] = [
            (tile, state.pending[number]) for number, tile in batch[comm.rank :: comm.size]
        ]
        with timings.phase("join ranks"):
            if batch[0][1].first == 0:
                parts = [(tile, scanner.observed(tile, scores)) for tile, scores in mine if tile.first == 0]
                found = comm.allgather(parts)
                state.observed = join([part for theirs in found for part in theirs])
            assert state.observed is not None
            observed: Observed = state.observed
            nulls = [
                NullPart.of(tile, scanner.mean_r2(tile, scores), observed.mean, self.Y.array.dtype)
                for tile, scores in mine
                if tile.first > 0
            ]
            for part in (part for theirs in comm.allgather(nulls) for part in theirs):
                part.add_to(state)
        state.tiles_done, state.penalties_done = batch[-1][0] + 1, 0
        state.pending.clear()

    # -- restart ------------------------------------------------------------------------------------------------------

    def _start(self) -> NullState:
        """The state of the run to resume, or that of a new one."""
        session = self.session
        state = session.progress_to_resume(self.progress, self.mark)
        if state is not None:
            session.log.info(f"resume: {state.tiles_done:,} tiles are done, {len(state.pending):,} begun")
            return state
        return NullState(np.full(self.config.permutations, -np.inf), np.zeros(self.targets.t, dtype=np.int64))

    def _save(self, state: NullState, penalties_done: int) -> None:
        """Everything so far in PREFIX.progress, and scores that wait for more penalties on every rank. Collective."""
        state.penalties_done = penalties_done
        comm = self.session.comm
        # after a resume every rank has all that waited; its own tiles are newest here
        waiting = comm.gather(state.pending, root=0)

        def write() -> None:
            whole = NullState(**state.__dict__)
            whole.pending = {number: scores for theirs in waiting or [] for number, scores in theirs.items()}
            save_progress(self.progress, self.mark, whole)

        with self.session.timings.phase("save"):
            on_root(comm, write)

    def close(self) -> None:
        """Give shared memory back. Collective."""
        del self.scanner
        self.K.close()
        self.Y.close()
