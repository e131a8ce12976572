"""Strong scaling: the same work on 1, 2, ... ranks, of the scan by each solver and of whole commands.

Started plainly, it starts itself on each number of ranks in turn, several times, so that a machine's drift meets all
of them alike. Started by mpirun or srun, it measures the ranks that there are, once for each team size and solver; the
JSON files of several such runs make one table with --collect. GEMM on all ranks at once is measured beside every pass:
what the machine itself loses when more of its cores compute shows there. Of kinship, eigen, REML and many traits the
phases of whole commands are taken (`scaling_commands.py`).
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
from figures import COLOURS, FAINT, IMAGES, add_picture, chart, chosen_picture, heading

if TYPE_CHECKING:
    import argparse

    from streamed_scan import Problem

NAMES = {"kinship": "kinship", "reml": "REML", "eigen": "eigendecomposition", "tiles": "many traits"}
FULL = {"samples": 8000, "snps": 8000, "traits": 1000}
QUICK = {"samples": 3000, "snps": 6000, "traits": 200}
EVEN = 0.95
"""Of a scan whose blocks are dealt evenly: the mean share of a rank over the largest, at least."""
COMMAND_SAMPLES, QUICK_COMMAND_SAMPLES = 4000, 1500
"""Samples of the whole commands, whose eigendecomposition takes longer than anything else."""
PICTURE = IMAGES / "strong_scaling.png"
COLUMNS = 4
"""Columns of [X_L | y]."""
GEMM_ROWS = 4000
"""Rows of the GEMM that is measured, at most: on a full node every rank holds that matrix for itself."""


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--ranks", type=numbers, default=[1, 2], metavar="P,..", help="ranks to start (1,2)")
    parser.add_argument("--teams", type=numbers, metavar="R,..", help="team sizes (1,2 where they fit)")
    parser.add_argument("--repeats", type=int, metavar="K", help="passes of each kind (3; 2 with --quick)")
    parser.add_argument(
        "--command-samples", type=int, metavar="N", help="samples of whole commands (4000; 1500 with --quick); 0: none"
    )
    add_picture(parser, PICTURE)
    parser.add_argument(
        "--collect", type=Path, nargs="+", metavar="FILE", help="measure nothing: one table of the JSON of earlier runs"
    )
    options = parse_sizes(parser, FULL, QUICK)
    options.teams = options.teams or [1, 2]
    options.repeats = options.repeats or (2 if options.quick else 3)
    if options.command_samples is None:
        options.command_samples = QUICK_COMMAND_SAMPLES if options.quick else COMMAND_SAMPLES
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
                "--samples", str(options.samples), "--snps", str(options.snps), "--traits", str(options.traits),
                "--teams", ",".join(map(str, options.teams)), "--command-samples", str(options.command_samples),
            )  # fmt: skip
            runs.append(json.loads(answer.read_text(encoding="utf-8")))
    return runs


def on_ranks(options: argparse.Namespace) -> None:
    """Measure the ranks that there are; rank 0 reports."""
    from mpi4py import MPI
    from scaling_commands import measure_commands
    from streamed_scan import Problem

    from mpgls.run.hardware import limit_threads

    comm = MPI.COMM_WORLD
    threads = limit_threads(comm.Split_type(MPI.COMM_TYPE_SHARED), None)
    prefix = simulated(options.scratch, options.samples, options.snps, comm)
    problem = Problem(comm, prefix, COLUMNS, options.scratch)
    run: dict[str, Any] = {
        "ranks": comm.size, "threads": threads, "n": options.samples, "m": options.snps, "traits": options.traits,
        "command_n": options.command_samples, "commands": [],
    }  # fmt: skip
    kinds = [(size, solver) for size in options.teams if size <= comm.size for solver in SOLVERS[: min(size, 2)]]
    run["teams"] = [scan_by(problem, size, solver, options.repeats) for size, solver in kinds]
    problem.grid.close()
    if options.command_samples:
        sizes = options.command_samples, options.snps, options.traits
        run["commands"] = [measure_commands(comm, options.scratch, *sizes) for _ in range(options.repeats)]
    if comm.rank == 0:
        rows = [
            [describe(team["size"], team["solver"]), *(float(np.median(team[key])) for key in MEASURED)]
            for team in run["teams"]
        ]
        print_table(["teams of", *MEASURED.values()], rows, f"{comm.size} ranks x {threads} thread(s)")
        finish(run, options.json)


def scan_by(problem: Problem, size: int, solver: str, repeats: int) -> dict[str, Any]:
    """``repeats`` scans by teams of ``size``, and GEMM before and after each. Collective."""
    from streamed_scan import GemmRate, Scan

    scan = Scan(problem, size, "double", solver)
    gemm = GemmRate(problem.comm, min(problem.bed.n, GEMM_ROWS), scan.block, "double")
    gemm.warm_up()
    passes = []
    for _ in range(repeats):
        gemm.measure()
        passes.append(scan.run())
        gemm.measure()
    scan.close()
    return {
        "size": size,
        "solver": solver,
        "evenness": [evenness(np.diff(scan.store.edges), problem.comm.size)],
        "seconds": [one.seconds for one in passes],
        "solve_gflops": [one.solve_gflops for one in passes],
        "gemm_gflops": gemm.measured,
    }


def evenness(snps: np.ndarray, ranks: int) -> float:
    """The mean over the largest share of ``ranks`` ranks, to which blocks of so many ``snps`` are dealt in turn."""
    return float(snps.sum() / ranks / max(snps[rank::ranks].sum() for rank in range(ranks)))


def describe(size: int, solver: str) -> str:
    """A team, for people and as the end of a key."""
    return f"{size}" if size == 1 else f"{size}, {solver}"


SOLVERS = ("inverse", "grid")
"""How teams of several hold the factor; in teams of one there is no difference."""
MEASURED = {
    "seconds": "scan s",
    "solve_gflops": "solve GFLOP/s",
    "gemm_gflops": "GEMM GFLOP/s",
    "evenness": "evenness of blocks",
}


def report(runs: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """One row for each number of ranks and kind of work, against the smallest number of ranks with teams of one."""
    if len({tuple(run[key] for key in SAME) for run in runs}) > 1:
        raise BenchError("the runs differ in samples, SNPs, traits or threads a rank, so they make no table")
    scans, commands = median_scans(runs), median_commands(runs)
    first = min(scans)
    base, gemm, results, rows = scans[first], {}, {}, []
    for (ranks, size, solver), entry in sorted(scans.items()):
        speedup, of_gemm = base["seconds"] / entry["seconds"], entry["gemm_gflops"] / base["gemm_gflops"]
        gemm.setdefault(ranks, of_gemm)
        share = entry["solve_gflops"] / entry["gemm_gflops"]
        name = f"scan, teams of {describe(size, solver)}"
        rows.append([name, ranks, entry["seconds"], speedup, speedup * first[0] / ranks, of_gemm, share])
        suffix = f"{ranks}" if size == 1 else f"{ranks}_team{size}_{solver}"
        results |= {
            f"scan_speedup_{suffix}": speedup,
            f"gemm_speedup_{suffix}": of_gemm,
            f"scan_seconds_{suffix}": entry["seconds"],
            f"scan_evenness_{suffix}": entry["evenness"],
        }
        if entry["evenness"] < EVEN:
            print(f"{name} on {ranks} ranks: the busiest rank has 1 / {entry['evenness']:.2f} of an even share")
    for (key, ranks), seconds in sorted(commands.items()):
        speedup = commands[key, first[0]] / seconds
        rows.append([NAMES[key], ranks, seconds, speedup, speedup * first[0] / ranks, gemm[ranks], None])
        results |= {f"{key}_speedup_{ranks}": speedup, f"{key}_seconds_{ranks}": seconds}
    print(
        f"m = {runs[0]['m']:,}, double, {runs[0]['threads']} thread(s) a rank, medians; scan of n = {runs[0]['n']:,}: "
        f"reading to writing; the rest, n = {runs[0]['command_n']:,}: phases of commands"
    )
    print_table(["work", "ranks", "seconds", "speed-up", "efficiency", "GEMM speed-up", "solve / GEMM"], rows)
    if (picture := chosen_picture(options, PICTURE)) is not None:
        draw(rows, runs[0], picture)
    finish(results | {key: runs[0][key] for key in SAME} | {"quick": options.quick}, options.json)


SAME = ("n", "m", "traits", "command_n", "threads")
"""What the runs of one table have in common."""


def median_scans(runs: list[dict[str, Any]]) -> dict[tuple[int, int, str], dict[str, float]]:
    """Medians of MEASURED by ranks, ranks of a team, and solver."""
    found: dict[tuple[int, int, str], dict[str, list[float]]] = {}
    for run in runs:
        for team in run["teams"]:
            entry = found.setdefault((run["ranks"], team["size"], team["solver"]), {key: [] for key in MEASURED})
            for key in MEASURED:
                entry[key] += team[key]
    return {key: {name: float(np.median(values)) for name, values in entry.items()} for key, entry in found.items()}


def median_commands(runs: list[dict[str, Any]]) -> dict[tuple[str, int], float]:
    """Median seconds by the key of NAMES and ranks."""
    found: dict[tuple[str, int], list[float]] = {}
    for run in runs:
        for one in run["commands"]:
            for key, seconds in one.items():
                found.setdefault((key, run["ranks"]), []).append(seconds)
    return {key: float(np.median(several)) for key, several in found.items()}


def draw(rows: list[list[Any]], run: dict[str, Any], path: Path) -> None:
    """Speed-up against ranks, both axes logarithmic, beside the ideal and beside GEMM on as many ranks."""
    lines: dict[str, list[tuple[int, float]]] = {}
    of_gemm: dict[int, list[float]] = {}
    for name, ranks, _, speedup, _, gemm, _ in rows:
        lines.setdefault(name, []).append((ranks, speedup))
        of_gemm.setdefault(ranks, []).append(gemm)
    with chart(path) as axes:
        ranks = np.array(sorted(of_gemm))
        middle = [float(np.median(of_gemm[count])) for count in ranks]
        axes.loglog(ranks, ranks / ranks[0], color=FAINT, linewidth=0.9, dashes=(5, 3), label="ideal")
        axes.loglog(ranks, middle, color=FAINT, linewidth=1.6, label="GEMM on as many ranks")
        for k, (name, points) in enumerate(lines.items()):
            if points[0][0] > ranks[0]:
                points.insert(0, (int(ranks[0]), 1.0))  # all scans are measured against teams of one
            x, y = zip(*points, strict=True)
            axes.loglog(
                x, y, "os^v"[k // len(COLOURS) % 4] + "-", color=COLOURS[k % len(COLOURS)], markersize=5, label=name
            )
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_ticks(ranks, [str(count) for count in ranks])
        axes.minorticks_off()
        axes.set_xlabel("ranks")
        axes.set_ylabel("speed-up")
        axes.grid(axis="y", color=FAINT, alpha=0.2, linewidth=0.6)
        axes.legend(loc="upper left", frameon=False)
        heading(axes, "Strong scaling", f"scan: n = {run['n']:,}, m = {run['m']:,}; commands: n = {run['command_n']:,}")


if __name__ == "__main__":
    guarded(main)
