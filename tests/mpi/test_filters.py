"""The filters of SNPs in every command that reads genotypes, against PLINK 2 where it is installed, and formulas."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest
from ranks import few_ranks
from scipy import stats
from small_study import (
    SimulatedStudy,
    on_root,
    read_facts,
    read_plink,
    read_rows,
    relabel_chromosomes,
    write_genotypes,
    write_kinship,
)

import mpgls

pytestmark = few_ranks

N, M = 152, 211  # whole bytes: PLINK counts the bits after the last sample
LABELS = ("1", "2", "3", "22", "0", "23", "26")
COMMANDS = ("kinship", "single_trait", "low_rank", "multi_trait", "vgwas", "ridge")


@pytest.fixture(scope="module")
def study(module_comm, module_folder):
    """Genotypes in and out of equilibrium, with gaps, on chromosomes of several kinds, positions 1, 2, ..., M."""
    prefix = str(module_folder / "g")
    mpgls.simulate(samples=N, snps=M, out=prefix, seed=3, comm=module_comm)
    rng = np.random.default_rng(6)
    p = rng.uniform(0.05, 0.95, M)
    dosages = rng.binomial(2, p, (N, M)).astype(float)
    dosages[:, ::5] = 2.0 * rng.binomial(1, p[::5], (N, p[::5].size))  # no heterozygote
    dosages[rng.random((N, M)) < rng.choice([0.0, 0.05, 0.1], M)] = np.nan

    def write():
        write_genotypes(prefix, dosages)
        relabel_chromosomes(prefix, [LABELS[k * len(LABELS) // M] for k in range(M)])
        rows = [line.split() for line in (module_folder / "g.bim").read_text().splitlines()]
        lines = ["\t".join([*row[:3], str(k + 1), *row[4:]]) for k, row in enumerate(rows)]
        (module_folder / "g.bim").write_text("\n".join(lines) + "\n")
        (module_folder / "ranges.txt").write_text("1\t10\t25\n3\t1\t70\n3\t60\t80\n22\t1\t2\n")
        write_kinship(module_folder / "K.h5", read_plink(prefix).ids, np.eye(N) + 0.1)

    on_root(module_comm, write)
    return SimulatedStudy(module_folder, prefix, f"{prefix}.pheno.tsv", f"{prefix}.covar.tsv", read_plink(prefix))


def options_of(study, flags):
    """The options of mpgls by name, from those of PLINK's command line."""
    words, found = flags.split(), {}
    for word in words:
        if word.replace("-", "").isalpha():
            name, found[word.replace("-", "_")] = word.replace("-", "_"), True
        else:
            found[name] = str(study.folder / word) if word == "ranges.txt" else float(word) if "." in word else word
    return {name: int(value) if name in ("from_bp", "to_bp") else value for name, value in found.items()}


def kept_by_plink(study, flags):
    """The IDs that PLINK 2 keeps."""
    words = " ".join(f"--{word}" if word.replace("-", "").isalpha() else word for word in flags.split())
    words = words.replace("--range ranges.txt", f"--extract range {study.folder / 'ranges.txt'}")
    out = study.folder / "plink"
    command = f"plink2 --bfile {study.bfile} --nonfounders --allow-extra-chr {words} --write-snplist --out {out}"
    subprocess.run(command.split(), check=True, capture_output=True)
    return (study.folder / "plink.snplist").read_text().split()


def kept_by(comm, study, command, **options):
    """The IDs that a command of mpgls keeps (rank 0); of kinship the number. Every SNP is in a table of its own."""
    folder = study.folder / "run"
    on_root(comm, lambda: (shutil.rmtree(folder, ignore_errors=True), folder.mkdir()))
    out, grm, few = folder / "o", str(study.folder / "K.h5"), {"pheno": study.pheno, "pheno_name": "trait1"}
    usual = {
        "kinship": {},
        "single_trait": {"grm": grm, "no_plots": True, **few},
        "low_rank": {"similarity_every": 2, "no_loco": True, "no_plots": True, **few},
        "multi_trait": {"grm": grm, "p_threshold": 1.0, "no_plots": True, **few},
        "vgwas": {"permutations": 0, "no_plots": True, **few},
        "ridge": {"permutations": 0, "outer_folds": 2, "inner_folds": 2, "weights": 1, "no_plots": True, **few},
    }[command]
    getattr(mpgls, command)(bfile=study.bfile, out=out, threads=1, comm=comm, **usual | options)
    comm.Barrier()
    if comm.rank:
        return None
    if command == "kinship":
        return read_facts(out)["snps"]
    table = {"multi_trait": "hits", "vgwas": "snps", "ridge": "weights"}.get(command, "trait1")
    return [row["ID"] for row in read_rows(f"{out}.{table}.tsv")]


PLACES = ["not-chr 2,22", "autosome", "chr 2 from-bp 40 to-bp 50", "chr 2 from-bp 55", "range ranges.txt"]
COUNTS = ["maf 0.21", "max-maf 0.4", "mac 40", "hwe 0.03", "geno 0.06", "maf 0.1 max-maf 0.45 hwe 0.001 geno 0.09"]


@pytest.mark.skipif(shutil.which("plink2") is None, reason="needs PLINK 2")
@pytest.mark.parametrize("flags", PLACES + COUNTS)
def test_plink_keeps_the_same_snps(comm, study, flags):
    """On autosomes, because PLINK counts those of sex chromosomes another way."""
    on_autosomes = flags if flags in PLACES else f"{flags} autosome"
    found = kept_by(comm, study, "single_trait", **options_of(study, on_autosomes))
    if comm.rank == 0:
        expected = kept_by_plink(study, on_autosomes)
        assert found == expected and 0 < len(found) < M


def expected_ids(study, options):
    """By the formulas: minor alleles, missing shares and, where there is no heterozygote, the binomial of pairs."""
    G = study.plink.dosages
    there = (~np.isnan(G)).sum(axis=0)
    minor = np.minimum(np.nansum(G, axis=0), 2 * there - np.nansum(G, axis=0))
    kept = (
        (minor >= options["mac"]) & (minor / (2 * there) <= options["max_maf"]) & ((N - there) / N <= options["geno"])
    )
    chi = there * (1 - (G == 1).sum(axis=0) / there / (minor / there * (1 - minor / (2 * there)))) ** 2
    kept &= stats.chi2.sf(chi, 1) > 1e-12  # nothing is near this threshold but what has no heterozygote
    chromosome = study.plink.chromosomes
    kept &= np.isin(chromosome, ["1", "3", "22"])
    return study.plink.snps[kept].tolist(), kept


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_filters_and_counts(comm, study, command):
    options = {"mac": 60, "max_maf": 0.4, "geno": 0.08, "hwe": 1e-12}
    wanted, kept = expected_ids(study, options)
    found = kept_by(comm, study, command, autosome=True, not_chr="2", **options)
    if comm.rank:
        return
    assert found == (len(wanted) if command == "kinship" else wanted) or sorted(found) == sorted(wanted)
    log = (study.folder / "run" / "o.log").read_text()
    there = np.isin(study.plink.chromosomes, ["1", "3", "22"])
    assert f"{there.sum()} selected of {M}, {(study.plink.chromosomes == '2').sum()} dropped by --not-chr, " in log
    assert f"{np.isin(study.plink.chromosomes, ['0', '23', '26']).sum()} dropped by --autosome" in log
    for flag in ("--mac", "--max-maf", "--geno", "--hwe"):
        assert f" dropped by {flag}" in log
    if command == "low_rank":
        return  # similarity SNPs are counted too, and of all chromosomes
    counts = [int(part.split()[0].replace(",", "")) for line in log.splitlines() if "dropped by --mac" in line
              for part in line.replace(": ", ", ").split(", ") if "dropped by" in part]  # fmt: skip
    assert sum(counts[:4]) == there.sum() - kept.sum()
