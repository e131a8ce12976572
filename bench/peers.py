"""Whole runs of mpgls and of other programs side by side: from files to p values, on the same cores.

Every program reads its own formats: genotypes as PLINK files, the same kinship as mpgls HDF5, GEMMA text, a FaST-LMM
archive, or .npy for JAMMA and JanusX (converting it is not timed), and tests the same SNPs: minor allele frequency at
least 0.01, at most 5% missing. mpgls runs on --cores ranks of one thread, the others in one process with as many BLAS
threads. Times are wall times of the whole process, mpirun and imports included. mpgls is the median of --repeats runs,
the peers run --peer-repeats times, and the programs take turns.

GEMMA and JAMMA estimate lambda anew for every SNP. mpgls, FaST-LMM and JanusX (-fvlmm) keep the null model's ratio and
use the same statistic. JanusX calls its square a chi-square; it is compared as the t that it is.

A peer that cannot be installed is left out: its figures are null, and ``absent`` says why. So is GEMMA with --quick,
because no size at which its ratio is that of the full size ends within a minute.
"""

from __future__ import annotations

import gzip
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from common import BenchError, environment, finish, guarded, make_parser, mpirun, parse_sizes, run, simulated
from peer_installs import install_fastlmm, install_gemma, install_jamma, install_janusx, own_environment
from peers_report import report
from scipy.stats import t as student

from mpgls.study.plink import open_fileset

if TYPE_CHECKING:
    import argparse

MOUSE = Path("/usr/share/doc/gemma/example")
FULL = {"samples": 4000, "snps": 20000}
QUICK = {"samples": 2500, "snps": 12500}
MAF, GENO = 0.01, 0.05
COVARIATES = 2
"""Of the simulated sets, beside the intercept."""
OURS = ("mpgls mixed", "mpgls double")


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


@dataclass
class Measured:
    """The wall seconds of one program's runs, and -log10 p by SNP and h2 (where it tells) of the last one."""

    seconds: list[float] = field(default_factory=list)
    log10p: dict[str, float] = field(default_factory=dict)
    h2: float | None = None
    manifests: list[dict[str, Any]] = field(default_factory=list)

    @property
    def median(self) -> float | None:
        """Median wall seconds; None without a run."""
        return float(np.median(self.seconds)) if self.seconds else None


@dataclass(frozen=True)
class Peer:
    """Another program: the start of its keys, how it is installed, and one run of it on as many cores."""

    key: str
    install: Callable[[Path], Path]
    run: Callable[[Case, Path, int, Measured], None]
    quick: bool = True


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--cores", type=int, default=2, metavar="C", help="ranks of mpgls, threads of the others (2)")
    parser.add_argument("--repeats", type=int, default=3, metavar="K", help="runs of mpgls (3)")
    parser.add_argument("--peer-repeats", type=int, default=1, metavar="K", help="runs of the others (1)")
    options = parse_sizes(parser, FULL, QUICK)
    options.scratch.mkdir(parents=True, exist_ok=True)
    programs, absent = installed(options)
    cases = [simulation(options.scratch, options.samples, options.snps, options.cores)]
    if not options.quick:
        cases.insert(0, mouse(options.scratch))
    results: dict[str, Any] = {"quick": options.quick, "cores": options.cores, "absent": absent, "sets": {}}
    keys = {name: f"{peer.key}_over_mpgls" for name, peer in PEERS.items()}
    for case in cases:
        prepare(case)
        print(f"\n{case.name}, {options.cores} cores")
        results["sets"][case.name] = report(measure(case, programs, options), keys)
    for name, why in absent.items():
        print(f"{name}: {why}")
    last = results["sets"][cases[-1].name]
    finish({key: last[key] for key in keys.values()} | results, options.json)


def installed(options: argparse.Namespace) -> tuple[dict[str, Path], dict[str, str]]:
    """The program of each peer that takes part, and why the others do not."""
    programs, absent = {}, {}
    for name, peer in PEERS.items():
        if options.quick and not peer.quick:
            absent[name] = "left out with --quick: within a minute its ratio is not that of the full size"
            continue
        try:
            programs[name] = peer.install(options.scratch)
        except BenchError as error:
            absent[name] = f"could not be installed: {str(error).splitlines()[-1]}"
    return programs, absent


# -- data ---------------------------------------------------------------------------------------------------------


def mouse(scratch: Path) -> Case:
    """1,940 mice, CD8 (1,410 of them)."""
    case = Case("mouse_hs1940", scratch / "mouse_hs1940", scratch)
    for suffix in ("bed", "bim", "fam"):
        source = MOUSE / f"{case.bfile.name}.{suffix}.gz"
        if not source.exists():
            raise BenchError(f"{source} is missing: it comes with the package gemma-doc (see jobs/quickstart.sh)")
        Path(f"{case.bfile}.{suffix}").write_bytes(gzip.decompress(source.read_bytes()))
    make_kinship(case, 2)
    return case


def simulation(scratch: Path, n: int, m: int, cores: int) -> Case:
    """Simulated families with two covariates; the kinship by mpgls."""
    prefix = simulated(scratch, n, m)
    case = Case(f"sim_{n}x{m}", prefix, scratch, covar=Path(f"{prefix}.covar"))
    rows = np.loadtxt(f"{case.covar}.tsv", dtype=str, skiprows=1)
    np.savetxt(case.file(".fastlmm-covar.txt"), rows, fmt="%s")
    np.savetxt(case.file(".gemma-covar.txt"), np.insert(rows[:, 2:], 0, "1", axis=1), fmt="%s")
    np.savetxt(case.file(".janusx-covar.txt"), rows[:, 1:], fmt="%s", delimiter="\t")
    make_kinship(case, cores)
    return case


def make_kinship(case: Case, cores: int) -> None:
    """The kinship of mpgls, centred as GEMMA's -gk 1, if it is not there."""
    if not case.file(".K.h5").exists():
        limits = ["--maf", str(MAF), "--geno", str(GENO)]
        mpirun(cores, "-m", "mpgls", "kinship", "--bfile", case.bfile, *limits, "--out", case.file(".K"))


def prepare(case: Case) -> None:
    """The trait in the formats of FaST-LMM and JanusX, IDs beside the kinship of the latter, and the SNPs to test."""
    fileset = open_fileset(case.bfile)
    ids, y = fileset.samples.ids(), fileset.samples.phenotype
    known = np.flatnonzero(np.isfinite(y))
    rows = [(*ids[i], repr(float(y[i]))) for i in known]
    case.file(".fastlmm-pheno.txt").write_text("".join(f"{' '.join(row)}\n" for row in rows), encoding="utf-8")
    lines = ["IID\tpheno", *("\t".join(row[1:]) for row in rows)]
    case.file(".janusx-pheno.txt").write_text("\n".join([*lines, ""]), encoding="utf-8")
    case.file(".K.npy.id").write_text("".join(f"{iid}\n" for _, iid in ids), encoding="utf-8")
    np.save(case.file(".snps.npy"), common_snps(fileset, known))


def kinship_as(case: Case, suffix: str) -> Path:
    """The kinship in the format of FORMATS with that suffix, written once."""
    path = case.file(suffix)
    if not path.exists():
        with h5py.File(case.file(".K.h5"), "r") as file:
            K = file["kinship"][...]
        part = case.file(f".part{path.suffix}")
        FORMATS[suffix](part, open_fileset(case.bfile).samples.ids(), K)
        part.rename(path)
    return path


def write_text(path: Path, ids: list[tuple[str, str]], K: np.ndarray) -> None:
    """As GEMMA writes it, with as many digits."""
    np.savetxt(path, K, fmt="%.10g", delimiter="\t")


def write_npz(path: Path, ids: list[tuple[str, str]], K: np.ndarray) -> None:
    """A KernelNpz of FaST-LMM."""
    names, nothing = np.array(ids, dtype=str), np.empty((len(ids), 0))
    np.savez(path, row=names, col=names, row_property=nothing, col_property=nothing, val=K)


def write_npy(path: Path, ids: list[tuple[str, str]], K: np.ndarray) -> None:
    """For JAMMA and JanusX."""
    np.save(path, K)


FORMATS = {".cXX.txt": write_text, ".K.npz": write_npz, ".K.npy": write_npy}
"""Of the kinship: GEMMA's; FaST-LMM's; that of JAMMA and JanusX."""


def common_snps(fileset: Any, rows: np.ndarray) -> np.ndarray:
    """The .bim rows that pass the filter among the samples ``rows``."""
    from mpgls.study.genotypes import Decoder

    bed = fileset.bed
    packed = np.fromfile(bed.path, dtype=np.uint8, offset=bed.HEADER).reshape(bed.m, bed.snp_bytes)
    stats = Decoder(bed.n, [rows], np.float64).stats(packed)
    frequency = np.minimum(stats.eaf, 1 - stats.eaf)
    return np.flatnonzero((frequency >= MAF) & (rows.size - stats.n_obs <= GENO * rows.size) & ~stats.monomorphic)


# -- the programs -------------------------------------------------------------------------------------------------


def measure(case: Case, programs: dict[str, Path], options: argparse.Namespace) -> dict[str, Measured]:
    """Run every program as often as asked, in turns; a peer without a program stays without a run."""
    found = {name: Measured() for name in (*OURS, *PEERS)}
    for turn in range(max(options.repeats, options.peer_repeats)):
        for name, into in found.items():
            if name in OURS and turn < options.repeats:
                run_mpgls(case, name.split()[1], options.cores, into)
            elif name in programs and turn < options.peer_repeats:
                PEERS[name].run(case, programs[name], options.cores, into)
            else:
                continue
            print(f"{case.name}: {name} {into.seconds[-1]:.2f} s", file=sys.stderr, flush=True)
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


def run_gemma(case: Case, program: Path, cores: int, into: Measured) -> None:
    """One run of GEMMA's Wald test."""
    gemma_or_jamma([program], case, kinship_as(case, ".cXX.txt"), environment(cores), into)
    log = (case.folder / f"{case.name}.gemma.log.txt").read_text(encoding="utf-8")
    into.h2 = next(float(line.split("=")[1]) for line in log.splitlines() if "pve estimate" in line)


def run_jamma(case: Case, program: Path, cores: int, into: Measured) -> None:
    """One run of JAMMA's Wald test."""
    gemma_or_jamma([program, "--no-telemetry"], case, kinship_as(case, ".K.npy"), own_environment(cores), into)


def gemma_or_jamma(program: list[str | Path], case: Case, kinship: Path, env: dict[str, str], into: Measured) -> None:
    """One run of either: they have the same options and tables."""
    name = f"{case.name}.{Path(program[0]).name}"
    covar = ["-c", case.file(".gemma-covar.txt")] if case.covar else []
    command = [*program, "-bfile", case.bfile, "-n", "1", "-k", kinship, "-lmm", "1", *covar]
    limits = ["-maf", str(MAF), "-miss", str(GENO)]
    into.seconds.append(run([*command, *limits, "-outdir", case.folder, "-o", name], env).seconds)
    into.log10p = positive_log10(read_column(case.folder / f"{name}.assoc.txt", "rs", "p_wald"))


def run_fastlmm(case: Case, python: Path, cores: int, into: Measured) -> None:
    """One run of FaST-LMM's single_snp."""
    out = case.file(".fastlmm.tsv")
    inputs = [case.bfile, kinship_as(case, ".K.npz"), case.file(".fastlmm-pheno.txt"), case.file(".snps.npy")]
    covar = case.file(".fastlmm-covar.txt") if case.covar else "-"
    script = Path(__file__).with_name("fastlmm_scan.py").resolve()
    into.seconds.append(run([python, script, *inputs, covar, out], own_environment(cores)).seconds)
    into.h2 = next(iter(read_column(out, "SNP", "Nullh2").values()))
    into.log10p = positive_log10(read_column(out, "SNP", "PValue"))


def run_janusx(case: Case, program: Path, cores: int, into: Measured) -> None:
    """One run of JanusX with the ratio of the null model; its chi-square is t^2, whose p is taken here."""
    name, kinship, pheno = f"{case.name}.janusx", kinship_as(case, ".K.npy"), case.file(".janusx-pheno.txt")
    covar = ["-c", case.file(".janusx-covar.txt")] if case.covar else []
    command = [program, "gwas", "-bfile", case.bfile, "-p", pheno, "-n", "0", "-k", kinship, *covar]
    limits = ["-maf", str(MAF), "-geno", str(GENO), "-fvlmm", "-force-model", "-t", str(cores)]
    done = run([*command, *limits, "-o", case.folder, "-prefix", name], own_environment(cores))
    into.seconds.append(done.seconds)
    t2 = read_column(case.file(".janusx.pheno.fvlmm.tsv"), "snp", "chisq")
    analysed = len(pheno.read_text(encoding="utf-8").splitlines()) - 1
    df = analysed - 2 - (COVARIATES if case.covar else 0)
    log10p = -(np.log(2) + student.logsf(np.sqrt(list(t2.values())), df)) / np.log(10)
    into.log10p = dict(zip(t2, log10p.tolist(), strict=True))


PEERS = {
    "GEMMA": Peer("gemma", lambda _: install_gemma(), run_gemma, quick=False),
    "FaST-LMM": Peer("fastlmm", install_fastlmm, run_fastlmm),
    "JAMMA": Peer("jamma", install_jamma, run_jamma),
    "JanusX": Peer("janusx", install_janusx, run_janusx),
}


def positive_log10(p: dict[str, float]) -> dict[str, float]:
    """-log10 p by SNP, without those that a program gives as 0."""
    return {snp: -math.log10(value) for snp, value in p.items() if value > 0}


def read_column(path: Path, key: str, column: str) -> dict[str, float]:
    """One numeric column of a tab-separated table by another; NA is left out."""
    with open(path, encoding="utf-8") as lines:
        header = next(lines).rstrip("\n").split("\t")
        k, c = header.index(key), header.index(column)
        rows = (line.rstrip("\n").split("\t") for line in lines)
        return {row[k]: float(row[c]) for row in rows if row[c] not in ("NA", "nan", "")}


if __name__ == "__main__":
    guarded(main)
