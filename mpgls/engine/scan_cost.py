"""What a single-trait scan costs, phase by phase; docs/performance.md has the formulas."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from mpgls.engine.cost import (
    COARSE,
    FINE,
    ROW_BYTES,
    SNP_SECONDS,
    SYNCS,
    PhaseCost,
    RunCost,
    busiest,
    cholesky_work,
    dealt_to_team,
    leaving,
    loading,
    opening,
    scan_plots,
    search_seconds,
    team_rate,
    times,
)
from mpgls.engine.mixed_check import SAMPLED
from mpgls.engine.part_worlds import in_world
from mpgls.engine.scan_plan import ScanPlan
from mpgls.engine.team_solvers import OF_INVERSION, Held
from mpgls.run.plan import Machine

SOLVES = 3
"""Triangular solves of [X_L | y] in an evaluation of REML."""
SOLVE_PASSES = 1.2
"""Times that scaling n x n numbers takes: such a solve, of few columns, waits for memory."""
RECORD_BYTES = 32


@dataclass(frozen=True)
class ScanWork:
    """What is scanned: n samples, m SNPs of ``snp_bytes`` in ``parts`` (chromosomes left out in turn), T traits,
    q covariates.

    ``estimated``: the null models (of parts x T) whose h2 REML has to find. ``spectral``: an eigendecomposition is
    given.
    """

    n: int
    m: int
    snp_bytes: int
    parts: int
    T: int
    q: int
    mixed: bool
    estimated: int
    spectral: bool = False
    plots: bool = True

    @property
    def study(self) -> str:
        """The sizes in words."""
        return (
            f"{self.n:,} samples, {self.m:,} SNPs, {self.T} trait{'s' * (self.T > 1)}, {self.q} columns of covariates"
            f"{f', {self.parts} chromosomes left out in turn' if self.parts > 1 else ''}"
        )

    @property
    def item(self) -> int:
        """Bytes of a streamed number."""
        return 4 if self.mixed else 8

    @property
    def models(self) -> int:
        """Null models."""
        return self.parts * self.T

    def parts_of_one(self, worlds: int) -> int:
        """Parts of the world that takes most of them."""
        return -(-self.parts // worlds)


def scan_cost(machine: Machine, plan: ScanPlan, work: ScanWork) -> RunCost:
    """The cost of a scan that keeps to ``plan``."""
    study = f"{work.study}, {'mixed' if work.mixed else 'double'} precision"
    phases = (
        *opening(work.m + 3.0 * work.n),
        *null_models(machine.ranks // plan.worlds, plan, work),
        *hand_over(in_world(machine, plan.worlds), plan, work),
        *(check_in_double(machine.ranks // plan.worlds, plan.worlds, work) if work.mixed else ()),
        *_stream(machine.ranks // plan.worlds, plan, work),
        report(machine.ranks, work),
    )
    return RunCost("single-trait", study, machine, plan, plan.text(machine), phases)


def null_models(R: int, plan: ScanPlan, work: ScanWork) -> Iterator[PhaseCost]:
    """Phi from its file (with its chromosome's sum), then REML by Cholesky; the last factor is that of the scan.

    Worlds of R ranks each make null models of their own; one that ``keeps`` the kinship reads it once.
    """
    n2, share = float(work.n) ** 2, work.parts_of_one(plan.worlds) / work.parts
    if work.spectral:
        yield loading("load eigenvectors", work.n, work.models, R)
        return
    of_all = loading("load kinship", work.n, work.parts, R, files=1 if work.parts == 1 else 2)
    files = (plan.worlds + work.parts) / (2.0 * work.parts) if plan.keeps else 1.0
    yield replace(of_all, work=times(share, of_all.work), read=files * of_all.read)
    given = work.models - work.estimated
    fine = FINE * work.estimated + given
    coarse = COARSE * work.estimated
    for precision, count in (("single", coarse), ("double", fine)):
        if count:
            factor = cholesky_work(work.n, R, precision)
            flop = count * float(work.n) ** 3 / 3
            yield PhaseCost(f"REML, {precision}", times(share * count, factor), flop=flop)
    passes = SOLVES * SOLVE_PASSES * share * (coarse + fine) * n2 / R
    yield PhaseCost("REML, sums", {"scale": passes})
    yield PhaseCost("REML, search", seconds=search_seconds(share * (coarse + fine - given)))


def hand_over(machine: Machine, plan: ScanPlan, work: ScanWork) -> Iterator[PhaseCost]:
    """The factor to every team (a copy a node in teams of one). ``machine`` is that of a world."""
    n2, P, R = float(work.n) ** 2, machine.ranks, plan.team_size
    copies = -(-P // machine.ranks_per_node) if R == 1 else max(1, P // R)
    moved = leaving(work.models * work.item * n2 * copies, P)
    mine = work.parts_of_one(plan.worlds) * work.T
    dealing = {"scale": mine * n2 / P}
    if plan.solver == "inverse" and not work.spectral:  # L^-1 of L
        dealing["double.gemm"] = mine * n2 * work.n / 3 / P / OF_INVERSION
    yield PhaseCost("hand over factor", dealing, sent=moved)


def check_in_double(R: int, worlds: int, work: ScanWork) -> Iterator[PhaseCost]:
    """Some SNPs of each scan once more, through a factor that is made anew by the R ranks of each of the ``worlds``."""
    spectral = {"double.trsm": SAMPLED * float(work.n) ** 2 / R}
    again = spectral if work.spectral else cholesky_work(work.n, R, "double")
    yield PhaseCost("check in double", times(work.parts_of_one(worlds) * work.T, again))


def _stream(R: int, plan: ScanPlan, work: ScanWork) -> Iterator[PhaseCost]:
    """Every SNP of every trait: read, decoded, X~ = L^-1 X (n^2) or Z'X (2 n^2), and its q + 2 products.

    Blocks of a part are dealt to the R ranks of a world.
    """
    n, name = float(work.n), "single" if work.mixed else "double"
    held, parts = Held(plan.team_size, plan.solver), work.parts_of_one(plan.worlds)
    mine = work.T * busiest(-(-work.m * parts // work.parts), parts, plan.block, R)
    phases = ("decode", "solve", "statistics")
    yield PhaseCost("read (waiting)", read=float(work.T * work.m * work.snp_bytes), ahead_of=phases)
    yield PhaseCost("decode", {"count": mine * n, f"{name}.decode": mine * n}, seconds=SNP_SECONDS * mine)
    flop = (2 if work.spectral else 1) * n**2
    dealt = dealt_to_team(held, work.T * work.m, work.item * n, work.snp_bytes)
    rate = "gemm" if work.spectral or held.team > 1 else "trsm"
    product = {f"{name}.{rate}": flop * mine / team_rate(held)}
    yield PhaseCost("solve", product, flop=flop * work.T * work.m, sent=dealt)
    yield PhaseCost("statistics", {f"{name}.products": mine * n})
    yield PhaseCost("write", written=RECORD_BYTES * work.T * work.m, syncs=SYNCS * work.models / plan.worlds)


def report(P: int, work: ScanWork) -> PhaseCost:
    """Tables by all ranks, plots by a rank each."""
    rows = float(work.m) * work.T
    return PhaseCost(
        "report",
        {"rows": rows / P},
        written=ROW_BYTES * rows,
        seconds=work.plots * scan_plots(work.T, P),
    )
