"""Bad genotype files of other formats, from outside: one clear sentence from one rank, the exit code, and no hang."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
from launch import MPIRUN
from pgen_files import NEEDS_PGENLIB, write_pgen
from refusals import INPUT, STORAGE, USAGE, refused
from resident import must_succeed
from small_study import read_plink, write_lines

pytestmark = [
    pytest.mark.skipif(MPIRUN is None, reason="needs mpirun"),
    pytest.mark.skipif(importlib.util.find_spec("pgenlib") is None, reason=NEEDS_PGENLIB),
]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small simulated study, also as a .pgen."""
    folder = tmp_path_factory.mktemp("good")
    must_succeed(0, "simulate --samples 61 --snps 203 --chromosomes 3 --seed 3 --out sim", folder)
    must_succeed(0, "kinship --bfile sim --out K", folder)
    for name in ("K.json", "K.log", "sim.json", "sim.log", "sim.causal.tsv"):
        (folder / name).unlink()
    bim, fam = ((folder / f"sim.{ending}").read_text().splitlines() for ending in ("bim", "fam"))
    write_pgen(folder / "p", bim, fam, read_plink(folder / "sim").dosages)
    return folder


@pytest.fixture
def study(good: Path, tmp_path: Path) -> Path:
    """A copy of the study for one test to spoil; its own files may look like results."""
    return shutil.copytree(good, tmp_path / "study")


KINSHIP = "kinship --pfile p --out out"
SCAN = "single-trait --pfile p --pheno sim.pheno.tsv --grm K.h5 --no-plots --block-size 16 --out out"


def test_a_truncated_pgen(study: Path) -> None:
    path = study / "p.pgen"
    path.write_bytes(path.read_bytes()[:-20])
    refused(study, KINSHIP, INPUT, "p.pgen is truncated", ranks=(1, 2, 4))


@pytest.mark.parametrize("command", [KINSHIP, SCAN], ids=["kinship", "scan"])
def test_a_damaged_pgen(study: Path, command: str) -> None:
    """Some ranks read what is whole, and one meets the damage."""
    path = study / "p.pgen"
    content = np.fromfile(path, dtype=np.uint8)
    content[content.size // 2 : content.size // 2 + 12] = 255  # of one SNP or two neighbours
    content.tofile(path)
    refused(study, command, INPUT, "p.pgen is damaged: its SNP", ranks=(1, 2, 4))


@pytest.mark.parametrize(
    ("command", "code", "part"),
    [
        ("kinship --out out", USAGE, "kinship needs genotypes: one of --bfile, --bfile-list, --pfile"),
        ("kinship --pfile p --bfile sim --out out", USAGE, "give --bfile or --pfile, not both"),
        ("kinship --pfile p --sample s --out out", USAGE, "--sample needs --bgen"),
        ("kinship --pfile p --hard-call-threshold 0.1 --out out", USAGE, "needs --dosage hard-call"),
        ("kinship --pfile nothing --out out", STORAGE, "cannot read nothing.pgen"),
        ("kinship --pfile chr@ --out out", INPUT, "there is no file chr1.pgen, nor one of another chromosome"),
        ("kinship --bfile-list list.txt --out out", INPUT, "list.txt (--bfile-list) names no genotypes"),
        ("kinship --bfile-list none.txt --out out", STORAGE, "cannot read none.txt"),
        ("kinship --bgen sim.bed --out out", STORAGE, "cannot read sim.bed.bgen"),
        ("kinship --pfile x.vcf.gz --out out", INPUT, "plink2 --vcf x.vcf.gz dosage=DS --make-pgen"),
    ],
)
def test_genotypes_that_cannot_be_found(study: Path, command: str, code: int, part: str) -> None:
    write_lines(study / "list.txt", [])
    refused(study, command, code, part, ranks=(2,))
