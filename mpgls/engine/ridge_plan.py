"""The plans of mpgls ridge: blocks of SNPs for the kernel, penalties whose operators are held at once; their bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mpgls.engine.ridge_card_plan import RidgeOnCard, RidgeSizes, share_of_card, width_on_card
from mpgls.la.shared_inverse import BLOCK
from mpgls.model.folds import NestedFolds
from mpgls.model.kernel_ridge import Kind
from mpgls.run.plan import WIDEST, Machine, Plan, first_that_fits

NARROWEST = 64


@dataclass(frozen=True)
class KernelPlan(Plan):
    """SNPs of a ``block``. Memory that a node's ranks share counts once for all of them."""

    block: int


@dataclass(frozen=True)
class PenaltyPlan(Plan):
    """Which penalties are held together, as ranges; ``on_card``: what lies on the card of a rank, if it has one."""

    groups: list[range]
    on_card: RidgeOnCard | None = None

    @property
    def several(self) -> bool:
        """Whether operators come and go."""
        return len(self.groups) > 1


def plan_kernel(machine: Machine, sizes: RidgeSizes, block: int | None) -> KernelPlan:
    """The widest blocks that fit the ranks, and their cards if they have some, or ``block``. Raises MemoryPlanError."""
    n = sizes.n

    def bytes_of(width: int) -> int:
        shared = 8 * n * n + n * sizes.t * sizes.item
        own = 8 * n * n // (2 * machine.ranks) + 8 * n * width + 4 * sizes.snp_bytes * width + (16 << 20)
        return machine.base + shared // machine.ranks_per_node + own

    def candidates() -> Iterator[KernelPlan]:
        width = (block or WIDEST) if sizes.card is None else width_on_card(machine, n, sizes.card, block)
        yield KernelPlan({"kernel": bytes_of(width)}, width)
        while width > NARROWEST and block is None:
            width //= 2
            yield KernelPlan({"kernel": bytes_of(width)}, width)

    return first_that_fits(machine, candidates())


def plan_penalties(
    machine: Machine, sizes: RidgeSizes, folds: NestedFolds, kinds: Sequence[Kind], by_fold: bool
) -> PenaltyPlan:
    """All penalties together when memory allows it: then the targets are permuted once for all. Otherwise in turn.

    ``kinds`` are those of the operators of each penalty. Raises MemoryPlanError when not even one fits, or with a
    kernel for each fold (``by_fold``) not all of them.
    """
    count, numbers = len(kinds), [kind.size(folds) for kind in kinds]

    def candidates() -> Iterator[PenaltyPlan]:
        for together in range(count, 0, -1):
            groups = [range(a, min(a + together, count)) for a in range(0, count, together)]
            of_groups = [kinds[group.start : group.stop] for group in groups]
            share = None if sizes.card is None else share_of_card(sizes, folds, of_groups, by_fold)
            if share is None or share.bytes <= share.limit or by_fold or together == 1:
                on_host = share is None or by_fold
                largest = max(sum(numbers[a] for a in group) for group in groups) if on_host else 0
                held = {"operators": operator_bytes(machine, sizes, folds, largest, by_fold)}
                yield PenaltyPlan(held, groups, share)
            if by_fold:
                return

    what = "holding the operators of " + ("all folds and penalties" if by_fold else "a penalty")
    ways = ("--precision mixed",) * (sizes.item == 8)
    plan = first_that_fits(machine, candidates(), lambda _: what, ways=ways)
    if plan.on_card is not None:
        plan.on_card.check(what, ways)
    return plan


def operator_bytes(machine: Machine, sizes: RidgeSizes, folds: NestedFolds, numbers: int, by_fold: bool) -> int:
    """Bytes a rank while operators of ``numbers`` numbers are built and used."""
    n, node = sizes.n, machine.ranks_per_node
    largest = max(fold.test.size + max(inner.size for inner in fold.inner) for fold in folds.outer)
    outer = max(fold.test.size for fold in folds.outer)
    inverse = 8 * n * n
    shared = 8 * n * n + numbers * sizes.item + n * sizes.t * sizes.item
    panels = 16 * n * BLOCK  # of the inversion
    build = 8 * (n * outer + 4 * largest**2) + (inverse if by_fold else (inverse + panels) // node)
    scores = 8 * 4 * len(folds.tests) * (sizes.q + 1) * sizes.width
    scan = sizes.item * (5 * n * sizes.width + (sizes.q + 1) * n * len(folds.tests)) + scores
    return machine.base + shared // node + max(build, scan)
