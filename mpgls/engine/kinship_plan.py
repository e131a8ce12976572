"""The plans of kinship and of eigen: n x n matrices on the grid, and blocks of SNPs beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mpgls.engine.kinship_sums import STRIPS
from mpgls.la.layout import GridLayout, grid_shape
from mpgls.run.plan import NARROWEST, WIDEST, Machine, Plan, first_that_fits, grid_block


@dataclass(frozen=True)
class KinshipSizes:
    """n samples, m SNPs, bytes of a packed SNP; ``loco`` keeps the sum of each chromosome, ``gcta`` counts pairs."""

    n: int
    m: int
    snp_bytes: int
    loco: bool = False
    gcta: bool = False


@dataclass(frozen=True)
class KinshipPlan(Plan):
    """SNPs of a ``block``, so that K, its mirrored copy and the decoded rows and columns fit the memory allowed."""

    block: int

    def text(self, machine: Machine) -> str:
        """The plan in words."""
        p_r, p_c = grid_shape(machine.ranks)
        return f"plan: a {p_r} x {p_c} grid, blocks of {self.block} SNPs\n{self.memory_text(machine)}"


@dataclass(frozen=True)
class EigenPlan(Plan):
    """Phi, Z and the solver's workspace of two more copies."""

    def text(self, machine: Machine) -> str:
        """The plan in words."""
        p_r, p_c = grid_shape(machine.ranks)
        return f"plan: a {p_r} x {p_c} grid\n{self.memory_text(machine)}"


def plan_kinship(machine: Machine, sizes: KinshipSizes, block_size: int | None = None) -> KinshipPlan:
    """The widest block that fits. Raises MemoryPlanError."""

    def candidates() -> Iterator[KinshipPlan]:
        n, shape = sizes.n, grid_shape(machine.ranks)
        rows, cols = GridLayout.of((n, n), (grid_block(n, shape),) * 2, shape).local_shape(0, 0)
        # K and a copy; with --loco S_c, with gcta N; a strip of products in each precision
        whole = ((2 + sizes.loco + sizes.gcta) * 8 * STRIPS + 12) * rows * cols // STRIPS
        fixed = machine.base + whole + (16 << 20)
        per_snp = (12 if sizes.gcta else 8) * (rows + cols) + 4 * sizes.snp_bytes
        block = max(1, min(block_size or WIDEST, sizes.m))
        yield KinshipPlan({"kinship": fixed + block * per_snp}, block)
        while block > NARROWEST and not block_size:
            block //= 2
            yield KinshipPlan({"kinship": fixed + block * per_snp}, block)

    return first_that_fits(machine, candidates(), spreads=True)


def plan_eigen(machine: Machine, n: int, packed: bool = False) -> EigenPlan:
    """The bytes of all eigenpairs; ``packed``: the kinship's file holds a triangle. Raises MemoryPlanError."""
    need = machine.base + (4 + packed) * 8 * n * n // machine.ranks
    plan = EigenPlan({"eigendecomposition": need})
    return first_that_fits(machine, [plan], lambda _: f"the eigendecomposition of {n:,} samples", spreads=True)
