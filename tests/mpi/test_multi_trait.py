"""``mpgls multi-trait`` against the dense oracle and ``mpgls single-trait``, on any number of ranks."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import oracle
import pytest
from mice import needs_mice, unpack_mice, write_snps_of_gemma
from mpi4py import MPI
from ranks import few_ranks, two_ranks
from scipy import stats
from small_study import (
    SimulatedStudy,
    on_root,
    read_columns,
    read_facts,
    read_plink,
    read_results,
    read_rows,
    read_table,
    write_kinship,
    write_lines,
    write_table,
)

import mpgls
from mpgls.errors import InputError, MemoryPlanError, UsageError

N, M, T = 127, 89, 5
H2 = (0.0, 0.37, 0.5, 0.52, 0.93)
TRAITS = tuple(f"trait{k + 1}" for k in range(T))
EFFECTS = ("BETA", "SE", "STAT")


@dataclass(frozen=True)
class Study(SimulatedStudy):
    """Simulated files with missing genotypes; a kinship in another order, with a sample that has no genotypes."""

    grm: str
    h2_file: str
    Phi: np.ndarray


@pytest.fixture(scope="module")
def study(module_comm, module_folder):
    folder, prefix = module_folder, str(module_folder / "g")
    mpgls.simulate(samples=N, snps=M, traits=T, chromosomes=3, missing=0.04, seed=3, out=prefix, comm=module_comm)
    plink = read_plink(prefix)
    X = plink.centred()
    Phi = X @ X.T / M + 0.01 * np.eye(N)
    grm, h2_file = str(folder / "K.h5"), folder / "h2.tsv"

    def write():
        order = np.random.default_rng(4).permutation(N)
        K = np.eye(N + 1)
        K[:N, :N] = Phi[np.ix_(order, order)]
        write_kinship(grm, [plink.ids[k] for k in order] + [("X", "x")], K)
        write_lines(h2_file, ["TRAIT\tH2", *(f"{name}\t{h2!r}" for name, h2 in zip(TRAITS, H2, strict=True))])

    on_root(module_comm, write)
    return Study(folder, prefix, f"{prefix}.pheno.tsv", f"{prefix}.covar.tsv", plink, grm, str(h2_file), Phi)


@pytest.fixture(scope="module")
def expected(study):
    """BETA, SE and STAT of every trait and SNP at H2, with covariates, by the oracle (rank 0)."""
    if MPI.COMM_WORLD.rank > 0:
        return None
    Phi, Y = oracle.scaled(study.Phi), read_table(study.pheno)
    return {
        name: dict(zip(EFFECTS, oracle.scan(h2, Phi, study.design(), Y[name], study.plink.centred())[:3], strict=True))
        for name, h2 in zip(TRAITS, H2, strict=True)
    }


def files_of(study, options):
    """The study's files, as far as the options do not name others."""
    return {"bfile": study.bfile, "pheno": study.pheno} | ({} if options.get("eigen") else {"grm": study.grm})


def scan(comm, study, out="o", **options):
    """Run multi-trait, every test a hit unless told otherwise. Returns the prefix of its outputs."""
    usual = {"p_threshold": 1.0, "no_plots": True, "threads": 1, "out": study.folder / out}
    mpgls.multi_trait(comm=comm, **usual | files_of(study, options) | options)
    comm.Barrier()
    return study.folder / out


def alone(comm, study, trait, h2, **options):
    """The table of single-trait (rank 0; None elsewhere)."""
    usual = {"pheno_name": trait, "h2": h2, "no_plots": True, "threads": 1, "out": study.folder / "alone"}
    mpgls.single_trait(comm=comm, **usual | files_of(study, options) | options)
    comm.Barrier()
    results = read_results(study.folder / "alone", trait) if comm.rank == 0 else None
    comm.Barrier()
    return results


def read_traits(prefix):
    """``prefix.traits.tsv``: trait -> column -> text."""
    return {row["TRAIT"]: row for row in read_rows(f"{prefix}.traits.tsv")}


def read_hits(prefix):
    """``prefix.hits.tsv``: trait -> column -> array in the order of the .bim."""
    text = ("TRAIT", "CHR", "ID", "EA", "NEA")
    columns = {
        name: np.array(values, dtype=None if name in text else float)
        for name, values in read_columns(f"{prefix}.hits.tsv").items()
    }
    return {
        trait: {name: values[columns["TRAIT"] == trait] for name, values in columns.items()}
        for trait in dict.fromkeys(columns["TRAIT"].tolist())
    }


def read_dense(prefix):
    """``prefix.h5``: trait -> (BETA, SE) over all SNPs, and whether all tiles are marked."""
    with h5py.File(f"{prefix}.h5") as file:
        m, names = file["index"].shape[0], file["names"].asstr()[...]
        assert file["sums"][...].all()
        beta, se = (np.concatenate(list(file[name][...]), axis=1)[:, :m] for name in ("beta", "se"))
        return {name: (beta[k], se[k]) for k, name in enumerate(names)}


def assert_same(found, wanted, rtol=1e-9, names=EFFECTS):
    """Equal columns, relative to the largest value of each."""
    for name in names:
        atol = rtol * np.nanmax(np.abs(wanted[name]))
        np.testing.assert_allclose(found[name], wanted[name], rtol=rtol, atol=atol, err_msg=name)


def assert_scan(prefix, expected, rtol=1e-9):
    hits = read_hits(prefix)
    for trait, wanted in expected.items():
        assert_same(hits[trait], wanted, rtol)


# -- the same as one trait at a time ------------------------------------------------------------------------------


@pytest.mark.parametrize("test", ["t", "wald"])
@pytest.mark.parametrize("covariates", [False, True])
def test_every_trait_is_its_single_trait_scan(comm, study, test, covariates):
    names, covar = ("trait2", "trait5", "trait1"), study.covar if covariates else None
    out = scan(comm, study, pheno_name=names, covar=covar, test=test, dense=True, block_size=11)
    rows = comm.bcast(read_traits(out) if comm.rank == 0 else None, root=0)
    for name in names:
        single = alone(comm, study, name, float(rows[name]["H2"]), covar=covar, test=test)
        if comm.rank == 0:
            hits = read_hits(out)[name]
            np.testing.assert_array_equal(hits["ID"], single["ID"])
            np.testing.assert_array_equal(hits["N"], single["N"])
            np.testing.assert_allclose(hits["EAF"], single["EAF"], rtol=1e-9)
            assert_same(hits, single, names=(*EFFECTS, "LOG10P"))
            beta, se = read_dense(out)[name]
            assert_same({"BETA": beta, "SE": se}, single, rtol=1e-7, names=("BETA", "SE"))


def test_heritabilities_are_the_oracles(comm, study):
    out = scan(comm, study, covar=study.covar)
    if comm.rank == 0:
        Phi, X_L, rows = oracle.scaled(study.Phi), study.design(), read_traits(out)
        for name, y in read_table(study.pheno).items():
            h2 = float(rows[name]["H2"])
            assert h2 == pytest.approx(oracle.sharp_h2(Phi, X_L, y), abs=1e-7)
            assert float(rows[name]["H2_SE"]) == pytest.approx(oracle.h2_se(h2, Phi, X_L, y), rel=1e-8)
            _, _, rss = oracle.gls(X_L, y, oracle.covariance(h2, Phi))
            assert float(rows[name]["S2"]) == pytest.approx(rss / (N - X_L.shape[1]), rel=1e-9)
            assert rows[name]["N"] == str(N) and rows[name]["TESTED"] == str(M)


@few_ranks
def test_principal_components_are_covariates(comm, study):
    out = scan(comm, study, pcs=3, h2=0.4, covar=study.covar)
    if comm.rank == 0:
        Phi = oracle.scaled(study.Phi)
        X_L = np.column_stack([study.design(), np.linalg.eigh(Phi)[1][:, -3:]])
        for name in TRAITS[::3]:
            y = read_table(study.pheno)[name]
            wanted = oracle.scan(0.4, Phi, X_L, y, study.plink.centred())
            assert_same(read_hits(out)[name], dict(zip(EFFECTS, wanted[:3], strict=True)))


@few_ranks
def test_filters_and_untestable_snps(comm, study):
    """Filtered SNPs are in no result; the dense store keeps their places."""
    out = scan(comm, study, covar=study.covar, h2_file=study.h2_file, chr="1,3", maf=0.2, dense=True, block_size=7)
    if comm.rank == 0:
        frequency, of_chromosome = study.plink.frequency(), np.isin(study.plink.chromosomes, ["1", "3"])
        passing = of_chromosome & (np.minimum(frequency, 1 - frequency) >= 0.2)
        assert 5 < passing.sum() < of_chromosome.sum()
        np.testing.assert_array_equal(read_hits(out)["trait3"]["ID"], study.plink.snps[passing])
        assert read_traits(out)["trait3"]["TESTED"] == str(passing.sum())
        np.testing.assert_array_equal(np.isnan(read_dense(out)["trait3"][0]), ~passing[of_chromosome])


# -- the same on every machine ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "solver, block_size, trait_block, pass_traits",
    [("scalapack", 7, None, None), ("slepc", 1000, 2, 2), ("scalapack", 64, 3, 3), ("scalapack", 16, 1, 4)],
)
def test_ranks_teams_solvers_and_passes_do_not_matter(
    comm, study, expected, solver, block_size, trait_block, pass_traits
):
    if solver == "slepc":
        pytest.importorskip("slepc4py")
    sizes = {"block_size": block_size, "trait_block": trait_block, "pass_traits": pass_traits}
    for size in range(1, comm.size + 1):
        teams = {"team_size": size, "solver": "grid" if trait_block is None else "inverse"}
        options = {**teams, "eigensolver": solver, "dense": True, **sizes}
        out = scan(comm, study, covar=study.covar, h2_file=study.h2_file, **options)
        assert not list(study.folder.glob("*scratch*"))
        if comm.rank == 0:
            plan = read_facts(out)["plan"]
            assert (plan["team_size"], plan["solver"]) == (size, teams["solver"] if size > 1 else "local")
            assert plan["resident"] <= (pass_traits or T)
            assert ("passes over the rotated SNPs" in Path(f"{out}.log").read_text()) == (pass_traits is not None)
            assert_scan(out, expected)
            for name, (beta, se) in read_dense(out).items():
                assert_same({"BETA": beta, "SE": se}, expected[name], rtol=1e-7, names=("BETA", "SE"))
        comm.Barrier()


@pytest.mark.parametrize("pass_traits", [None, 2])
def test_mixed_precision_is_close_to_double(comm, study, expected, pass_traits):
    for size in range(1, comm.size + 1):
        options = {"precision": "mixed", "team_size": size, "pass_traits": pass_traits}
        out = scan(comm, study, covar=study.covar, h2_file=study.h2_file, **options)
        if comm.rank == 0:
            assert_scan(out, expected, rtol=1e-4)
            assert (read_hits(out)["trait2"]["BETA"] != expected["trait2"]["BETA"]).any()
        comm.Barrier()


def test_scratch_files_go_where_told_and_are_removed(comm, study, shared_tmp_path):
    scan(comm, study, h2=0.3, pass_traits=1, scratch=str(shared_tmp_path))
    assert not list(shared_tmp_path.iterdir())
    with pytest.raises(Exception, match="cannot write"):
        scan(comm, study, h2=0.3, pass_traits=1, scratch=str(shared_tmp_path / "nowhere"))


@few_ranks
def test_too_little_memory_is_refused_before_work_starts(comm, study):
    with pytest.raises(MemoryPlanError, match="--memory"):
        scan(comm, study, memory=1e-3)
    assert not Path(f"{study.folder / 'o'}.traits.tsv").exists()


# -- samples, missing traits, and traits without an answer --------------------------------------------------------


def gapped(study):
    """trait1 and trait4 miss the same samples, trait2 others, trait3 and trait5 none."""
    columns = read_table(study.pheno)
    for name in ("trait1", "trait4"):
        columns[name][10:31] = np.nan
    columns["trait2"][[0, 11, 77, N - 1]] = np.nan
    return columns


def test_traits_with_gaps_are_analysed_over_their_own_samples(comm, study, shared_tmp_path):
    columns, pheno = gapped(study), str(shared_tmp_path / "gaps.tsv")
    on_root(comm, lambda: write_table(pheno, study.plink.ids, columns))
    out = scan(comm, study, "gaps", pheno=pheno, covar=study.covar, dense=True, block_size=9, trait_block=1)
    log = comm.bcast(Path(f"{out}.log").read_text() if comm.rank == 0 else "", root=0)
    for text in ("group 1: 2 traits over 106", "group 2: 1 trait over 123", "group 3: 2 traits over 127"):
        assert text in log
    for names in (("trait1", "trait4"), ("trait2",)):
        present = np.flatnonzero(np.isfinite(columns[names[0]]))
        keep = str(shared_tmp_path / f"keep.{names[0]}")
        on_root(comm, lambda present=present, keep=keep: write_lines(keep, [study.plink.ids[k] for k in present]))
        subset = scan(comm, study, "subset", pheno_name=names, covar=study.covar, keep=keep)
        if comm.rank == 0:
            of_all, of_subset, dense = read_traits(out), read_traits(subset), read_dense(out)
            for name in names:
                for column in ("N", "TESTED", "BEST_SNP", "HITS", "FLAGS"):
                    assert of_all[name][column] == of_subset[name][column]
                assert float(of_all[name]["H2"]) == pytest.approx(float(of_subset[name]["H2"]), abs=1e-8)
                single = read_hits(subset)[name]
                assert_same(read_hits(out)[name], single, rtol=1e-7)  # h2 is known to 1e-8 only
                assert_same(dict(zip(EFFECTS, dense[name], strict=False)), single, rtol=2e-7, names=("BETA", "SE"))
        comm.Barrier()


def test_a_group_of_all_samples_leaves_the_kinship_to_the_next(comm, study, shared_tmp_path):
    """The eigensolver destroys the matrix it is given, and the first group's is the whole kinship."""
    columns, pheno = gapped(study), str(shared_tmp_path / "whole.tsv")
    on_root(comm, lambda: write_table(pheno, study.plink.ids, columns))
    both = scan(comm, study, "both", pheno=pheno, pheno_name=("trait3", "trait1"))
    second = scan(comm, study, "second", pheno=pheno, pheno_name=("trait1",))
    if comm.rank == 0:
        assert_same(read_hits(both)["trait1"], read_hits(second)["trait1"], rtol=1e-7)
    comm.Barrier()


@few_ranks
def test_complete_takes_the_samples_with_every_trait(comm, study, shared_tmp_path):
    columns, pheno = gapped(study), str(shared_tmp_path / "gaps.tsv")
    on_root(comm, lambda: write_table(pheno, study.plink.ids, columns))
    out = scan(comm, study, pheno=pheno, covar=study.covar, h2=0.4, missing="complete")
    if comm.rank == 0:
        used = np.all([np.isfinite(values) for values in columns.values()], axis=0)
        Phi, X_L = oracle.scaled(study.Phi[np.ix_(used, used)]), study.design()[used]
        for name in ("trait2", "trait5"):
            wanted = oracle.scan(0.4, Phi, X_L, columns[name][used], study.plink.centred(used))
            assert_same(read_hits(out)[name], dict(zip(EFFECTS, wanted[:3], strict=True)))
            assert read_traits(out)[name]["N"] == str(used.sum())


@few_ranks
def test_impute_fills_gaps_and_says_so(comm, study, shared_tmp_path):
    columns, pheno = gapped(study), str(shared_tmp_path / "gaps.tsv")
    on_root(comm, lambda: write_table(pheno, study.plink.ids, columns))
    out = scan(comm, study, pheno=pheno, covar=study.covar, h2=0.4, missing="impute", pass_traits=2)
    if comm.rank == 0:
        flags = {name: row["FLAGS"] for name, row in read_traits(out).items()}
        assert {name for name, text in flags.items() if "imputed" in text} == {"trait1", "trait2", "trait4"}
        X_L, Phi = study.design(), oracle.scaled(study.Phi)
        for name in ("trait1", "trait2", "trait3"):
            y = columns[name].copy()
            there = np.isfinite(y)
            y[~there] = X_L[~there] @ np.linalg.lstsq(X_L[there], y[there], rcond=None)[0]
            wanted = oracle.scan(0.4, Phi, X_L, y, study.plink.centred())
            assert_same(read_hits(out)[name], dict(zip(EFFECTS, wanted[:3], strict=True)))


def strange_traits(study):
    """Traits without an answer, or with one at the end of the range of h2, among the ordinary ones."""
    rng = np.random.default_rng(8)
    lam, Z = np.linalg.eigh(oracle.scaled(study.Phi))
    Y, X_L = read_table(study.pheno), study.design()
    few = np.full(N, np.nan)
    few[:3] = (1, 2, 4)
    return {
        "constant": np.full(N, 3.5),
        "trait1": Y["trait1"],
        "absent": np.full(N, np.nan),
        "explained": 2.0 - 3.0 * X_L[:, 1] + 0.7 * X_L[:, -1],
        "few": few,
        "none": Z @ (rng.standard_normal(N) / np.sqrt(0.2 + lam)),
        "all": Z @ (rng.standard_normal(N) * lam**1.5),
        "trait2": Y["trait2"],
    }


@few_ranks
@pytest.mark.parametrize("trait_block", [None, 2])
def test_a_trait_without_an_answer_has_a_flagged_row_and_the_others_go_on(comm, study, shared_tmp_path, trait_block):
    pheno = str(shared_tmp_path / "strange.tsv")
    on_root(comm, lambda: write_table(pheno, study.plink.ids, strange_traits(study)))
    options = {"covar": study.covar, "dense": True, "trait_block": trait_block, "p_threshold": 1.0}
    out = scan(comm, study, pheno=pheno, **options)
    ordinary = scan(comm, study, "ordinary", pheno_name=("trait1", "trait2"), **options)
    if comm.rank == 0:
        rows, hits, dense, usual = read_traits(out), read_hits(out), read_dense(out), read_hits(ordinary)
        assert {name: row["FLAGS"] for name, row in rows.items()} == {
            "constant": "constant",
            "absent": "all missing",
            "explained": "collinear with covariates",
            "few": "too few samples",
            "none": "h2 at boundary",
            "all": "h2 at boundary",
            "trait1": "NA",
            "trait2": "NA",
        }
        for name in ("constant", "absent", "explained", "few"):
            row = rows[name]
            assert (row["TESTED"], row["HITS"]) == ("0", "0") and name not in hits
            for column in ("H2", "H2_SE", "S2", "LAMBDA_GC", "MIN_P", "LOG10P_MAX", "BEST_SNP"):
                assert row[column] == "NA", (name, column)
        assert np.isnan(dense["explained"]).all()
        assert float(rows["none"]["H2"]) == 0.0 and float(rows["all"]["H2"]) == pytest.approx(1 - 1e-6, abs=1e-9)
        for name in ("none", "all"):
            assert np.isfinite(dense[name]).all() and len(hits[name]["BETA"]) == M
        for name in ("trait1", "trait2"):
            assert_same(hits[name], usual[name], rtol=1e-7)  # h2 is known to 1e-8 only


@few_ranks
def test_no_trait_at_all_can_be_analysed(comm, study, shared_tmp_path):
    pheno = str(shared_tmp_path / "hopeless.tsv")
    columns = {name: y for name, y in strange_traits(study).items() if name in ("constant", "absent")}
    on_root(comm, lambda: write_table(pheno, study.plink.ids, columns))
    out = scan(comm, study, pheno=pheno, dense=True)
    if comm.rank == 0:
        assert [row["FLAGS"] for row in read_traits(out).values()] == ["constant", "all missing"]


@few_ranks
def test_estimates_can_be_given_for_some_traits(comm, study, shared_tmp_path):
    some = str(shared_tmp_path / "some.tsv")
    on_root(comm, lambda: write_lines(some, ["TRAIT\tH2\tNOTE", "trait2\t0.125\tx", "else\t0.5\ty", "trait4\tNA\tz"]))
    out = scan(comm, study, h2_file=some)
    rows = read_traits(out) if comm.rank == 0 else {}
    comm.Barrier()
    free = scan(comm, study)
    if comm.rank == 0:
        assert (rows["trait2"]["H2"], rows["trait2"]["H2_SE"]) == ("0.125", "NA")
        for name in ("trait1", "trait3", "trait4", "trait5"):
            assert float(rows[name]["H2"]) == pytest.approx(float(read_traits(free)[name]["H2"]), abs=1e-8)
    comm.Barrier()
    rows = scan(comm, study, h2=0.25)
    if comm.rank == 0:
        assert {row["H2"] for row in read_traits(rows).values()} == {"0.25"}
    on_root(comm, lambda: write_lines(some, ["TRAIT\tH2", "else\t0.5"]))
    with pytest.raises(InputError, match="none of the 5 traits"):
        scan(comm, study, h2_file=some)


# -- eigendecompositions from files -------------------------------------------------------------------------------


def decompose(comm, study, out, **options):
    mpgls.eigen(grm=study.grm, out=study.folder / out, threads=1, comm=comm, **options)
    comm.Barrier()
    return str(study.folder / f"{out}.h5")


def test_an_eigendecomposition_takes_the_place_of_the_kinship(comm, study, expected, shared_tmp_path):
    keep = str(shared_tmp_path / "keep")
    on_root(comm, lambda: write_lines(keep, study.plink.ids))
    file = decompose(comm, study, "E", keep=keep)
    for size in {1, comm.size}:
        options = {"team_size": size, "pass_traits": 3, "trait_block": 2}
        out = scan(comm, study, eigen=file, covar=study.covar, h2_file=study.h2_file, **options)
        if comm.rank == 0:
            assert_scan(out, expected)
        comm.Barrier()
    with pytest.raises(InputError, match=r"E\.h5"):
        on_root(comm, lambda: write_table(shared_tmp_path / "gaps.tsv", study.plink.ids, gapped(study)))
        scan(comm, study, eigen=file, pheno=str(shared_tmp_path / "gaps.tsv"))


@few_ranks
def test_an_eigendecomposition_of_other_samples_is_refused(comm, study, shared_tmp_path):
    other, keep = str(shared_tmp_path / "other.h5"), str(shared_tmp_path / "keep")
    on_root(comm, lambda: write_kinship(other, [("Q", f"q{k}") for k in range(N)], study.Phi))
    mpgls.eigen(grm=other, out=shared_tmp_path / "Q", threads=1, comm=comm)
    comm.Barrier()
    with pytest.raises(InputError, match="q0"):
        scan(comm, study, eigen=str(shared_tmp_path / "Q.h5"))
    on_root(comm, lambda: write_lines(keep, study.plink.ids[:100]))
    file = decompose(comm, study, "F")  # of one sample more than the genotypes have
    with pytest.raises(InputError, match=r"F\.h5 is the eigendecomposition of 128 samples"):
        scan(comm, study, eigen=file)
    with pytest.raises(InputError, match=r"F\.h5"):
        scan(comm, study, eigen=file, keep=keep)


@few_ranks
def test_files_that_are_no_complete_eigendecomposition(comm, study):
    pytest.importorskip("slepc4py")
    for path, text in ((study.grm, "not an eigendecomposition"), (study.pheno, "it is not an HDF5 file")):
        with pytest.raises(InputError, match=text):
            scan(comm, study, eigen=path)
    few = decompose(comm, study, "few", eigenpairs=4)
    with pytest.raises(InputError, match="only 4 of 128 eigenpairs"):
        scan(comm, study, eigen=few)


# -- outputs ------------------------------------------------------------------------------------------------------


def test_the_row_of_a_trait_sums_up_all_its_tests(comm, study):
    out = scan(comm, study, covar=study.covar, h2_file=study.h2_file, p_threshold=0.05, block_size=5)
    rows, hits = (read_traits(out), read_hits(out)) if comm.rank == 0 else ({}, {})
    comm.Barrier()
    everything = scan(comm, study, "everything", covar=study.covar, h2_file=study.h2_file)
    if comm.rank:
        return
    for name, tests in read_hits(everything).items():
        row, best = rows[name], int(np.argmax(tests["LOG10P"]))
        assert (row["BEST_SNP"], row["BEST_POS"]) == (tests["ID"][best], f"{tests['POS'][best]:.0f}")
        assert float(row["LOG10P_MAX"]) == pytest.approx(tests["LOG10P"][best], rel=1e-9)
        significant = tests["P"] <= 0.05
        assert int(row["HITS"]) == significant.sum() and row["TESTED"] == str(M)
        np.testing.assert_array_equal(hits.get(name, {"ID": []})["ID"], tests["ID"][significant])
        exact = np.median(stats.chi2.isf(tests["P"], 1)) / stats.chi2.ppf(0.5, 1)
        assert float(row["LAMBDA_GC"]) == pytest.approx(exact, rel=0.03)  # the median of 89 lies in a bin of 1.6%
    with h5py.File(f"{out}.histograms.h5") as file:
        (group,) = file.values()
        counts, edges = group["counts"][...], group["edges"][...]
        assert group["traits"].asstr()[...].tolist() == list(TRAITS) and (counts.sum(axis=1) == M).all()
        for name, row in zip(TRAITS, counts, strict=True):
            values = read_hits(everything)[name]["LOG10P"]
            wanted = np.histogram(values, np.append(edges[:-1], np.inf))[0]
            assert np.abs(np.cumsum(row - wanted)).max() <= 1  # float32 may move a test over an edge
    lines = Path(f"{out}.traits.tsv").read_text()
    assert "NA" in lines and lines.startswith("TRAIT\tN\tH2")


@few_ranks
def test_export_gives_the_table_of_single_trait(comm, study):
    out = scan(comm, study, covar=study.covar, h2=0.4, dense=True, block_size=9, trait_block=2)
    mpgls.export(store=f"{out}.h5", trait="trait4", out=study.folder / "one", comm=comm)
    comm.Barrier()
    single = alone(comm, study, "trait4", 0.4, covar=study.covar)
    if comm.rank == 0:
        shutil.copy(study.folder / "one.tsv", study.folder / "one.trait4.tsv")
        table = read_results(study.folder / "one", "trait4")
        assert list(table) == list(single)
        for name in ("CHR", "POS", "ID", "EA", "NEA", "N", "EAF", "NOTE"):
            np.testing.assert_array_equal(table[name], single[name])
        np.testing.assert_array_equal(table["BETA"].astype("f4"), single["BETA"].astype("f4"))
        np.testing.assert_allclose(table["SE"], single["SE"], rtol=1e-7)
        for name in ("STAT", "LOG10P", "P"):
            np.testing.assert_allclose(table[name], single[name], rtol=2e-6, atol=1e-7)
    with pytest.raises(UsageError, match="no trait 'nobody'"):
        mpgls.export(store=f"{out}.h5", trait="nobody", out=study.folder / "one", comm=comm)


@few_ranks
def test_pictures_are_drawn(comm, study):
    out = scan(comm, study, no_plots=False, p_threshold=0.2)
    for name in ("hits", "qq"):
        assert Path(f"{out}.{name}.png").read_bytes()[:4] == b"\x89PNG"


@few_ranks
def test_inputs_are_not_overwritten(comm, study):
    with pytest.raises(UsageError, match="overwrite"):
        scan(comm, study, "K")
    assert Path(study.grm).exists()


# -- real mice ----------------------------------------------------------------------------------------------------


@two_ranks
@needs_mice
def test_gemmas_heritabilities_of_two_mouse_traits(comm, shared_tmp_path):
    """Two traits of the .fam with different samples, in one run, with GEMMA's kinship (of all mice) centred anew."""
    prefix, snps, tested = (str(shared_tmp_path / name) for name in ("mouse_hs1940", "snps.txt", "tested.txt"))
    pheno = str(shared_tmp_path / "pheno.tsv")

    def unpack():
        unpack_mice(prefix)
        write_snps_of_gemma(snps)
        write_lines(tested, Path(snps).read_text().split()[:50])
        rows = [line.split() for line in Path(f"{prefix}.fam").read_text().splitlines()]
        values = np.array([[float(text) if text not in ("-9", "NA") else np.nan for text in row[5:]] for row in rows])
        write_table(pheno, [tuple(row[:2]) for row in rows], {"trait2": values[:, 1], "trait5": values[:, 4]})

    on_root(comm, unpack)
    mpgls.kinship(bfile=prefix, extract=snps, out=shared_tmp_path / "K", threads=1, comm=comm)
    found = mpgls.multi_trait(
        bfile=prefix, pheno=pheno, grm=shared_tmp_path / "K.h5", center_grm=True, extract=tested, no_plots=True,
        threads=1, out=shared_tmp_path / "o", comm=comm,
    )  # fmt: skip
    assert found.nulls["h2"][0] == pytest.approx([0.590731, 0.406097], abs=1e-4)
    if comm.rank == 0:
        rows = read_traits(shared_tmp_path / "o")
        assert (rows["trait2"]["N"], rows["trait5"]["N"]) == ("757", "653")
        assert float(rows["trait2"]["H2"]) == pytest.approx(0.590731, abs=1e-4)
        assert float(rows["trait5"]["H2"]) == pytest.approx(0.406097, abs=1e-4)
