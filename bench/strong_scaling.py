"""Strong scaling of the scan: the same SNPs on 1, 2, ... ranks, with teams of one and of several.

Started plainly, it starts itself on each number of ranks in turn, several times, so that a machine's drift meets all
of them alike. Started by mpirun or srun, it measures the ranks that there are, once for each team size; the JSON
files of several such runs make one table with --collect. GEMM on all ranks at once is measured beside every pass: what
the machine itself loses when more of its cores compute shows there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from common import (
    BenchError,
    finish,
    guarded,
    launched,
    make_parser,
    mpirun,
    numbers,
    parse_sizes,
    print_table,
    simulated,
)

if TYPE_CHECKING:
    import argparse

FULL = {"samples": 8000, "snps": 20000}
QUICK = {"samples": 3000, "snps": 6000}
COLUMNS = 4
"""Columns of [X_L | y]."""
GEMM_ROWS = 4000
"""Rows of the GEMM that is measured, at most: on a full node every rank holds that matrix for itself."""


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--ranks", type=numbers, default=[1, 2], metavar="P,..", help="ranks to start (1,2)")
    parser.add_argument("--teams", type=numbers, metavar="R,..", help="team sizes (1,2 where they fit)")
    parser.add_argument("--repeats", type=int, default=3, metavar="K", help="passes of each kind (3)")
    parser.add_argument(
        "--collect", type=Path, nargs="+", metavar="FILE", help="measure nothing: one table of the JSON of earlier runs"
    )
    options = parse_sizes(parser, FULL, QUICK)
    options.teams = options.teams or [1, 2]
    if options.collect:
        report([json.loads(path.read_text(encoding="utf-8")) for path in options.collect], options)
    elif launched():
        on_ranks(options)
    else:
        report(launch_all(options), options)


def launch_all(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Every number of ranks in turn, ``repeats`` times: the JSON of each run."""
    simulated(options.scratch, options.samples, options.snps)
    answer = options.scratch / "strong-scaling.json"
    runs = []
    for _ in range(options.repeats):
        for ranks in options.ranks:
            mpirun(
                ranks, Path(__file__).resolve(), "--json", answer, "--scratch", options.scratch, "--repeats", "1",
                "--samples", str(options.samples), "--snps", str(options.snps),
                "--teams", ",".join(map(str, options.teams)),
            )  # fmt: skip
            runs.append(json.loads(answer.read_text(encoding="utf-8")))
    return runs


def on_ranks(options: argparse.Namespace) -> None:
    """Measure the ranks that there are; rank 0 reports."""
    from mpi4py import MPI
    from streamed_scan import GemmRate, Problem, Scan

    from mpgls.run.hardware import limit_threads

    comm = MPI.COMM_WORLD
    threads = limit_threads(comm.Split_type(MPI.COMM_TYPE_SHARED), None)
    prefix = simulated(options.scratch, options.samples, options.snps, comm)
    problem = Problem(comm, prefix, COLUMNS, options.scratch)
    run: dict[str, Any] = {
        "ranks": comm.size, "threads": threads, "n": options.samples, "m": options.snps, "teams": [],
    }  # fmt: skip
    for size in [size for size in options.teams if size <= comm.size]:
        scan = Scan(problem, size, "double")
        gemm = GemmRate(comm, min(options.samples, GEMM_ROWS), scan.block, "double")
        gemm.warm_up()
        passes = []
        for _ in range(options.repeats):
            gemm.measure()
            passes.append(scan.run())
            gemm.measure()
        scan.close()
        run["teams"].append(
            {
                "size": size,
                "block": scan.block,
                "seconds": [one.seconds for one in passes],
                "solve_gflops": [one.solve_gflops for one in passes],
                "gemm_gflops": gemm.measured,
            }
        )
    problem.grid.close()
    if comm.rank == 0:
        rows = [[team["size"], *(float(np.median(team[key])) for key in MEASURED)] for team in run["teams"]]
        print_table(["ranks a team", *MEASURED.values()], rows, f"{comm.size} ranks x {threads} thread(s)")
        finish(run, options.json)


MEASURED = {"seconds": "scan s", "solve_gflops": "solve GFLOP/s", "gemm_gflops": "GEMM GFLOP/s"}


def report(runs: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """One row for each number of ranks and team size, against the smallest number of ranks with teams of one."""
    if len({(run["n"], run["m"], run["threads"]) for run in runs}) > 1:
        raise BenchError("the runs differ in samples, SNPs or threads a rank, so they make no table")
    found: dict[tuple[int, int], dict[str, list[float]]] = {}
    for run in runs:
        for team in run["teams"]:
            entry = found.setdefault((run["ranks"], team["size"]), {key: [] for key in MEASURED})
            for key in MEASURED:
                entry[key] += team[key]
    median = {key: {name: float(np.median(values)) for name, values in entry.items()} for key, entry in found.items()}
    first = min(median, key=lambda key: (key[0], key[1]))
    base, results, rows = median[first], {}, []
    for (ranks, size), entry in sorted(median.items()):
        speedup, gemm = base["seconds"] / entry["seconds"], entry["gemm_gflops"] / base["gemm_gflops"]
        share = entry["solve_gflops"] / entry["gemm_gflops"]
        rows.append([ranks, size, entry["seconds"], speedup, speedup * first[0] / ranks, gemm, share])
        suffix = f"{ranks}" if size == 1 else f"{ranks}_team{size}"
        results |= {
            f"scan_speedup_{suffix}": speedup,
            f"gemm_speedup_{suffix}": gemm,
            f"scan_seconds_{suffix}": entry["seconds"],
        }
    print(
        f"n = {runs[0]['n']:,}, m = {runs[0]['m']:,}, double, {runs[0]['threads']} thread(s) a rank, medians; scan: "
        "reading, decoding, solving, statistics and writing"
    )
    header = ["ranks", "ranks a team", "scan s", "speed-up", "efficiency", "GEMM speed-up", "solve / GEMM"]
    print_table(header, rows)
    facts = {key: runs[0][key] for key in ("n", "m", "threads")}
    finish(results | facts | {"quick": options.quick}, options.json)


if __name__ == "__main__":
    guarded(main)
