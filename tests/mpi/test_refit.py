"""multi-trait --ratio snp: pairs beyond --refit-p are those of single-trait --ratio snp, the others as they were."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from ranks import few_ranks
from small_study import (
    SimulatedStudy,
    on_root,
    read_columns,
    read_plink,
    read_results,
    read_rows,
    read_table,
    write_table,
)

import mpgls
from mpgls.engine import held_basis
from mpgls.errors import Stopped, UsageError

N, M = 71, 41
TRAITS = ("trait1", "trait2", "high", "complete")
FIGURES = ("EAF", "N", "BETA", "SE", "STAT", "LOG10P", "H2", "LOGL", "LOG10P_LRT", "P_LRT", "LOG10P_SCORE", "P_SCORE")


@pytest.fixture(scope="module")
def study(module_comm, module_folder):
    """Missing genotypes; traits of three groups of samples, one with h2 at the upper end, one that a SNP explains."""
    comm, folder = module_comm, module_folder
    prefix, pheno = str(folder / "g"), str(folder / "traits.tsv")
    mpgls.simulate(samples=N, snps=M, traits=2, chromosomes=2, missing=0.04, seed=5, out=prefix, comm=comm)

    def change():
        plink = read_plink(prefix)
        traits, X = read_table(f"{prefix}.pheno.tsv"), plink.centred()
        lam, Z = np.linalg.eigh(X @ X.T / M)
        noise = np.random.default_rng(4).standard_normal(N)
        traits |= {"high": Z @ (noise * lam**2), "complete": 2.0 - 3.0 * X[:, 30]}
        traits["trait2"] = 1e4 + 1e3 * traits["trait2"] + 700.0 * X[:, 11]
        traits["trait1"][[3, 40, 41]] = np.nan
        traits["trait2"][[3, 40, 66]] = np.nan
        write_table(pheno, plink.ids, traits)

    on_root(comm, change)
    mpgls.kinship(bfile=prefix, loco=True, out=folder / "K", threads=1, comm=comm)
    return SimulatedStudy(folder, prefix, pheno, f"{prefix}.covar.tsv", read_plink(prefix))


def scan(comm, study, out, command=mpgls.multi_trait, **options):
    files = {"bfile": study.bfile, "pheno": study.pheno, "covar": study.covar, "grm": str(study.folder / "K.h5")}
    chosen = {"ratio": "snp", "test": "all", "loco": True, "no_plots": True, "threads": 1, **files, **options}
    command(out=study.folder / out, comm=comm, **chosen)
    comm.Barrier()
    return study.folder / out


@pytest.fixture(scope="module")
def alone(module_comm, study):
    """The tables of single-trait (rank 0)."""
    out = scan(module_comm, study, "alone", mpgls.single_trait)
    return {trait: read_results(out, trait) for trait in TRAITS} if module_comm.rank == 0 else None


def read_hits(prefix):
    """``prefix.hits.tsv``: trait -> column -> array, NaN for NA."""
    columns = read_columns(f"{prefix}.hits.tsv")
    trait = np.array(columns.pop("TRAIT"))
    values = {name: np.array(column) for name, column in columns.items()}
    for name in set(FIGURES) & set(values):
        values[name] = np.where(values[name] == "NA", "nan", values[name]).astype(float)
    return {one: {name: column[trait == one] for name, column in values.items()} for one in TRAITS}


def finite(values):
    return values[np.isfinite(values)]


def assert_hits_are_single_traits(prefix, alone, p):
    """Every hit, and no other SNP, has p at most ``p`` by its own ratio, with the figures of single-trait."""
    hits = read_hits(prefix)
    for trait, right in alone.items():
        mine = np.flatnonzero((right["NOTE"] == ".") & (right["LOG10P"] >= -np.log10(p)))
        np.testing.assert_array_equal(hits[trait]["ID"], right["ID"][mine], err_msg=trait)
        for name in FIGURES:
            found, wanted = hits[trait][name], right[name][mine]
            # beside a log-likelihood, rounding hides a gain below 1e-13, whose root is the test's statistic
            atol = {"H2": 1e-9, "LOG10P_LRT": 1e-6, "P_LRT": 1e-6}.get(
                name, 1e-9 * np.abs(finite(wanted)).max(initial=0.0)
            )
            np.testing.assert_allclose(found, wanted, rtol=1e-8, atol=atol, err_msg=f"{trait} {name}")


def test_every_pair_is_that_of_single_trait(comm, study, alone):
    """All of them are fitted anew; teams of all sizes, on both forms of the operator, in several passes."""
    for size in range(1, comm.size + 1):
        held = {"team_size": size, "solver": "grid" if size == 2 else "inverse", "block_size": 7}
        out = scan(comm, study, "all", p_threshold=1.0, refit_p=1.0, trait_block=1, pass_traits=1, **held)
        if comm.rank == 0:
            assert_hits_are_single_traits(out, alone, 1.0)
        comm.Barrier()


@few_ranks
def test_hits_are_decided_by_the_ratio_of_their_own(comm, study, alone):
    """Among pairs that the null model's ratio puts on the other side of the threshold too; all files say the same."""
    p, refit_p, crossing = 0.02, 0.2, 0
    of_null = scan(comm, study, "null", ratio="null", test="t", p_threshold=1.0, dense=True)
    out = scan(comm, study, "some", p_threshold=p, refit_p=refit_p, dense=True, block_size=9)
    if comm.rank == 0:
        assert_hits_are_single_traits(out, alone, p)
        rows = {row["TRAIT"]: row for row in read_rows(f"{out}.traits.tsv")}
        before, dense, found = read_dense(of_null), read_dense(out), read_hits(of_null)
        for trait, own in alone.items():
            tested = own["NOTE"] == "."
            null_log10p = np.full(M, np.nan)
            null_log10p[tested] = found[trait]["LOG10P"]
            anew = tested & (null_log10p >= -np.log10(refit_p))
            log10p = np.where(anew, own["LOG10P"], null_log10p)
            crossing += np.count_nonzero((log10p >= -np.log10(p)) != (null_log10p >= -np.log10(p)))
            for name, otherwise in (("BETA", before[trait]["beta"]), ("SE", before[trait]["se"]), ("H2", np.nan)):
                wanted = np.where(anew, own[name], otherwise)
                atol = 1e-6 * np.nanmax(np.abs(wanted))
                np.testing.assert_allclose(dense[trait][name.lower()], wanted, rtol=1e-6, atol=atol, err_msg=trait)
            assert rows[trait]["BEST_SNP"] == own["ID"][np.nanargmax(log10p)]
            assert float(rows[trait]["LOG10P_MAX"]) == pytest.approx(np.nanmax(log10p), rel=1e-8)
            np.testing.assert_array_equal(read_histogram(out, trait), counts_of(out, trait, log10p[tested]))
        assert crossing > 0
        mpgls.export(store=f"{out}.h5", trait=("trait2",), out=study.folder / "exported")
        exported = read_columns(study.folder / "exported.tsv")["H2"]
        np.testing.assert_array_equal(np.array(exported) == "NA", np.isnan(dense["trait2"]["h2"]))
    comm.Barrier()


def read_dense(prefix):
    """``prefix.h5``: trait -> tile -> values over all SNPs."""
    with h5py.File(f"{prefix}.h5") as file:
        assert file["sums"][...].all()
        sizes = np.diff(file["edges"][...])
        names, tiles = file["names"].asstr()[...], [name for name in ("beta", "se", "h2") if name in file]
        of_blocks = {name: file[name][...] for name in tiles}
    return {
        trait: {
            name: np.concatenate([of[b, k, :size] for b, size in enumerate(sizes)]) for name, of in of_blocks.items()
        }
        for k, trait in enumerate(names)
    }


def read_histogram(prefix, trait):
    with h5py.File(f"{prefix}.histograms.h5") as file:
        for group in file.values():
            names = group["traits"].asstr()[...].tolist()
            if trait in names:
                return group["counts"][names.index(trait)]
    raise AssertionError(trait)


def counts_of(prefix, trait, log10p):
    """How many of the tests lie between the edges of the histogram's bins, which are in the file as -log10 p."""
    with h5py.File(f"{prefix}.histograms.h5") as file:
        for group in file.values():
            if trait in group["traits"].asstr()[...].tolist():
                return np.histogram(log10p, group["edges"][...])[0]
    raise AssertionError(trait)


@few_ranks
def test_a_resumed_run_fits_anew_what_is_left(comm, study, alone, monkeypatch):
    options = {"trait_block": 2, "pass_traits": 2, "block_size": 16, "p_threshold": 0.1, "refit_p": 0.9}
    kept, calls = held_basis.model_of_panel, []

    def stop_soon(design, panel, test, world):
        calls.append(1)
        if len(calls) == 3:
            world.stop.ask()
        return kept(design, panel, test, world)

    monkeypatch.setattr(held_basis, "model_of_panel", stop_soon)
    with pytest.raises(Stopped):
        scan(comm, study, "stopped", **options)
    monkeypatch.undo()
    out = scan(comm, study, "stopped", resume=True, **options)
    if comm.rank == 0:
        assert "2 pass(es) are done" in (study.folder / "stopped.log").read_text()
        assert_hits_are_single_traits(out, alone, 0.1)
    comm.Barrier()


@few_ranks
def test_mixed_precision_is_close_and_tests_have_columns_where_asked_for(comm, study, alone):
    out = scan(comm, study, "mixed", precision="mixed", test="score", p_threshold=0.05, refit_p=0.3)
    if comm.rank == 0:
        assert list(read_columns(f"{out}.hits.tsv"))[13:] == ["H2", "LOGL", "LOG10P_SCORE", "P_SCORE"]
        right = alone["trait1"]
        hits = read_columns(f"{out}.hits.tsv")
        for k in (k for k, trait in enumerate(hits["TRAIT"]) if trait == "trait1"):
            at = right["ID"].tolist().index(hits["ID"][k])
            for name in ("BETA", "SE", "H2", "LOGL", "LOG10P_SCORE"):
                assert float(hits[name][k]) == pytest.approx(right[name][at], rel=1e-3)
    comm.Barrier()


@few_ranks
@pytest.mark.parametrize(
    "options, message",
    [
        ({"p_threshold": 0.01}, "below --p-threshold"),
        ({"ratio": "null", "test": "t", "refit_p": 0.1}, "needs --ratio snp"),
        ({"test": "wald"}, "wald"),
        ({"h2": 0.4}, "--h2"),
        ({"refit_p": 0.0}, "--refit-p"),
    ],
)
def test_options_that_contradict_each_other(comm, study, options, message):
    with pytest.raises(UsageError, match=message):
        scan(comm, study, "never", **options)
