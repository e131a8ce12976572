"""The same genotypes in other files: every command gives the same bytes as from one .bed."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import oracle
import pytest
from bgen_files import NEEDS_BGEN, write_bgen
from pgen_files import NEEDS_PGENLIB, write_pgen
from ranks import few_ranks
from small_study import (
    on_root,
    read_columns,
    read_kinship,
    read_plink,
    read_table,
    relabel_chromosomes,
    write_genotypes,
    write_lines,
)

import mpgls
from mpgls.errors import InputError, UsageError

pytestmark = few_ranks

N, M = 53, 131
HAS_PGENLIB = importlib.util.find_spec("pgenlib") is not None
HAS_BGEN = importlib.util.find_spec("bgen") is not None
needs_pgenlib = pytest.mark.skipif(not HAS_PGENLIB, reason=NEEDS_PGENLIB)
LABELS = ("1", "2", "X")
OF_CHROMOSOME = np.repeat(LABELS, (47, 36, 48))
VOXELS = {"permutations": 2, "no_plots": True, "sparsity_threshold": 0.5, "pheno_name": ("trait1", "trait2")}
FOLDS = {"no_plots": True, "outer_folds": 3, "inner_folds": 2, "permutations": 2, "alphas": (0.1, 10.0)}


@dataclass(frozen=True)
class Command:
    """A function of the Python face, its options, and the endings of what it makes that is compared byte by byte."""

    function: Callable[..., Any]
    options: dict[str, Any]
    tables: tuple[str, ...]
    traits: bool = True


SCAN = {"no_plots": True}
COMMANDS = {
    "kinship": Command(mpgls.kinship, {"maf": 0.02}, (), traits=False),
    "kinship gcta": Command(mpgls.kinship, {"method": "gcta", "mind": 0.2}, (), traits=False),
    "single-trait": Command(mpgls.single_trait, {**SCAN, "grm": "K.h5", "geno": 0.1}, (".trait1.tsv", ".trait2.tsv")),
    "single-trait --loco": Command(
        mpgls.single_trait, {**SCAN, "grm": "K.h5", "loco": True, "precision": "mixed"}, (".trait1.tsv",)
    ),
    "multi-trait": Command(
        mpgls.multi_trait, {**SCAN, "grm": "K.h5", "p_threshold": 1.0, "dense": True}, (".hits.tsv", ".traits.tsv")
    ),
    "low-rank": Command(
        mpgls.low_rank, {**SCAN, "similarity_every": 3, "form": "low-rank"}, (".trait1.tsv", ".trait2.tsv")
    ),
    "low-rank dense": Command(mpgls.low_rank, {**SCAN, "similarity_every": 1, "form": "dense"}, (".trait1.tsv",)),
    "vgwas": Command(mpgls.vgwas, VOXELS, (".snps.tsv",)),
    "ridge": Command(mpgls.ridge, {**FOLDS, "weights": 1}, (".targets.tsv", ".folds.tsv", ".weights.tsv")),
    "score": Command(mpgls.score, {"weights": "w.tsv"}, (".scores.tsv",), traits=False),
    "simulate-images": Command(
        mpgls.simulate_images, {"causal": 5, "format": "h5", "mask": "mask.nii"}, (".causal.tsv",), traits=False
    ),
}


WAYS = (
    {"bfile": "chr@"},
    {"pfile": "g"},
    {"pfile": "soft", "exclude": "drop.txt"},  # dosages, all of them whole numbers
    {"bgen": "g.bgen", "sample": "g.sample"},
)
"""The same genotypes in other files."""
SEVERAL = ({"bfile_list": "list.txt"}, {"pfile": "chr@"}, {"bgen": "of@.bgen", "sample": "g.sample"})


def skip_without(genotypes: dict[str, str]) -> None:
    """Skip a test whose files could not be written."""
    if "pfile" in genotypes and not HAS_PGENLIB:
        pytest.skip(NEEDS_PGENLIB)
    if "bgen" in genotypes and not HAS_BGEN:
        pytest.skip(NEEDS_BGEN)


@dataclass(frozen=True)
class Files:
    """A simulated study in ``folder``: g.bed, and the same genotypes in other files."""

    folder: Path

    def run(self, comm: Any, name: str, out: str, genotypes: dict[str, str]) -> None:
        """One command from some genotype files, to ``out``."""
        command = COMMANDS[name]
        options: dict[str, Any] = {"pheno": str(self.folder / "g.pheno.tsv")} if command.traits else {}
        options |= {key: str(self.folder / value) if str(value).startswith(("K.", "mask.", "w.")) else value
                    for key, value in command.options.items()}  # fmt: skip
        named = {key: str(self.folder / value) for key, value in genotypes.items()}
        command.function(**options, **named, out=self.folder / out, comm=comm)

    def assert_same(self, name: str, out: str, other: str) -> None:
        """What a command made, byte by byte but for INFO, which dosages alone have."""
        for ending in COMMANDS[name].tables:
            one, two = (without_info(Path(f"{self.folder / prefix}{ending}").read_bytes()) for prefix in (out, other))
            assert one == two and len(one) > 100, ending
        if name.startswith("kinship"):
            np.testing.assert_array_equal(*(read_kinship(f"{self.folder / prefix}.h5") for prefix in (out, other)))


def without_info(table: bytes) -> bytes:
    """A table without its column INFO."""
    rows = [line.split(b"\t") for line in table.splitlines()]
    kept = [k for k, name in enumerate(rows[0]) if name != b"INFO"]
    return b"\n".join(b"\t".join(row[k] for k in kept) for row in rows)


def of_chromosome(prefix: Path, plink: Any, label: str, order: np.ndarray) -> None:
    """The SNPs of a chromosome as filesets of their own, whose samples are in another ``order``."""
    bim = Path(f"{prefix.parent / 'g'}.bim").read_text().splitlines()
    fam = Path(f"{prefix.parent / 'g'}.fam").read_text().splitlines()
    mine = np.flatnonzero(label == OF_CHROMOSOME)
    write_lines(f"{prefix}.bim", [bim[k] for k in mine])
    write_lines(f"{prefix}.fam", [fam[i] for i in order])
    write_genotypes(prefix, plink.dosages[order][:, mine])
    if HAS_PGENLIB:
        write_pgen(prefix, [bim[k] for k in mine], [fam[i] for i in order], plink.dosages[order][:, mine])


def dosages_of(plink: Any) -> np.ndarray:
    """Dosages (N, M) in steps of 2^-14 for two SNPs of three, and hard calls of the third."""
    rng = np.random.default_rng(8)
    noise = np.round(rng.normal(0, 0.2, plink.dosages.shape) * 16384) / 16384
    noise[:, 1::3] = 0.0
    return np.clip(plink.dosages + noise, 0, 2)


def of_dosages(folder: Path, plink: Any) -> None:
    """soft: the genotypes as dosages, and one more SNP that is none; doses: real dosages, on autosomes."""
    bim, fam = (Path(f"{folder / 'g'}.{ending}").read_text().splitlines() for ending in ("bim", "fam"))
    whole = np.column_stack([plink.dosages, np.linspace(0, 1.5, N)])
    write_pgen(folder / "soft", [*bim, "X\tsoft\t0\t999999999\tG\tT"], fam, whole, exact=False, step=1)
    write_lines(folder / "drop.txt", ["soft"])
    autosomes = ["3" + line.removeprefix("X") if line.startswith("X") else line for line in bim]
    write_pgen(folder / "doses", autosomes, fam, dosages_of(plink), exact=False, step=1)


@pytest.fixture(scope="module")
def files(module_comm, module_folder):
    comm, folder = module_comm, module_folder
    prefix = str(folder / "g")
    mpgls.simulate(samples=N, snps=M, traits=2, chromosomes=3, missing=0.04, seed=5, out=prefix, comm=comm)

    def make():
        relabel_chromosomes(prefix, OF_CHROMOSOME.tolist())
        plink = read_plink(prefix)
        orders = (np.arange(N), np.random.default_rng(3).permutation(N), np.arange(N))
        for label, order in zip(LABELS, orders, strict=True):
            of_chromosome(folder / f"chr{label}", plink, label, order)
        write_lines(folder / "list.txt", ["chr1", "chr2.bed", "chrX"])
        snps = [line.split() for line in Path(f"{prefix}.bim").read_text().splitlines()]
        weights = [f"{c} {pos} {name} {a1} {a2} 0.2 0.4 {k / 7!r}" for k, (c, name, _, pos, a1, a2) in enumerate(snps)]
        write_lines(folder / "w.tsv", ["CHR POS ID EA NEA EAF MEAN trait", *weights])
        if HAS_BGEN:
            bim, fam = (Path(f"{prefix}.{ending}").read_text().splitlines() for ending in ("bim", "fam"))
            write_bgen(folder / "g.bgen", bim, fam, plink.dosages)
            for label in LABELS:
                mine = np.flatnonzero(label == OF_CHROMOSOME)
                write_bgen(folder / f"of{label}.bgen", [bim[k] for k in mine], fam, plink.dosages[:, mine], 16)
        if HAS_PGENLIB:
            of_dosages(folder, plink)
            bim, fam = (Path(f"{prefix}.{ending}").read_text().splitlines() for ending in ("bim", "fam"))
            write_pgen(prefix, bim, fam, plink.dosages)
        nibabel.save(nibabel.Nifti1Image(np.ones((3, 2, 2), dtype=np.uint8), np.eye(4)), folder / "mask.nii")

    on_root(comm, make)
    mpgls.kinship(bfile=prefix, out=folder / "K", loco=True, comm=comm)
    made = Files(folder)
    for number, name in enumerate(COMMANDS):
        made.run(comm, name, f"bed{number}", {"bfile": "g"})
    return made


@pytest.mark.parametrize("name", COMMANDS)
def test_the_same_genotypes(comm, files, name):
    """On 1 and on 2 ranks each command reads them in another of WAYS, and all commands in all."""
    number = list(COMMANDS).index(name)
    genotypes = WAYS[(number + comm.size) % len(WAYS)]
    skip_without(genotypes)
    files.run(comm, name, f"other{number}", genotypes)
    on_root(comm, lambda: files.assert_same(name, f"other{number}", f"bed{number}"))


@pytest.mark.parametrize("genotypes", SEVERAL, ids=str)
def test_several_files_without_a_chromosome(comm, files, genotypes):
    skip_without(genotypes)
    name, out = "single-trait --loco", "_".join(genotypes)
    files.run(comm, name, out, genotypes)
    on_root(comm, lambda: files.assert_same(name, out, f"bed{list(COMMANDS).index(name)}"))


@needs_pgenlib
def test_hard_calls_where_there_are_dosages(comm, files):
    for out, options in (("as_stored", {}), ("anew", {"hard_call_threshold": 0.1})):
        mpgls.kinship(
            pfile=files.folder / "soft", dosage="hard-call", **options, exclude=files.folder / "drop.txt", maf=0.02,
            out=files.folder / out, comm=comm,
        )  # fmt: skip
        on_root(comm, lambda out=out: files.assert_same("kinship", out, "bed0"))


@needs_pgenlib
def test_snps_of_poor_imputation_are_left_out(comm, files):
    """--info, by the variance of dosages over 2 p (1-p); one SNP lies at the limit, and stays."""
    x = dosages_of(read_plink(files.folder / "g"))
    p = np.nanmean(x, axis=0) / 2
    info = np.nanvar(x, axis=0) / (2 * p * (1 - p))
    limit = float(np.sort(info)[M // 3] - 1e-9)
    mpgls.kinship(pfile=files.folder / "doses", info=limit, out=files.folder / "K_info", comm=comm)
    X = np.where(np.isnan(x), 0.0, x - 2 * p)[:, info >= limit]
    assert X.shape[1] == M - M // 3
    np.testing.assert_allclose(read_kinship(files.folder / "K_info.h5"), X @ X.T / X.shape[1], rtol=1e-12, atol=1e-14)
    with pytest.raises(UsageError, match="--info needs dosages, and hard calls are read of "):
        mpgls.kinship(bfile=files.folder / "g", info=0.3, out=files.folder / "K_none", comm=comm)


@needs_pgenlib
def test_dosages_against_dense_formulas(comm, files):
    """Kinship, one trait, many traits and the low-rank model of dosages."""
    pfile, pheno, h2 = files.folder / "doses", files.folder / "g.pheno.tsv", 0.4
    usual: dict[str, Any] = {"pfile": pfile, "pheno": pheno, "pheno_name": "trait1", "h2": h2, "comm": comm}
    mpgls.kinship(pfile=pfile, out=files.folder / "K_doses", comm=comm)
    of_kinship = {**usual, "grm": files.folder / "K_doses.h5"}
    mpgls.single_trait(**of_kinship, **SCAN, out=files.folder / "one_doses")
    mpgls.multi_trait(**of_kinship, **SCAN, p_threshold=1.0, dense=True, out=files.folder / "many_doses")
    mpgls.export(store=files.folder / "many_doses.h5", out=files.folder / "many_doses_t", comm=comm)
    mpgls.low_rank(**usual, **SCAN, similarity_every=1, no_loco=True, out=files.folder / "low_doses", form="low-rank")
    if comm.rank:
        return
    plink = read_plink(files.folder / "g")
    x = dosages_of(plink)
    X = np.where(np.isnan(x), 0.0, x - np.nanmean(x, axis=0))
    np.testing.assert_allclose(read_kinship(files.folder / "K_doses.h5"), X @ X.T / M, rtol=1e-12, atol=1e-14)
    y, one = read_table(pheno)["trait1"], np.ones((N, 1))
    expected = oracle.scan(h2, oracle.scaled(X @ X.T), one, y, X)
    G = X / np.sqrt(np.nanvar(x, axis=0))
    of_low_rank = oracle.scan(h2, oracle.scaled(G @ G.T), one, y, X)
    p = np.nanmean(x, axis=0) / 2
    info = np.nanvar(x, axis=0) / (2 * p * (1 - p))
    hits = read_columns(f"{files.folder / 'many_doses'}.hits.tsv")
    np.testing.assert_allclose(np.array(hits["INFO"], dtype=float), info, rtol=1e-9)
    for prefix, rtol, values in (
        ("one_doses.trait1", 1e-8, expected),
        ("many_doses_t", 3e-6, expected),  # a dense store keeps float32
        ("low_doses.trait1", 1e-8, of_low_rank),
    ):
        found = read_columns(f"{files.folder / prefix}.tsv")
        for column, wanted in zip(("BETA", "SE", "STAT", "P"), values, strict=True):
            np.testing.assert_allclose(np.array(found[column], dtype=float), wanted, rtol=rtol, err_msg=prefix)
        np.testing.assert_allclose(np.array(found["EAF"], dtype=float), p, rtol=2e-7)
        np.testing.assert_allclose(np.array(found["INFO"], dtype=float), info, rtol=2e-7)
        assert found["N"] == [str(k) for k in np.isfinite(x).sum(axis=0)]
        assert found["EA"] == [line.split()[4] for line in Path(f"{files.folder / 'g'}.bim").read_text().splitlines()]


@needs_pgenlib
@pytest.mark.skipif(shutil.which("plink2") is None, reason="plink2 is not here")
def test_files_that_plink2_makes(comm, files):
    """Hard calls of a .bed as PGEN and BGEN, to the last bit; and dosages of a BGEN as PGEN, to the steps of a PGEN."""

    def make():
        plink = ["plink2", "--memory", "700", "--threads", "1"]
        of_bed = [*plink, "--bfile", "g"]
        for command in (
            [*of_bed, "--make-pgen", "--out", "made"],
            [*of_bed, "--export", "bgen-1.2", "bits=8", "ref-first", "--out", "made8"],
            [*of_bed, "--export", "bgen-1.3", "bits=16", "ref-first", "--out", "made16"],
            [*plink, "--pfile", "doses", "--export", "bgen-1.2", "bits=16", "ref-first", "--out", "mixed"],
            [*plink, "--bgen", "mixed.bgen", "ref-first", "--sample", "mixed.sample", "--make-pgen", "--out", "mixed"],
        ):
            subprocess.run(command, cwd=files.folder, check=True, capture_output=True)

    on_root(comm, make)

    def K(out: str, **genotypes: str) -> np.ndarray:
        # on X plink2 exports a heterozygous male as half a copy
        named = {key: files.folder / value for key, value in genotypes.items()}
        mpgls.kinship(**named, chr="1,2", out=files.folder / f"K_{out}", comm=comm)
        comm.Barrier()
        return read_kinship(files.folder / f"K_{out}.h5")

    hard = K("hard", bfile="g")
    np.testing.assert_array_equal(K("made", pfile="made"), hard)
    for bits in (8, 16):
        np.testing.assert_array_equal(K(f"made{bits}", bgen=f"made{bits}.bgen", sample=f"made{bits}.sample"), hard)
    soft = K("soft_doses", pfile="doses")
    assert not np.array_equal(soft, hard)
    for other in (K("mixed_b", bgen="mixed.bgen", sample="mixed.sample"), K("mixed_p", pfile="mixed")):
        np.testing.assert_allclose(other, soft, atol=2e-4)


def test_similarity_snps_of_one_file_a_chromosome(comm, files):
    number = list(COMMANDS).index("low-rank")
    files.run(comm, "low-rank", "similar", {"bfile": "g", "similarity_bfile": "chr@"})
    on_root(comm, lambda: files.assert_same("low-rank", "similar", f"bed{number}"))


def test_sums_of_chromosomes(comm, files):
    """What --loco keeps of each chromosome, against the whole file's."""
    mpgls.kinship(bfile=files.folder / "chr@", out=files.folder / "K_of_files", loco=True, comm=comm)

    def compare():
        with h5py.File(files.folder / "K.h5") as one, h5py.File(files.folder / "K_of_files.h5") as two:
            assert set(one) == set(two) and "kinship" in one
            for name in one:
                if isinstance(one[name], h5py.Dataset):
                    np.testing.assert_array_equal(one[name][...], two[name][...])

    on_root(comm, compare)


def test_exported_from_the_files_of_the_run(comm, files):
    dense = list(COMMANDS).index("multi-trait")
    for out, genotypes in (("dense_of_files", {"bfile": "chr@"}), ("dense_of_list", {"bfile_list": "list.txt"})):
        files.run(comm, "multi-trait", out, genotypes)
        mpgls.export(store=files.folder / f"{out}.h5", trait="trait1", out=files.folder / f"{out}_t", comm=comm)
    mpgls.export(store=files.folder / f"bed{dense}.h5", trait="trait1", out=files.folder / "of_bed_t", comm=comm)
    mpgls.export(
        store=files.folder / f"bed{dense}.h5",
        trait="trait1",
        bfile=files.folder / "chr@",
        out=files.folder / "o",
        comm=comm,
    )
    for out in ("dense_of_files_t", "dense_of_list_t", "o"):
        assert (files.folder / f"{out}.tsv").read_bytes() == (files.folder / "of_bed_t.tsv").read_bytes()


def test_other_samples_are_refused(comm, files, shared_tmp_path):
    def make():
        for label in LABELS:
            for ending in ("bed", "bim", "fam"):
                shutil.copy(files.folder / f"chr{label}.{ending}", shared_tmp_path)
        fam = (shared_tmp_path / "chr2.fam").read_text().splitlines()
        fam[4] = "strange one 0 0 1 -9"
        write_lines(shared_tmp_path / "chr2.fam", fam)

    on_root(comm, make)
    with pytest.raises(InputError, match=r"chr2\.fam lacks sample '.*' of .*chr1\.fam: all genotype files"):
        mpgls.kinship(bfile=shared_tmp_path / "chr@", out=shared_tmp_path / "K", comm=comm)


def test_a_chromosome_without_files_is_said(comm, files, shared_tmp_path):
    def make():
        for label, name in zip(LABELS, ("1", "2", "4"), strict=True):
            for ending in ("bed", "bim", "fam"):
                shutil.copy(files.folder / f"chr{label}.{ending}", shared_tmp_path / f"c{name}_v1.{ending}")

    on_root(comm, make)
    mpgls.kinship(bfile=shared_tmp_path / "c@_v1", out=shared_tmp_path / "K", comm=comm)
    said = (shared_tmp_path / "K.log").read_text()
    assert "c@_v1: there are no files of chromosomes 3" in said
    assert "c1_v1.bim to " in said and "c4_v1.bim: 131 SNPs in 3 files" in said
