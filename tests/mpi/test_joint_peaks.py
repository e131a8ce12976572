"""--joint-peak: the signals of a plain loop of scans with --condition, and the joint model by dense algebra."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import oracle
import pytest
from ranks import few_ranks
from scipy import stats
from small_study import (
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
from mpgls.engine import joint_peaks, peak_step
from mpgls.errors import Stopped, UsageError

N, M, W, P = 119, 60, 2_500, 1e-4
CAUSAL = (10, 14, 45)
"""Two linked SNPs of chromosome 1, and one of chromosome 2; SNP 11 is SNP 10 again, at 1,000 base pairs from it."""


@pytest.fixture(scope="module")
def study(module_comm, module_folder):
    folder, prefix, rng = module_folder, str(module_folder / "g"), np.random.default_rng(12)
    mpgls.simulate(samples=N, snps=M, missing=0, seed=3, out=prefix, comm=module_comm)
    G = rng.binomial(2, rng.uniform(0.3, 0.7, M), (N, M)).astype(float)
    G[:, 14] = np.where(rng.random(N) < 0.6, G[:, 10], G[:, 14])
    G[:, 11] = G[:, 10]
    y = G[:, list(CAUSAL)] @ [1.2, 1.2, -1.0] + rng.normal(size=N)
    G[rng.random(G.shape) < 0.02] = np.nan
    G[:, 11] = G[:, 10]
    other = np.where(rng.random(N) < 0.05, np.nan, 1.5 * np.nan_to_num(G[:, 30]) + rng.normal(size=N))
    ids = read_plink(prefix).ids

    def change():
        write_genotypes(prefix, G)
        write_lines(f"{prefix}.bim", [f"{1 + k // 30}\ts{k}\t0\t{1000 * (k + 1)}\tA\tG" for k in range(M)])
        write_table(folder / "t.tsv", ids, {"a": y, "b": 1e3 * other})

    on_root(module_comm, change)
    mpgls.kinship(bfile=prefix, loco=True, out=folder / "K", threads=1, comm=module_comm)
    return folder, read_plink(prefix)


def usual(study, out, **chosen):
    folder, _ = study
    return {
        "bfile": str(folder / "g"), "grm": str(folder / "K.h5"), "pheno": str(folder / "t.tsv"), "pheno_name": "a",
        "covar": str(folder / "g.covar.tsv"), "no_plots": True, "threads": 1, "out": out, **chosen,
    }  # fmt: skip


def peaks(comm, study, out, **chosen):
    options = usual(study, out, joint_peak=W, p_threshold=P, **chosen)
    mpgls.single_trait(**options, comm=comm)
    comm.Barrier()
    return read_rows(f"{out}.a.peaks.tsv")


def best_beside(comm, study, out, taken: list[str], **chosen) -> tuple[str, float] | None:
    """The best SNP of a scan with --condition, at least W from all that are ``taken``, and its -log10 p."""
    on = {"condition": tuple(taken)} if taken else {}
    mpgls.single_trait(**usual(study, out, **on, **chosen), comm=comm)
    comm.Barrier()
    rows = [row for row in read_rows(f"{out}.a.tsv") if row["NOTE"] == "."]
    rows = [row for row in rows if all(is_apart(int(row["ID"][1:]), int(name[1:])) for name in taken)]
    best = max(rows, key=lambda row: (round(float(row["LOG10P"]), 8), -int(row["ID"][1:])))
    return (best["ID"], float(best["LOG10P"])) if float(best["LOG10P"]) >= -math.log10(P) else None


def is_apart(a: int, b: int) -> bool:
    return a // 30 != b // 30 or abs(a - b) * 1000 >= W


def test_a_loop_of_conditioned_scans_finds_the_same(comm, study, shared_tmp_path):
    found = peaks(comm, study, shared_tmp_path / "o")
    taken: list[str] = []
    while (best := best_beside(comm, study, shared_tmp_path / f"loop{len(taken)}", taken)) is not None:
        row = found[len(taken)]
        assert (row["STEP"], row["ID"]) == (str(len(taken) + 1), best[0])
        assert float(row["LOG10P_STEP"]) == pytest.approx(best[1], rel=1e-7)
        taken.append(best[0])
    assert set(taken) == {f"s{k}" for k in CAUSAL} and len(found) == 3
    assert read_facts(shared_tmp_path / "o", "a")["peaks"] == 3


@few_ranks
@pytest.mark.parametrize("chosen", [{"loco": True, "model": "dominant"}, {"ratio": "snp"}])
def test_the_last_step_is_a_conditioned_scan_in_every_model(comm, study, shared_tmp_path, chosen):
    found = peaks(comm, study, shared_tmp_path / "o", **chosen)
    *taken, last = [row["ID"] for row in found]
    assert taken
    name, log10p = best_beside(comm, study, shared_tmp_path / "last", taken, **chosen)
    assert name == last and float(found[-1]["LOG10P_STEP"]) == pytest.approx(log10p, rel=1e-7)


@few_ranks
@pytest.mark.parametrize("test", ["t", "wald"])
def test_the_joint_model_is_gls_of_all_signals(comm, study, shared_tmp_path, test):
    """With the eigendecomposition, components and a conditioning SNP; effects are in the units of the trait."""
    folder, plink = study
    mpgls.eigen(grm=str(folder / "K.h5"), out=shared_tmp_path / "E", threads=1, comm=comm)
    further = {"eigen": str(shared_tmp_path / "E.h5"), "grm": None, "pcs": 2, "condition": "s50", "test": test}
    out = shared_tmp_path / "o"
    found = peaks(comm, study, out, **further)
    assert len(found) >= 2
    X = plink.centred()
    Phi = oracle.scaled(X @ X.T)
    Z = np.linalg.eigh(Phi)[1]
    on = X[:, [50, *(int(row["ID"][1:]) for row in found)]]
    covariates = list(read_table(folder / "g.covar.tsv").values())
    design = np.column_stack([np.ones(N), *covariates, Z[:, -2:], on])
    y = read_table(folder / "t.tsv")["a"]
    h2 = oracle.sharp_h2(Phi, design, y)
    beta, S, rss = oracle.gls(design, y, oracle.covariance(h2, Phi))
    df = N - design.shape[1]
    se = np.sqrt(rss / df * np.diag(np.linalg.inv(S)))
    k = len(found)
    p = 2 * (stats.t.sf(np.abs(beta / se), df) if test == "t" else stats.norm.sf(np.abs(beta / se)))
    for name, figures in (("BETA", beta), ("SE", se), ("STAT", beta / se), ("P", p)):
        np.testing.assert_allclose([float(row[name]) for row in found], figures[-k:], rtol=2e-6)
    frequency = plink.frequency()
    assert [row["EAF"] for row in found] == [f"{frequency[int(row['ID'][1:])]:.10g}" for row in found]


@few_ranks
def test_traits_have_tables_of_their_own_and_a_cap_ends_the_search(comm, study, shared_tmp_path):
    out = shared_tmp_path / "o"
    options = usual(study, out, pheno_name=("a", "b"), joint_peak=W, p_threshold=P, joint_max=2, precision="mixed")
    results = mpgls.single_trait(**options, comm=comm)
    comm.Barrier()
    assert set(results.tables) == {"a", "b", "a.peaks", "b.peaks"}
    a, b = (read_rows(f"{out}.{trait}.peaks.tsv") for trait in "ab")
    assert len(a) == 2 and b[0]["ID"] == "s30" and 200 < float(b[0]["BETA"]) < 3000
    assert "the search ends at --joint-max 2: there may be more signals" in Path(f"{out}.log").read_text()


@few_ranks
def test_none_are_found_where_none_are(comm, study, shared_tmp_path):
    out = shared_tmp_path / "o"
    mpgls.single_trait(**usual(study, out, pheno_name="b", joint_peak=W, p_threshold=1e-30), comm=comm)
    comm.Barrier()
    assert read_rows(f"{out}.b.peaks.tsv") == []


@few_ranks
def test_a_stopped_search_goes_on_where_it_was(comm, study, shared_tmp_path, monkeypatch):
    expected = peaks(comm, study, shared_tmp_path / "whole")
    steps = []

    def stop_in_the_third(self, trait, found, scanned=True):
        if len(found) == 2:
            raise Stopped("stopped", 15)
        return step(self, trait, found, scanned)

    step = joint_peaks.JointPeaks._step
    monkeypatch.setattr(joint_peaks.JointPeaks, "_step", stop_in_the_third)
    with pytest.raises(Stopped):
        peaks(comm, study, shared_tmp_path / "o")
    monkeypatch.setattr(joint_peaks.JointPeaks, "_step", lambda *args: steps.append(len(args[2])) or step(*args))
    assert peaks(comm, study, shared_tmp_path / "o", resume=True) == expected
    assert steps == [2, 3]
    comm.Barrier()
    assert not list(shared_tmp_path.glob("*.progress"))


def test_equally_good_snps_are_taken_in_the_order_of_the_bim(comm):
    best = peak_step.Best(1e-3, np.array([4]))
    for row in range(comm.rank, 20, comm.size):
        best.add(np.array([row]), np.array([9.0 if row == 4 else 7.0 + 1e-9 * row if row >= 6 else np.nan]))
    found = best.of_all(comm)
    assert found.row == 6 and found.log10p == pytest.approx(7.0)
    assert peak_step.Best(1e-3, np.empty(0)).of_all(comm) is None


@few_ranks
@pytest.mark.parametrize(
    ("chosen", "text"),
    [
        ({"p_threshold": 0.1}, "--p-threshold belongs to --joint-peak"),
        ({"joint_max": 3}, "--joint-max belongs to --joint-peak"),
        ({"joint_peak": 5, "model": "genotypic"}, "--model genotypic gives them several"),
        ({"joint_peak": 5, "dry_run": True}, "--dry-run does not know how many scans"),
    ],
)
def test_what_does_not_go_with_it(comm, study, shared_tmp_path, chosen, text):
    with pytest.raises(UsageError, match=text):
        mpgls.single_trait(**usual(study, shared_tmp_path / "o", **chosen), comm=comm)
