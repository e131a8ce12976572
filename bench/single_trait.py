"""The streamed solve and REML against GEMM: double and mixed, teams of one and of two, from disk and from memory.

Every pass is the scan of mpgls from a .bed on disk to records in a result store. GEMM of the block's shape
(n x n by n x B) is measured by the same ranks right before and after every pass, because a machine's speed drifts:
a share of GEMM is the median over passes of the solve's rate over the mean of the two. Flops are n^2 a SNP, and n^3/3
for a float64 factorisation of REML, whose whole runs (`reml_runs.py`) take turns with the scans.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from common import add_ranks, finish, guarded, make_parser, measure_on_ranks, parse_sizes, print_table, simulated

if TYPE_CHECKING:
    import argparse

    from mpi4py import MPI
    from streamed_scan import GemmRate, Pass, Scan

FULL = {"samples": 8000, "snps": 20000}
QUICK = {"samples": 4000, "snps": 8000}
COVARIATES = 3
"""Columns of X_L; with the SNP p = 4."""


@dataclass
class Variant:
    """One way to scan and what was measured of it."""

    name: str
    scan: Scan
    gemm: GemmRate
    packed: np.ndarray | None = None
    passes: list[Pass] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)

    def measure(self) -> None:
        """GEMM, a pass, GEMM. Collective."""
        before = self.gemm.measure()
        self.passes.append(self.scan.run(self.packed))
        self.shares.append(2 * self.passes[-1].solve_gflops / (before + self.gemm.measure()))

    @property
    def seconds(self) -> float:
        """Median wall seconds of a pass."""
        return float(np.median([one.seconds for one in self.passes]))

    @property
    def solve_gflops(self) -> float:
        """Median rate of the solve phase, sum over ranks."""
        return float(np.median([one.solve_gflops for one in self.passes]))

    @property
    def share(self) -> float:
        """Median share of GEMM."""
        return float(np.median(self.shares))


def main() -> None:
    parser = make_parser(__doc__)
    add_ranks(parser, 3)
    options = parse_sizes(parser, FULL, QUICK)
    measure_on_ranks(options, on_ranks)


def on_ranks(options: argparse.Namespace) -> None:
    """The whole benchmark on the ranks that there are; rank 0 reports."""
    from mpi4py import MPI
    from reml_runs import RemlRuns
    from streamed_scan import GemmRate, Problem, Scan, read_packed

    from mpgls.run.hardware import limit_threads

    comm = MPI.COMM_WORLD
    n, m = options.samples, options.snps
    threads = limit_threads(comm.Split_type(MPI.COMM_TYPE_SHARED), None)
    prefix = simulated(options.scratch, n, m, comm)
    problem = Problem(comm, prefix, COVARIATES + 1, options.scratch)
    double, mixed = Scan(problem, 1, "double"), Scan(problem, 1, "mixed")
    gemm = {precision: GemmRate(comm, n, double.block, precision) for precision in ("double", "mixed")}
    for rate in gemm.values():
        rate.warm_up()
    reml = RemlRuns(comm, prefix, gemm["double"])
    reml.make_kinship()
    streamed = Variant("double, from disk", double, gemm["double"])
    in_core = Variant("double, from memory", double, gemm["double"], read_packed(problem.bed))
    single = Variant("mixed, from disk", mixed, gemm["mixed"])
    variants = [streamed, in_core, single]
    if comm.size > 1:
        variants.append(Variant("double, teams of two", Scan(problem, 2, "double"), gemm["double"]))
    for repeat in range(options.repeats):
        for variant in variants if repeat % 2 == 0 else variants[::-1]:
            variant.measure()
        reml.measure()
    results = summarise(variants, n, m, comm, threads) | reml.figures() | {"quick": options.quick}
    results["difference_mixed"] = difference(single, streamed, comm)
    if comm.size > 1:
        results["difference_team2"] = difference(variants[-1], streamed, comm)
    if comm.rank == 0:
        report(variants, results)
        finish(results, options.json)
    for one in {id(variant.scan): variant.scan for variant in variants}.values():
        one.close()
    problem.grid.close()


def summarise(variants: list[Variant], n: int, m: int, comm: MPI.Comm, threads: int) -> dict[str, Any]:
    """The keys of the JSON: rates in GFLOP/s, sums over the ranks; shares and ratios without unit."""
    streamed, in_core, mixed = variants[:3]
    team2 = variants[3] if len(variants) > 3 else None
    return {
        "gemm_gflops": streamed.gemm.median(),
        "gemm_gflops_single": mixed.gemm.median(),
        "solve_gflops_double": streamed.solve_gflops,
        "solve_gflops_mixed": mixed.solve_gflops,
        "solve_gflops_team2": team2.solve_gflops if team2 else None,
        "streamed_over_incore": streamed.seconds / in_core.seconds,
        "solve_over_gemm_double": streamed.share,
        "solve_over_gemm_mixed": mixed.share,
        "solve_over_gemm_team2": team2.share if team2 else None,
        "mixed_over_double": mixed.solve_gflops / streamed.solve_gflops,
        "scan_over_gemm_double": n * n * m / streamed.seconds / 1e9 / streamed.gemm.median(),
        "scan_mixed_over_double": streamed.seconds / mixed.seconds,
        "n": n, "m": m, "p": COVARIATES + 1, "ranks": comm.size, "threads": threads,
        "block": streamed.scan.block, "repeats": len(streamed.passes),
    }  # fmt: skip


def difference(one: Variant, other: Variant, comm: MPI.Comm) -> float:
    """Largest difference of beta / se between two variants, relative to the largest beta / se. Collective."""
    comm.Barrier()
    t, reference = one.scan.statistics(), other.scan.statistics()
    assert np.array_equal(np.isfinite(t), np.isfinite(reference)) and np.isfinite(reference).any()
    return float(np.nanmax(np.abs(t - reference)) / np.nanmax(np.abs(reference)))


def report(variants: list[Variant], results: dict[str, Any]) -> None:
    """The tables for a person."""
    n, m = results["n"], results["m"]
    print(
        f"n = {n:,}, m = {m:,}, p = {results['p']}, {results['ranks']} ranks x {results['threads']} thread(s), blocks "
        f"of {results['block']}; medians of {results['repeats']} passes of all {m:,} SNPs, kinds taken in turn"
    )
    names = list(dict.fromkeys(name for variant in variants for name in variant.passes[0].phases))
    rows = [
        [one.name, one.seconds, one.solve_gflops, one.share, n * n * m / one.seconds / 1e9]
        + [float(np.median([p.phases.get(name, 0.0) for p in one.passes])) for name in names]
        for one in variants
    ]
    header = ["scan", "seconds", "solve GFLOP/s", "of GEMM", "whole GFLOP/s", *(f"{name} s" for name in names)]
    print_table(header, rows)
    aims = [
        ("GEMM, double, GFLOP/s", results["gemm_gflops"], ""),
        ("GEMM, single, GFLOP/s", results["gemm_gflops_single"], ""),
        ("streamed solve in double / GEMM", results["solve_over_gemm_double"], "0.85 or more"),
        ("mixed / double", results["mixed_over_double"], "1.6 or more"),
        ("one team of two ranks / GEMM", results["solve_over_gemm_team2"], "0.6 or more"),
        ("REML, factorisations in double / GEMM", results["reml_share_double"], "0.75 or more on 2 ranks"),
        ("REML, number of them", results["reml_factorisations_double"], ""),
        ("wall time from disk / from memory", results["streamed_over_incore"], "1.05 or less"),
        ("beta/se, mixed against double, relative", results["difference_mixed"], "1e-3 or less"),
        ("beta/se, team of two against one, relative", results.get("difference_team2"), "1e-9 or less"),
    ]
    print_table(["", "measured", "aim"], aims, " ")


if __name__ == "__main__":
    guarded(main)
