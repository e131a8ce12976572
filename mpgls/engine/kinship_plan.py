"""The plans of kinship and of eigen: n x n matrices on the grid, and blocks of SNPs beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mpgls.device.operator import panel_height
from mpgls.engine.kinship_sums import STRIPS
from mpgls.engine.part_worlds import SAVED_SUM, in_world, world_counts
from mpgls.errors import MemoryPlanError
from mpgls.la.layout import GridLayout, grid_shape
from mpgls.run.plan import GIB, NARROWEST, WIDEST, Machine, Plan, first_that_fits, grid_block

WIDEST_ON_CARD = 8 * WIDEST
"""SNPs of a block on a GPU: S is read and written once a block, beside which the products must be long."""


@dataclass(frozen=True)
class KinshipSizes:
    """n samples, m SNPs, bytes of a packed SNP; ``loco`` keeps the sum of each chromosome, ``gcta`` counts pairs.

    ``card``: bytes of a GPU that a rank may use for the sums; None for sums on ranks. ``parts``: the SNPs of each
    chromosome, where worlds of ranks may take whole chromosomes.
    """

    n: int
    m: int
    snp_bytes: int
    loco: bool = False
    gcta: bool = False
    card: int | None = None
    parts: tuple[int, ...] = ()


@dataclass(frozen=True)
class KinshipPlan(Plan):
    """SNPs of a ``block``, so that K, its mirrored copy and the decoded rows and columns fit the memory allowed.

    ``on_card``: bytes of a GPU. So many ``worlds`` of ranks take chromosomes by themselves.
    """

    block: int
    on_card: int = 0
    worlds: int = 1

    def grid_text(self, machine: Machine) -> str:
        """The grid, or those of the worlds."""
        p_r, p_c = grid_shape(machine.ranks // self.worlds)
        return f"{self.worlds} worlds, of whole chromosomes, each " * (self.worlds > 1) + f"a {p_r} x {p_c} grid"

    def text(self, machine: Machine) -> str:
        """The plan in words."""
        card = f"\nplan: at most {self.on_card / GIB:.2f} GiB of a GPU" if self.on_card else ""
        blocks = f"blocks of {self.block} SNPs"
        return f"plan: {self.grid_text(machine)}, {blocks}\n{self.memory_text(machine)}{card}"


@dataclass(frozen=True)
class EigenPlan(Plan):
    """Phi, Z and the solver's workspace of two more copies."""

    def text(self, machine: Machine) -> str:
        """The plan in words."""
        p_r, p_c = grid_shape(machine.ranks)
        return f"plan: a {p_r} x {p_c} grid\n{self.memory_text(machine)}"


def plan_kinship(machine: Machine, sizes: KinshipSizes, block_size: int | None = None) -> KinshipPlan:
    """The widest block that fits, in worlds that are done first. Raises MemoryPlanError."""
    candidates = (
        plan
        for worlds in world_counts(machine.ranks, sizes.parts, SAVED_SUM)
        for plan in _candidates(in_world(machine, worlds), sizes, block_size, worlds)
        if worlds == 1 or plan.fits(machine.spare)
    )
    return first_that_fits(machine, candidates, lambda _: "the kinship", spreads=True)


def _candidates(machine: Machine, sizes: KinshipSizes, block_size: int | None, worlds: int) -> Iterator[KinshipPlan]:
    """Of the ``machine`` of a world."""
    n, shape = sizes.n, grid_shape(machine.ranks)
    rows, cols = GridLayout.of((n, n), (grid_block(n, shape),) * 2, shape).local_shape(0, 0)
    # K and a copy; with --loco S_c, with gcta N; a strip of products in each precision
    whole = ((2 + sizes.loco + sizes.gcta) * 8 * STRIPS + 12) * rows * cols // STRIPS
    fixed = machine.base + whole + (16 << 20)
    per_snp = (12 if sizes.gcta else 8) * (rows + cols) + 4 * sizes.snp_bytes
    block = max(1, min(block_size or WIDEST, sizes.m))
    if sizes.card is not None:
        block, on_card = _on_card(machine, sizes, rows, cols, block_size)
        yield KinshipPlan({"kinship": fixed + block * 4 * sizes.snp_bytes}, block, on_card)
        return
    yield KinshipPlan({"kinship": fixed + block * per_snp}, block, worlds=worlds)
    while block > NARROWEST and not block_size:
        block //= 2
        yield KinshipPlan({"kinship": fixed + block * per_snp}, block, worlds=worlds)


def _on_card(machine: Machine, sizes: KinshipSizes, rows: int, cols: int, block_size: int | None) -> tuple[int, int]:
    """The widest block that fits a rank's card, and the bytes of it. Raises MemoryPlanError."""
    assert sizes.card is not None
    fixed = (1 + sizes.gcta) * 8 * rows * cols + panel_height(rows) * cols * 36
    # shifted and missing on both sides, in digits of dosages too; weighted rows and their square
    per_snp = 2 * sizes.snp_bytes + (6 * 2 + 16) * rows + 6 * 2 * cols
    block = max(1, min(block_size or WIDEST_ON_CARD, sizes.m))
    while fixed + block * per_snp > sizes.card and block > NARROWEST and not block_size:
        block //= 2
    need = fixed + block * per_snp
    if need > sizes.card:
        ranks = -(-machine.ranks * need // sizes.card)
        raise MemoryPlanError(
            f"the kinship needs {need / GIB:.2f} GiB of each of {machine.ranks} GPUs, which have "
            f"{sizes.card / GIB:.2f}: use about {ranks} ranks with a GPU each, or --device cpu"
        )
    return block, need


def plan_eigen(machine: Machine, n: int, packed: bool = False) -> EigenPlan:
    """The bytes of all eigenpairs; ``packed``: the kinship's file holds a triangle. Raises MemoryPlanError."""
    need = machine.base + (4 + packed) * 8 * n * n // machine.ranks
    plan = EigenPlan({"eigendecomposition": need})
    return first_that_fits(machine, [plan], lambda _: f"the eigendecomposition of {n:,} samples", spreads=True)
