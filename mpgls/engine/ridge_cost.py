"""What ridge regression in nested cross-validation costs, phase by phase; docs/performance.md has the formulas."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mpgls.engine.cost import NUMBERS_OF_LINE, PLOT_SECONDS, PLOT_START, PhaseCost, RunCost, opening
from mpgls.engine.kernel import TILE
from mpgls.engine.ridge_plan import PenaltyPlan
from mpgls.run.plan import Machine

PRODUCT_SHARE = 0.81
"""Rate of the products of all folds, gathered and squared, over that of GEMM."""
INVERT_SHARE = 0.6
"""Rate of inverting by tiles that a node's ranks share over that of a Cholesky."""
HALF_SPEED = 1200
"""Samples of an inner fold at which the inverses of its blocks run at half the rate of GEMM."""


@dataclass(frozen=True)
class RidgeWork:
    """n samples, m SNPs of ``snp_bytes`` (0: the kernel is given), t targets, ``permutations`` beside the data.

    ``multiplications`` of all penalties and folds for one target; ``penalties`` of them; ``folds``: outer and inner;
    ``by_fold``: every training set has a kernel of its own.
    """

    n: int
    m: int
    snp_bytes: int
    t: int
    permutations: int
    multiplications: float
    penalties: int
    folds: tuple[int, int]
    mixed: bool
    by_fold: bool = False


def ridge_cost(machine: Machine, plan: PenaltyPlan, work: RidgeWork) -> RunCost:
    """The cost of all penalties, folds and permutations."""
    outer, inner = work.folds
    study = (
        f"{work.n:,} samples, {work.m:,} SNPs, {work.t:,} targets, {work.permutations:,} permutations, "
        f"{work.penalties} penalties, {outer} x {inner} folds, {'mixed' if work.mixed else 'double'} precision"
    )
    together = max(map(len, plan.groups))
    how = f"plan: {together} of {work.penalties} penalties at a time\n{plan.memory_text(machine)}"
    phases = (
        *opening(work.m + 3.0 * work.n + work.t * work.n / NUMBERS_OF_LINE),
        *_kernel(machine.ranks, work),
        *_folds(machine, work),
    )
    return RunCost("ridge", study, machine, plan, how, phases)


def _kernel(P: int, work: RidgeWork) -> Iterator[PhaseCost]:
    """K = X X' / m: all ranks decode all SNPs, tiles of the lower triangle are dealt (n^2 m); 8 n^2 bytes to all."""
    n, m, outer, inner = float(work.n), float(work.m), *work.folds
    kernels = 1 + work.by_fold * outer * (1 + inner)
    if not work.m:
        yield PhaseCost("load kinship", {"epilogue": n**2}, read=8 * n**2)
        return
    packed = kernels * m * work.snp_bytes
    yield PhaseCost("read and share", read=packed, sent=packed * (P - 1))
    genotypes = kernels * m * n
    yield PhaseCost("decode", {"count": genotypes, "double.decode": genotypes, "scale": genotypes})
    edge = -(-work.n // TILE)
    tiles = edge * (edge + 1) / 2
    product = kernels * 2.0 * m * (n / edge) ** 2
    yield PhaseCost("kernel", {"double.gemm": product * -(-tiles // P)}, flop=product * tiles)
    yield PhaseCost("share kernel", {"scale": 2 * kernels * n**2}, sent=kernels * 4 * n**2 * (P - 1))


def _folds(machine: Machine, work: RidgeWork) -> Iterator[PhaseCost]:
    """V^-1 for each penalty (n^3, by the ranks of a node), the blocks of the folds, and all permutations."""
    n, outer, inner = float(work.n), *work.folds
    here = min(machine.ranks, machine.ranks_per_node)
    if not work.by_fold:
        yield PhaseCost(
            "invert", {"double.potrf": work.penalties * n**3 / here / INVERT_SHARE}, flop=work.penalties * n**3
        )
    busy = -(-outer // here) * here / outer  # whole folds are dealt
    # D_:O N for each outer fold, then products of the sizes of an inner fold
    o, i = n / outer, (n - n / outer) / inner
    blocks = outer * (2 * n * o**2 + o**3) + outer * inner * (2 * i * i * o + i**3)
    if work.by_fold:
        blocks += outer * (1 + inner) * n**3
    slower = 1 + HALF_SPEED / i
    mine = work.penalties * blocks * busy / here * slower
    yield PhaseCost("fold operators", {"double.gemm": mine}, flop=work.penalties * blocks)
    rate = "single" if work.mixed else "double"
    flop = 2.0 * work.multiplications * work.t * (1 + work.permutations)
    yield PhaseCost("permutations", {f"{rate}.gemm": flop / machine.ranks / PRODUCT_SHARE}, flop=flop)
    yield PhaseCost("report", seconds=PLOT_START + PLOT_SECONDS)
