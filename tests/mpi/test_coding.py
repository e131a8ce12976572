"""--model dominant and recessive in every scan: plink2's figures, and dense oracles on columns made by NumPy."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import oracle
import pytest
import vgwas_oracle
from pgen_files import NEEDS_PGENLIB
from ranks import few_ranks
from small_study import (
    on_root,
    read_columns,
    read_plink,
    read_results,
    read_rows,
    read_table,
    relabel_chromosomes,
    write_genotypes,
    write_kinship,
    write_lines,
    write_table,
)

import mpgls
from mpgls.errors import UsageError

pytestmark = few_ranks

DATA = Path(__file__).parents[1] / "data" / "plink2_coding"
N, M, H2 = 71, 43, 0.4
SIX_DIGITS = 5.0e-6
"""Half a unit of the last digit that plink2 writes."""


def coded(G: np.ndarray, model: str) -> np.ndarray:
    """Copies or dosages as the model has them, NaN where missing."""
    return np.minimum(G, 1.0) if model == "dominant" else np.maximum(G - 1.0, 0.0)


def imputed(X: np.ndarray) -> np.ndarray:
    """Columns less their means, 0 where missing."""
    return np.nan_to_num(X - np.nanmean(X, axis=0))


# -- plink2 -------------------------------------------------------------------------------------------------------


RUNS = {
    "dominant": {"model": "dominant"},
    "recessive": {"model": "recessive"},
    "condition": {"condition": "s7"},
    "condition-dominant": {"condition": "s7", "model": "dominant"},
}


@pytest.mark.parametrize("run", [*RUNS, *(f"dosage-{run}" for run in list(RUNS)[:3])])
def test_plink2_with_an_identity_kinship(comm, shared_tmp_path, run):
    genotypes = "pfile" if run.startswith("dosage-") else "bfile"
    if genotypes == "pfile":
        pytest.importorskip("pgenlib", reason=NEEDS_PGENLIB)
    ids, grm, out = read_plink(DATA).ids, str(shared_tmp_path / "I.h5"), shared_tmp_path / "o"
    on_root(comm, lambda: write_kinship(grm, ids, np.eye(len(ids))))
    mpgls.single_trait(
        **{genotypes: str(DATA)}, grm=grm, covar=f"{DATA}.covar.tsv", h2=0.0, out=out, no_plots=True, threads=1,
        comm=comm, **RUNS[run.removeprefix("dosage-")],
    )  # fmt: skip
    comm.Barrier()
    found = read_results(out, "pheno")
    expected = [row for row in read_rows(f"{DATA}.tsv") if row["RUN"] == run]
    assert len(expected) == len(found["ID"]) == 40
    for name, of_plink in (("N", "N"), ("BETA", "BETA"), ("SE", "SE"), ("STAT", "T"), ("P", "P")):
        figures = np.array([np.nan if row[of_plink] == "NA" else float(row[of_plink]) for row in expected])
        np.testing.assert_allclose(found[name][found["NOTE"] == "."], figures[found["NOTE"] == "."], rtol=SIX_DIGITS)
    absent = {row["ID"] for row in expected if row["P"] == "NA"}
    assert set(found["ID"][found["NOTE"] != "."]) == absent


def common_genotypes(m: int) -> np.ndarray:
    """Copies of A1 (N, m), 5% NaN; all three genotypes are common."""
    rng = np.random.default_rng(m)
    G = rng.binomial(2, rng.uniform(0.35, 0.65, m), (N, m)).astype(float)
    return np.where(rng.random((N, m)) < 0.05, np.nan, G)


# -- oracles ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(module_comm, module_folder):
    """Files with missing genotypes; SNP 4 is never homozygous for A1, SNP 9 always carries it."""
    prefix = str(module_folder / "g")
    mpgls.simulate(samples=N, snps=M, chromosomes=2, missing=0.05, seed=3, out=prefix, comm=module_comm)
    G = common_genotypes(M)
    G[:, 4], G[:, 9] = np.where(G[:, 4] == 2, 1, G[:, 4]), np.where(G[:, 9] == 0, 1, G[:, 9])
    X = imputed(G)
    Phi = oracle.scaled(X @ X.T)

    def change():
        write_genotypes(prefix, G)
        write_kinship(f"{prefix}.K.h5", read_plink(prefix).ids, Phi)

    on_root(module_comm, change)
    return prefix, read_plink(prefix), Phi


def usual(study, out, **options):
    prefix, _, _ = study
    return {
        "bfile": prefix, "pheno": f"{prefix}.pheno.tsv", "covar": f"{prefix}.covar.tsv", "no_plots": True,
        "threads": 1, "out": out, **options,
    }  # fmt: skip


def design(study):
    return np.column_stack([np.ones(N), *read_table(f"{study[0]}.covar.tsv").values()])


@pytest.mark.parametrize("model", ["dominant", "recessive"])
def test_single_trait_is_gls_of_the_coded_column(comm, study, shared_tmp_path, model):
    prefix, plink, Phi = study
    y, X = read_table(f"{prefix}.pheno.tsv")["trait1"], coded(plink.dosages, model)
    out = shared_tmp_path / "o"
    team = comm.size if model == "recessive" else 1
    mpgls.single_trait(**usual(study, out, grm=f"{prefix}.K.h5", h2=H2, model=model), team_size=team, comm=comm)
    comm.Barrier()
    found = read_results(out, "trait1")
    constant = 9 if model == "dominant" else 4
    np.testing.assert_array_equal(found["NOTE"] == ".", np.nanmax(X, axis=0) > np.nanmin(X, axis=0))
    assert found["NOTE"][constant] == "monomorphic as coded by --model"
    np.testing.assert_allclose(found["EAF"], plink.frequency(), rtol=1e-9)
    np.testing.assert_array_equal(found["N"], np.isfinite(plink.dosages).sum(axis=0))
    tested = np.flatnonzero(found["NOTE"] == ".")
    expected = oracle.scan(H2, Phi, design(study), y, imputed(X)[:, tested])
    for name, figures in zip(("BETA", "SE", "STAT", "P"), expected, strict=True):
        np.testing.assert_allclose(found[name][tested], figures, rtol=1e-8)


def test_low_rank_codes_the_tested_snps_alone(comm, study, shared_tmp_path):
    prefix, plink, _ = study
    y, X = read_table(f"{prefix}.pheno.tsv")["trait1"], imputed(coded(plink.dosages, "dominant"))
    G = plink.centred()[:, ::2]
    G = G / np.nanstd(plink.dosages[:, ::2], axis=0)
    for precision, tolerance in (("double", 1e-8), ("mixed", 1e-4)):
        out = shared_tmp_path / precision
        options = usual(study, out, similarity_every=2, no_loco=True, h2=H2, form="low-rank", model="dominant")
        mpgls.low_rank(**options, precision=precision, comm=comm)
        comm.Barrier()
        found = read_results(out, "trait1")
        tested = np.flatnonzero(found["NOTE"] == ".")
        assert tested.size >= M - 3
        expected = oracle.scan(H2, oracle.scaled(G @ G.T), design(study), y, X[:, tested])
        np.testing.assert_allclose(found["BETA"][tested], expected[0], rtol=tolerance, atol=tolerance * 1e-2)
        np.testing.assert_allclose(found["SE"][tested], expected[1], rtol=tolerance)


def test_many_traits_and_voxels_have_the_figures_of_one_trait(comm, study, shared_tmp_path):
    prefix, plink, Phi = study
    y, X = read_table(f"{prefix}.pheno.tsv")["trait1"], imputed(coded(plink.dosages, "recessive"))
    out = shared_tmp_path / "many"
    options = usual(study, out, grm=f"{prefix}.K.h5", h2=H2, model="recessive", p_threshold=1.0)
    mpgls.multi_trait(**options, comm=comm)
    comm.Barrier()
    hits = read_columns(f"{out}.hits.tsv")
    at = [plink.snps.tolist().index(name) for name in hits["ID"]]
    assert len(at) == np.count_nonzero(X.any(axis=0)) > M // 2
    expected = oracle.scan(H2, Phi, design(study), y, X[:, at])
    np.testing.assert_allclose(np.array(hits["BETA"], dtype=float), expected[0], rtol=1e-8)
    np.testing.assert_allclose(np.array(hits["SE"], dtype=float), expected[1], rtol=1e-8)

    out = shared_tmp_path / "voxels"
    options = usual(study, out, permutations=0, sparsity_threshold=1.0, precision="double", model="recessive")
    mpgls.vgwas(**options, comm=comm)
    comm.Barrier()
    rows = read_rows(f"{out}.snps.tsv")
    notes = {row["NOTE"] for row, x in zip(rows, X.T, strict=True) if not x.any()}
    assert notes == {"monomorphic as coded by --model"}
    t = vgwas_oracle.t_scores(X[:, X.any(axis=0)], y[:, None], design(study))[:, 0]
    found = np.array([float(row["T"]) for row in rows if row["NOTE"] == "."])
    np.testing.assert_allclose(found, t, rtol=1e-8)


def test_a_man_counts_by_his_coded_x(comm, shared_tmp_path):
    """A man with the allele is 2 copies of X, so 1 in both codings; with --x-model 1 and on MT he is none of two."""
    prefix = str(shared_tmp_path / "g")
    mpgls.simulate(samples=N, snps=12, seed=4, out=prefix, comm=comm)
    plink, G = read_plink(prefix), common_genotypes(12)
    man = np.arange(N) % 2 == 0

    def change():
        write_genotypes(prefix, G)
        relabel_chromosomes(prefix, ["1"] * 4 + ["X"] * 4 + ["MT"] * 4)
        write_lines(f"{prefix}.fam", [f"{f} {i} 0 0 {2 - m} 0" for (f, i), m in zip(plink.ids, man, strict=True)])
        write_kinship(f"{prefix}.K.h5", plink.ids, np.eye(N))
        write_table(f"{prefix}.y.tsv", plink.ids, {"y": np.random.default_rng(1).normal(size=N)})

    on_root(comm, change)
    y = read_table(f"{prefix}.y.tsv")["y"]
    single = np.where(G == 1, np.nan, G / 2)
    for x_model in (1, 2):
        x = np.where((man[:, None]) & (np.arange(12) // 4 == 1), single * x_model, G)
        x = np.where(np.arange(12) // 4 == 2, single, x)
        out = shared_tmp_path / f"x{x_model}"
        mpgls.single_trait(
            bfile=prefix, grm=f"{prefix}.K.h5", pheno=f"{prefix}.y.tsv", h2=0.0, x_model=x_model, model="recessive",
            no_plots=True, threads=1, out=out, comm=comm,
        )  # fmt: skip
        comm.Barrier()
        found, X = read_results(out, "y"), imputed(coded(x, "recessive"))
        varies = X.any(axis=0)
        assert not varies[8:].any() and varies[4:8].all()
        assert (found["NOTE"][~varies] == "monomorphic as coded by --model").all()
        expected = oracle.scan(0.0, np.eye(N), np.ones((N, 1)), y, X[:, varies])
        np.testing.assert_allclose(found["BETA"][varies], expected[0], rtol=1e-8)
        np.testing.assert_allclose(found["SE"][varies], expected[1], rtol=1e-8)


@pytest.mark.parametrize("further", [{"ratio": "snp", "h2": None}, {"interaction": "covar1", "robust": "hc3"}])
def test_other_tests_of_a_coded_snp_are_those_of_genotypes_recoded_by_numpy(comm, study, shared_tmp_path, further):
    prefix, plink, _ = study
    made = str(shared_tmp_path / "made")

    def write():
        for ending in (".fam", ".bim"):
            shutil.copy(prefix + ending, made + ending)
        write_genotypes(made, coded(plink.dosages, "dominant"))

    on_root(comm, write)
    names = list(read_table(f"{prefix}.covar.tsv"))
    further = {name: names[0] if value == "covar1" else value for name, value in further.items()}
    found = []
    for out, chosen in (("plain", {"bfile": made}), ("coded", {"model": "dominant"})):
        options = usual(study, shared_tmp_path / out, grm=f"{prefix}.K.h5", h2=H2) | further | chosen
        mpgls.single_trait(**options, comm=comm)
        comm.Barrier()
        found.append(read_columns(shared_tmp_path / f"{out}.trait1.tsv"))
    plain, by_model = found
    assert plain.keys() == by_model.keys() and plain["BETA"].count("NA") < 3
    for name in plain.keys() - {"CHR", "ID", "EA", "NEA", "EAF", "NOTE"}:
        figures = [np.array([np.nan if one == "NA" else float(one) for one in rows[name]]) for rows in found]
        np.testing.assert_allclose(*figures, rtol=1e-9, atol=1e-12)


def test_filters_count_alleles_whatever_the_coding(comm, study, shared_tmp_path):
    left = []
    for model in ("additive", "recessive"):
        out = shared_tmp_path / model
        options = usual(study, out, grm=f"{study[0]}.K.h5", h2=H2, maf=0.2, hwe=1e-3)
        mpgls.single_trait(**options, model=model, comm=comm)
        comm.Barrier()
        left.append(read_results(out, "trait1")["ID"].tolist())
    assert left[0] == left[1] and 0 < len(left[0]) < M


def test_a_snp_of_two_columns_is_no_model_of_many_traits(comm, study, shared_tmp_path):
    for command in (mpgls.multi_trait, mpgls.vgwas):
        with pytest.raises(UsageError, match="--model must be one of additive, dominant, recessive, not genotypic"):
            command(**usual(study, shared_tmp_path / "o", model="genotypic"), comm=comm)
