"""mpgls low-rank beside FaST-LMM's single_snp_scale: from files to p values, on the same cores.

Both read the same PLINK files, trait and covariates, take every tenth SNP for similarity and leave the tested SNP's
chromosome out. mpgls runs on --cores ranks of one thread, FaST-LMM in one process with as many BLAS threads. Times are
wall times of whole processes, imports included, and no file of an earlier run is used. mpgls is the median of --repeats
runs in each precision, FaST-LMM runs --peer-repeats times, in turns with them.

P values are compared at FaST-LMM's own h2 (another run of mpgls in double, with --h2-file), h2 as both estimate it.
``gemm_share`` is the rate of the one large product, H = G'X, over the float32 rate of GEMM that the same run measured.
"""

from __future__ import annotations

import math
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from common import finish, guarded, make_parser, mpirun, parse_sizes, print_table, run, simulated
from multi_data import Run, mpgls
from peer_installs import install_fastlmm, own_environment
from peers import read_column

FULL = {"samples": 5000, "snps": 20000}
QUICK = {"samples": 2000, "snps": 8000}
EVERY = 10
TRAIT = "trait1"
PRECISIONS = {"mixed": "single", "double": "double"}
WANTED_RATIO, WANTED_SHARE = 10, 0.8


@dataclass
class Study:
    """The files that both programs read, and where their results go."""

    scratch: Path
    prefix: Path
    out: Path
    cores: int
    python: Path

    def file(self, suffix: str) -> Path:
        """A file of this benchmark in the scratch directory."""
        return Path(f"{self.out}{suffix}")

    def low_rank(self, precision: str, *more: str | Path) -> Run:
        """One whole run of mpgls, none of its stages there before."""
        out = self.file(f".{precision}")
        for old in out.parent.glob(f"{out.name}.*"):
            old.unlink()
        return mpgls(
            out, "low-rank", "--bfile", self.prefix, "--pheno", f"{self.prefix}.pheno.tsv", "--pheno-name", TRAIT,
            "--covar", f"{self.prefix}.covar.tsv", "--similarity-every", str(EVERY), "--precision", precision,
            "--no-plots", *more, ranks=self.cores,
        )  # fmt: skip

    def fastlmm(self) -> float:
        """Wall seconds of one whole run of single_snp_scale, nothing in its cache before."""
        cache = self.file(".cache")
        shutil.rmtree(cache, ignore_errors=True)
        script = Path(__file__).with_name("fastlmm_scale.py").resolve()
        tables = self.file(".pheno.txt"), str(EVERY), self.file(".covar.txt")
        seconds = run(
            [self.python, script, self.prefix, *tables, cache, self.file(".fastlmm.tsv")], own_environment(self.cores)
        ).seconds
        shutil.rmtree(cache, ignore_errors=True)
        return seconds


@dataclass
class Found:
    """All runs, by program."""

    fastlmm: list[float] = field(default_factory=list)
    runs: dict[str, list[Run]] = field(default_factory=lambda: {precision: [] for precision in PRECISIONS})

    def seconds(self, precision: str) -> float:
        """Median wall seconds of mpgls."""
        return float(np.median([one.seconds for one in self.runs[precision]]))


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--cores", type=int, default=2, metavar="C", help="ranks of mpgls, threads of FaST-LMM (2)")
    parser.add_argument("--repeats", type=int, metavar="K", help="runs of mpgls in each precision (3; 1 with --quick)")
    parser.add_argument("--peer-repeats", type=int, default=1, metavar="K", help="runs of FaST-LMM (1)")
    options = parse_sizes(parser, FULL, QUICK)
    n, m = options.samples, options.snps
    study = prepare(options.scratch, n, m, options.cores)
    found = measure(study, options.repeats or (1 if options.quick else 3), options.peer_repeats)
    agreement = compare(study)
    shares = {precision: gemm_share(found.runs[precision], rate) for precision, rate in PRECISIONS.items()}
    fastlmm = float(np.median(found.fastlmm))
    results: dict[str, Any] = {
        "fastlmm_over_mpgls": fastlmm / found.seconds("mixed"), "gemm_share": shares["mixed"],
        "fastlmm_over_mpgls_double": fastlmm / found.seconds("double"), "gemm_share_double": shares["double"],
        **agreement, "fastlmm_seconds": found.fastlmm,
        "seconds": {precision: [one.seconds for one in runs] for precision, runs in found.runs.items()},
        "gemm_gflops": [one.manifest["gemm_gflops"] for one in found.runs["mixed"]],
        "phases": {precision: phases(runs) for precision, runs in found.runs.items()},
        "n": n, "m": m, "K": -(-m // EVERY), "cores": options.cores, "quick": options.quick,
    }  # fmt: skip
    report(results)
    finish(results, options.json)


def prepare(scratch: Path, n: int, m: int, cores: int) -> Study:
    """Simulated families with 22 chromosomes, a trait and two covariates, in both programs' formats."""
    prefix = simulated(scratch, n, m)
    study = Study(scratch, prefix, scratch / f"low-rank-{n}x{m}", cores, install_fastlmm(scratch))
    for table, suffix in (("pheno", ".pheno.txt"), ("covar", ".covar.txt")):
        rows = np.loadtxt(f"{prefix}.{table}.tsv", dtype=str, skiprows=1)
        np.savetxt(study.file(suffix), rows[:, : 3 if table == "pheno" else None], fmt="%s")
    return study


def measure(study: Study, repeats: int, peer_repeats: int) -> Found:
    """Run the programs in turns."""
    found = Found()
    mpirun(study.cores, "-c", "import mpgls.cli")  # Python's files come into the cache of the system
    for turn in range(max(repeats, peer_repeats)):
        if turn < repeats:
            for precision, runs in found.runs.items():
                runs.append(study.low_rank(precision))
                print(f"mpgls {precision} {runs[-1].seconds:.2f} s", file=sys.stderr, flush=True)
        if turn < peer_repeats:
            found.fastlmm.append(study.fastlmm())
            print(f"FaST-LMM {found.fastlmm[-1]:.2f} s", file=sys.stderr, flush=True)
    return found


def compare(study: Study) -> dict[str, float]:
    """How far p values lie apart at FaST-LMM's h2, in each precision, and the estimates of h2."""
    theirs = read_column(study.file(".fastlmm.tsv"), "SNP", "PValue")
    chromosome = read_column(study.file(".fastlmm.tsv"), "SNP", "Chr")
    h2 = read_column(study.file(".fastlmm.tsv"), "SNP", "Nullh2")
    by_chromosome = {int(chromosome[snp]): h2[snp] for snp in h2}
    table = study.file(".h2.tsv")
    rows = [f"{TRAIT}\t{c}\t{float(value)!r}\n" for c, value in sorted(by_chromosome.items())]
    table.write_text("TRAIT\tCHR\tH2\n" + "".join(rows), encoding="utf-8")
    found = {}
    for precision in PRECISIONS:
        ours = estimates(study.low_rank(precision))
        found[f"h2_difference_{precision}"] = max(abs(ours[c] - value) for c, value in by_chromosome.items())
        study.low_rank(precision, "--h2-file", table)
        log10p = read_column(study.file(f".{precision}.{TRAIT}.tsv"), "ID", "LOG10P")
        both = [snp for snp in theirs if theirs[snp] > 0 and snp in log10p]
        apart = [abs(math.expm1(math.log(10) * (-log10p[snp] - math.log10(theirs[snp])))) for snp in both]
        found |= {f"p_difference_{precision}": max(apart), "snps_compared": len(both)}
    return found


def estimates(one: Run) -> dict[int, float]:
    """h2 without each chromosome."""
    return {int(label): float(null["h2"]) for label, null in one.manifest["traits"][TRAIT]["loco"].items()}


def gemm_share(runs: list[Run], precision: str) -> float:
    """Median over runs: the rate of the large product over that of GEMM, both of all ranks."""
    shares = []
    for one in runs:
        phase = one.manifest["timings"]["cross product"]
        shares.append(phase["gflop"] / phase["seconds"] / one.manifest["gemm_gflops"][precision])
    return float(np.median(shares))


def phases(runs: list[Run]) -> dict[str, float]:
    """Median seconds of each phase, and of what the run's own clock does not see."""
    names = dict.fromkeys(name for one in runs for name in one.manifest["timings"])
    rest = "launcher, and end of the processes"
    tables = [
        {name: one.manifest["timings"].get(name, {"seconds": 0.0})["seconds"] for name in names}
        | {rest: one.seconds - one.manifest["seconds"]}
        for one in runs
    ]
    return {name: float(np.median([table[name] for table in tables])) for name in (*names, rest)}


def report(results: dict[str, Any]) -> None:
    """The tables for a person."""
    print(
        f"n = {results['n']:,}, m = {results['m']:,}, K = {results['K']:,}, 22 chromosomes left out in turn; "
        f"{results['cores']} cores; whole commands"
    )
    fastlmm = float(np.median(results["fastlmm_seconds"]))
    rows = [["FaST-LMM single_snp_scale", fastlmm, len(results["fastlmm_seconds"]), None, None, None]]
    for precision, seconds in results["seconds"].items():
        apart = [results[f"{what}_difference_{precision}"] for what in ("h2", "p")]
        rows.append(
            [f"mpgls {precision}", float(np.median(seconds)), len(seconds), fastlmm / np.median(seconds), *apart]
        )
    header = ["program", "seconds", "runs", "times faster", "largest h2 difference", "largest relative p difference"]
    print_table(header, rows, " ")
    names = list(dict.fromkeys(name for table in results["phases"].values() for name in table))
    print_table(
        ["phase of mpgls (median seconds)", *PRECISIONS],
        [[name, *(table.get(name) for table in results["phases"].values())] for name in names],
        " ",
    )
    aims = [
        ("FaST-LMM / mpgls mixed", results["fastlmm_over_mpgls"], f"{WANTED_RATIO} or more"),
        ("H = G'X over GEMM, single", results["gemm_share"], f"{WANTED_SHARE} or more"),
        ("H = G'X over GEMM, double", results["gemm_share_double"], ""),
    ]
    print_table(["", "measured", "aim"], aims, " ")


if __name__ == "__main__":
    guarded(main)
