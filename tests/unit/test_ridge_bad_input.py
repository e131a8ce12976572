"""What ``mpgls ridge`` refuses, from outside: one clear sentence, the exit code, no hang, no finished table."""

from __future__ import annotations

import numpy as np
import pytest
from launch import MPIRUN
from refusals import INPUT, MEMORY, NUMERICAL, USAGE, refused
from resident import must_succeed
from small_study import read_plink, read_table, write_kinship, write_lines, write_table

pytestmark = pytest.mark.skipif(MPIRUN is None, reason="needs mpirun")

RIDGE = "ridge --bfile sim --pheno sim.pheno.tsv --permutations 3 --no-plots --out out"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ridge")
    must_succeed(0, "simulate --samples 61 --snps 103 --traits 2 --chromosomes 3 --seed 3 --out sim", folder)
    ids = read_plink(folder / "sim").ids
    table = read_table(folder / "sim.pheno.tsv")
    write_lines(folder / "few.txt", ids[:7])
    write_lines(folder / "sites.txt", ["FID IID SITE", *(f"{f} {i} {min(k, 30)}" for k, (f, i) in enumerate(ids))])
    write_lines(folder / "three.txt", ["FID IID SITE", *(f"{f} {i} {k % 3}" for k, (f, i) in enumerate(ids))])
    write_lines(folder / "some.txt", ["FID IID SITE", *(f"{f} {i} 1" for f, i in ids[:-1])])
    write_lines(
        folder / "folds.txt", ["FID IID OUTER INNER_1", *(f"{f} {i} {k % 3} 1" for k, (f, i) in enumerate(ids))]
    )

    write_table(folder / "rare.tsv", ids, {"rare": np.arange(61) >= 60})
    write_table(folder / "flat.tsv", ids, {"flat": 0.0 * table["trait1"]})
    return folder


@pytest.mark.parametrize(
    ("more", "code", "parts"),
    [
        ("--alphas 0 1", USAGE, ["--alphas must be positive", "not 0"]),
        ("--alphas 1 1", USAGE, ["a penalty twice"]),
        ("--alphas 1 --alpha-count 3", USAGE, ["either --alphas or --alpha-count"]),
        ("--outer-folds 1", USAGE, ["--outer-folds must be at least 2"]),
        ("--parcels 3", USAGE, ["--parcels needs --voxels"]),
        ("--groups three.txt --folds-file folds.txt", USAGE, ["either --groups or --folds-file"]),
        ("--keep few.txt", INPUT, ["7 samples are fewer than 10 outer folds"]),
        ("--groups three.txt", INPUT, ["3 groups are fewer than 10 outer folds"]),
        ("--groups sites.txt", INPUT, ["largest group has 31 of 61 samples"]),
        ("--groups some.txt", INPUT, ["some.txt has no label for 1 of 61"]),
        ("--folds-file folds.txt", INPUT, ["one column of inner folds for each of the 3 outer folds"]),
        ("--covar rare.tsv", INPUT, ["fold", "training samples", "'rare'", "constant"]),
        ("--outer-folds 61", INPUT, ["outer fold 1 has a single sample"]),
        ("--outer-folds 3 --inner-folds 25", INPUT, ["inner fold", "of outer fold 1 has a single sample"]),
        ("--grm-id sim.fam", USAGE, ["--grm-id needs --grm"]),
        ("--alphas 1 1e-14", NUMERICAL, ["penalty 1e-14", "lost in rounding", "at least"]),
        ("--memory 0.001", MEMORY, ["--memory allows 0.00"]),
        ("--chr 9", INPUT, ["no SNP"]),
    ],
)
def test_refused(study, more, code, parts):
    refused(study, f"{RIDGE} {more}", code, *parts)


def test_targets_that_do_not_vary(study):
    flat = RIDGE.replace("sim.pheno.tsv", "flat.tsv")
    refused(study, flat, INPUT, "no target of flat.tsv can be analysed", ranks=(1,))


def test_no_targets(study):
    refused(study, RIDGE.replace("--pheno sim.pheno.tsv ", ""), USAGE, "ridge needs targets", ranks=(4,))


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda K: -K, ["mean diagonal", "not positive"]),
        (lambda K: K + np.triu(np.ones(K.shape), 1), ["is not symmetric"]),
        (lambda K: np.where(np.eye(len(K)) > 0, np.inf, K), ["is not a finite number"]),
    ],
)
def test_a_matrix_that_is_no_kinship(study, change, parts):
    plink = read_plink(study / "sim")
    X = plink.centred()
    write_kinship(study / "K.h5", plink.ids, change(X @ X.T))
    refused(study, f"{RIDGE} --grm K.h5", INPUT, "K.h5", *parts)
