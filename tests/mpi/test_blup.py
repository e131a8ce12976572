"""Genetic values of the samples, and weights of SNPs that give them, against the dense formulas."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import oracle
import pytest
from mice import needs_mice, unpack_mice
from ranks import few_ranks, two_ranks
from small_study import (
    SimulatedStudy,
    on_root,
    read_facts,
    read_plink,
    read_rows,
    read_table,
    write_genotypes,
    write_lines,
    write_table,
)

import mpgls
from mpgls.errors import UsageError

N, M = 97, 61
ABSENT = range(5, N, 9)
"""Samples without the trait."""


@dataclass(frozen=True)
class Study(SimulatedStudy):
    """Simulated files with missing genotypes, a trait that some lack, in large units, and kinships by method."""

    grm: dict[str, str]

    @property
    def rows(self):
        """The samples that have the trait."""
        return np.setdiff1d(np.arange(N), ABSENT)

    def X(self, method="centered"):
        """SNPs about their means in all samples, 0 where missing; divided by their standard deviations or not."""
        X = self.plink.centred()
        sd = np.sqrt((X**2).mean(axis=0))
        return X if method == "centered" else np.divide(X, sd, out=np.zeros_like(X), where=sd > 0)

    def Phi(self, method="centered"):
        X = self.X(method)[self.rows]
        return oracle.scaled(X @ X.T)

    def expected(self, Phi, h2):
        """Fixed part and BLUP of the trait: u = h2 Phi V^-1 (y - X b)."""
        y, X = self.trait("trait")[self.rows], self.design()[self.rows]
        V = oracle.covariance(h2, Phi)
        b, *_ = oracle.gls(X, y, V)
        return X @ b, h2 * Phi @ np.linalg.solve(V, y - X @ b)


@pytest.fixture(scope="module")
def study(module_comm, module_folder):
    comm, folder = module_comm, module_folder
    prefix, pheno, grm = str(folder / "g"), str(folder / "trait.tsv"), {}
    mpgls.simulate(samples=N, snps=M, traits=1, chromosomes=3, missing=0.04, seed=5, out=prefix, comm=comm)

    def write():
        y = 5e4 + 1e3 * read_table(f"{prefix}.pheno.tsv")["trait1"]
        y[ABSENT] = np.nan
        write_table(pheno, read_plink(prefix).ids, {"trait": y})

    on_root(comm, write)
    for method in ("centered", "standardized", "gcta"):
        mpgls.kinship(bfile=prefix, method=method, out=folder / method, threads=1, comm=comm)
        grm[method] = str(folder / f"{method}.h5")
    return Study(folder, prefix, pheno, f"{prefix}.covar.tsv", read_plink(prefix), grm)


def files_of(study, **options):
    return {"bfile": study.bfile, "pheno": study.pheno, "covar": study.covar, "no_plots": True, "threads": 1, **options}


def single(comm, study, out, method="centered", **options):
    kinship = {} if "eigen" in options else {"grm": study.grm[method]}
    given = files_of(study, blup=True, out=study.folder / out, **{"h2": 0.6, **kinship, **options})
    made = mpgls.single_trait(comm=comm, **given)
    comm.Barrier()
    return made


def low_rank(comm, study, out, **options):
    made = mpgls.low_rank(
        comm=comm, **files_of(study, blup=True, no_loco=True, h2=0.6, out=study.folder / out, **options)
    )
    comm.Barrier()
    return made


def blup(made):
    return read_table(made.tables["trait.blup"])


def assert_blup(study, made, fixed, genetic, tolerance=1e-8):
    found, size = blup(made), np.abs(genetic).max()
    np.testing.assert_allclose(found["GENETIC"], genetic, rtol=0, atol=tolerance * size)
    np.testing.assert_allclose(found["FIXED"], fixed, rtol=1e-8)
    np.testing.assert_allclose(found["FIXED"] + found["GENETIC"] + found["RESIDUAL"], found["Y"], rtol=1e-12)
    np.testing.assert_allclose(found["Y"], study.trait("trait")[study.rows], rtol=1e-12)
    ids = [(row["FID"], row["IID"]) for row in read_rows(made.tables["trait.blup"])]
    assert ids == [study.plink.ids[row] for row in study.rows]


def scored(comm, study, made, out="s"):
    """What the weights give those who have the trait."""
    made = mpgls.score(
        weights=made.tables["trait.weights"], bfile=study.bfile, out=study.folder / out, threads=1, comm=comm
    )
    comm.Barrier()
    return read_table(made.tables["scores"])["trait"][study.rows]


@pytest.mark.parametrize("method", ["centered", "standardized"])
def test_blup_and_what_its_weights_give(comm, study, method):
    made = single(comm, study, "b", method)
    fixed, genetic = study.expected(study.Phi(method), 0.6)
    assert_blup(study, made, fixed, genetic)
    np.testing.assert_allclose(scored(comm, study, made), genetic, rtol=0, atol=1e-8 * np.abs(genetic).max())


@few_ranks
def test_blup_at_the_h2_of_reml(comm, study):
    made = single(comm, study, "b", h2=None)
    assert_blup(study, made, *study.expected(study.Phi(), read_facts(made.prefix, "trait")["h2"]))


@few_ranks
def test_a_centred_kinship_gives_weights_up_to_a_constant(comm, study):
    made = single(comm, study, "b", center_grm=True)
    C = np.eye(study.rows.size) - 1 / study.rows.size
    fixed, genetic = study.expected(oracle.scaled(C @ study.Phi() @ C), 0.6)
    assert_blup(study, made, fixed, genetic)
    found = scored(comm, study, made)
    np.testing.assert_allclose(found - found.mean(), genetic, rtol=0, atol=1e-8 * np.abs(genetic).max())


@few_ranks
def test_an_eigenbasis_gives_the_same(comm, study):
    by_ratio = single(comm, study, "b", ratio="snp", h2=None)
    expected = study.expected(study.Phi(), read_facts(by_ratio.prefix, "trait")["h2"])
    assert_blup(study, by_ratio, *expected)
    np.testing.assert_allclose(
        scored(comm, study, by_ratio), expected[1], rtol=0, atol=1e-8 * np.abs(expected[1]).max()
    )
    keep = study.folder / "keep.txt"
    on_root(comm, lambda: write_lines(keep, [study.plink.ids[row] for row in study.rows[::-1]]))
    mpgls.eigen(grm=study.grm["centered"], keep=keep, out=study.folder / "E", threads=1, comm=comm)
    made = single(comm, study, "e", eigen=study.folder / "E.h5")
    assert_blup(study, made, *study.expected(study.Phi(), 0.6))
    assert "trait.weights" not in made.tables
    assert "an eigendecomposition does not say which SNPs" in Path(f"{made.prefix}.log").read_text()


@pytest.mark.parametrize("form, precision, tolerance", [
    ("low-rank", "double", 1e-8), ("dense", "double", 1e-8), ("low-rank", "mixed", 1e-5), ("dense", "mixed", 1e-5),
])  # fmt: skip
def test_similarity_snps(comm, study, form, precision, tolerance):
    made = low_rank(comm, study, "lr", form=form, precision=precision, similarity_every=2)
    G = study.plink.dosages[study.rows][:, ::2]
    varies = np.nanstd(G, axis=0) > 0
    Z = np.divide(G - np.nanmean(G, axis=0), np.nanstd(G, axis=0), out=np.zeros_like(G), where=varies)
    fixed, genetic = study.expected(oracle.scaled(np.nan_to_num(Z) @ np.nan_to_num(Z).T), 0.6)
    assert_blup(study, made, fixed, genetic, tolerance)
    np.testing.assert_allclose(scored(comm, study, made), genetic, rtol=0, atol=tolerance * np.abs(genetic).max())


@few_ranks
def test_kinships_without_weights(comm, study):
    """The table of genetic values is there all the same, and the log says in one sentence why there is no other."""

    def why(made):
        assert np.isfinite(blup(made)["GENETIC"]).all() and "trait.weights" not in made.tables
        assert not os.path.exists(f"{made.prefix}.trait.weights.tsv")
        return next(line for line in Path(f"{made.prefix}.log").read_text().splitlines() if "no weights" in line)

    assert "has SNPs of its own for each pair of people" in why(single(comm, study, "b", "gcta"))
    other, few = str(study.folder / "other"), str(study.folder / "few")

    def write():
        for suffix in ("bim", "fam"):
            Path(f"{other}.{suffix}").write_bytes(Path(f"{study.bfile}.{suffix}").read_bytes())
        dosages = study.plink.dosages.copy()
        dosages[3, 7] = 2.0 if dosages[3, 7] < 1 else 0.0
        write_genotypes(other, dosages)
        bim, fam = (Path(f"{study.bfile}.{suffix}").read_text().splitlines() for suffix in ("bim", "fam"))
        write_lines(f"{few}.bim", bim[1:])
        write_lines(f"{few}.fam", fam)
        write_genotypes(few, study.plink.dosages[:, 1:])

    on_root(comm, write)
    assert "was made of other genotypes than those given" in why(single(comm, study, "b", bfile=other))
    assert f"SNPs, and {few} has" in why(single(comm, study, "b", bfile=few))


@few_ranks
def test_a_resumed_run_makes_what_is_missing(comm, study):
    made = single(comm, study, "r")
    before = made.tables["trait.blup"].read_bytes()
    comm.Barrier()

    on_root(comm, lambda: os.remove(made.tables["trait.blup"]))
    again = single(comm, study, "r", resume=True)
    assert again.tables["trait.blup"].read_bytes() == before and set(again.tables) == set(made.tables)


@few_ranks
def test_a_model_without_a_chromosome_predicts_nothing(comm, study):
    with pytest.raises(UsageError, match="--blup is by the null model of the whole kinship, which --loco has not"):
        single(comm, study, "b", loco=True)
    with pytest.raises(UsageError, match="--blup is by the null model of all similarity SNPs: give --no-loco"):
        mpgls.low_rank(comm=comm, **files_of(study, blup=True, similarity_every=2, out=study.folder / "b"))


def unpack_few(prefix):
    """The mice with every 20th SNP."""
    unpack_mice(prefix)
    bim = Path(f"{prefix}.bim").read_text().splitlines()
    packed = np.fromfile(f"{prefix}.bed", dtype=np.uint8)
    Path(f"{prefix}.bed").write_bytes(packed[:3].tobytes() + packed[3:].reshape(len(bim), -1)[::20].tobytes())
    write_lines(f"{prefix}.bim", bim[::20])


@two_ranks
@needs_mice
def test_mice_who_were_not_in_the_study(comm, shared_tmp_path):
    """Half of the mice predict the other half as the dense model of all of them does."""
    folder = shared_tmp_path
    prefix = str(folder / "mice")
    on_root(comm, lambda: unpack_few(prefix))
    mice = read_plink(prefix)
    has = np.flatnonzero(np.isfinite(mice.phenotype))
    half, rest = has[::2], has[1::2]
    on_root(comm, lambda: [
        write_lines(folder / "half.txt", [mice.ids[row] for row in half]),
        write_lines(folder / "rest.txt", [mice.ids[row] for row in rest]),
        write_table(folder / "cd8.tsv", [mice.ids[row] for row in has], {"CD8": mice.phenotype[has]}),
    ])  # fmt: skip
    usual = {"bfile": prefix, "threads": 1, "comm": comm}
    mpgls.kinship(keep=folder / "half.txt", maf=0.01, out=folder / "K", **usual)
    made = mpgls.single_trait(
        grm=folder / "K.h5", pheno=folder / "cd8.tsv", blup=True, no_plots=True, out=folder / "b", **usual
    )
    new = mpgls.score(
        weights=made.tables["CD8.weights"],
        keep=folder / "rest.txt",
        pheno=folder / "cd8.tsv",
        out=folder / "s",
        **usual,
    )
    (fit,) = read_rows(new.tables["fit"])

    frequency = mice.frequency(half)
    G = mice.dosages[:, np.minimum(frequency, 1 - frequency) >= 0.01]
    X = np.nan_to_num(G - np.nanmean(G[half], axis=0))
    K = X @ X.T / np.mean(np.sum(X[half] ** 2, axis=1))
    y, ones = mice.phenotype, np.ones((half.size, 1))
    h2 = read_facts(made.prefix, "CD8")["h2"]
    V = oracle.covariance(h2, K[np.ix_(half, half)])
    b, *_ = oracle.gls(ones, y[half], V)
    predicted = h2 * K[np.ix_(rest, half)] @ np.linalg.solve(V, y[half] - b[0])
    np.testing.assert_allclose(read_table(new.tables["scores"])["CD8"], predicted, rtol=0, atol=1e-8)
    assert float(fit["R"]) == pytest.approx(np.corrcoef(y[rest], predicted)[0, 1], abs=1e-8)
    assert float(fit["R"]) > 0.3 and fit["N"] == str(rest.size)
