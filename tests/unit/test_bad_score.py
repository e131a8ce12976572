"""What ``mpgls score`` refuses: one clear sentence, an exit code, no hang, no table."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from launch import MPIRUN
from refusals import INPUT, USAGE, refused
from resident import must_succeed
from small_study import read_plink, read_table, write_lines, write_table

pytestmark = pytest.mark.skipif(MPIRUN is None, reason="needs mpirun")

HEADER = "CHR\tPOS\tID\tEA\tNEA\tEAF\tMEAN\ttrait1"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("score")
    must_succeed(0, "simulate --samples 31 --snps 23 --traits 2 --seed 3 --out sim", folder)
    rows = [line.split() for line in (folder / "sim.bim").read_text().splitlines()]
    good = ["\t".join([row[0], row[3], row[1], row[4], row[5], "0.25", "0.5", "0.125"]) for row in rows]

    def write(name, lines):
        write_lines(folder / name, lines)

    write("good", [HEADER, *good])
    write("header", [HEADER.replace("MEAN", "AVERAGE"), *good])
    write("no_trait", [HEADER.removesuffix("\ttrait1"), *good])
    write("no_snps", [HEADER])
    write("cut", [HEADER, *good[:3], good[3][:-14]])
    write("text", [HEADER, good[0], good[1].replace("0.125", "strong")])
    write("infinite", [HEADER, good[0].replace("0.125", "inf")])
    write("position", [HEADER, good[0].replace(rows[0][3], "1.5")])
    write("mean", [HEADER, good[0], good[1].replace("0.5", "-9")])
    write("twice", [HEADER, *good[:4], good[2]])
    write("others", [HEADER, *(line.replace("rs", "no") for line in good)])
    (folder / "damaged").write_bytes(gzip.compress("\n".join([HEADER, *good]).encode())[:-40])
    ids, traits = read_plink(folder / "sim").ids, read_table(folder / "sim.pheno.tsv")
    write_table(folder / "flat.tsv", ids, {"trait1": np.ones(31)})
    write_table(folder / "nobody.tsv", [("no", "one")], {"trait1": np.ones(1)})
    write_table(folder / "other.tsv", ids, {"height": traits["trait1"]})
    for suffix in ("bed", "fam"):
        (folder / f"same.{suffix}").write_bytes((folder / f"sim.{suffix}").read_bytes())
    rows[7] = rows[2]
    write_lines(folder / "same.bim", [" ".join(row) for row in rows])
    return folder


@pytest.mark.parametrize(
    ("more", "code", "parts"),
    [
        ("--weights header", INPUT, ["header, line 1: expected a header 'CHR POS ID EA NEA EAF MEAN trait ...'"]),
        ("--weights no_trait", INPUT, ["no_trait, line 1: expected a header"]),
        ("--weights no_snps", INPUT, ["no_snps has a header but no SNPs"]),
        ("--weights cut", INPUT, ["cut, line 5: 6 fields, but the header names 8 columns"]),
        ("--weights text", INPUT, ["text, line 3, column 'trait1': 'strong' is not a finite number"]),
        ("--weights infinite", INPUT, ["infinite, line 2, column 'trait1': 'inf' is not a finite number"]),
        ("--weights position", INPUT, ["position, line 2: the position is '1.5', not a whole number"]),
        ("--weights mean", INPUT, ["mean, line 3: MEAN is -9"]),
        ("--weights twice", INPUT, ["twice: SNP rs3 (", "occurs twice, in lines 4 and 6"]),
        ("--weights others", INPUT, ["others and sim.bim have no SNP in common", "no1 (", "rs1 ("]),
        ("--weights damaged", INPUT, ["damaged is compressed by gzip, but damaged or truncated"]),
        ("--weights sim.bed", INPUT, ["sim.bed is not text but a PLINK .bed"]),
        ("--weights good --bfile same", INPUT, ["SNP rs3 (", "twice (same.bim, line 3; same.bim, line 8)"]),
        ("--weights good --pheno flat.tsv", INPUT, ["flat.tsv: trait 'trait1' is constant (1) over the 31 people"]),
        ("--weights good --pheno nobody.tsv", INPUT, ["nobody.tsv: trait 'trait1' is missing over the 31 people"]),
        ("--weights good --pheno other.tsv", INPUT, ["good has no weights for 'height' of other.tsv", "trait1"]),
        ("--weights good --pheno sim.pheno.tsv --pheno-name trait2", INPUT, ["no weights for 'trait2'"]),
        ("--weights good --pheno-name trait1", USAGE, ["--pheno-name needs --pheno"]),
        ("--weights good --missing-code -9", USAGE, ["--missing-code needs --pheno"]),
        ("", USAGE, ["--weights"]),
    ],
)  # fmt: skip
def test_refused(study: Path, more, code, parts):
    bfile = "" if "--bfile" in more else "--bfile sim "
    refused(study, f"score {bfile}{more} --out out", code, *parts)
