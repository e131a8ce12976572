"""Whole runs of mpgls, GEMMA and FaST-LMM side by side: from files to p values, on the same cores.

Every program reads its own formats: genotypes as PLINK files, the same kinship as mpgls HDF5, GEMMA text or a NumPy
archive (converting it is not timed), and tests the same SNPs: minor allele frequency at least 0.01, at most 5% missing.
mpgls runs on --cores ranks of one thread, the others in one process with as many BLAS threads. Times are wall times
of the whole process, mpirun and imports included. mpgls is the median of --repeats runs, the peers run --peer-repeats
times, and the programs take turns.

GEMMA estimates lambda anew for every SNP, mpgls and FaST-LMM keep the null model's h2 and use the same test.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from common import BenchError, environment, finish, guarded, make_parser, mpirun, print_table, run, simulated

if TYPE_CHECKING:
    import argparse

MOUSE = Path("/usr/share/doc/gemma/example")
SIMULATED = (4000, 20000)
MAF, GENO = 0.01, 0.05
FASTLMM = ("fastlmm==0.6.13", "six", "numpy<2")
KINDS = ("mpgls mixed", "mpgls double", "GEMMA", "FaST-LMM")


@dataclass(frozen=True)
class Case:
    """One data set, prepared in every program's format. ``covar`` is the stem of the covariate files, if any."""

    name: str
    bfile: Path
    folder: Path
    covar: Path | None = None

    def file(self, suffix: str) -> Path:
        """A file of this case in the scratch directory."""
        return self.folder / f"{self.name}{suffix}"

    @property
    def kinship_text(self) -> Path:
        """The kinship as GEMMA writes and reads it."""
        return self.file(".cXX.txt")


@dataclass
class Measured:
    """The wall seconds of one program's runs, and -log10 p by SNP and h2 of the last one."""

    seconds: list[float] = field(default_factory=list)
    log10p: dict[str, float] = field(default_factory=dict)
    h2: float = math.nan
    manifests: list[dict[str, Any]] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Median wall seconds."""
        return float(np.median(self.seconds))


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--cores", type=int, default=2, metavar="C", help="ranks of mpgls, threads of the others (2)")
    parser.add_argument("--repeats", type=int, default=3, metavar="K", help="runs of mpgls (3)")
    parser.add_argument("--peer-repeats", type=int, default=1, metavar="K", help="runs of GEMMA and FaST-LMM (1)")
    options = parser.parse_args()
    options.scratch.mkdir(parents=True, exist_ok=True)
    python = install(options.scratch)
    cases = [mouse(options.scratch)]
    if not options.quick:
        cases.append(simulation(options.scratch, options.cores))
    results: dict[str, Any] = {"quick": options.quick, "cores": options.cores, "sets": {}}
    for case in cases:
        prepare(case)
        results["sets"][case.name] = report(case, measure(case, python, options), options)
    last = results["sets"][cases[-1].name]
    finish({key: last[key] for key in ("gemma_over_mpgls", "fastlmm_over_mpgls")} | results, options.json)


# -- installing ---------------------------------------------------------------------------------------------------


def install(scratch: Path) -> Path:
    """GEMMA from apt and FaST-LMM in an environment of its own, if absent; the Python of that environment."""
    if shutil.which("gemma") is None:
        if os.getuid() != 0:
            raise BenchError("there is no gemma, and only root can install it: apt-get install gemma")
        print("installing GEMMA (apt-get install gemma)", flush=True)
        env = environment(1) | {"DEBIAN_FRONTEND": "noninteractive"}
        run(["apt-get", "update"], env)
        run(["apt-get", "install", "-y", "--no-install-recommends", "gemma"], env)
    return install_fastlmm(scratch)


def install_fastlmm(scratch: Path) -> Path:
    """FaST-LMM in an environment of its own, if absent; the Python of that environment."""
    venv = scratch / "fastlmm-venv"
    python, mark = venv / "bin" / "python", venv / "complete"
    if not mark.exists():
        print(f"installing FaST-LMM into {venv}", flush=True)
        run(["/usr/bin/python3", "-m", "venv", "--clear", venv], own_environment(1))
        run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *FASTLMM], own_environment(1))
        run([python, "-c", "from fastlmm.association import single_snp"], own_environment(1))
        mark.touch()
    return python


def own_environment(threads: int) -> dict[str, str]:
    """The environment without the paths that lead to mpgls's Python packages."""
    return {name: value for name, value in environment(threads).items() if name not in ("PYTHONPATH", "PYTHONHOME")}


# -- data ---------------------------------------------------------------------------------------------------------


def mouse(scratch: Path) -> Case:
    """1,940 mice, CD8 (1,410 of them); GEMMA's kinship."""
    case = Case("mouse_hs1940", scratch / "mouse_hs1940", scratch)
    for suffix in ("bed", "bim", "fam"):
        source = MOUSE / f"{case.bfile.name}.{suffix}.gz"
        if not source.exists():
            raise BenchError(f"{source} is missing: it comes with the package gemma-doc (see jobs/quickstart.sh)")
        Path(f"{case.bfile}.{suffix}").write_bytes(gzip.decompress(source.read_bytes()))
    if not case.kinship_text.exists():
        run(["gemma", "-bfile", case.bfile, "-n", "1", "-gk", "1", "-outdir", scratch, "-o", case.name], environment(2))
    return case


def simulation(scratch: Path, cores: int) -> Case:
    """Simulated families with two covariates; the kinship by mpgls."""
    n, m = SIMULATED
    prefix = simulated(scratch, n, m)
    case = Case(f"sim_{n}x{m}", prefix, scratch, covar=Path(f"{prefix}.covar"))
    if not case.file(".K.h5").exists():
        mpirun(cores, "-m", "mpgls", "kinship", "--bfile", prefix, "--out", case.file(".K"))
    rows = np.loadtxt(f"{case.covar}.tsv", dtype=str, skiprows=1)
    np.savetxt(case.file(".fastlmm-covar.txt"), rows, fmt="%s")
    np.savetxt(case.file(".gemma-covar.txt"), np.insert(rows[:, 2:], 0, "1", axis=1), fmt="%s")
    return case


def prepare(case: Case) -> None:
    """What is not there yet of: the kinship in three formats, FaST-LMM's phenotype, and the SNPs to test."""
    import h5py

    from mpgls.study.kinship_h5 import create_kinship_h5
    from mpgls.study.plink import open_fileset

    fileset = open_fileset(case.bfile)
    ids, y = fileset.samples.ids(), fileset.samples.phenotype
    h5 = case.file(".K.h5")
    if not h5.exists():
        K = np.loadtxt(case.kinship_text)
        part = case.file(".part.h5")
        create_kinship_h5(part, ids, {"method": "centered"}).rows.write(0, K)
        part.rename(h5)
    npz = case.file(".K.npz")
    if not npz.exists() or not case.kinship_text.exists():
        with h5py.File(h5, "r") as file:
            K = file["kinship"][...]
        names, nothing = np.array(ids, dtype=str), np.empty((len(ids), 0))
        part = case.file(".part.npz")
        np.savez(part, row=names, col=names, row_property=nothing, col_property=nothing, val=K)
        part.rename(npz)
        if not case.kinship_text.exists():
            np.savetxt(case.kinship_text, K, fmt="%.10g", delimiter="\t")  # as many digits as GEMMA writes
    known = np.flatnonzero(np.isfinite(y))
    with open(case.file(".fastlmm-pheno.txt"), "w", encoding="utf-8") as out:
        out.writelines(f"{ids[i][0]} {ids[i][1]} {float(y[i])!r}\n" for i in known)
    np.save(case.file(".snps.npy"), common_snps(fileset, known))


def common_snps(fileset: Any, rows: np.ndarray) -> np.ndarray:
    """The .bim rows that pass the filter among the samples ``rows``."""
    from mpgls.study.genotypes import Decoder

    bed = fileset.bed
    packed = np.fromfile(bed.path, dtype=np.uint8, offset=bed.HEADER).reshape(bed.m, bed.snp_bytes)
    stats = Decoder(bed.n, [rows], np.float64).stats(packed)
    frequency = np.minimum(stats.eaf, 1 - stats.eaf)
    return np.flatnonzero((frequency >= MAF) & (rows.size - stats.n_obs <= GENO * rows.size) & ~stats.monomorphic)


# -- the programs -------------------------------------------------------------------------------------------------


def measure(case: Case, python: Path, options: argparse.Namespace) -> dict[str, Measured]:
    """Run every program as often as asked, in turns."""
    found = {kind: Measured() for kind in KINDS}
    programs: dict[str, Callable[[Measured], None]] = {
        "mpgls mixed": lambda into: run_mpgls(case, "mixed", options.cores, into),
        "mpgls double": lambda into: run_mpgls(case, "double", options.cores, into),
        "GEMMA": lambda into: run_gemma(case, options.cores, into),
        "FaST-LMM": lambda into: run_fastlmm(case, python, options.cores, into),
    }
    for turn in range(max(options.repeats, options.peer_repeats)):
        for kind, program in programs.items():
            if turn < (options.repeats if kind.startswith("mpgls") else options.peer_repeats):
                program(found[kind])
                print(f"{case.name}: {kind} {found[kind].seconds[-1]:.2f} s", file=sys.stderr, flush=True)
    return found


def run_mpgls(case: Case, precision: str, cores: int, into: Measured) -> None:
    """One run of mpgls on ``cores`` ranks."""
    out = case.file(f".mpgls-{precision}")
    covar = ["--covar", f"{case.covar}.tsv"] if case.covar else []
    done = mpirun(
        cores, "-m", "mpgls", "single-trait", "--bfile", case.bfile, "--grm", case.file(".K.h5"), *covar,
        "--maf", str(MAF), "--geno", str(GENO), "--precision", precision, "--no-plots", "--out", out,
    )  # fmt: skip
    manifest = json.loads(Path(f"{out}.json").read_text(encoding="utf-8"))
    into.seconds.append(done.seconds)
    into.manifests.append(manifest)
    into.h2 = manifest["traits"]["pheno"]["h2"]
    into.log10p = read_column(Path(f"{out}.pheno.tsv"), "ID", "LOG10P")


def run_gemma(case: Case, cores: int, into: Measured) -> None:
    """One run of GEMMA's Wald test."""
    covar = ["-c", case.file(".gemma-covar.txt")] if case.covar else []
    name = f"{case.name}.gemma"
    command = ["gemma", "-bfile", case.bfile, "-n", "1", "-k", case.kinship_text, "-lmm", "1", *covar]
    done = run([*command, "-maf", str(MAF), "-miss", str(GENO), "-outdir", case.folder, "-o", name], environment(cores))
    into.seconds.append(done.seconds)
    log = (case.folder / f"{name}.log.txt").read_text(encoding="utf-8")
    into.h2 = next(float(line.split("=")[1]) for line in log.splitlines() if "pve estimate" in line)
    p = read_column(case.folder / f"{name}.assoc.txt", "rs", "p_wald")
    into.log10p = {snp: -math.log10(value) for snp, value in p.items() if value > 0}


def run_fastlmm(case: Case, python: Path, cores: int, into: Measured) -> None:
    """One run of FaST-LMM's single_snp."""
    out = case.file(".fastlmm.tsv")
    inputs = [case.bfile, case.file(".K.npz"), case.file(".fastlmm-pheno.txt"), case.file(".snps.npy")]
    covar = case.file(".fastlmm-covar.txt") if case.covar else "-"
    script = Path(__file__).with_name("fastlmm_scan.py").resolve()
    into.seconds.append(run([python, script, *inputs, covar, out], own_environment(cores)).seconds)
    into.h2 = next(iter(read_column(out, "SNP", "Nullh2").values()))
    into.log10p = {snp: -math.log10(p) for snp, p in read_column(out, "SNP", "PValue").items() if p > 0}


def read_column(path: Path, key: str, column: str) -> dict[str, float]:
    """One numeric column of a tab-separated table by another; NA is left out."""
    with open(path, encoding="utf-8") as lines:
        header = next(lines).rstrip("\n").split("\t")
        k, c = header.index(key), header.index(column)
        rows = (line.rstrip("\n").split("\t") for line in lines)
        return {row[k]: float(row[c]) for row in rows if row[c] not in ("NA", "nan", "")}


# -- the report ---------------------------------------------------------------------------------------------------


def report(case: Case, found: dict[str, Measured], options: argparse.Namespace) -> dict[str, Any]:
    """Print one data set's tables; its part of the JSON."""
    base, double = found["mpgls mixed"], found["mpgls double"]
    print(f"\n{case.name}: {len(base.log10p):,} SNPs tested by mpgls, {options.cores} cores")
    rows = []
    for kind, one in found.items():
        rows.append([kind, one.median, min(one.seconds), len(one.seconds), one.median / base.median, one.h2])
    print_table(["program", "seconds", "fastest", "runs", "over mpgls mixed", "h2"], rows)

    agreement = {
        f"{a} and {b}": agree(found[a].log10p, found[b].log10p)
        for a, b in (("mpgls double", "FaST-LMM"), ("mpgls double", "GEMMA"), ("mpgls mixed", "mpgls double"))
    }
    header = ["-log10 p", "SNPs", "correlation", "largest difference", "largest relative difference of p"]
    rows = [
        [pair, one["snps"], f"{one['correlation']:.9f}", one["largest_difference"], one["largest_relative_p"]]
        for pair, one in agreement.items()
    ]
    print_table(header, rows, " ")

    phases = {"mixed": phase_table(base), "double": phase_table(double)}
    names = list(dict.fromkeys(name for table in phases.values() for name in table))
    print_table(
        ["phase of mpgls (median seconds)", *phases],
        [[name, *(table.get(name) for table in phases.values())] for name in names],
        " ",
    )
    whole = {"mixed": whole_over_bound(base, "single"), "double": whole_over_bound(double, "double")}
    for precision, ratio in whole.items():
        print(f"whole run over REML plus solve at the GEMM rate, {precision}: {ratio:.2f} (wanted: below 2)")
    return {
        "gemma_over_mpgls": found["GEMMA"].median / base.median,
        "fastlmm_over_mpgls": found["FaST-LMM"].median / base.median,
        "gemma_over_mpgls_double": found["GEMMA"].median / double.median,
        "fastlmm_over_mpgls_double": found["FaST-LMM"].median / double.median,
        "seconds": {kind: one.seconds for kind, one in found.items()},
        "h2": {kind: one.h2 for kind, one in found.items()},
        "agreement": agreement,
        "phases": phases,
        "gemm_gflops": {key: [m["gemm_gflops"] for m in one.manifests]
                        for key, one in (("mixed", base), ("double", double))},
        "whole_over_reml_and_solve": whole,
    }  # fmt: skip


def phase_table(one: Measured) -> dict[str, float]:
    """Median seconds of each phase of mpgls, and of what its own clock does not see."""
    names = dict.fromkeys(name for manifest in one.manifests for name in manifest["timings"])
    table = {
        name: float(np.median([m["timings"].get(name, {"seconds": 0.0})["seconds"] for m in one.manifests]))
        for name in names
    }
    inside = [manifest["seconds"] for manifest in one.manifests]
    table["in no phase"] = float(np.median([manifest["seconds_unnamed"] for manifest in one.manifests]))
    table["launcher, and end of the processes"] = float(np.median(np.subtract(one.seconds, inside)))
    table["whole run"] = one.median
    return table


def whole_over_bound(one: Measured, solve: str) -> float:
    """Median over runs: wall time over that of REML and solve if both went at the run's GEMM rate."""
    ratios = []
    for seconds, manifest in zip(one.seconds, one.manifests, strict=True):
        gemm, timings = manifest["gemm_gflops"], manifest["timings"]
        rates = {"REML, single": gemm["single"], "REML, double": gemm["double"], "solve": gemm[solve]}
        ratios.append(seconds / sum(timings[name]["gflop"] / rate for name, rate in rates.items() if name in timings))
    return float(np.median(ratios))


def agree(a: dict[str, float], b: dict[str, float]) -> dict[str, float]:
    """How two programs' -log10 p agree on the SNPs that both have."""
    snps = [snp for snp in a if snp in b]
    x, y = (np.array([one[snp] for snp in snps]) for one in (a, b))
    difference = np.abs(x - y)
    return {
        "snps": len(snps),
        "correlation": float(np.corrcoef(x, y)[0, 1]),
        "largest_difference": float(difference.max()),
        "largest_relative_p": float(np.expm1(math.log(10) * difference.max())),
    }


if __name__ == "__main__":
    guarded(main)
