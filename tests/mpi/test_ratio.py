"""single-trait --ratio snp: h2 by REML with each SNP in the model, and its tests, against a dense oracle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import oracle
import pytest
from ranks import few_ranks
from scipy import stats
from small_study import (
    SimulatedStudy,
    on_root,
    read_facts,
    read_plink,
    read_results,
    read_table,
    relabel_chromosomes,
    write_table,
)

import mpgls
from mpgls.engine import ratio_scan
from mpgls.errors import Stopped, UsageError

N, M = 97, 61
LABELS = ("1", "2", "7")
UPPER = 1.0 - 1e-6


@dataclass(frozen=True)
class Study(SimulatedStudy):
    """Simulated files with missing genotypes and a SNP that explains trait3, and a kinship with sums."""

    grm: str
    chromosomes: np.ndarray

    def Phi(self, without=None):
        X = self.plink.centred()[:, self.chromosomes != without]
        return oracle.scaled(X @ X.T)


@pytest.fixture(scope="module")
def study(module_comm, module_folder):
    comm, folder = module_comm, module_folder
    prefix, pheno = str(folder / "g"), str(folder / "traits.tsv")
    mpgls.simulate(samples=N, snps=M, traits=2, chromosomes=3, missing=0.04, seed=5, out=prefix, comm=comm)
    labels = np.repeat(LABELS, [20, 20, M - 40])

    def change():
        relabel_chromosomes(prefix, labels.tolist())
        plink = read_plink(prefix)
        traits = read_table(f"{prefix}.pheno.tsv")
        traits["trait2"] = 1e4 + 1e3 * traits["trait2"]
        lam, Z = np.linalg.eigh(oracle.scaled(plink.centred() @ plink.centred().T))
        noise = np.random.default_rng(4).standard_normal(N)
        traits |= {"complete": 2.0 - 3.0 * plink.centred()[:, 30], "low": Z @ noise, "high": Z @ (noise * lam**2)}
        write_table(pheno, plink.ids, traits)

    on_root(comm, change)
    mpgls.kinship(bfile=prefix, loco=True, out=folder / "K", threads=1, comm=comm)
    return Study(folder, prefix, pheno, f"{prefix}.covar.tsv", read_plink(prefix), str(folder / "K.h5"), labels)


def scan(comm, study, out, **options):
    prefix = study.folder / out
    files = {"bfile": study.bfile, "pheno": study.pheno, "pheno_name": "trait1", "grm": study.grm}
    chosen = {"ratio": "snp", "test": "all", "no_plots": True, **files, **options}
    mpgls.single_trait(out=prefix, threads=1, comm=comm, **chosen)
    comm.Barrier()
    return prefix


# -- the oracle: V is diagonal in the eigenbasis, every SNP is searched alone -------------------------------------


def fit(h2, lam, X, y):
    """beta and rss of GLS, X'V^-1X, log|V| and tr(V^-1 D), P y."""
    v = h2 * lam + 1.0 - h2
    S = X.T @ (X / v[:, None])
    beta = np.linalg.solve(S, X.T @ (y / v))
    Py = (y - X @ beta) / v
    return beta, y @ Py, S, v, Py


def likelihood(h2, lam, X, y, reml):
    n, p = X.shape
    _, rss, S, v, _ = fit(h2, lam, X, y)
    df = n - p if reml else n
    value = df * (np.log(2 * np.pi * rss / df) + 1.0) + np.log(v).sum()
    if reml:
        value += np.linalg.slogdet(S)[1] - np.linalg.slogdet(X.T @ X)[1]
    return -0.5 * value


def slope(h2, lam, X, y, reml):
    n, p = X.shape
    _, rss, S, v, Py = fit(h2, lam, X, y)
    trace = np.sum((lam - 1.0) / v)
    if reml:
        trace -= np.trace(np.linalg.solve(S, X.T @ (X * ((lam - 1.0) / v**2)[:, None])))
    return -0.5 * (trace - (n - p if reml else n) * np.sum((lam - 1.0) * Py * Py) / rss)


def optimum(lam, X, y, reml):
    """The best of 81 values, and bisection of the slope around it."""
    grid = np.linspace(0.0, UPPER, 81)
    k = int(np.argmax([likelihood(h2, lam, X, y, reml) for h2 in grid]))
    low, high = grid[max(k - 1, 0)], grid[min(k + 1, 80)]
    if slope(low, lam, X, y, reml) <= 0:
        return low
    if slope(high, lam, X, y, reml) > 0:
        return high
    while high - low > 1e-13:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if slope(middle, lam, X, y, reml) > 0 else (low, middle)
    return 0.5 * (low + high)


def expected(Phi, X_L, y, snps):
    """One column of figures a SNP."""
    lam, Z = np.linalg.eigh(Phi)
    lam = np.where(lam < 1e-9, 0.0, lam)
    X_L, y, snps = Z.T @ X_L, Z.T @ y, Z.T @ snps
    n, p = len(y), X_L.shape[1] + 1
    null = optimum(lam, X_L, y, reml=False)
    null_value = likelihood(null, lam, X_L, y, reml=False)
    found = []
    for x in snps.T:
        X = np.column_stack([X_L, x])
        h2, ml = optimum(lam, X, y, reml=True), optimum(lam, X, y, reml=False)
        beta, rss, S, _, _ = fit(h2, lam, X, y)
        se = np.sqrt(rss / (n - p) * np.linalg.inv(S)[-1, -1])
        gain = 2.0 * (likelihood(ml, lam, X, y, reml=False) - null_value)
        _, rss_null, _, v, Py = fit(null, lam, X_L, y)
        D = x - X_L @ np.linalg.solve(X_L.T @ (X_L / v[:, None]), X_L.T @ (x / v))
        score = n * (x @ Py) ** 2 / (rss_null * (D @ (D / v)))
        found.append({
            "H2": h2, "BETA": beta[-1], "SE": se, "STAT": beta[-1] / se,
            "P": 2.0 * stats.t.sf(abs(beta[-1] / se), n - p),
            "LOGL": likelihood(h2, lam, X, y, reml=True), "P_LRT": stats.chi2.sf(max(gain, 0.0), 1),
            "P_SCORE": stats.f.sf(score, 1, n - p),
        })  # fmt: skip
    return {name: np.array([one[name] for one in found]) for name in found[0]}


def assert_ratios(results, mine, figures):
    """Those of ``mine`` SNPs that vary: h2 within 1e-7, p and the rest within 1e-8."""
    for name, right in figures.items():
        found = results[name][mine]
        if name == "H2":
            np.testing.assert_allclose(found, right, atol=1e-7, err_msg=name)
        else:
            atol = {"BETA": 1e-9 * np.abs(right).max(), "STAT": 1e-9 * np.abs(right).max(), "LOGL": 1e-8}.get(name, 0.0)
            np.testing.assert_allclose(found, right, rtol=1e-8, atol=atol, err_msg=name)


# -- figures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("covariates", [False, True])
@pytest.mark.parametrize("trait", ["trait1", "trait2", "low", "high"])
def test_every_snp_has_the_optimum_of_its_own(comm, study, covariates, trait):
    out = scan(comm, study, "o", pheno_name=trait, covar=study.covar if covariates else None)
    if comm.rank == 0:
        snps = study.plink.centred()
        varies = snps.any(axis=0)
        results = read_results(out, trait)
        np.testing.assert_array_equal(results["NOTE"], np.where(varies, ".", "monomorphic"))
        assert np.isnan(results["H2"][~varies]).all() and np.isnan(results["P_LRT"][~varies]).all()
        some = np.flatnonzero(varies)[::3]
        figures = expected(study.Phi(), study.design(covariates), study.trait(trait), snps[:, some])
        assert_ratios(results, some, figures)
        ends = {"low": 0.0, "high": UPPER}
        assert trait not in ends or np.mean(figures["H2"] == ends[trait]) > 0.5


@pytest.mark.parametrize("form", ["grm", "eigen"])
def test_each_chromosome_is_scanned_without_itself_or_from_an_eigendecomposition(comm, study, form):
    if form == "eigen":
        mpgls.eigen(grm=study.grm, out=study.folder / "E", threads=1, comm=comm)
        out = scan(comm, study, "e", grm=None, eigen=str(study.folder / "E.h5"), block_size=7)
    else:
        out = scan(comm, study, "l", loco=True, block_size=7)
    if comm.rank == 0:
        results, snps = read_results(out, "trait1"), study.plink.centred()
        varies = snps.any(axis=0)
        for label in LABELS if form == "grm" else (None,):
            mine = np.flatnonzero(varies & ((study.chromosomes == label) | (label is None)))[::3]
            assert_ratios(results, mine, expected(study.Phi(label), study.design(False), study.trait(), snps[:, mine]))


@pytest.mark.parametrize("precision", ["double", "mixed"])
def test_teams_blocks_and_precision_do_not_matter(comm, study, precision):
    together = {"team_size": comm.size, "block_size": 5, "covar": study.covar, "precision": precision}
    one = read_results(scan(comm, study, "one", covar=study.covar), "trait1")
    other = read_results(scan(comm, study, "other", **together), "trait1")
    tolerance = 1e-9 if precision == "double" else 1e-3
    for name in ("H2", "BETA", "SE", "LOG10P", "LOGL", "LOG10P_LRT", "LOG10P_SCORE"):
        scale = np.nanmax(np.abs(one[name]))
        np.testing.assert_allclose(other[name], one[name], rtol=tolerance, atol=tolerance * scale, err_msg=name)
    if precision == "mixed":
        assert 0 < read_facts(study.folder / "other", "trait1")["mixed_check_beta"] < 1e-3


@few_ranks
def test_a_snp_that_explains_the_trait(comm, study):
    results = read_results(scan(comm, study, "complete", pheno_name="complete"), "complete")
    assert results["BETA"][30] == pytest.approx(-3.0) and results["SE"][30] == 0.0
    assert np.isinf([results[name][30] for name in ("LOG10P", "LOG10P_LRT", "LOGL")]).all()
    assert np.isnan(results["H2"][30]) and np.isfinite(results["H2"][:20]).all()
    if comm.rank == 0:
        some = np.arange(M) < 5
        figures = expected(study.Phi(), study.design(False), study.trait("complete"), study.plink.centred()[:, some])
        assert_ratios(results, some, figures)


@few_ranks
def test_a_kinship_that_cannot_tell(comm, study):
    from small_study import write_kinship

    identity = str(study.folder / "I.h5")
    on_root(comm, lambda: write_kinship(identity, study.plink.ids, 2.0 * np.eye(N)))
    results = read_results(scan(comm, study, "flat", grm=identity), "trait1")
    assert np.isnan(results["H2"]).all()
    if comm.rank == 0:
        x, y = study.plink.centred()[:, 3], study.trait()
        assert results["P"][3] == pytest.approx(stats.linregress(x, y).pvalue, rel=1e-9)


@few_ranks
def test_only_the_tests_that_are_asked_for_have_columns(comm, study):
    whole = read_results(scan(comm, study, "o"), "trait1")
    for test, further in (("t", []), ("lrt", ["LOG10P_LRT", "P_LRT"]), ("score", ["LOG10P_SCORE", "P_SCORE"])):
        out = scan(comm, study, f"only_{test}", test=test)
        found = read_results(out, "trait1")
        assert list(found)[12:] == ["H2", "LOGL", *further, "NOTE"]
        for name in found:
            np.testing.assert_array_equal(found[name], whole[name], err_msg=name)
        mpgls.export(store=f"{out}.h5", out=study.folder / f"export_{test}", comm=comm)
        if comm.rank == 0:
            tables = [study.folder / f"{name}.tsv" for name in (f"only_{test}.trait1", f"export_{test}")]
            assert tables[0].read_bytes() == tables[1].read_bytes()
        comm.Barrier()


def test_a_resumed_run_gives_the_same_bytes(comm, study, monkeypatch):
    options = {"block_size": 4, "loco": True}
    whole = scan(comm, study, "whole", **options)
    kept = ratio_scan.RatioSnps.fit
    calls = []

    def stop_soon(self, stats, products):
        calls.append(1)
        if len(calls) == 2:
            self.world.stop.ask()
        return kept(self, stats, products)

    monkeypatch.setattr(ratio_scan.RatioSnps, "fit", stop_soon)
    with pytest.raises(Stopped):
        scan(comm, study, "stopped", **options)
    monkeypatch.undo()
    resumed = scan(comm, study, "stopped", resume=True, **options)
    if comm.rank == 0:
        assert (study.folder / "whole.trait1.tsv").read_bytes() == (study.folder / "stopped.trait1.tsv").read_bytes()
        assert whole != resumed


@few_ranks
@pytest.mark.parametrize(
    "options", [{"ratio": "null", "test": "lrt"}, {"test": "wald"}, {"test": "t", "h2": 0.4}, {"ratio": "none"}]
)
def test_options_that_contradict_each_other(comm, study, options):
    with pytest.raises(UsageError):
        scan(comm, study, "never", **options)
