"""Teams that hold the factor together, against GEMM: each solver in both precisions, beside teams of one.

Every pass is the scan of mpgls from a .bed on disk to records in a result store, with a made-up factor. GEMM of the
block's shape is measured by the same ranks at once, right before and after every pass. A share is the rate of the solve
phase, n^2 operations a SNP, over the mean of the two. What the inverse costs, once a factor, is measured apart.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from common import add_ranks, finish, guarded, make_parser, measure_on_ranks, parse_sizes, print_table, simulated

if TYPE_CHECKING:
    import argparse

    from single_trait import Variant
    from streamed_scan import GemmRate, Problem

FULL = {"samples": 8000, "snps": 8000}
QUICK = {"samples": 4000, "snps": 4000}
COVARIATES = 3
"""Columns of X_L; with the SNP p = 4."""
AIM = 0.85
AGREE = 1e-10
"""Of beta/se, double: the largest difference of the solvers, relative to the largest beta/se."""


def main() -> None:
    parser = make_parser(__doc__)
    add_ranks(parser, 3)
    parser.add_argument("--team", type=int, default=2, metavar="R", help="ranks of a team beside teams of one (2)")
    options = parse_sizes(parser, FULL, QUICK)
    measure_on_ranks(options, on_ranks)


def on_ranks(options: argparse.Namespace) -> None:
    """The whole benchmark on the ranks that there are; rank 0 reports."""
    from mpi4py import MPI
    from streamed_scan import GemmRate, Problem

    from mpgls.run.hardware import limit_threads

    comm, (n, m, team) = MPI.COMM_WORLD, (options.samples, options.snps, options.team)
    threads = limit_threads(comm.Split_type(MPI.COMM_TYPE_SHARED), None)
    problem = Problem(comm, simulated(options.scratch, n, m, comm), COVARIATES + 1, options.scratch)
    gemm = {
        precision: GemmRate(comm, n, problem.block(team, precision, "inverse"), precision)
        for precision in ("double", "mixed")
    }
    for rate in gemm.values():
        rate.warm_up()
    variants = make_variants(problem, team, gemm)
    for repeat in range(options.repeats):
        for variant in variants.values() if repeat % 2 == 0 else reversed(variants.values()):
            variant.measure()
    results = summarise(variants, problem, team, gemm)
    results |= {"n": n, "m": m, "ranks": comm.size, "threads": threads, "team": team, "quick": options.quick}
    if comm.rank == 0:
        report(variants, results)
        finish(results, options.json)
    for variant in variants.values():
        variant.scan.close()
    problem.grid.close()


def make_variants(problem: Problem, team: int, gemm: dict[str, GemmRate]) -> dict[str, Variant]:
    """What is measured, by the end of its key. Collective."""
    from single_trait import Variant
    from streamed_scan import Scan

    variants = {}
    for precision, rate in gemm.items():
        variants[f"team1_{precision}"] = Variant(f"teams of 1, {precision}", Scan(problem, 1, precision), rate)
        for solver in ("inverse", "grid"):
            scan = Scan(problem, team, precision, solver)
            variants[f"team{team}_{solver}_{precision}"] = Variant(
                f"teams of {team}, {solver}, {precision}", scan, rate
            )
    return variants


def summarise(variants: dict[str, Variant], problem: Problem, team: int, gemm: dict[str, GemmRate]) -> dict[str, Any]:
    """The keys of the JSON: shares without unit, rates in GFLOP/s of all ranks. Collective."""
    from single_trait import difference

    comm, n = problem.comm, problem.bed.n
    results: dict[str, Any] = {f"share_{key}": variant.share for key, variant in variants.items()}
    results |= {f"gemm_gflops_{precision}": rate.median() for precision, rate in gemm.items()}
    results["inversion_seconds"] = inversion_seconds(problem)
    results["share_inversion_double"] = n**3 / 3e9 / results["inversion_seconds"] / gemm["double"].median()
    inverse, grid = (variants[f"team{team}_{solver}_double"] for solver in ("inverse", "grid"))
    results["difference_solvers"] = difference(inverse, grid, comm)
    results["difference_team1"] = difference(inverse, variants["team1_double"], comm)
    return results


def inversion_seconds(problem: Problem) -> float:
    """Of W = L^-1 on the grid of all ranks. Collective."""
    from mpgls.la import scalapack
    from mpgls.la.matrix import GridMatrix

    L_grid = problem.L_grid
    W_grid = GridMatrix(L_grid.grid, L_grid.layout, local=L_grid.local.copy(order="F"))
    problem.comm.Barrier()
    start = time.perf_counter()
    scalapack.trtri(W_grid)
    return max(problem.comm.allgather(time.perf_counter() - start))


def report(variants: dict[str, Variant], results: dict[str, Any]) -> None:
    """The tables for a person."""
    n, m = results["n"], results["m"]
    print(f"n = {n:,}, m = {m:,}, {results['ranks']} ranks x {results['threads']} thread(s); medians of all passes")
    names = list(dict.fromkeys(name for variant in variants.values() for name in variant.passes[0].phases))
    rows = [
        [one.name, one.seconds, one.solve_gflops, one.share]
        + [float(np.median([p.phases.get(name, 0.0) for p in one.passes])) for name in names]
        for one in variants.values()
    ]
    print_table(["scan", "seconds", "solve GFLOP/s", "of GEMM", *(f"{name} s" for name in names)], rows)
    team = results["team"]
    aims = [
        ("by inverse, double / GEMM", results[f"share_team{team}_inverse_double"], f"{AIM} or more"),
        ("by inverse, mixed / GEMM in single", results[f"share_team{team}_inverse_mixed"], f"{AIM} or more"),
        ("inverting L on the grid / GEMM", results["share_inversion_double"], ""),
        ("beta/se, inverse against grid, relative", results["difference_solvers"], f"{AGREE:g} or less"),
        ("beta/se, inverse against teams of one, relative", results["difference_team1"], f"{AGREE:g} or less"),
    ]
    print_table(["", "measured", "aim"], aims, " ")


if __name__ == "__main__":
    guarded(main)
