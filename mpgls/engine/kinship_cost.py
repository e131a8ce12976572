"""What a kinship and its eigendecomposition cost, phase by phase; docs/performance.md has the formulas."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mpgls.engine.cost import SNP_SECONDS, SYNCS, PhaseCost, RunCost, leaving, loading, opening
from mpgls.engine.kinship_plan import EigenPlan, KinshipPlan
from mpgls.engine.kinship_sums import STRIPS
from mpgls.engine.probes import EIGEN_SIZE
from mpgls.la.layout import grid_shape
from mpgls.run.plan import Machine

PRODUCT_SHARE = 0.8
"""Rate of the products of rows and columns, added to S strip by strip, over that of GEMM."""
MIRROR_PASSES = 2
"""Passes that fill the upper triangle of a sum from the lower one, against the grain of memory."""
EIGEN_FLOP = 9.0
"""Operations of all eigenpairs, and of their check, by n^3."""
EIGEN_HALF_SPEED = 600
"""Rows a process row at which all eigenpairs are found at half the final rate."""


@dataclass(frozen=True)
class KinshipWork:
    """n samples, m SNPs of ``snp_bytes``; sums of ``parts`` chromosomes are kept (0: none); ``gcta`` counts pairs."""

    n: int
    m: int
    snp_bytes: int
    parts: int = 0
    gcta: bool = False


def kinship_cost(machine: Machine, plan: KinshipPlan, work: KinshipWork) -> RunCost:
    """The cost of a kinship: every rank decodes its rows and columns of each SNP and adds one product."""
    loco = f", the sums of {work.parts} chromosomes kept" if work.parts else ""
    study = f"{work.n:,} samples, {work.m:,} SNPs{loco}"
    phases = (*opening(work.m + float(work.n)), *_sums(machine.ranks // plan.worlds, plan.worlds, work), _written(work))
    return RunCost("kinship", study, machine, plan, plan.text(machine), phases)


def _sums(R: int, worlds: int, work: KinshipWork) -> Iterator[PhaseCost]:
    """The block travels packed to all of a world of R ranks; each counts it, decodes rows and columns; S += X X', the
    lower strips.
    """
    n, (p_r, p_c), parts = float(work.n), grid_shape(R), max(1, work.parts)
    m = float(work.m) * -(-parts // worlds) / parts
    rows, cols = n / p_r, n / p_c
    packed = float(work.m) * work.snp_bytes
    yield PhaseCost("read and share", read=packed, sent=packed * (R - 1))
    decoding = {"count": m * n, "double.decode": m * (rows + cols), "scale": m * rows}
    yield PhaseCost("decode", decoding, seconds=SNP_SECONDS * m)
    product = m * rows * cols * (1 + 1 / STRIPS)
    yield PhaseCost("product in double", {"double.gemm": product / PRODUCT_SHARE}, flop=R * product * work.m / m)
    if work.gcta:
        yield PhaseCost("count pairs", {"count": m * (rows + cols)})  # a product only where genotypes are missing
    mirrored = {"epilogue": MIRROR_PASSES * -(-parts // worlds) * n**2 / R}
    yield PhaseCost("mirror", mirrored, sent=leaving(8 * parts * n**2, R))


def _written(work: KinshipWork) -> PhaseCost:
    """K and the sums, 8 n^2 bytes each."""
    matrices = 1 + work.parts
    return PhaseCost("write", written=8.0 * matrices * float(work.n) ** 2, syncs=SYNCS * matrices)


def decomposing(n: int, P: int, count: float = 1) -> PhaseCost:
    """All eigenpairs of n x n on P ranks, ``count`` times; slower where a rank's part is small."""
    flop = count * EIGEN_FLOP * float(n) ** 3
    slower = (1 + EIGEN_HALF_SPEED * P**0.5 / n) / (1 + EIGEN_HALF_SPEED / EIGEN_SIZE)
    return PhaseCost("eigendecomposition", {"eigen": flop / P * slower}, flop=flop)


def eigen_cost(machine: Machine, plan: EigenPlan, n: int) -> RunCost:
    """The cost of all eigenpairs of an n x n kinship."""
    P, n2 = machine.ranks, float(n) ** 2
    phases = (
        *opening(float(n)),
        loading("load kinship", n, 1, P),
        decomposing(n, P),
        PhaseCost("write", written=8 * n2, sent=leaving(8 * n2, P), syncs=SYNCS),
    )
    return RunCost("eigen", f"{n:,} samples", machine, plan, plan.text(machine), phases)
