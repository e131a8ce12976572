"""The tiles of multi-trait against one matrix product of their shape and against the published loop.

Part one, on rotated data in memory: all tiles (products, Schur complements, epilogue with hits, best SNPs and
histograms) and the single product X~'(W o E~) of the same shape and precision, by the same ranks in turns; Algorithm 6
of [Elem] is timed on a sample of the traits and scaled to all. Part two: whole runs of mpgls with and without --dense.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from common import finish, guarded, launched, make_parser, mpirun, parse_sizes, print_table, simulated
from multi_data import RANKS, SCAN_PHASES, Run, eigenbasis, mpgls, traits

if TYPE_CHECKING:
    import argparse

    from mpi4py import MPI
    from tile_pass import Rotated, TilePass

FULL = {"samples": 3000, "snps": 4000, "traits": 4000}
QUICK = {"samples": 2000, "snps": 4000, "traits": 4000}
PRECISIONS = ("double", "mixed")
PAPER_BLOCK = 64
"""SNPs that Algorithm 6 works on at a time: its scaled copy of them stays in cache, which is fastest."""


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--repeats", type=int, metavar="K", help="passes of each kind (5; 2 with --quick)")
    parser.add_argument("--paper-traits", type=int, default=4, metavar="K", help="traits of Algorithm 6 (4)")
    options = parse_sizes(parser, FULL, QUICK)
    options.repeats = options.repeats or (2 if options.quick else 5)
    if launched():
        on_ranks(options)
        return
    prefix = simulated(options.scratch, options.samples, options.snps)
    eigenbasis(prefix), traits(prefix, options.traits)
    answer = options.scratch / "multi-trait-tiles.json"
    sizes = ("samples", "snps", "traits", "repeats", "paper_traits", "scratch")
    given = [text for key in sizes for text in (f"--{key.replace('_', '-')}", str(getattr(options, key)))]
    mpirun(RANKS, Path(__file__).resolve(), *given, "--json", answer)
    results = json.loads(answer.read_text(encoding="utf-8"))
    report_tiles(results)
    results |= dense(prefix, options) | {"quick": options.quick}
    finish(results, options.json)


# -- tiles, one product, and Algorithm 6, on the ranks ------------------------------------------------------------


def on_ranks(options: argparse.Namespace) -> None:
    """Part one on the ranks that there are; rank 0 writes the JSON."""
    from mpi4py import MPI
    from tile_pass import TilePass, rotate

    from mpgls.run.hardware import limit_threads

    comm = MPI.COMM_WORLD
    threads = limit_threads(comm.Split_type(MPI.COMM_TYPE_SHARED), None)
    prefix = simulated(options.scratch, options.samples, options.snps, comm)
    data = rotate(comm, prefix, eigenbasis(prefix), traits(prefix, options.traits))
    passes = {precision: TilePass(comm, data, precision) for precision in PRECISIONS}
    seconds, ratios = measure(passes, options.repeats)
    results: dict[str, Any] = algorithm6_beside(comm, data, passes, options)
    results["algorithm6_over_tiles"] = results["algorithm6_seconds"] / seconds["double"]
    results["algorithm6_over_tiles_mixed"] = results["algorithm6_seconds"] / seconds["mixed"]
    for precision, suffix in (("double", ""), ("mixed", "_mixed")):
        one = passes[precision]
        results[f"tiles_over_gemm{suffix}"] = ratios[precision]
        results[f"tiles_seconds{suffix}"] = seconds[precision]
        results[f"gemm_seconds{suffix}"] = seconds[f"{precision} gemm"]
        results[f"nodes{suffix}"] = one.nodes
        for name in one.phases[0]:
            mine = float(np.median([spent[name] for spent in one.phases]))
            results[f"{name.lower()}_seconds{suffix}"] = max(comm.allgather(mine))
    results |= {
        "n": options.samples, "m": options.snps, "t": options.traits, "p": data.X_L_tilde.shape[1] + 1,
        "ranks": comm.size, "threads": threads, "block": passes["double"].block, "panel": passes["double"].panel,
        "repeats": options.repeats, "paper_traits": options.paper_traits,
    }  # fmt: skip
    if comm.rank == 0:
        finish(results, options.json)


def measure(passes: dict[str, TilePass], repeats: int) -> tuple[dict[str, float], dict[str, float]]:
    """Median seconds of tiles and of the product, and the median ratio of tiles to the products around them."""
    seconds: dict[str, list[float]] = {key: [] for name in passes for key in (name, f"{name} gemm")}
    ratios: dict[str, list[float]] = {name: [] for name in passes}
    for one in passes.values():  # memory is touched for the first time
        one.tiles(), one.gemm()
        one.phases.clear()
    for repeat in range(repeats):
        for name, one in list(passes.items())[:: 1 if repeat % 2 == 0 else -1]:
            before, tiles, after = one.gemm(), one.tiles(), one.gemm()
            seconds[name].append(tiles)
            seconds[f"{name} gemm"] += [before, after]
            ratios[name].append(2 * tiles / (before + after))
    middle = {key: float(np.median(values)) for key, values in seconds.items()}
    return middle, {key: float(np.median(values)) for key, values in ratios.items()}


def algorithm6_beside(
    comm: MPI.Comm, data: Rotated, passes: dict[str, TilePass], options: argparse.Namespace
) -> dict[str, Any]:
    """Seconds of Algorithm 6 for all traits, scaled from a sample, and its agreement with the tiles. Collective."""
    from algorithm6 import algorithm6

    sample = np.linspace(0, options.traits - 1, options.paper_traits).astype(np.int64)
    Y_tilde, h2 = np.asfortranarray(data.Y_tilde[:, sample]), data.h2[sample]
    parts = []
    comm.Barrier()
    start = time.perf_counter()
    for first in range(0, data.X_tilde.shape[1], PAPER_BLOCK):
        parts.append(algorithm6(data.lam, data.X_L_tilde, Y_tilde, data.X_tilde[:, first : first + PAPER_BLOCK], h2))
    seconds = max(comm.allgather(time.perf_counter() - start))
    beta, se = (np.hstack(values) for values in zip(*parts, strict=True))
    results: dict[str, Any] = {"algorithm6_seconds": seconds * options.traits / sample.size}
    for precision, one in passes.items():
        ours = one.estimates(sample)
        tested = np.isfinite(ours[0])
        off = max(np.max(np.abs(ours[0] - beta)[tested] / se[tested]), np.max(np.abs(ours[1] / se - 1.0)[tested]))
        results[f"difference_{precision}"] = max(comm.allgather(float(off)))
        results["untested"] = comm.allreduce(int(np.sum(~tested)))
    return results


def report_tiles(results: dict[str, Any]) -> None:
    """Part one, for a person."""
    print(
        f"n = {results['n']:,}, m = {results['m']:,}, t = {results['t']:,}, p = {results['p']}, {results['ranks']} "
        f"ranks x {results['threads']} thread(s), tiles of {results['block']} SNPs x {results['panel']} traits; "
        f"medians of {results['repeats']} passes, kinds taken in turn"
    )
    rows = []
    for name, suffix in (("double", ""), ("mixed", "_mixed")):
        keys = ("tiles", "products", "schur", "epilogue", "gemm")
        values = [results[f"{key}_seconds{suffix}"] for key in keys]
        rows.append([name, results[f"nodes{suffix}"], *values, results[f"tiles_over_gemm{suffix}"]])
    print_table(["", "nodes", "tiles s", "products s", "Schur s", "epilogue s", "GEMM s", "tiles / GEMM"], rows, " ")
    aims = [
        ("tiles / one product, double", results["tiles_over_gemm"], "1.6 or less"),
        ("tiles / one product, mixed", results["tiles_over_gemm_mixed"], "1.6 or less"),
        (f"Algorithm 6, s ({results['paper_traits']} traits, scaled)", results["algorithm6_seconds"], ""),
        ("Algorithm 6 / tiles, double", results["algorithm6_over_tiles"], "40 or more"),
        ("Algorithm 6 / tiles, mixed", results["algorithm6_over_tiles_mixed"], ""),
        ("difference of beta (in se) and se, double", results["difference_double"], "1e-10 or less"),
        ("difference of beta (in se) and se, mixed", results["difference_mixed"], ""),
    ]
    print_table(["", "measured", "aim"], aims, " ")


# -- whole runs with and without the dense store ------------------------------------------------------------------


def dense(prefix: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Scan seconds of whole runs without and with --dense, in turns, and the rate of the disk beside them."""
    files = (
        "--bfile", prefix, "--eigen", eigenbasis(prefix), "--pheno", traits(prefix, options.traits),
        "--covar", f"{prefix}.covar.tsv",
    )  # fmt: skip
    runs: dict[str, list[Run]] = {"hits": [], "dense": []}
    rates = []
    size = 8 * options.traits * options.snps
    for repeat in range(max(1, (options.repeats + 1) // 2)):
        for kind in ("hits", "dense") if repeat % 2 == 0 else ("dense", "hits"):
            out = options.scratch / f"multi-{kind}"
            more = ["--dense"] if kind == "dense" else []
            runs[kind].append(mpgls(out, "multi-trait", *files, "--no-plots", *more))
        rates.append(disk_rate(options.scratch / "disk-rate", size))
        (options.scratch / "multi-dense.h5").unlink(missing_ok=True)
    seconds = {kind: float(np.median([one.phases() for one in done])) for kind, done in runs.items()}
    rate = float(np.median(rates))
    rows = [
        [kind, float(np.median([one.seconds for one in done])), seconds[kind]]
        + [float(np.median([one.phases([name]) for one in done])) for name in SCAN_PHASES if name != "scratch"]
        for kind, done in runs.items()
    ]
    header = ["whole runs", "seconds", "scan s", *(f"{name} s" for name in SCAN_PHASES if name != "scratch")]
    print_table(header, rows, " ")
    ratio = seconds["dense"] / seconds["hits"]
    print_table(
        ["dense store", "measured", "aim"],
        [
            ("scan with it / without", ratio, "1.15 or less, or bound by the disk"),
            ("MiB", size / 2**20, ""),
            ("written during the scan, MB/s", size / seconds["dense"] / 1e6, ""),
            ("the disk alone, written and synced, MB/s", rate / 1e6, ""),
            ("seconds the disk alone would take / scan without it", size / rate / seconds["hits"], ""),
        ],
        " ",
    )
    return {
        "dense_over_hits": ratio,
        "scan_seconds_hits": seconds["hits"],
        "scan_seconds_dense": seconds["dense"],
        "dense_bytes": size,
        "disk_bytes_per_second": rate,
        "disk_seconds_over_scan": size / rate / seconds["hits"],
    }


def disk_rate(path: Path, size: int) -> float:
    """Bytes a second of writing ``size`` bytes and syncing them."""
    data = np.random.default_rng(0).bytes(4 << 20)
    start = time.perf_counter()
    with open(path, "wb", buffering=0) as file:
        for first in range(0, size, len(data)):
            file.write(data[: size - first])
        os.fsync(file.fileno())
    seconds = time.perf_counter() - start
    path.unlink()
    return size / seconds


if __name__ == "__main__":
    guarded(main)
