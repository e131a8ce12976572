"""The plan of mpgls ridge: which penalties' operators are held at once, and the bytes of each stage."""

from __future__ import annotations

from dataclasses import dataclass

from mpgls.la.shared_inverse import BLOCK
from mpgls.model.folds import NestedFolds
from mpgls.run.plan import GIB, WIDEST, Machine, does_not_fit

NARROWEST = 64


@dataclass(frozen=True)
class RidgeSizes:
    """n samples, t targets, q covariates, bytes a number of the operators, bytes of a packed SNP, width of a tile."""

    n: int
    t: int
    q: int
    item: int
    snp_bytes: int
    width: int


@dataclass(frozen=True)
class RidgePlan:
    """SNPs of a block, and bytes a rank of each stage; memory that a node's ranks share counts once for all of them."""

    block: int
    stages: dict[str, int]

    def text(self, machine: Machine) -> str:
        """The plan as it stands in the log."""
        limit = f" of {machine.limit / GIB:.2f} GiB allowed" if machine.limit else ""
        stages = ", ".join(f"{name} {size / GIB:.2f}" for name, size in self.stages.items())
        peak = max(self.stages.values()) / GIB
        return f"plan: SNP blocks of {self.block}; at most {peak:.2f} GiB a rank{limit} ({stages})"


def plan_kernel(machine: Machine, sizes: RidgeSizes, block: int | None) -> RidgePlan:
    """Blocks of SNPs for the kernel. Raises MemoryPlanError when even narrow ones do not fit."""
    wanted = block or WIDEST
    while True:
        need = _kernel_bytes(machine, sizes, wanted)
        if machine.limit is None or need <= machine.limit or block or wanted <= NARROWEST:
            break
        wanted //= 2
    _check(machine, need, "the kernel")
    return RidgePlan(wanted, {"kernel": need})


def plan_penalties(
    machine: Machine, sizes: RidgeSizes, folds: NestedFolds, numbers: list[int], by_fold: bool
) -> tuple[list[range], int]:
    """Which penalties are held together, as ranges, and the bytes a rank of the largest; ``numbers`` of each penalty.

    All of them when memory allows it: then the targets are permuted once for all. Raises MemoryPlanError when not even
    one fits, or with a kernel for each fold not all of them.
    """
    count = len(numbers)
    for together in range(count, 0, -1):
        groups = [range(a, min(a + together, count)) for a in range(0, count, together)]
        need = max(operator_bytes(machine, sizes, folds, sum(numbers[a] for a in group), by_fold) for group in groups)
        if machine.limit is None or need <= machine.limit or by_fold:
            break
    what = "holding the operators of " + ("all folds and penalties" if by_fold else "a penalty")
    _check(machine, need, what, *(("--precision mixed",) if sizes.item == 8 else ()))
    return groups, need


def operator_bytes(machine: Machine, sizes: RidgeSizes, folds: NestedFolds, numbers: int, by_fold: bool) -> int:
    """Bytes a rank while operators of ``numbers`` numbers are built and used."""
    n, node = sizes.n, machine.ranks_per_node
    largest = max(fold.test.size + max(inner.size for inner in fold.inner) for fold in folds.outer)
    outer = max(fold.test.size for fold in folds.outer)
    inverse = 8 * n * n
    shared = 8 * n * n + numbers * sizes.item + n * sizes.t * sizes.item
    panels = 16 * n * BLOCK  # of the inversion
    build = 8 * (n * outer + 4 * largest**2) + (inverse if by_fold else (inverse + panels) // node)
    scan = sizes.item * (5 * n * sizes.width + (sizes.q + 1) * n * len(folds.tests)) + _score_bytes(sizes, folds)
    return machine.base + shared // node + max(build, scan)


def _score_bytes(sizes: RidgeSizes, folds: NestedFolds) -> int:
    return 8 * 4 * len(folds.tests) * (sizes.q + 1) * sizes.width


def _kernel_bytes(machine: Machine, sizes: RidgeSizes, block: int) -> int:
    n = sizes.n
    shared = 8 * n * n + n * sizes.t * sizes.item
    own = 8 * n * n // (2 * machine.ranks) + 8 * n * block + 4 * sizes.snp_bytes * block + (16 << 20)
    return machine.base + shared // machine.ranks_per_node + own


def _check(machine: Machine, need: int, what: str, *ways: str) -> None:
    if machine.limit is not None and need > machine.limit:
        raise does_not_fit(machine, what, need, *ways)
