"""``mpgls single-trait`` against the dense oracle, on any number of ranks."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import oracle
import pytest
from ranks import few_ranks
from small_study import (
    SimulatedStudy,
    SnpsWithoutEstimate,
    on_root,
    read_facts,
    read_plink,
    read_results,
    read_rows,
    read_table,
    write_genotypes,
    write_kinship,
    write_lines,
    write_table,
)

import mpgls
from mpgls.errors import InputError, NumericalError, StorageError, UsageError
from mpgls.stream.store import RECORD_DTYPE, open_store

N, M = 151, 203
EFFECTS = ("BETA", "SE", "STAT", "LOG10P")


@dataclass(frozen=True)
class Study(SimulatedStudy):
    """Simulated files with missing genotypes, and a kinship whose mean diagonal is not 1."""

    grm: str
    Phi: np.ndarray


@pytest.fixture(scope="module")
def simulated(module_comm, module_folder):
    options = {"traits": 3, "chromosomes": 3, "missing": 0.04, "seed": 3}
    mpgls.simulate(samples=N, snps=M, out=module_folder / "g", comm=module_comm, **options)
    return module_folder


@pytest.fixture
def study(comm, simulated, shared_tmp_path):
    """A copy for one test to change."""
    on_root(comm, lambda: shutil.copytree(simulated, shared_tmp_path, dirs_exist_ok=True))
    prefix = str(shared_tmp_path / "g")
    plink = read_plink(prefix)
    X = plink.centred()
    Phi = X @ X.T / M
    grm = shared_tmp_path / "K.h5"
    on_root(comm, lambda: write_kinship(grm, plink.ids, Phi))
    return Study(shared_tmp_path, prefix, f"{prefix}.pheno.tsv", f"{prefix}.covar.tsv", plink, str(grm), Phi)


def scan(comm, study, out="o", command=mpgls.single_trait, **options):
    """Run the command on the study, trait1 unless told otherwise. Returns the prefix of its outputs."""
    prefix = study.folder / out
    files = {"bfile": study.bfile, "pheno": study.pheno, "pheno_name": "trait1", "grm": study.grm}
    command(out=prefix, threads=1, comm=comm, **{"no_plots": True, **files, **options})
    comm.Barrier()
    return prefix


def assert_effects(prefix, trait, h2, Phi, X_L, y, snps, test="t", rtol=1e-9):
    """The table of a trait equals the oracle at this h2, relative to the largest value of each column."""
    results, varies = read_results(prefix, trait), snps.any(axis=0)
    np.testing.assert_array_equal(results["NOTE"], np.where(varies, ".", "monomorphic"))
    beta, se, stat, p = oracle.scan(h2, Phi, X_L, y, snps[:, varies], test)
    for name, expected in zip(EFFECTS, (beta, se, stat, -np.log10(p)), strict=True):
        atol = rtol * np.abs(expected).max()
        np.testing.assert_allclose(results[name][varies], expected, rtol=rtol, atol=atol, err_msg=name)


# -- figures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("test", ["t", "wald"])
@pytest.mark.parametrize("covariates", [False, True])
def test_null_model_and_effects_equal_the_oracle(comm, study, covariates, test):
    out = scan(comm, study, test=test, covar=study.covar if covariates else None)
    if comm.rank == 0:
        Phi, X_L, y = oracle.scaled(study.Phi), study.design(covariates), study.trait()
        facts = read_facts(out, "trait1")
        assert facts["h2"] == pytest.approx(oracle.sharp_h2(Phi, X_L, y), abs=1e-7)
        _, _, rss = oracle.gls(X_L, y, oracle.covariance(facts["h2"], Phi))
        assert facts["s2"] == pytest.approx(rss / (N - X_L.shape[1]), rel=1e-10)
        assert facts["log_likelihood"] == pytest.approx(oracle.reml(facts["h2"], Phi, X_L, y), rel=1e-11)
        assert_effects(out, "trait1", facts["h2"], Phi, X_L, y, study.plink.centred(), test)


@few_ranks
@pytest.mark.parametrize("trait", ["trait1", "trait2", "trait3"])
@pytest.mark.parametrize("form", ["grm", "eigen"])
def test_standard_error_of_h2_is_the_information_of_the_likelihood(comm, study, form, trait):
    files = {"pheno_name": trait, "covar": study.covar}
    if form == "eigen":
        mpgls.eigen(grm=study.grm, out=study.folder / "e", threads=1, comm=comm)
        files |= {"grm": None, "eigen": str(study.folder / "e.h5")}
    out = scan(comm, study, **files)
    if comm.rank == 0:
        facts = read_facts(out, trait)
        expected = oracle.h2_se(facts["h2"], oracle.scaled(study.Phi), study.design(), study.trait(trait))
        assert facts["h2_se"] == pytest.approx(expected, rel=1e-6)


@few_ranks
@pytest.mark.parametrize("command", [mpgls.single_trait, mpgls.multi_trait])
def test_standard_error_at_the_ends_of_the_range(comm, study, command):
    """At 0 that of the information there, at the upper end none."""
    noise, (lam, Z) = np.random.default_rng(4).standard_normal(N), np.linalg.eigh(oracle.scaled(study.Phi))
    traits = {"low": Z @ noise, "high": Z @ (noise * lam.clip(0) ** 2)}
    pheno = str(study.folder / "ends.tsv")
    on_root(comm, lambda: write_table(pheno, study.plink.ids, traits))
    out = scan(comm, study, command=command, pheno=pheno, pheno_name=list(traits))
    if comm.rank == 0:
        found = {}
        for name in traits:
            if command is mpgls.single_trait:
                found[name] = read_facts(out, name)["h2"], read_facts(out, name)["h2_se"]
            else:
                row = next(row for row in read_rows(f"{out}.traits.tsv") if row["TRAIT"] == name)
                found[name] = float(row["H2"]), None if row["H2_SE"] == "NA" else float(row["H2_SE"])
        expected = oracle.h2_se(0.0, oracle.scaled(study.Phi), np.ones((N, 1)), traits["low"])
        assert expected is not None and found["low"] == (0.0, pytest.approx(expected, rel=1e-8))
        assert found["high"] == (1.0 - 1e-6, None)


@few_ranks
@pytest.mark.parametrize("h2", [0.0, 0.37, 0.999])
def test_a_given_h2_is_used(comm, study, h2):
    out = scan(comm, study, h2=h2)
    if comm.rank == 0:
        assert read_facts(out, "trait1")["h2"] == h2
        Phi = oracle.scaled(study.Phi)
        assert_effects(out, "trait1", h2, Phi, study.design(False), study.trait(), study.plink.centred())


@few_ranks
def test_frequency_and_count_are_of_the_observed_genotypes(comm, study):
    results = read_results(scan(comm, study), "trait1")
    np.testing.assert_allclose(results["EAF"], study.plink.frequency(), rtol=1e-9)
    np.testing.assert_array_equal(results["N"], np.isfinite(study.plink.dosages).sum(axis=0))
    np.testing.assert_array_equal(results["ID"], study.plink.snps)


@few_ranks
def test_no_heritability_is_found_at_the_boundary(comm, study):
    rng = np.random.default_rng(1)
    lam, Z = np.linalg.eigh(study.Phi)
    y = Z @ (rng.standard_normal(N) / np.sqrt(0.2 + lam))  # less alike than strangers
    pheno = str(study.folder / "noise.tsv")
    on_root(comm, lambda: write_table(pheno, study.plink.ids, {"noise": y}))
    out = scan(comm, study, pheno=pheno, pheno_name="noise")
    facts = read_facts(out, "noise")
    assert facts["h2"] == 0.0 and facts["h2_at_boundary"]
    if comm.rank == 0:
        assert_effects(out, "noise", 0.0, np.eye(N), study.design(False), y, study.plink.centred())


# -- the same on every machine ------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver, block_size", [("inverse", 1), ("grid", 7), ("inverse", 64), ("grid", 1000)])
def test_teams_and_blocks_do_not_change_the_effects(comm, study, solver, block_size):
    teams = range(1, comm.size + 1)
    for size in teams:
        options = {"team_size": size, "solver": solver, "block_size": block_size}
        scan(comm, study, f"team{size}", h2=0.4, covar=study.covar, **options)
    if comm.rank == 0:
        model = oracle.scaled(study.Phi), study.design(True), study.trait()
        for size in teams:
            plan = read_facts(study.folder / f"team{size}")["plan"]
            assert (plan["team_size"], plan["solver"]) == (size, solver if size > 1 else "local")
            assert_effects(study.folder / f"team{size}", "trait1", 0.4, *model, study.plink.centred())


def test_solvers_of_teams_agree(comm, study):
    for size in range(2, comm.size + 1):
        inverse, grid = (
            read_results(scan(comm, study, solver, covar=study.covar, team_size=size, solver=solver), "trait1")
            for solver in ("inverse", "grid")
        )
        for name in EFFECTS:
            atol = 1e-10 * np.abs(grid[name]).max()
            np.testing.assert_allclose(inverse[name], grid[name], rtol=1e-10, atol=atol, err_msg=name)


@pytest.mark.parametrize("solver", ["inverse", "grid"])
def test_mixed_precision_is_close_to_double_and_says_how_close(comm, study, solver):
    double = read_results(scan(comm, study, h2=0.4, covar=study.covar), "trait1")
    for size in range(1, comm.size + 1):
        options = {"precision": "mixed", "team_size": size, "solver": solver}
        out = scan(comm, study, f"mixed{size}", h2=0.4, covar=study.covar, **options)
        mixed, facts = read_results(out, "trait1"), read_facts(out, "trait1")
        for name in ("BETA", "SE", "STAT"):
            atol = 1e-4 * np.abs(double[name]).max()
            np.testing.assert_allclose(mixed[name], double[name], rtol=1e-4, atol=atol, err_msg=name)
        assert (mixed["BETA"] != double["BETA"]).all()
        assert 0 < facts["mixed_check_beta"] < 1e-4 and 0 < facts["mixed_check_se"] < 1e-4


@few_ranks
def test_the_check_says_what_float32_costs_in_standard_errors(comm, study):
    """Beside a covariate that is nearly a SNP, little of the SNP is left, and float32 loses its digits."""
    nearly = study.plink.centred()[:, 0] + 0.02 * np.random.default_rng(1).normal(size=N)
    covar = str(study.folder / "nearly.tsv")
    on_root(comm, lambda: write_table(covar, study.plink.ids, {"nearly": nearly}))
    double = scan(comm, study, h2=0.9, covar=covar)
    mixed = scan(comm, study, "mixed", h2=0.9, covar=covar, precision="mixed", block_size=M)
    if comm.rank == 0:
        right, found, facts = read_results(double, "trait1"), read_results(mixed, "trait1"), read_facts(mixed, "trait1")
        sampled = np.linspace(0, M - 1, 32).astype(int)
        of_beta = (np.abs(found["BETA"] - right["BETA"]) / right["SE"])[sampled]
        of_se = np.abs(found["SE"] / right["SE"] - 1)[sampled]
        assert np.argmax(of_beta) == np.argmax(of_se) == 0 and of_se[0] > 1e-5 > 10 * of_se[1:].max()
        assert facts["mixed_check_beta"] == pytest.approx(of_beta[0], rel=1e-6)
        assert facts["mixed_check_se"] == pytest.approx(of_se[0], rel=1e-6)
        said = f"BETA differs by at most {of_beta[0]:.1e} standard errors, SE by a share of {of_se[0]:.1e}"
        assert said in Path(f"{mixed}.log").read_text()


# -- samples and SNPs ---------------------------------------------------------------------------------------------


@few_ranks
def test_samples_are_those_that_all_files_and_filters_leave(comm, study):
    ids, rng = study.plink.ids, np.random.default_rng(7)
    y, covariate = study.trait(), read_table(study.covar)["covar2"]
    y[[3, 50]], covariate[[4, 77]] = np.nan, np.nan
    in_kinship = rng.permutation(N)[:-5]
    missing = np.isnan(study.plink.dosages).mean(axis=1)
    mind = float(np.sort(missing)[-10])
    options = {name: str(study.folder / name) for name in ("pheno", "covar", "keep", "remove", "grm")}

    def write():
        write_table(options["pheno"], ids, {"trait1": y})
        write_table(options["covar"], ids[::-1], {"age": covariate[::-1]})
        write_lines(options["keep"], [*ids[:140], ("X", "unknown")])
        write_lines(options["remove"], ids[9:14])
        write_kinship(options["grm"], [ids[k] for k in in_kinship], study.Phi[np.ix_(in_kinship, in_kinship)])

    on_root(comm, write)
    out = scan(comm, study, h2=0.4, mind=mind, **options)

    used = np.isfinite(y) & np.isfinite(covariate) & (missing <= mind) & np.isin(np.arange(N), in_kinship)
    used[140:] = used[9:14] = False
    assert 100 < used.sum() < 135
    assert read_facts(out, "trait1")["n"] == used.sum()
    if comm.rank == 0:
        Phi, X_L = oracle.scaled(study.Phi[np.ix_(used, used)]), np.column_stack([np.ones(used.sum()), covariate[used]])
        assert_effects(out, "trait1", 0.4, Phi, X_L, y[used], study.plink.centred(used))


@few_ranks
def test_snp_filters_choose_the_rows_of_the_table(comm, study):
    plink = study.plink
    extract, exclude = str(study.folder / "extract"), str(study.folder / "exclude")
    on_root(comm, lambda: (write_lines(extract, list(plink.snps[5:])), write_lines(exclude, list(plink.snps[30:50]))))
    chosen = {"chr": "1,3", "extract": extract, "exclude": exclude, "maf": 0.15, "geno": 0.05}
    results = read_results(scan(comm, study, h2=0.4, block_size=9, **chosen), "trait1")

    frequency, k = plink.frequency(), np.arange(M)
    passing = np.isin(plink.chromosomes, ["1", "3"]) & (k >= 5) & ~((k >= 30) & (k < 50))
    passing &= (np.minimum(frequency, 1 - frequency) >= 0.15) & (plink.missing() <= 0.05)
    assert 20 < passing.sum() < 120
    np.testing.assert_array_equal(results["ID"], plink.snps[passing])
    everything = read_results(scan(comm, study, "all", h2=0.4), "trait1")
    np.testing.assert_allclose(results["BETA"], everything["BETA"][passing], rtol=1e-9)


def test_traits_together_equal_each_trait_alone(comm, study):
    """Phi is loaded once for the samples of all traits; each trait takes its own part of it."""
    columns = read_table(study.pheno)
    columns["trait2"][10:40] = np.nan
    columns["trait3"][[0, 11, 77, 150]] = np.nan
    pheno = str(study.folder / "missing.tsv")
    on_root(comm, lambda: write_table(pheno, study.plink.ids, columns))
    together = scan(comm, study, "together", pheno=pheno, pheno_name=("trait2", "trait1", "trait3"), covar=study.covar)
    for trait in columns:
        alone = read_facts(scan(comm, study, trait, pheno=pheno, pheno_name=trait, covar=study.covar), trait)
        facts = read_facts(together, trait)
        assert facts["n"] == alone["n"]
        assert facts["h2"] == pytest.approx(alone["h2"], abs=1e-7)
        assert facts["s2"] == pytest.approx(alone["s2"], rel=1e-6)
    if comm.rank == 0:
        for trait, y in columns.items():
            used, h2 = np.isfinite(y), read_facts(together, trait)["h2"]
            Phi, X_L = oracle.scaled(study.Phi[np.ix_(used, used)]), study.design(True)[used]
            assert_effects(together, trait, h2, Phi, X_L, y[used], study.plink.centred(used))


@few_ranks
def test_the_fam_has_the_trait_when_no_table_is_given(comm, study):
    table = read_results(scan(comm, study, h2=0.4), "trait1")
    fam = read_results(scan(comm, study, "fam", h2=0.4, pheno=None, pheno_name=()), "pheno")
    np.testing.assert_allclose(fam["BETA"], table["BETA"], rtol=1e-9)


@few_ranks
def test_a_fam_of_cases_and_controls(comm, study):
    """PLINK's codes: 2 is a case, 1 a control, 0 and -9 are missing."""
    trait = study.trait()
    codes = np.where(trait > np.median(trait), 2, 1)
    codes[::7], codes[3::19] = 0, -9

    def write() -> None:
        rows = [f"{fid} {iid} 0 0 0 {code}" for (fid, iid), code in zip(study.plink.ids, codes, strict=True)]
        write_lines(f"{study.bfile}.fam", rows)

    on_root(comm, write)
    out, used = scan(comm, study, pheno=None, pheno_name=()), codes > 0
    Phi, X_L, y = oracle.scaled(study.Phi[np.ix_(used, used)]), np.ones((used.sum(), 1)), codes[used].astype(float)
    assert_effects(out, "pheno", read_facts(out, "pheno")["h2"], Phi, X_L, y, study.plink.centred(used))
    assert read_facts(out, "pheno")["h2"] == pytest.approx(oracle.sharp_h2(Phi, X_L, y), abs=1e-6)
    if comm.rank == 0:
        kinds = (
            f"{(codes == 2).sum()} of 2, {(codes == 1).sum()} of 1, and {(codes == 0).sum()} of 0, which are missing"
        )
        assert f"phenotype: case/control, {kinds}; {(codes < 1).sum()} missing" in Path(f"{out}.log").read_text()


@few_ranks
def test_snps_without_an_estimate_keep_their_row_and_say_why(comm, study):
    untestable = SnpsWithoutEstimate.among(study.plink.dosages)
    covar = str(study.folder / "covar.tsv")
    on_root(comm, lambda: write_genotypes(study.bfile, untestable.dosages))
    on_root(comm, lambda: write_table(covar, study.plink.ids, {"copy": untestable.covariate}))
    plain = read_results(scan(comm, study, h2=0.4, covar=covar), "trait1")
    for precision, team_size in (("double", 1), ("double", comm.size), ("mixed", 1), ("mixed", comm.size)):
        options = {"precision": precision, "team_size": team_size, "block_size": 13}
        results = read_results(scan(comm, study, h2=0.4, covar=covar, **options), "trait1")
        estimated = untestable.assert_noted(results, EFFECTS)
        np.testing.assert_allclose(results["SE"][estimated], plain["SE"][estimated], rtol=1e-4)


# -- kinship ------------------------------------------------------------------------------------------------------


@few_ranks
def test_every_kinship_format_gives_the_same_model(comm, study):
    """In another order than the .fam's, and with samples that the .fam does not have."""
    order = np.random.default_rng(4).permutation(N)
    ids = [study.plink.ids[k] for k in order] + [("X", "x")]
    K = np.eye(N + 1)
    K[:N, :N] = study.Phi[np.ix_(order, order)]
    text, gcta, h5 = (study.folder / name for name in ("k.cXX.txt", "k", "other.h5"))

    def write():
        write_kinship(h5, ids, K)
        K[np.tril_indices(N + 1)].astype("<f4").tofile(f"{gcta}.grm.bin")
        write_lines(f"{gcta}.grm.id", ids)
        np.savetxt(text, K, fmt="%.17g", delimiter="\t")
        write_lines(study.folder / "k.fam", [f"{fid} {iid} 0 0 1 -9" for fid, iid in ids])

    on_root(comm, write)
    same = read_facts(scan(comm, study), "trait1")["h2"]
    sources = {"h5": {}, "gemma": {"grm_id": str(study.folder / "k.fam")}, "gcta": {}}
    for (name, options), grm in zip(sources.items(), (h5, text, f"{gcta}.grm.bin"), strict=True):
        h2 = read_facts(scan(comm, study, name, grm=str(grm), **options), "trait1")["h2"]
        assert h2 == pytest.approx(same, abs=1e-5 if name == "gcta" else 1e-8), name
    if comm.rank == 0:
        single = oracle.scaled(study.Phi.astype(np.float32).astype(np.float64))
        assert h2 == pytest.approx(oracle.sharp_h2(single, study.design(False), study.trait()), abs=1e-7)


def indefinite(study, by):
    """The kinship with its largest eigenvalue turned negative, written as a file."""
    lam, Z = np.linalg.eigh(study.Phi)
    lam[-1] = -by
    write_kinship(study.folder / "bad.h5", study.plink.ids, (Z * lam) @ Z.T)


def test_a_kinship_that_is_not_positive_semidefinite(comm, study):
    on_root(comm, lambda: indefinite(study, 5.0))
    with pytest.raises(NumericalError, match="not positive semidefinite"):
        scan(comm, study, grm=str(study.folder / "bad.h5"), h2=0.9)
    assert not (study.folder / "o.trait1.tsv").exists()


@few_ranks
def test_a_kinship_of_other_samples(comm, study):
    grm = study.folder / "other.h5"
    on_root(comm, lambda: write_kinship(grm, [("Q", f"q{k}") for k in range(N)], study.Phi))
    with pytest.raises(InputError, match="q0"):
        scan(comm, study, grm=str(grm))


# -- runs that were stopped, and outputs --------------------------------------------------------------------------


def undo(path, blocks):
    """Make ``blocks`` of the first trait as if they had never been computed."""
    store = open_store(path)
    place = store.traits[0]
    with open(path, "r+b") as file:
        for block in blocks:
            positions = store.block_range(block)
            file.seek(place.records_offset + positions.start * RECORD_DTYPE.itemsize)
            file.write(bytes(len(positions) * RECORD_DTYPE.itemsize))
            file.seek(place.sum_offset(block))
            file.write(bytes(4))


@pytest.mark.parametrize("blocks", [(0,), (1, 4, 8, 9), range(16)])
@pytest.mark.parametrize("solver", ["local", "inverse", "grid"])
def test_a_resumed_run_gives_the_same_bytes(comm, study, blocks, solver):
    teams = {"team_size": 1} if solver == "local" else {"team_size": comm.size, "solver": solver}
    options = {"covar": study.covar, **teams}
    out = scan(comm, study, block_size=13, **options)
    table = Path(f"{out}.trait1.tsv")
    before = table.read_bytes()
    comm.Barrier()
    on_root(comm, lambda: (undo(f"{out}.h5", blocks), table.unlink()))
    scan(comm, study, resume=True, **options)
    assert table.read_bytes() == before
    assert open_store(f"{out}.h5").traits[0].done.all()


@few_ranks
@pytest.mark.parametrize("where", ["null", "block"])
def test_what_changed_on_disk_is_made_again(comm, study, where):
    """Not even a null model whose blocks are all done is believed."""
    out = scan(comm, study, block_size=13)
    table = Path(f"{out}.trait1.tsv")
    before = table.read_bytes()
    comm.Barrier()

    def damage():
        store = open_store(f"{out}.h5")
        place = {"null": store.nulls.offset, "block": store.traits[0].records_offset + 40 * RECORD_DTYPE.itemsize}[
            where
        ]
        with open(store.path, "r+b") as file:
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ 1]))
        table.unlink()

    on_root(comm, damage)
    scan(comm, study, block_size=13, resume=True)
    assert table.read_bytes() == before
    assert "1 parts changed on disk" in Path(f"{out}.log").read_text()


@few_ranks
def test_a_finished_run_resumes_to_the_same_table_and_facts(comm, study):
    out = scan(comm, study, pheno_name=("trait1", "trait2"))
    table, facts = Path(f"{out}.trait2.tsv").read_bytes(), read_facts(out, "trait2")
    comm.Barrier()
    scan(comm, study, pheno_name=("trait1", "trait2"), resume=True)
    assert Path(f"{out}.trait2.tsv").read_bytes() == table
    again = read_facts(out, "trait2")
    assert {key: again[key] for key in ("h2", "s2", "h2_se", "lambda_gc", "covariates")} == {
        key: facts[key] for key in ("h2", "s2", "h2_se", "lambda_gc", "covariates")
    }


@few_ranks
@pytest.mark.parametrize(
    "change",
    [{"h2": 0.5}, {"test": "wald"}, {"pheno_name": "trait2"}, {"maf": 0.1}, {"covar_name": ("covar1",)}],
)
def test_a_run_with_other_options_does_not_resume(comm, study, change):
    options = {"h2": 0.4, "covar": study.covar}
    scan(comm, study, **options)
    with pytest.raises(InputError, match="other inputs or options"):
        scan(comm, study, resume=True, **{**options, **change})


@few_ranks
def test_a_run_with_another_kinship_does_not_resume(comm, study):
    scan(comm, study)
    on_root(comm, lambda: write_kinship(study.grm, study.plink.ids, study.Phi + np.eye(N)))
    with pytest.raises(InputError, match="other inputs or options"):
        scan(comm, study, resume=True)


@few_ranks
def test_resuming_where_nothing_was_started_starts(comm, study):
    assert Path(f"{scan(comm, study, resume=True)}.trait1.tsv").exists()


@few_ranks
def test_the_kinship_is_not_overwritten(comm, study):
    with pytest.raises(UsageError, match="overwrite"):
        scan(comm, study, "K")
    assert Path(study.grm).exists()


@few_ranks
def test_a_phenotype_table_is_not_overwritten(comm, study):
    pheno = str(study.folder / "o.trait1.tsv")
    on_root(comm, lambda: write_table(pheno, study.plink.ids, {"trait1": study.trait()}))
    before = Path(pheno).read_bytes()
    with pytest.raises(UsageError, match="overwrite"):
        scan(comm, study, pheno=pheno)
    assert Path(pheno).read_bytes() == before


@few_ranks
def test_plots_are_drawn(comm, study):
    out = scan(comm, study, no_plots=False)
    for name in ("manhattan", "qq"):
        assert Path(f"{out}.trait1.{name}.png").read_bytes()[:4] == b"\x89PNG"


def test_a_missing_directory_stops_every_rank(comm, study):
    with pytest.raises(StorageError, match="no directory"):
        scan(comm, study, "nowhere/o")
