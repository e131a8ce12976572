"""One chromosome left out in turn: whole runs beside JAMMA and GEMMA, from genotypes to p values.

Every run makes its kinships of the other chromosomes, and tests the SNPs of each chromosome: mpgls by ``kinship
--loco`` and ``single-trait --loco`` on --cores ranks of one thread, JAMMA by ``-lmm 1 -loco`` and GEMMA by ``-gk`` and
``-lmm 1`` for a chromosome, each in one process with as many threads. GEMMA is timed on the first chromosome, and its
time multiplied by their number. Seconds are wall times of whole processes; the median of mpgls over --repeats.

JAMMA and GEMMA fit the variance ratio at each SNP. mpgls does so with --ratio snp, which is timed as well, once.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from common import environment, finish, guarded, make_parser, mpirun, parse_sizes, print_table, run, simulated
from peers import GENO, MAF, Case, mouse, own_environment, read_column
from ratio import install_jamma

FULL = {"samples": 4000, "snps": 40000}
QUICK = {"samples": 1500, "snps": 6000}
LIMITS = ("-maf", str(MAF), "-miss", str(GENO))
"""Of JAMMA and GEMMA."""
WANTED, MOST_UNNAMED = 3, 0.03


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--cores", type=int, default=2, metavar="C", help="ranks of mpgls, threads of the others (2)")
    parser.add_argument("--repeats", type=int, default=3, metavar="K", help="runs of mpgls (3)")
    options = parse_sizes(parser, FULL, QUICK)
    n, m = options.samples, options.snps
    simulation = Case(f"loco_{n}x{m}", simulated(options.scratch, n, m), options.scratch)
    cases = [simulation] if options.quick else [mouse(options.scratch), simulation]
    sets = {case.name: measure(case, options) for case in cases}
    last = sets[cases[-1].name]
    keys = ("jamma_over_mpgls", "gemma_over_mpgls", "jamma_over_mpgls_ratio", "seconds_unnamed_share")
    finish(
        {key: last[key] for key in keys} | {"sets": sets, "cores": options.cores, "quick": options.quick}, options.json
    )


def measure(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    """The figures of one data set, in the JSON and as a table."""
    runs = [run_mpgls(case, options.cores) for _ in range(options.repeats)]
    ratio = run_mpgls(case, options.cores, "--ratio", "snp")
    jamma, gemma = run_jamma(case, options), run_gemma(case, options.cores)
    kinship, scan = (float(np.median([one[key] for one in runs])) for key in ("kinship", "scan"))
    each, own = kinship + scan, ratio["kinship"] + ratio["scan"]
    programs = {"mpgls": each, "mpgls --ratio snp": own, "JAMMA": jamma, "GEMMA": gemma}
    rows = [[name, seconds, seconds / each] for name, seconds in programs.items()]
    print_table(["program", "seconds", "over mpgls"], rows, f"{case.name}, kinships included")
    share = max(one["unnamed"] for one in runs)
    print(f"JAMMA / mpgls: {jamma / each:.2f} (wanted: {WANTED}); in no phase: {share:.3f} (at most {MOST_UNNAMED})")
    apart = difference(case)
    return {
        "jamma_over_mpgls": jamma / each, "gemma_over_mpgls": gemma / each, "jamma_over_mpgls_ratio": jamma / own,
        "seconds_unnamed_share": share, "mpgls_kinship_seconds": kinship, "mpgls_scan_seconds": scan,
        "mpgls_ratio_seconds": own, "jamma_seconds": jamma, "gemma_seconds": gemma, "jamma_log10p_apart": apart,
    }  # fmt: skip


def run_mpgls(case: Case, cores: int, *more: str) -> dict[str, float]:
    """Seconds of both commands, and the largest share of their time that is in no phase."""
    filters = ["--maf", str(MAF), "--geno", str(GENO)]
    out = {"kinship": case.file(".loco-K"), "scan": case.file("".join([".loco-scan", *more]))}
    found = {
        "kinship": mpirun(
            cores, "-m", "mpgls", "kinship", "--loco", "--bfile", case.bfile, *filters, "--out", out["kinship"]
        ).seconds,
        "scan": mpirun(
            cores, "-m", "mpgls", "single-trait", "--loco", "--bfile", case.bfile, "--grm", f"{out['kinship']}.h5",
            *filters, *more, "--no-plots", "--out", out["scan"],
        ).seconds,
    }  # fmt: skip
    manifests = [json.loads(Path(f"{prefix}.json").read_text(encoding="utf-8")) for prefix in out.values()]
    return found | {"unnamed": max(one["seconds_unnamed"] / one["seconds"] for one in manifests)}


def run_jamma(case: Case, options: argparse.Namespace) -> float:
    """Seconds of JAMMA."""
    command = [install_jamma(options.scratch), "-bfile", case.bfile, "-n", "1", "-lmm", "1", "-loco", *LIMITS]
    where = ["--no-telemetry", "-outdir", case.folder, "-o", f"{case.name}.jamma-loco"]
    return run([*command, *where], own_environment(options.cores)).seconds


def run_gemma(case: Case, cores: int) -> float:
    """Seconds of GEMMA for all chromosomes, from those for the first one."""
    with open(f"{case.bfile}.bim", encoding="utf-8") as lines:
        chromosomes = [line.split()[:2] for line in lines]
    first = chromosomes[0][0]
    snps, others = case.file(".gemma-snps.txt"), case.file(".gemma-others.txt")
    snps.write_text("".join(f"{name}\n" for chromosome, name in chromosomes if chromosome == first))
    others.write_text("".join(f"{name}\n" for chromosome, name in chromosomes if chromosome != first))
    name = f"{case.name}.gemma-loco"
    shared = ["gemma", "-bfile", case.bfile, "-n", "1", *LIMITS, "-outdir", case.folder, "-o", name]
    kinship = run([*shared, "-gk", "1", "-snps", others], environment(cores)).seconds
    of_it = case.folder / f"{name}.cXX.txt"
    scan = run([*shared, "-lmm", "1", "-k", of_it, "-snps", snps], environment(cores)).seconds
    return (kinship + scan) * len({chromosome for chromosome, _ in chromosomes})


def difference(case: Case) -> float:
    """The median distance of -log10 p of mpgls --ratio snp and of JAMMA, over SNPs."""
    mine = read_column(Path(f"{case.file('.loco-scan--ratiosnp')}.pheno.tsv"), "ID", "LOG10P")
    theirs = read_column(case.folder / f"{case.name}.jamma-loco.assoc.txt", "rs", "p_wald")
    return float(np.median([abs(mine[snp] + np.log10(p)) for snp, p in theirs.items() if snp in mine and p > 0]))


if __name__ == "__main__":
    guarded(main)
