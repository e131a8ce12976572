"""What lies on the card of a rank while mpgls ridge computes permutations, and while it makes the kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mpgls.device.fold_errors import batch_shape, numbers_of_errors
from mpgls.engine.kernel_on_card import kernel_bytes
from mpgls.errors import MemoryPlanError
from mpgls.model.folds import NestedFolds
from mpgls.model.kernel_ridge import Kind, LeaveOut
from mpgls.run.plan import GIB, NARROWEST, WIDEST, Machine


@dataclass(frozen=True)
class RidgeSizes:
    """n samples, t targets, q covariates, bytes a number of the operators, bytes of a packed SNP, width of a tile.

    ``card``: bytes of a GPU that a rank may use for the kernel and the permutations; None for all of it on ranks.
    """

    n: int
    t: int
    q: int
    item: int
    snp_bytes: int
    width: int
    card: int | None = None


@dataclass(frozen=True)
class RidgeOnCard:
    """``stages``: bytes of a card of which ``limit`` may be used, by what they are for.

    ``work``: numbers that the folds of a penalty make at a time.
    """

    stages: dict[str, int]
    limit: int
    work: int

    @property
    def bytes(self) -> int:
        """Everything is held at once."""
        return sum(self.stages.values())

    @property
    def text(self) -> str:
        """What lies on the card, for the plan."""
        sizes = ", ".join(f"{name} {size / GIB:.2f}" for name, size in self.stages.items())
        return f"plan: at most {self.bytes / GIB:.2f} GiB of a GPU ({sizes})"

    def check(self, what: str, ways: Sequence[str]) -> None:
        """MemoryPlanError where the card has no room for ``what``; ``ways`` to need less."""
        if self.bytes > self.limit:
            raise MemoryPlanError(
                f"{what} needs {self.bytes / GIB:.2f} GiB of each GPU, which has {self.limit / GIB:.2f}: give "
                f"{', '.join((*ways, 'a larger --gpu-memory'))} or --device cpu"
            )


def width_on_card(machine: Machine, n: int, card: int, block: int | None) -> int:
    """SNPs of a block of the kernel: as many as ``card`` bytes have room for, or ``block``. Raises MemoryPlanError."""
    width = block or WIDEST
    while kernel_bytes(n, machine.ranks, width) > card and width > NARROWEST and block is None:
        width //= 2
    if (need := kernel_bytes(n, machine.ranks, width)) > card:
        raise MemoryPlanError(
            f"the kernel needs {need / GIB:.2f} GiB of each of {machine.ranks} GPUs, which have {card / GIB:.2f}: use "
            f"about {-(-machine.ranks * need // card)} ranks with a GPU each, or --device cpu"
        )
    return width


def share_of_card(
    sizes: RidgeSizes, folds: NestedFolds, groups: Sequence[Sequence[Kind]], by_fold: bool
) -> RidgeOnCard:
    """The card of a rank that holds one of the ``groups`` of penalties at a time, and makes as many errors at a time as
    there is room for. It makes the operators itself but with a kernel for each fold (``by_fold``)."""
    assert sizes.card is not None
    n, w, item, sets = sizes.n, sizes.width, sizes.item, len(folds.tests)
    batches = {kind: _batches(kind, folds) for group in groups for kind in group}
    numbers = {kind: sum(map(math.prod, of_kind)) + n * n * (kind is LeaveOut) for kind, of_kind in batches.items()}
    outer = max(of_outer[0] * numbers_of_errors(of_outer, w) for of_outer, _ in batches.values())
    one = max(numbers_of_errors(of_inner, w) for _, of_inner in batches.values())
    every = max(of_inner[0] * numbers_of_errors(of_inner, w) for _, of_inner in batches.values())
    stages = {
        "operators": item * max(sum(numbers[kind] for kind in group) for group in groups),
        "targets": item * n * (sizes.t + 5 * w),
        "folds": item * (sizes.q + 1) * n * sets + 8 * 6 * (sizes.q + 1) * sets * w,
    }
    making = 0
    if not by_fold:  # of a penalty's operators, while no tile is on the card
        largest = max(of_inner[1] for _, of_inner in batches.values()) + max(fold.test.size for fold in folds.outer)
        making = 8 * (5 * n * n + 4 * n * largest)
    left = max(sizes.card - sum(stages.values()), making) // item - outer
    work = max(one, min(every, left))
    return RidgeOnCard(stages | {"work": max(item * (outer + work), making)}, sizes.card, work)


def _batches(kind: Kind, folds: NestedFolds) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """The shapes of the batches of the outer and of the inner folds."""
    rows, outer = kind.rows(folds), len(folds.outer)
    return batch_shape(folds.tests[:outer], rows[:outer]), batch_shape(folds.tests[outer:], rows[outer:])
