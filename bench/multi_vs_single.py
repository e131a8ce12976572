"""One run of multi-trait with t traits against t runs of single-trait: where the first becomes cheaper.

[Elem] Figure 7. Both are whole commands from files to results, with the same kinship, traits, covariates and options,
without plots; multi-trait computes its eigendecomposition each time. single-trait is run for two traits after each
round of multi-trait, and the median is multiplied by t. Beside it stands one run of single-trait for all t traits,
which reads the kinship once: a line through its times for one trait and for four.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from common import finish, guarded, make_parser, mpirun, numbers, parse_sizes, print_table
from figures import ACCENT, COLOURS, FAINT, IMAGES, add_picture, chart, chosen_picture, heading
from multi_data import RANKS, kinship, mpgls

FULL = {"samples": 3000, "snps": 10000}
QUICK = {"samples": 2500, "snps": 8000}
COUNTS, QUICK_COUNTS = [1, 2, 5, 10, 20, 35, 50, 100], [1, 10, 100]
TOGETHER = 4
"""Traits of the one run of single-trait for several."""
PICTURE = IMAGES / "multi_vs_single.png"
PAPER = 35
"""Where the paper's curves cross, about."""


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--counts", type=numbers, metavar="T,..", help="numbers of traits (1,2,5,10,20,35,50,100)")
    parser.add_argument(
        "--repeats", type=int, metavar="K", help="rounds of all runs, medians of which count (3; 1 with --quick)"
    )
    add_picture(parser, PICTURE)
    options = parse_sizes(parser, FULL, QUICK)
    n, m = options.samples, options.snps
    counts = sorted(options.counts or (QUICK_COUNTS if options.quick else COUNTS))
    study = Study(options.scratch, n, m, max(*counts, TOGETHER))
    multi, single, together = measure(study, counts, options.repeats or (1 if options.quick else 3))
    each = float(np.median(single))
    slope = (together - each) / (TOGETHER - 1)
    results: dict[str, Any] = {
        "crossing_t": crossing(counts, multi, [each * t for t in counts]),
        "ratio_at_100": 100 * each / float(np.interp(100, counts, multi)),
        "crossing_t_one_run": crossing(counts, multi, [each + slope * (t - 1) for t in counts]),
        "ratio_at_100_one_run": (each + slope * 99) / float(np.interp(100, counts, multi)),
        "counts": counts, "multi_seconds": multi, "single_seconds": each, "single_seconds_all": single,
        "single_slope_one_run": slope, "n": n, "m": m, "ranks": RANKS, "quick": options.quick,
    }  # fmt: skip
    report(results)
    if (picture := chosen_picture(options, PICTURE)) is not None:
        draw(results, picture)
    finish(results, options.json)


class Study:
    """The files that both commands read: genotypes, kinship, covariates, and traits as one text table."""

    def __init__(self, scratch: Path, n: int, m: int, t: int) -> None:
        self.scratch, self.prefix = scratch, scratch / f"many-{n}x{m}x{t}"
        scratch.mkdir(parents=True, exist_ok=True)
        if not Path(f"{self.prefix}.fam").exists():
            mpirun(
                RANKS, "-m", "mpgls", "simulate", "--samples", str(n), "--snps", str(m), "--traits", str(t),
                "--out", self.prefix,
            )  # fmt: skip
        with open(f"{self.prefix}.pheno.tsv", encoding="utf-8") as table:
            self.names = table.readline().split()[2:]
        self.kinship = kinship(self.prefix)

    def seconds(self, command: str, names: list[str]) -> float:
        """Wall seconds of the whole command for the traits ``names``."""
        return mpgls(
            self.scratch / command, command, "--bfile", self.prefix, "--grm", self.kinship, "--no-plots",
            "--pheno", f"{self.prefix}.pheno.tsv", "--covar", f"{self.prefix}.covar.tsv", "--pheno-name", *names,
        ).seconds  # fmt: skip


def measure(study: Study, counts: list[int], repeats: int) -> tuple[list[float], list[float], float]:
    """Median seconds of multi-trait for each count; seconds of single-trait, one trait each; medians for TOGETHER."""
    study.seconds("single-trait", study.names[:1])  # files come into the cache of the system
    multi: dict[int, list[float]] = {t: [] for t in counts}
    single, together = [], []
    for k in range(repeats):
        for t in counts if k % 2 == 0 else counts[::-1]:
            multi[t].append(study.seconds("multi-trait", study.names[:t]))
        for first in range(2 * k, 2 * k + 2):
            which = first % len(study.names)
            single.append(study.seconds("single-trait", study.names[which : which + 1]))
        together.append(study.seconds("single-trait", study.names[:TOGETHER]))
    return [float(np.median(several)) for several in multi.values()], single, float(np.median(together))


def crossing(counts: list[int], multi: list[float], single: list[float]) -> float | None:
    """The t at which multi-trait becomes cheaper, interpolated; None if it never does."""
    gain = np.subtract(single, multi)
    cheaper = np.flatnonzero(gain >= 0)
    if not cheaper.size:
        return None
    k = int(cheaper[0])
    if k == 0:
        return float(counts[0])
    return float(counts[k - 1] + (counts[k] - counts[k - 1]) * -gain[k - 1] / (gain[k] - gain[k - 1]))


def report(results: dict[str, Any]) -> None:
    """The table for a person."""
    each, slope = results["single_seconds"], results["single_slope_one_run"]
    print(
        f"n = {results['n']:,}, m = {results['m']:,}, p = 4, {RANKS} ranks x 1 thread; single-trait: median of "
        f"{len(results['single_seconds_all'])} runs of one trait, {each:.2f} s, times t; whole commands"
    )
    rows = [
        [f"{t}", seconds, each * t, each * t / seconds, each + slope * (t - 1)]
        for t, seconds in zip(results["counts"], results["multi_seconds"], strict=True)
    ]
    header = ["traits", "multi-trait s", "t runs of single-trait s", "ratio", "single-trait in one run s"]
    print_table(header, rows, " ")
    aims = [
        ("crossing at t =", results["crossing_t"], f"below {PAPER}, the paper's"),
        ("single-trait / multi-trait at t = 100", results["ratio_at_100"], ""),
        ("crossing, single-trait in one run", results["crossing_t_one_run"], ""),
        ("ratio at t = 100, single-trait in one run", results["ratio_at_100_one_run"], ""),
    ]
    print_table(["", "measured", "aim"], aims, " ")


def draw(results: dict[str, Any], path: Path) -> None:
    """Figure 7: seconds against traits, both axes logarithmic."""
    counts, each = np.array(results["counts"]), results["single_seconds"]
    with chart(path) as axes:
        axes.loglog(counts, each * counts, "o-", color=COLOURS[1], markersize=5, label="t runs of single-trait")
        axes.loglog(counts, results["multi_seconds"], "o-", color=COLOURS[0], markersize=5, label="multi-trait")
        place = results["crossing_t"]
        if place is not None and place > counts[0]:
            axes.axvline(place, 0, 0.75, color=ACCENT, linewidth=0.9, dashes=(5, 3))
            axes.annotate(
                f"t = {place:.1f}", (place, 0.03), (4, 0), xycoords=("data", "axes fraction"),
                textcoords="offset points", color=ACCENT,
            )  # fmt: skip
        axes.set_xticks(counts, [str(t) for t in counts])
        axes.minorticks_off()
        seconds = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
        low, high = axes.get_ylim()
        shown = [s for s in seconds if low <= s <= high]
        axes.set_yticks(shown, [str(s) for s in shown])
        axes.set_xlabel("traits")
        axes.set_ylabel("seconds")
        axes.grid(axis="y", color=FAINT, alpha=0.2, linewidth=0.6)
        axes.legend(loc="upper left", frameon=False)
        heading(
            axes,
            "Many traits: one eigendecomposition against one scan a trait",
            f"n = {results['n']:,}, m = {results['m']:,}, {RANKS} ranks; from files to results; "
            f"{results['ratio_at_100']:.0f} times faster at 100 traits",
        )


if __name__ == "__main__":
    guarded(main)
