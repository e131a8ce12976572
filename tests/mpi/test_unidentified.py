"""Kinships that tell nothing about h2, in every command that estimates it: no h2, and ordinary least squares."""

from __future__ import annotations

import importlib.util
import math
import os

import numpy as np
import oracle
import pytest
from ranks import few_ranks
from small_study import (
    SimulatedStudy,
    on_root,
    read_facts,
    read_plink,
    read_results,
    read_rows,
    read_table,
    unchecked,
    write_kinship,
    write_lines,
    write_table,
)

import mpgls

pytestmark = few_ranks

N, M = 61, 47
WARNING = "h2 is not identified"


@pytest.fixture(scope="module")
def study(module_comm, module_folder):
    comm, prefix, pheno = module_comm, str(module_folder / "g"), str(module_folder / "traits.tsv")
    mpgls.simulate(samples=N, snps=M, traits=2, chromosomes=2, missing=0.03, seed=8, out=prefix, comm=comm)

    def gaps():
        traits = read_table(f"{prefix}.pheno.tsv")
        traits["trait2"][[2, 30]] = np.nan
        write_table(pheno, read_plink(prefix).ids, traits)

    on_root(comm, gaps)
    return SimulatedStudy(module_folder, prefix, pheno, f"{prefix}.covar.tsv", read_plink(prefix))


def put_kinship(comm, study, K, name="K.h5"):
    path = study.folder / name
    on_root(comm, lambda: write_kinship(path, study.plink.ids, K))
    return str(path)


def scan(comm, study, command=mpgls.single_trait, **options):
    usual = {"bfile": study.bfile, "pheno": study.pheno, "no_plots": True, "threads": 1}
    comm.Barrier()
    out = study.folder / command.__name__
    command(out=out, comm=comm, **usual | options)
    comm.Barrier()
    return out


def least_squares(study, trait, X=None):
    """beta, se and -log10 p of every SNP by ordinary least squares, over the samples of a trait."""
    y = study.trait(trait)
    rows = np.flatnonzero(np.isfinite(y))
    X = np.ones((N, 1)) if X is None else X
    beta, se, _, p = oracle.scan(0.0, np.eye(rows.size), X[rows], y[rows], study.plink.centred(rows))
    return beta, se, -np.log10(p)


def assert_least_squares(study, results, trait, X=None, rtol=1e-8):
    for name, expected in zip(("BETA", "SE", "LOG10P"), least_squares(study, trait, X), strict=True):
        np.testing.assert_allclose(results[name], expected, rtol=rtol, atol=rtol * np.abs(expected).max(), err_msg=name)


def warnings(prefix):
    with open(f"{prefix}.log") as log:
        return [line for line in log if WARNING in line]


def equally_related():
    """All pairs as closely related: what the intercept leaves has one eigenvalue."""
    return 1.7 * np.eye(N) + 0.4


KINSHIPS = {"identity": np.eye(N), "multiple": 0.31 * np.eye(N), "pairs": equally_related()}


@pytest.mark.parametrize("kind", KINSHIPS)
def test_single_trait(comm, study, kind):
    grm = put_kinship(comm, study, KINSHIPS[kind])
    out = scan(comm, study, grm=grm)
    if comm.rank == 0:
        for trait in ("trait1", "trait2"):
            facts = read_facts(out, trait)
            assert facts["h2"] is None and facts["h2_se"] is None and facts["h2_identified"] is False
            assert facts["h2_at_boundary"] is False
            assert facts["s2"] == pytest.approx(np.nanvar(study.trait(trait), ddof=1), rel=1e-10)
            assert_least_squares(study, read_results(out, trait), trait)
        said = warnings(out)
        assert len(said) == 2 and all("WARNING" in line and grm in line for line in said)
        assert [line.count(f"trait{k + 1}") for k, line in enumerate(said)] == [1, 1]


def test_least_squares_are_those_of_scipy(study):
    from scipy.stats import linregress

    y, x = study.trait("trait1"), study.plink.centred()[:, 5]
    line = linregress(x, y)
    beta, se, log10p = (values[5] for values in least_squares(study, "trait1"))
    assert (beta, se, 10.0**-log10p) == pytest.approx((line.slope, line.stderr, line.pvalue), rel=1e-10)


@pytest.mark.parametrize("precision", ["double", "mixed"])
def test_covariates_may_take_all_that_the_kinship_knows(comm, study, precision):
    """Phi = I + c c' beside the covariate c; and with --pcs the same without it."""
    name, c = next(iter(read_table(study.covar).items()))
    c = c - c.mean()
    grm = put_kinship(comm, study, np.eye(N) + np.outer(c, c))
    X = np.column_stack([np.ones(N), c])
    rtol = 1e-8 if precision == "double" else 1e-4
    with_slepc = [{"pcs": 1}] if importlib.util.find_spec("slepc4py") else []
    for options in ({"covar": study.covar, "covar_name": name}, *with_slepc):
        out = scan(comm, study, grm=grm, pheno_name="trait1", precision=precision, **options)
        if comm.rank == 0:
            assert read_facts(out, "trait1")["h2"] is None and len(warnings(out)) == 1
            assert_least_squares(study, read_results(out, "trait1"), "trait1", X, rtol)


def test_an_eigendecomposition(comm, study):
    grm = put_kinship(comm, study, equally_related())
    mpgls.eigen(grm=grm, out=study.folder / "e", threads=1, comm=comm)
    for command in (mpgls.single_trait, mpgls.multi_trait):
        out = scan(comm, study, command, eigen=str(study.folder / "e.h5"), pheno_name="trait1")
        if comm.rank == 0:
            said = warnings(out)
            assert len(said) == 1 and "trait1" in said[0] and "e.h5" in said[0]
            if command is mpgls.single_trait:
                assert read_facts(out, "trait1")["h2"] is None
                assert_least_squares(study, read_results(out, "trait1"), "trait1")
            else:
                assert read_rows(f"{out}.traits.tsv")[0]["H2"] == "NA"


def test_multi_trait_and_its_tables(comm, study):
    grm = put_kinship(comm, study, np.eye(N))
    out = scan(comm, study, mpgls.multi_trait, grm=grm, dense=True, no_plots=False, p_threshold=1.0)
    for trait in ("trait1", "trait2"):
        mpgls.export(store=f"{out}.h5", trait=trait, out=f"{out}.{trait}", comm=comm)
    if comm.rank == 0:
        for k, row in enumerate(read_rows(f"{out}.traits.tsv")):
            trait, log10p = row["TRAIT"], least_squares(study, row["TRAIT"])[2]
            assert (row["H2"], row["H2_SE"], row["FLAGS"]) == ("NA", "NA", "h2 not identified")
            assert float(row["S2"]) == pytest.approx(np.nanvar(study.trait(trait), ddof=1), rel=1e-10)
            assert float(row["LOG10P_MAX"]) == pytest.approx(log10p.max(), rel=1e-8)
            assert float(row["LAMBDA_GC"]) > 0 and int(row["TESTED"]) == M
            assert f"trait{k + 1}" in warnings(out)[k]
            assert_least_squares(study, read_results(out, trait), trait, rtol=1e-6)  # the dense store is float32
        assert len(warnings(out)) == 2  # one for each group of samples


@pytest.mark.parametrize("command", [mpgls.single_trait, mpgls.multi_trait])
def test_without_each_chromosome(comm, study, command):
    """Chromosome 2 adds all of the structure: without it the kinship is a multiple of the identity."""
    mpgls.kinship(bfile=study.bfile, loco=True, out=study.folder / "L", threads=1, comm=comm)
    structure = study.plink.centred()[:, study.plink.chromosomes == "2"]

    def change():
        sums = 3.0 * np.eye(N), structure @ structure.T
        with unchecked(study.folder / "L.h5") as file:
            file["kinship"][...] = sum(sums) / M
            for name, S in zip(sorted(file["loco"]), sums, strict=True):
                file[f"loco/{name}"][...] = S

    on_root(comm, change)
    out = scan(comm, study, command, grm=str(study.folder / "L.h5"), loco=True, pheno_name="trait1")
    if comm.rank == 0:
        path = f"{out}.trait1.loco.tsv" if command is mpgls.single_trait else f"{out}.loco.tsv"
        h2 = {row["CHR"]: row["H2"] for row in read_rows(path)}
        assert h2["2"] == "NA" and 0 <= float(h2["1"]) <= 1
        assert len(warnings(out)) == 1 and "chromosome 2" in warnings(out)[0]
        if command is mpgls.single_trait:
            second = study.plink.chromosomes == "2"
            expected = least_squares(study, "trait1")[2][second]
            found = read_results(out, "trait1")["LOG10P"][second]
            np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("form", ["low-rank", "dense"])
def test_similarity_that_is_a_covariate(comm, study, form):
    """One similarity SNP, fitted as a covariate: nothing of the similarity is left."""
    x = study.plink.centred()[:, 7]
    files = str(study.folder / "x.tsv"), str(study.folder / "x.txt")
    on_root(comm, lambda: write_table(files[0], study.plink.ids, {"x": x}))
    on_root(comm, lambda: write_lines(files[1], [str(study.plink.snps[7])]))
    out = scan(
        comm, study, mpgls.low_rank, covar=files[0], similarity_snps=files[1], no_loco=True, form=form,
        pheno_name="trait1",
    )  # fmt: skip
    if comm.rank == 0:
        assert read_facts(out, "trait1")["h2"] is None
        assert len(warnings(out)) == 1 and "trait1" in warnings(out)[0] and study.bfile in warnings(out)[0]
        others = np.arange(M) != 7
        found = read_results(out, "trait1")["LOG10P"]
        X = np.column_stack([np.ones(N), x])
        p = oracle.scan(0.0, np.eye(N), X, study.trait("trait1"), study.plink.centred()[:, others])[3]
        np.testing.assert_allclose(found[others], -np.log10(p), rtol=1e-8, atol=1e-8)


def test_a_given_h2_needs_no_kinship_that_tells(comm, study):
    grm = put_kinship(comm, study, np.eye(N))
    for command in (mpgls.single_trait, mpgls.multi_trait):
        out = scan(comm, study, command, grm=grm, h2=0.4, pheno_name="trait1")
        if comm.rank == 0:
            assert not warnings(out)


def test_a_run_that_resumes_keeps_the_answer(comm, study):
    import h5py

    grm = put_kinship(comm, study, np.eye(N))
    out = scan(comm, study, grm=grm, pheno_name="trait1", block_size=10)

    def forget():
        with h5py.File(f"{out}.h5", "r+") as file:
            file["traits/trait1/sums"][1] = 0
        os.rename(f"{out}.json", f"{out}.json.partial")  # as a killed run leaves it

    on_root(comm, forget)
    scan(comm, study, grm=grm, pheno_name="trait1", block_size=10, resume=True)
    if comm.rank == 0:
        assert read_facts(out, "trait1")["h2"] is None and read_facts(out, "trait1")["h2_identified"] is False
        assert_least_squares(study, read_results(out, "trait1"), "trait1")


@pytest.mark.parametrize("command", [mpgls.single_trait, mpgls.multi_trait])
def test_a_spread_of_a_thousandth_is_estimated(comm, study, command):
    rng = np.random.default_rng(3)
    Phi = np.eye(N) + np.diag(1e-3 * rng.standard_normal(N))
    grm = put_kinship(comm, study, Phi)
    out = scan(comm, study, command, grm=grm, pheno_name="trait1")
    if comm.rank == 0:
        y, X = study.trait("trait1"), np.ones((N, 1))
        expected = oracle.sharp_h2(oracle.scaled(Phi), X, y)
        information = oracle.reml_information(expected, oracle.scaled(Phi), X, y)
        if command is mpgls.single_trait:
            facts = read_facts(out, "trait1")
            h2, se = facts["h2"], facts["h2_se"]
        else:
            row = read_rows(f"{out}.traits.tsv")[0]
            h2, se = (math.nan if row[name] == "NA" else float(row[name]) for name in ("H2", "H2_SE"))
        assert h2 == pytest.approx(expected, abs=1e-5) and not warnings(out)
        if expected < 0.9999 and information > 0:
            assert se == pytest.approx(information**-0.5, rel=1e-4) and se > 10
