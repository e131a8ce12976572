"""Very many traits: 20,000 against 10,000 SNPs on two ranks, from files to hits, in double and mixed precision.

Traits come from HDF5. Pairs a second are SNPs times traits over the wall time of the whole command, which includes the
eigendecomposition, the null models and writing the hits; beside it over the phases of the scan alone.
"""

from __future__ import annotations

from typing import Any

from common import finish, guarded, make_parser, parse_sizes, print_table, simulated
from multi_data import RANKS, SCAN_PHASES, Run, kinship, mpgls, traits

FULL = {"samples": 2000, "snps": 10000, "traits": 20000}
QUICK = {"samples": 1000, "snps": 3000, "traits": 4000}
BEFORE = ("eigendecomposition", "rotate traits", "REML", "prepare panels")
AFTER = ("report",)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--memory", metavar="GIB", help="--memory of a rank (no limit)")
    options = parse_sizes(parser, FULL, QUICK)
    n, m, t = options.samples, options.snps, options.traits
    prefix = simulated(options.scratch, n, m)
    files = ("--bfile", prefix, "--grm", kinship(prefix), "--pheno", traits(prefix, t))
    limit = ("--memory", options.memory) if options.memory else ()
    runs = {
        precision: mpgls(
            options.scratch / f"many-traits-{precision}", "multi-trait", *files, "--covar", f"{prefix}.covar.tsv",
            "--precision", precision, "--no-plots", *limit,
        )
        for precision in ("double", "mixed")
    }  # fmt: skip
    pairs = float(m) * t
    print(f"n = {n:,}, {m:,} SNPs x {t:,} traits = {pairs:.3g} pairs, p = 4, {RANKS} ranks x 1 thread")
    report(runs, pairs)
    results: dict[str, Any] = {"pairs_per_second": pairs / runs["double"].seconds}
    for precision, one in runs.items():
        results[f"pairs_per_second_{precision}"] = pairs / one.seconds
        results[f"scan_pairs_per_second_{precision}"] = pairs / one.phases()
        results[f"seconds_{precision}"] = one.seconds
        results[f"hits_{precision}"] = one.manifest["hits"]
        results[f"peak_rss_{precision}"] = one.peak_rss
    finish(results | {"n": n, "m": m, "t": t, "ranks": RANKS, "quick": options.quick}, options.json)


def report(runs: dict[str, Run], pairs: float) -> None:
    """The tables for a person: totals, and the seconds of every phase."""
    rows = [
        [name, one.seconds, pairs / one.seconds / 1e6, one.phases(), pairs / one.phases() / 1e6,
         one.manifest["hits"], round(one.peak_rss / 2**20)]
        for name, one in runs.items()
    ]  # fmt: skip
    header = ["", "seconds", "10^6 pairs/s", "scan s", "10^6 pairs/s in it", "hits", "peak RSS MiB"]
    print_table(header, rows, " ")
    names = [name for name in (*BEFORE, *SCAN_PHASES, *AFTER) if any(one.phases([name]) for one in runs.values())]
    print_table(["seconds of", *runs], [[name, *(one.phases([name]) for one in runs.values())] for name in names], " ")


if __name__ == "__main__":
    guarded(main)
