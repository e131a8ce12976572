"""Programs of others read tables and maps. jobs/clients.sh makes their environments and runs this file."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_images import AFFINE, SHAPE, small_mask
from small_study import read_rows

import mpgls
from mpgls.report.brain_maps import write_maps
from mpgls.study.images import VoxelGrid

CLIENTS = os.environ.get("MPGLS_CLIENTS")
pytestmark = pytest.mark.skipif(CLIENTS is None, reason="MPGLS_CLIENTS names no environments: run jobs/clients.sh")
N, M = 90, 690


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> str:
    """What comes before .tsv, .tsv.gz, .ssf.tsv of a scan of 23 chromosomes; g.bed is beside it."""
    folder = tmp_path_factory.mktemp("clients")
    mpgls.simulate(samples=N, snps=M, chromosomes=23, seed=3, out=folder / "g")
    mpgls.kinship(bfile=folder / "g", out=folder / "K")
    mpgls.single_trait(
        bfile=folder / "g", pheno=folder / "g.pheno.tsv", grm=folder / "K.h5", pheno_name="trait1", no_plots=True,
        format="tsv,tsv.gz,ssf", build=38, out=folder / "o",
    )  # fmt: skip
    return str(folder / "o.trait1")


@pytest.fixture
def client() -> Callable[..., str]:
    """``client(name, program, *words)``: what a program of an environment prints; it must end well."""

    def run(name: str, program: str, *words: str) -> str:
        place = Path(str(CLIENTS), name)
        if not (place / "complete").exists():
            pytest.skip(f"{place} was not made")
        command = [str(place / "bin" / "python"), *([] if program == "-c" else [str(place / "bin" / program)])]
        command += ["-c"] if program == "-c" else []
        outside = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run([*command, *words], capture_output=True, text=True, env=outside, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_gwaslab_knows_the_columns_by_itself(client, table):
    code = (
        "import gwaslab, json, sys\n"
        "for path in sys.argv[1:]:\n"
        "    data = gwaslab.Sumstats(path, fmt='auto', verbose=False).data\n"
        "    print(json.dumps({name: data[name].astype(str).tolist() for name in data.columns}))"
    )
    rows = read_rows(f"{table}.tsv")
    for line in client("gwaslab", "-c", code, f"{table}.tsv", f"{table}.tsv.gz").splitlines()[-2:]:
        read = json.loads(line)
        for theirs, ours in {"CHR": "CHR", "POS": "POS", "EA": "EA", "NEA": "NEA", "N": "N"}.items():
            assert read[theirs] == [row[ours] for row in rows]
        for theirs, ours in {"BETA": "BETA", "SE": "SE", "EAF": "EAF", "P": "P", "MLOG10P": "LOG10P"}.items():
            wanted = [float(row[ours].replace("NA", "nan")) for row in rows]
            np.testing.assert_allclose(np.array(read[theirs], float), wanted, rtol=1e-6)


def test_the_tools_of_the_gwas_catalog_find_the_table_valid(client, table):
    said = client("sumstats", "gwas-ssf", "validate", f"{table}.ssf.tsv", "--min-rows", "100", "-i")
    assert "Validation status: True" in said and "Data table is valid" in said
    facts = client("sumstats", "gwas-ssf", "read", f"{table}.ssf.tsv", "-M")
    assert "genome_assembly: GRCh38" in facts and "- trait1" in facts and f"sample_size: {N}" in facts


def test_ldsc_takes_the_table(client, table):
    words = "--snp ID --a1 EA --a2 NEA --p P --N-col N --frq EAF --signed-sumstats BETA,0 --ignore STAT,LOG10P,SE"
    client("ldsc", "munge_sumstats.py", "--sumstats", f"{table}.tsv", *words.split(), "--out", f"{table}.munged")
    lines = gzip.decompress(Path(f"{table}.munged.sumstats.gz").read_bytes()).decode().splitlines()
    rows = {row["ID"]: row for row in read_rows(f"{table}.tsv")}
    assert lines[0] == "SNP\tA1\tA2\tN\tZ" and len(lines) > M / 2
    for line in lines[1:]:
        name, a1, a2, _, z = line.split("\t")
        row = rows[name]
        assert (a1, a2) == (row["EA"], row["NEA"]) and float(z) * float(row["BETA"]) >= 0


def test_tabix_fetches_regions(client, table):
    code = (
        "import pysam, sys\n"
        "with pysam.TabixFile(sys.argv[1]) as file:\n"
        "    print(*file.contigs)\n"
        "    for line in file.fetch('3', int(sys.argv[2]) - 1, int(sys.argv[3])):\n"
        "        print(line)"
    )
    rows = read_rows(f"{table}.tsv")
    positions = sorted(int(row["POS"]) for row in rows if row["CHR"] == "3")
    first, last = positions[4], positions[-3]
    contigs, *lines = client("pysam", "-c", code, f"{table}.tsv.gz", str(first), str(last)).splitlines()
    assert contigs.split() == list(dict.fromkeys(row["CHR"] for row in rows))
    assert [line.split("\t")[2] for line in lines] == [
        row["ID"] for row in rows if row["CHR"] == "3" and first <= int(row["POS"]) <= last
    ]


def test_plink_clumps(table):
    plink = shutil.which("plink1.9") or shutil.which("plink")
    if plink is None:
        pytest.skip("PLINK 1.9 is not installed")
    words = f"--clump {table}.tsv --clump-snp-field ID --clump-field P --clump-p1 0.01 --clump-p2 0.05 --out {table}.c"
    subprocess.run([plink, "--bfile", str(Path(table).with_name("g")), *words.split()], check=True, capture_output=True)
    lines = [line.split() for line in Path(f"{table}.c.clumped").read_text().splitlines() if line.strip()]
    clumps = [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]
    best = min((row for row in read_rows(f"{table}.tsv") if row["P"] != "NA"), key=lambda row: float(row["P"]))
    assert min(clumps, key=lambda one: float(one["P"]))["SNP"] == best["ID"]


def test_nilearn_draws_a_map(client, tmp_path):
    grid = VoxelGrid(SHAPE, AFFINE, np.argwhere(small_mask()))
    (path,) = write_maps(tmp_path / "o", "rs1", grid, np.array([3, 9]), np.array([8.0, 12.5]), None)
    code = (
        "import sys, nilearn.image, nilearn.plotting\n"
        "image = nilearn.image.load_img(sys.argv[1])\n"
        "print(image.get_fdata().max(), image.header.get_intent()[0])\n"
        "nilearn.plotting.plot_stat_map(image, bg_img=None, output_file=sys.argv[2])"
    )
    largest = client("nilearn", "-c", code, str(path), str(tmp_path / "m.png")).splitlines()[-1]
    assert largest.split()[0] == "12.5" and (tmp_path / "m.png").read_bytes().startswith(b"\x89PNG")
