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

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from mpgls.commands.ridge_parts.options import Ridge
from mpgls.commands.ridge_parts.parcels import Parcels, open_parcels
from mpgls.commands.ridge_parts.report import RidgeReport
from mpgls.commands.ridge_parts.targets import RidgeTargets, open_targets
from mpgls.device.card import Card
from mpgls.engine.device_plan import card_limit, choose_card
from mpgls.engine.dry_run import dry_run_on
from mpgls.engine.fold_operators import FoldProblem, PenaltyOperators
from mpgls.engine.fold_operators_on_card import penalty_operators, tile_scanner
from mpgls.engine.genotype_blocks import GenotypeBlocks
from mpgls.engine.kernel import genotype_kernel, given_kernel
from mpgls.engine.kernel_on_card import kernel_tiles
from mpgls.engine.null_ledger import NullLedger, Rounds
from mpgls.engine.null_state import NullState
from mpgls.engine.permutation_tiles import Permutations, TileScanner, all_tiles, tile_width
from mpgls.engine.ridge_card_plan import RidgeSizes
from mpgls.engine.ridge_plan import PenaltyPlan, plan_kernel, plan_penalties
from mpgls.la.shared import SharedArray, split_node
from mpgls.model.kernel_ridge import Direct, Kind, LeaveOut
from mpgls.model.nested_scores import Scatter
from mpgls.report.figure import PICTURE_BYTES
from mpgls.report.table import table_bytes
from mpgls.report.weights_table import NUMBER_BYTES
from mpgls.run.inputs import Study, open_study, selected_rows
from mpgls.run.job import Job, open_job
from mpgls.run.plan import GIB, Machine
from mpgls.run.results import Results

if TYPE_CHECKING:
    from mpi4py import MPI

    from mpgls.engine.cost import RunCost

SUFFIXES = (
    ".targets.tsv", ".null.tsv", ".folds.tsv", ".predictions.h5", ".weights.tsv", ".null.png", ".alphas.png",
    ".parcels.h5", ".parcels.nii.gz", ".r2.nii.gz", ".voxels.h5", ".progress",
)  # fmt: skip


def run(options: Ridge, comm: MPI.Comm) -> Results:
    """Predict every target of the study. Collective over ``comm``. Raises MpglsError, the same on all ranks."""
    with open_job(options, comm, SUFFIXES, until_done=(".progress",)) as job:
        if job.is_complete():
            return job.results()
        with job.world.phase("open and check"):
            card = None if options.dry_run else choose_card(options.device_wish, job.world)
            study = open_study(options, job.world, traits=False)
            parcels = open_parcels(options, study, job)
            pheno = str(options.pheno if parcels is None else parcels.table)
            targets = open_targets(options, pheno, study, job.world)
            job.identify()
        if options.dry_run:
            machine = job.machine(study.fileset.bed.held_bytes)
            cost = partial(cost_on, options, targets, study)
            return dry_run_on(cost, machine, options.rates, options.device_wish, job)
        with job.world.phase("prediction"):
            facts, report = predict(options, study, targets, parcels, job, card)
        return job.finish(facts, files=report.files, tables=report.tables)


def predict(
    options: Ridge, study: Study, targets: RidgeTargets, parcels: Parcels | None, job: Job, card: Card | None
) -> tuple[dict[str, Any], RidgeReport]:
    """The algorithm: the kernel, the residuals, all permutations, and what is kept of them. Collective.

    Returns facts for the manifest, and the report.
    """
    world, C_rep, folds = job.world, targets.group.X_L, targets.folds
    with world.phase("open and check"):
        check_room(options, targets, study, job)
        machine, sizes = job.machine(study.fileset.bed.held_bytes), sizes_of(options, targets, study)
        sizes = replace(sizes, card=card_limit(card, world))
        plan = plan_kernel(machine, sizes, options.block_size)
    world.log.info(f"plan: SNP blocks of {plan.block}")
    world.log.info(plan.memory_text(machine))
    rows, index = targets.group.rows, selected_rows(study, world)
    genotypes = GenotypeBlocks(study.fileset.bed, rows, index, options.snps, plan.block)

    node = split_node(world.comm)
    K_node = SharedArray(node, (targets.n, targets.n), np.float64, "kernel")
    Y_node = SharedArray(node, (targets.t, targets.n), options.dtype, "targets")
    made = make_kernel(K_node, genotypes, study, targets, job, card)  # K = X X' / m
    scale = targets.residuals(Y_node, world)  # Y without what C explains

    def kernel_of_fold(k: int) -> None:
        tiles = kernel_tiles(targets.n, world.comm, card)
        genotype_kernel(K_node, tiles, genotypes, world, folds.training(k), made["snps"])

    problem = FoldProblem(K_node, C_rep, folds, options.dtype, kernel_of_fold if options.by_fold else None)
    largest = problem.largest_eigenvalue(world)
    kinds = problem.kinds(options.penalties, largest)
    held = plan_penalties(machine, sizes, folds, kinds, options.by_fold)
    facts = made | say_plan(held, kinds, largest, options, targets, job)
    scatter = Scatter(folds, C_rep, options.dtype)
    scanner = tile_scanner(card, held)(
        Y_node.array, scatter, Permutations(options.seed, targets.blocks), len(kinds), options.one_for_all,
        options.save_predictions,
    )  # fmt: skip
    ledger = NullLedger(job.state(), options.checkpoint, world)
    with penalty_operators(card, problem, options.penalties, kinds, world) as penalties:
        null = permute(penalties, held, scanner, ledger, options, job)

    report = RidgeReport(options, targets, null, job)
    report.write(scale, parcels)
    if options.weights:
        if options.by_fold:  # K is that of the last fold
            make_kernel(K_node, genotypes, study, targets, job, card)
        report.write_weights(problem, genotypes, made["snps"], study.fileset.variants)
    del scanner
    K_node.close()
    Y_node.close()
    node.Free()
    return facts | {"targets": targets.t, "n": targets.n, "best": report.best}, report


def permute(
    penalties: PenaltyOperators, plan: PenaltyPlan, scanner: TileScanner, ledger: NullLedger, options: Ridge, job: Job
) -> NullState:
    """The observed targets, then all permutations of them; the same on every rank. Collective."""
    world, folds = job.world, penalties.problem.folds
    t = scanner.Y.shape[1]
    tiles = all_tiles(t, options.permutations, options.one_for_all)
    null = ledger.load(plan.groups)
    if null is None:
        job.starts_anew(ledger.state.path)
        null = NullState.start(options.permutations, t)
    left = sum(tile.width for tile in tiles[null.tiles_done :])
    rounds = Rounds(world, left * len(options.penalties) * len(folds.tests))
    waiting = 16 * len(options.penalties) * len(folds.outer) if plan.several else None

    while null.tiles_done < len(tiles):
        batch = null.next_batch(tiles, world.size, waiting)
        for group in plan.groups:
            if group.start < null.penalties_done:
                continue
            operators = penalties.hold(group)  # D of each alpha; (D_OO)^-1, rows I of (D_SS)^-1
            job.sample_memory()
            for number, tile in rounds.own(batch, len(group) * len(folds.tests)):
                scores = null.pending.get(number)
                with world.phase("permutations", flop=2.0 * penalties.multiplications * tile.width):
                    null.pending[number] = scanner.score(tile, operators, group.start, scores)  # R = D Y_pi; e_I, e_O
            if plan.several:
                null.penalties_done = group.stop
                ledger.keep(null)
        with world.phase("join ranks"):
            null.join(batch, scanner, world.comm)  # alpha_O, R2; maxima and counts
        ledger.keep_if_due(null)
    return null


def make_kernel(
    K_node: SharedArray, genotypes: GenotypeBlocks, study: Study, targets: RidgeTargets, job: Job, card: Card | None
) -> dict[str, Any]:
    """K over all samples; returns what the manifest says of it. Collective."""
    log, kinship = job.world.log, study.kinship
    if kinship is not None:
        mean = given_kernel(K_node, kinship, targets.group.kinship_index, job.world)
        log.info(f"kernel: {kinship.path}, divided by its mean diagonal, {mean:.8g}")
        return {"mean_diagonal": mean}
    used = genotype_kernel(K_node, kernel_tiles(targets.n, job.world.comm, card), genotypes, job.world)
    log.info(f"kernel: {used:,} standardised SNPs; penalties of ridge regression on them are {used:,} alpha")
    return {"snps": used}


# -- plan -------------------------------------------------------------------------------------------------------------


def check_room(options: Ridge, targets: RidgeTargets, study: Study, job: Job) -> None:
    """The files whose sizes are known before the work must have room. Raises StorageError."""
    n, t, outer = targets.n, targets.t, len(targets.folds.tests)
    errors = 8 * n * t if options.save_predictions else 0
    sizes = {
        ".targets.tsv": len(targets.names) * NUMBER_BYTES * (4 + 2 * outer),
        ".null.tsv": options.permutations * (NUMBER_BYTES + len(str(options.permutations))),
        ".folds.tsv": n * (16 + 2 * outer),
        ".predictions.h5": errors,
        ".progress": errors + 8 * (options.permutations + t * (4 + 3 * outer)),
    }
    if options.weights:
        weights = NUMBER_BYTES * (1 + min(options.weights, t))
        sizes[".weights.tsv"] = table_bytes(study.fileset.variants, study.selected, 12 + weights)
    if not options.no_plots:
        sizes |= dict.fromkeys((".null.png", ".alphas.png"), PICTURE_BYTES)
    job.check_room(sizes)


def sizes_of(options: Ridge, targets: RidgeTargets, study: Study) -> RidgeSizes:
    """What the plans depend on."""
    width, item = tile_width(targets.t, options.one_for_all), np.dtype(options.dtype).itemsize
    return RidgeSizes(targets.n, targets.t, targets.group.X_L.shape[1], item, study.fileset.bed.snp_bytes, width)


def cost_on(options: Ridge, targets: RidgeTargets, study: Study, machine: Machine, card: int | None) -> RunCost:
    """What all penalties cost, taken to leave folds out unless each has a kernel; on ``card`` bytes of a GPU each if
    that is given. Raises MemoryPlanError."""
    from mpgls.engine.ridge_card_cost import ridge_on_cards_cost
    from mpgls.engine.ridge_cost import RidgeWork, ridge_cost

    sizes, folds = replace(sizes_of(options, targets, study), card=card), targets.folds
    penalties = len(options.penalties)
    each: Kind = Direct if options.by_fold else LeaveOut
    multiplications = float(penalties * each.size(folds))
    kernel = plan_kernel(machine, sizes, options.block_size)
    plan = plan_penalties(machine, sizes, folds, [each] * penalties, options.by_fold)
    work = RidgeWork(
        sizes.n, 0 if options.grm is not None else study.selected, sizes.snp_bytes, sizes.t, options.permutations,
        multiplications, penalties, (len(folds.outer), folds.inner_count), options.precision == "mixed",
        options.by_fold,
    )  # fmt: skip
    plan = replace(plan, stages=kernel.stages | plan.stages)
    return (ridge_cost if card is None else ridge_on_cards_cost)(machine, plan, work)


def say_plan(
    plan: PenaltyPlan, kinds: list[Kind], largest: float, options: Ridge, targets: RidgeTargets, job: Job
) -> dict[str, Any]:
    """Which penalties are held together, in the log; returns what the manifest says of it."""
    log, folds, alphas = job.world.log, targets.folds, options.penalties
    flop = 2.0 * sum(kind.size(folds) for kind in kinds) * targets.t
    if direct := [f"{alpha:g}" for alpha, kind in zip(alphas, kinds, strict=True) if kind is Direct]:
        why = "a kernel for each fold" if options.by_fold else f"largest eigenvalue of the kernel {largest:.4g}"
        log.info(f"plan: smoothers of each training set for the penalties {', '.join(direct)} ({why})")
    if options.by_fold:
        log.info(f"plan: the genotypes are read {len(folds.tests) + 1} times, once for each training set")
    log.info(
        f"plan: {max(map(len, plan.groups))} of {len(alphas)} penalties at a time, {plan.peak / GIB:.2f} GiB a rank; "
        f"{flop / 1e9:,.1f} Gflop a permutation"
    )
    if plan.on_card is not None:
        log.info(plan.on_card.text)
    fits = len(folds.tests) * targets.t * len(alphas)
    return {"gflop_per_permutation": flop / 1e9, "largest_eigenvalue": largest, "fits_per_permutation": fits}
