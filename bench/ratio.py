"""The variance ratio of each SNP: what it adds to a scan, and whole runs beside GEMMA and JAMMA, which fit it too.

The scans of one eigendecomposition with one ratio and with a ratio for each SNP take turns; each is the sum of the
phases from reading to writing, the median over --repeats. Whole runs are wall times of the whole process from files,
the kinship among them, to p values of the t test (-lmm 1): mpgls on --cores ranks of one thread, the others in one
process with as many threads (see peers.py).
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from common import finish, guarded, make_parser, mpirun, parse_sizes, print_table, simulated
from peer_installs import install_gemma, install_jamma
from peers import GENO, MAF, Case, Measured, make_kinship, read_column, run_gemma, run_jamma

FULL = {"samples": 4000, "snps": 20000}
QUICK = {"samples": 2000, "snps": 10000}
SCAN = ("read (waiting)", "decode", "solve", "statistics", "products at nodes", "ratios", "write")
"""Phases of a scan."""


@dataclass
class Scans:
    """Seconds of the phases of a scan, and of the whole run, by turn."""

    scan: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    log10p: dict[str, float] = field(default_factory=dict)

    def add(self, seconds: float, out: Path) -> None:
        """One more run, of which ``out`` is the prefix."""
        phases = json.loads(Path(f"{out}.json").read_text(encoding="utf-8"))["timings"]
        self.scan.append(sum(phases[name]["seconds"] for name in SCAN if name in phases))
        self.whole.append(seconds)
        self.log10p = read_column(Path(f"{out}.pheno.tsv"), "ID", "LOG10P")


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--cores", type=int, default=2, metavar="C", help="ranks of mpgls, threads of the others (2)")
    parser.add_argument("--repeats", type=int, default=3, metavar="K", help="runs of mpgls (3)")
    options = parse_sizes(parser, FULL, QUICK)
    n, m, cores = options.samples, options.snps, options.cores
    prefix = simulated(options.scratch, n, m)
    case = Case(f"ratio_{n}x{m}", prefix, options.scratch)
    make_kinship(case, cores)
    mpirun(cores, "-m", "mpgls", "eigen", "--grm", case.file(".K.h5"), "--out", case.file(".E"))

    one, each, from_kinship = Scans(), Scans(), Scans()
    for _ in range(options.repeats):
        scan(case, one, cores, "--eigen", case.file(".E.h5"))
        scan(case, each, cores, "--eigen", case.file(".E.h5"), "--ratio", "snp")
        scan(case, from_kinship, cores, "--grm", case.file(".K.h5"), "--ratio", "snp")
    ratio = float(np.median(each.scan) / np.median(one.scan))
    moved = max(abs(each.log10p[snp] - one.log10p[snp]) for snp in one.log10p)
    results: dict[str, Any] = {
        "snp_over_null": ratio, "samples": n, "snps": m, "cores": cores, "quick": options.quick,
        "scan_seconds": float(np.median(each.scan)), "log10p_moved": moved,
    }  # fmt: skip
    print_table(
        ("scan of one eigendecomposition", "seconds", "of one ratio"),
        [
            ("one ratio", f"{np.median(one.scan):.2f}", "1.00"),
            ("a ratio for each SNP", f"{np.median(each.scan):.2f}", f"{ratio:.2f}"),
        ],
    )
    if options.quick:
        print("GEMMA and JAMMA: left out with --quick, because they take minutes")
        results |= {"gemma_over_mpgls": None, "jamma_over_mpgls": None}
    else:
        results |= beside_peers(case, from_kinship, options)
    finish(results, options.json)


def scan(case: Case, into: Scans, cores: int, *arguments: str | Path) -> None:
    """One run of mpgls."""
    out = case.file(f".{len(arguments)}{arguments[0]}")
    done = mpirun(
        cores, "-m", "mpgls", "single-trait", "--bfile", case.bfile, *arguments, "--maf", str(MAF), "--geno", str(GENO),
        "--no-plots", "--out", out,
    )  # fmt: skip
    into.add(done.seconds, out)


def beside_peers(case: Case, mine: Scans, options: argparse.Namespace) -> dict[str, Any]:
    """Whole runs with a given kinship: GEMMA and JAMMA over mpgls, and how far their p values are apart."""
    gemma, jamma = Measured(), Measured()
    run_gemma(case, install_gemma(), options.cores, gemma)
    run_jamma(case, install_jamma(options.scratch), options.cores, jamma)
    seconds = float(np.median(mine.whole))
    results: dict[str, Any] = {"mpgls_seconds": seconds}
    for name, peer in (("gemma", gemma), ("jamma", jamma)):
        shared = [snp for snp in peer.log10p if snp in mine.log10p]
        apart = [abs(peer.log10p[snp] - mine.log10p[snp]) for snp in shared]
        results |= {
            f"{name}_seconds": peer.median, f"{name}_over_mpgls": peer.median / seconds,
            f"{name}_log10p_apart": max(apart), f"{name}_log10p_apart_median": float(np.median(apart)),
        }  # fmt: skip
    whole = {"mpgls": seconds, "GEMMA": gemma.median, "JAMMA": jamma.median}
    rows = [(name, f"{one:.2f}", f"{one / seconds:.1f}") for name, one in whole.items()]
    print_table(("whole run, the kinship given", "seconds", "over mpgls"), rows)
    return results


if __name__ == "__main__":
    guarded(main)
