"""mpgls low-rank on 100,000 people: memory and seconds of each stage, growth with samples and SNPs, and the cost model.

The largest run has n = 100,000 samples, m = 20,000 SNPs and K = 2,000 similarity SNPs on 2 ranks. Around it stand two
smaller ones in n and two in m; fewer SNPs are the first ones of each chromosome, fewer samples are data of their own.
All are whole commands in mixed precision, without files of an earlier run. Before each run ``mpgls doctor`` measures
the machine's rates, and ``mpgls plan low-rank`` predicts the run from them. Draws docs/img/low_rank_scaling.png.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from common import BenchError, finish, guarded, make_parser, mpirun, parse_sizes, print_table, simulated
from figures import ACCENT, COLOURS, FAINT, IMAGES, add_picture, chosen_picture, heading
from multi_data import RANKS, Run, mpgls

from mpgls.report.figure import saved_figure
from mpgls.run.plan import GIB

FULL = {"samples": 100_000, "snps": 20_000, "similarity": 2_000}
QUICK = {"samples": 8_000, "snps": 3_000, "similarity": 300}
PARTS = (4, 2, 1)
"""The sizes in n, and those in m, are the largest divided by these."""
MEMORY = 4.0
"""GiB a rank, given as --memory and to be kept."""
WANTED_ERROR = 0.25
PICTURE = IMAGES / "low_rank_scaling.png"
Size = tuple[int, int]


def main() -> None:
    parser = make_parser(__doc__)
    add_picture(parser, PICTURE)
    options = parse_sizes(parser, FULL, QUICK)
    n, m, K = options.samples, options.snps, options.similarity
    sizes = list(dict.fromkeys([(n // part, m) for part in PARTS] + [(n, m // part) for part in PARTS]))
    measured = {size: measure(options.scratch, size, m, K) for size in sorted(sizes)}
    largest = measured[n, m]
    results: dict[str, Any] = {
        **{key: largest[key] for key in ("seconds", "predicted", "prediction_error", "peak_rss_gib", "stages")},
        "linear_in_n": straightness([(a, one["seconds"]) for (a, b), one in measured.items() if b == m]),
        "linear_in_m": straightness([(b, one["seconds"]) for (a, b), one in measured.items() if a == n]),
        "runs": list(measured.values()), "n": n, "m": m, "K": K, "ranks": RANKS, "memory": MEMORY,
        "quick": options.quick,
    }  # fmt: skip
    report(results)
    if (picture := chosen_picture(options, PICTURE)) is not None:
        draw(results, picture)
    finish(results, options.json)


def measure(scratch: Path, size: Size, m_file: int, K: int) -> dict[str, Any]:
    """Rates, prediction and run of one size (n, m); its files have ``m_file`` SNPs."""
    n, m = size
    prefix, out = simulated(scratch, n, m_file), scratch / f"low-rank-{n}x{m}"
    for old in scratch.glob(f"{out.name}.*"):
        old.unlink()
    rates, plan = Path(f"{out}.rates.json"), Path(f"{out}.plan.json")
    mpirun(RANKS, "-m", "mpgls", "doctor", "--directory", scratch, "--json", rates)
    mpirun(
        1, "-m", "mpgls", "plan", "low-rank", "--samples", str(n), "--snps", str(m), "--similarity-count", str(K),
        "--covariates", "2", "--ranks", str(RANKS), "--memory", str(MEMORY), "--rates", rates, "--json", plan,
    )  # fmt: skip
    tested = ["--extract", first_of_each_chromosome(prefix, m, out)] if m < m_file else []
    done = mpgls(
        out, "low-rank", "--bfile", prefix, "--pheno", f"{prefix}.pheno.tsv", "--covar", f"{prefix}.covar.tsv",
        "--similarity-count", str(K), "--precision", "mixed", "--memory", str(MEMORY), *tested,
    )  # fmt: skip
    predicted = json.loads(plan.read_text(encoding="utf-8"))
    return {
        "n": n,
        "m": m,
        "seconds": done.seconds,
        "predicted": predicted["seconds"],
        "prediction_error": predicted["seconds"] / done.seconds - 1,
        "peak_rss_gib": done.peak_rss / GIB,
        "stages": stages(done, predicted),
        "gemm_gflops": done.manifest["gemm_gflops"],
        "gemm_gflops_of_plan": {p: RANKS * predicted["rates"][p]["gemm"] / 1e9 for p in ("double", "single")},
    }


def first_of_each_chromosome(prefix: Path, m: int, out: Path) -> Path:
    """A file with ``m`` SNPs, an even share of each chromosome's, from its start."""
    by_chromosome: dict[str, list[str]] = {}
    with open(f"{prefix}.bim", encoding="utf-8") as lines:
        for chromosome, snp, *_ in map(str.split, lines):
            by_chromosome.setdefault(chromosome, []).append(snp)
    total = sum(map(len, by_chromosome.values()))
    ends = np.cumsum([0, *(len(snps) for snps in by_chromosome.values())]) * m // total
    path = Path(f"{out}.snps.txt")
    chosen = [snp for snps, k in zip(by_chromosome.values(), np.diff(ends), strict=True) for snp in snps[:k]]
    if len(chosen) != m:
        raise BenchError(f"{prefix}.bim has fewer than {m} SNPs")
    path.write_text("".join(f"{snp}\n" for snp in chosen), encoding="utf-8")
    return path


def stages(done: Run, predicted: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """Seconds of each phase of the run beside those that were predicted, the stages' terms of one name together."""
    terms: dict[str, float] = {}
    for stage in predicted["stages"]:
        for name, seconds in stage["terms"].items():
            terms[name] = terms.get(name, 0.0) + seconds
    # the run reports both in one phase
    terms["report"] = terms.pop("tables") + terms.pop("plots")
    phases = {name: row["seconds"] for name, row in done.manifest["timings"].items()}
    phases["start"] += done.seconds - done.manifest["seconds"]
    names = dict.fromkeys([*phases, *terms])
    return {name: {"measured": phases.get(name), "predicted": terms.get(name)} for name in names}


def straightness(points: list[tuple[int, float]]) -> float:
    """Largest relative distance of seconds from the straight line through the smallest and the largest size."""
    size, seconds = np.array(sorted(points)).T
    line = np.interp(size, size[[0, -1]], seconds[[0, -1]])
    return float(np.max(np.abs(seconds / line - 1)))


def report(results: dict[str, Any]) -> None:
    """The tables for a person."""
    print(f"K = {results['K']:,}, 22 chromosomes left out in turn, {RANKS} ranks x 1 thread, mixed precision")
    rows = [
        [f"{one['n']:,} x {one['m']:,}", one["seconds"], one["predicted"], one["prediction_error"], one["peak_rss_gib"]]
        for one in results["runs"]
    ]
    print_table(["samples x SNPs", "seconds", "predicted", "error", "peak RSS of a rank, GiB"], rows, " ")
    rows = [[name, row["measured"], row["predicted"]] for name, row in results["stages"].items()]
    print_table(["phase of the largest run, seconds", "measured", "predicted"], rows, " ")
    aims = [
        ("error of the prediction", results["prediction_error"], f"within {WANTED_ERROR}"),
        ("peak RSS of a rank, GiB", results["peak_rss_gib"], f"{MEMORY:g} or less"),
        ("distance from a straight line in n", results["linear_in_n"], ""),
        ("distance from a straight line in m", results["linear_in_m"], ""),
    ]
    print_table(["", "measured", "aim"], aims, " ")


def draw(results: dict[str, Any], path: Path) -> None:
    """Seconds against samples and against SNPs, measured and predicted."""
    n, m = results["n"], results["m"]
    path.parent.mkdir(parents=True, exist_ok=True)
    with saved_figure(path, (9.0, 4.4)) as figure:
        panels = (("n", "samples", [one for one in results["runs"] if one["m"] == m], f"m = {m:,}"),
                  ("m", "tested SNPs", [one for one in results["runs"] if one["n"] == n], f"n = {n:,}"))  # fmt: skip
        top = 1.15 * max(max(one["seconds"], one["predicted"]) for one in results["runs"])
        for place, (key, label, runs, fixed) in enumerate(panels):
            axes = figure.add_axes((0.075 + 0.48 * place, 0.125, 0.43, 0.735))
            size = [one[key] for one in runs]
            order = np.argsort(size)
            for name, colour, style in (("seconds", COLOURS[0], "o-"), ("predicted", ACCENT, "s--")):
                seconds = [runs[k][name] for k in order]
                legend = "measured" if name == "seconds" else "predicted by mpgls plan"
                axes.plot(np.array(size)[order], seconds, style, color=colour, markersize=5, label=legend)
            axes.set_xlim(0, 1.08 * max(size))
            axes.set_ylim(0, top)
            axes.set_xticks([0, *sorted(size)], ["0", *(f"{one:,}" for one in sorted(size))])
            axes.set_xlabel(f"{label} ({fixed})")
            axes.grid(axis="y", color=FAINT, alpha=0.2, linewidth=0.6)
            if place == 0:
                axes.set_ylabel("seconds")
                axes.legend(loc="upper left", frameon=False)
                heading(
                    axes,
                    "low-rank: cost grows linearly in samples and in SNPs",
                    f"K = {results['K']:,}, {RANKS} ranks, mixed precision; from files to results; "
                    f"peak {results['peak_rss_gib']:.2f} GiB a rank",
                )


if __name__ == "__main__":
    guarded(main)
