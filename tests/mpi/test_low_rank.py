"""``mpgls low-rank`` against the dense oracle and the one by singular values, on any number of ranks."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path

import h5py
import low_rank_oracle
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
    relabel_chromosomes,
    write_genotypes,
    write_lines,
    write_table,
)

import mpgls
from mpgls.commands import low_rank
from mpgls.engine import low_rank_plan, similarity
from mpgls.errors import InputError

N, M, EVERY = 127, 149, 2
LABELS = {"1": "1", "2": "1A", "3": "chrZ", "4": "scaffold_7"}
STAGES = (0, 1, 2, 4)


@dataclass(frozen=True)
class Study(SimulatedStudy):
    """Simulated files with missing genotypes, on chromosomes of odd names."""

    def data(self, chosen=None, rows=slice(None), y=None, X=None, plink=None):
        """What the oracles take first: similarity SNPs and where they lie, tested SNPs and where, trait, design."""
        plink = plink or self.plink
        chosen = np.arange(0, M, EVERY) if chosen is None else chosen
        y, X = self.trait() if y is None else y, self.design(False) if X is None else X
        snps, chromosomes = plink.dosages[rows], plink.chromosomes
        return snps[:, chosen], chromosomes[chosen], snps, chromosomes, y[rows], X[rows]


@pytest.fixture(scope="module")
def simulated(module_comm, module_folder):
    comm, prefix = module_comm, module_folder / "g"
    mpgls.simulate(samples=N, snps=M, out=prefix, traits=3, chromosomes=4, missing=0.04, h2=0.6, seed=5, comm=comm)
    on_root(comm, lambda: relabel_chromosomes(prefix, [LABELS[label] for label in read_plink(prefix).chromosomes]))
    return module_folder


@pytest.fixture
def study(comm, simulated, shared_tmp_path):
    """A copy for one test to change."""
    on_root(comm, lambda: shutil.copytree(simulated, shared_tmp_path, dirs_exist_ok=True))
    prefix = str(shared_tmp_path / "g")
    return Study(shared_tmp_path, prefix, f"{prefix}.pheno.tsv", f"{prefix}.covar.tsv", read_plink(prefix))


@pytest.fixture
def small_tiles(monkeypatch):
    """Panels of 13 similarity SNPs and strips of 11 for each process column, so that there are several."""
    for module in (similarity, low_rank_plan):
        monkeypatch.setattr(module, "PANEL", 13)
    monkeypatch.setattr(low_rank_plan, "STRIP", 11)


@pytest.fixture
def planned(monkeypatch):
    """A function that sets fields of the plan, whatever fits the memory."""

    def with_fields(**fields):
        make = low_rank_plan.plan_low_rank
        monkeypatch.setattr(low_rank, "plan_low_rank", lambda *a, **k: dataclasses.replace(make(*a, **k), **fields))

    return with_fields


def scan(comm, study, out="o", **options):
    """Run the command on the study, trait1 and every second SNP unless told otherwise. Returns its outputs' prefix."""
    prefix = study.folder / out
    files = {"bfile": study.bfile, "pheno": study.pheno, "pheno_name": "trait1"}
    if not {"similarity_snps", "similarity_count"} & options.keys():
        options.setdefault("similarity_every", EVERY)
    comm.Barrier()  # nobody still reads what the run before left
    mpgls.low_rank(out=prefix, threads=1, no_plots=True, comm=comm, **{**files, **options})
    comm.Barrier()
    return prefix


def found_h2(prefix, trait="trait1"):
    """h2 of each chromosome, as the manifest has it."""
    return {label: model["h2"] for label, model in read_facts(prefix, trait)["loco"].items()}


def read_loco(prefix, trait="trait1"):
    """The rows of PREFIX.TRAIT.loco.tsv by chromosome."""
    return {row["CHR"]: row for row in read_rows(f"{prefix}.{trait}.loco.tsv")}


def assert_scan(prefix, expected, trait="trait1", rtol=1e-8, where=slice(None)):
    """The table of a trait equals an oracle's scan, relative to the largest value of each column."""
    results = read_results(prefix, trait)
    assert set(results["NOTE"][where]) == {"."}
    for name, values in (("BETA", expected.beta), ("SE", expected.se), ("LOG10P", expected.log10p)):
        atol = rtol * np.abs(values[where]).max()
        np.testing.assert_allclose(results[name][where], values[where], rtol=rtol, atol=atol, err_msg=name)
    return results


# -- figures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loco", [True, False])
@pytest.mark.parametrize("covariates", [False, True])
def test_null_models_and_p_values_equal_both_oracles(comm, study, covariates, loco):
    out = scan(comm, study, no_loco=not loco, covar=study.covar if covariates else None)
    if comm.rank == 0:
        data = study.data(X=study.design(covariates))
        by_svd = low_rank_oracle.by_svd(*data, loco=loco)
        facts = read_facts(out, "trait1")
        models = facts["loco"] if loco else dict.fromkeys(LABELS.values(), facts)
        assert ("loco" in facts, "h2" in facts) == (loco, not loco)
        assert facts["similarity_snps"] == len(range(0, M, EVERY))
        assert list(models) == list(LABELS.values())
        assert len({model["h2"] for model in models.values()}) == (4 if loco else 1)
        dense = low_rank_oracle.dense(*data, loco=loco, h2={c: model["h2"] for c, model in models.items()})
        results = assert_scan(out, dense, rtol=1e-10)
        for label, model in models.items():
            kept = (data[1] != label) | (not loco)
            Phi = low_rank_oracle.similarity(low_rank_oracle.standardised(data[0][:, kept]))
            assert model["h2"] == pytest.approx(by_svd.h2[label], abs=2e-8)
            assert model["h2_se"] == pytest.approx(oracle.h2_se(model["h2"], Phi, data[5], data[4]), rel=1e-6)
            _, _, rss = oracle.gls(data[5], data[4], oracle.covariance(model["h2"], Phi))
            assert model["s2"] == pytest.approx(rss / (N - data[5].shape[1]), rel=1e-10)
            likelihood = oracle.reml(model["h2"], Phi, data[5], data[4])
            assert model["log_likelihood"] == pytest.approx(likelihood, rel=1e-11)
        p = 10.0**-by_svd.log10p  # with h2 of the oracle's own
        np.testing.assert_allclose(results["P"], p, rtol=1e-8, atol=1e-8)


@few_ranks
@pytest.mark.parametrize("h2", [0.0, 0.37, 0.999])
def test_a_given_h2_is_used(comm, study, h2):
    out = scan(comm, study, h2=h2, covar=study.covar)
    assert set(found_h2(out).values()) == {h2}
    if comm.rank == 0:
        expected = low_rank_oracle.dense(*study.data(X=study.design()), h2=dict.fromkeys(LABELS.values(), h2))
        assert_scan(out, expected, rtol=1e-9)


@few_ranks
def test_wald_keeps_the_variance_of_the_null_model(comm, study):
    out = scan(comm, study, h2=0.4, no_loco=True, test="wald")
    if comm.rank == 0:
        data = study.data()
        Phi = low_rank_oracle.similarity(low_rank_oracle.standardised(data[0]))
        expected = oracle.scan(0.4, Phi, data[5], data[4], low_rank_oracle.imputed(data[2]), "wald")
        results = read_results(out, "trait1")
        for name, values in zip(("BETA", "SE", "STAT", "P"), expected, strict=True):
            np.testing.assert_allclose(results[name], values, rtol=1e-9, err_msg=name)


@few_ranks
def test_h2_file_gives_some_and_leaves_the_others_to_reml(comm, study):
    path, by_trait = str(study.folder / "h2.tsv"), str(study.folder / "h2.trait.tsv")
    given = {"1": 0.25, "1A": 0.5, "chrZ": 0.0}
    lines = ["TRAIT\tCHR\tH2", "trait1\tchr1\t0.25", "trait1\t1a\t0.5", "trait1\tZ\t0", "trait1\tscaffold_7\tNA"]
    on_root(comm, lambda: (write_lines(path, lines), write_lines(by_trait, ["TRAIT\tH2", "trait1\t0.3"])))
    out = scan(comm, study, h2_file=path)
    whole = scan(comm, study, "whole", h2_file=by_trait, no_loco=True)
    assert read_facts(whole, "trait1")["h2"] == 0.3
    if comm.rank == 0:
        data = study.data()
        expected = given | {"scaffold_7": low_rank_oracle.by_svd(*data).h2["scaffold_7"]}
        found = found_h2(out)
        assert found == {**given, "scaffold_7": pytest.approx(expected["scaffold_7"], abs=2e-8)}
        assert_scan(out, low_rank_oracle.dense(*data, h2=found), rtol=1e-9)
        assert_scan(whole, low_rank_oracle.dense(*data, loco=False, h2=dict.fromkeys(given | found, 0.3)), rtol=1e-9)


@few_ranks
def test_the_table_of_null_models_can_be_given_back(comm, study):
    out = scan(comm, study, covar=study.covar)
    again = scan(comm, study, "again", covar=study.covar, h2_file=f"{out}.trait1.loco.tsv")
    assert Path(f"{again}.trait1.tsv").read_bytes() == Path(f"{out}.trait1.tsv").read_bytes()
    first, second = read_loco(out), read_loco(again)
    assert {c: row["H2"] for c, row in first.items()} == {c: row["H2"] for c, row in second.items()}
    assert all(row["H2_SE"] == "NA" for row in second.values()) and all(float(row["H2_SE"]) for row in first.values())


# -- the same on every machine ------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver, block_size", [("inverse", 1), ("grid", 7), ("inverse", 1000)])
def test_teams_and_blocks_do_not_change_the_effects(comm, study, small_tiles, solver, block_size):
    teams = range(1, comm.size + 1)
    for size in teams:
        options = {"team_size": size, "solver": solver, "block_size": block_size}
        scan(comm, study, f"team{size}", h2=0.4, covar=study.covar, **options)
    if comm.rank == 0:
        expected = low_rank_oracle.by_svd(*study.data(X=study.design()), h2=dict.fromkeys(LABELS.values(), 0.4))
        for size in teams:
            plan = read_facts(study.folder / f"team{size}")["plan"]
            assert (plan["team_size"], plan["block"]) == (size, min(block_size, M))
            assert -(-75 // plan["strip"]) > 1 and plan["resident"]
            assert_scan(study.folder / f"team{size}", expected)


@pytest.mark.parametrize("precision", ["double", "mixed"])
def test_g_in_panels_equals_g_resident(comm, study, small_tiles, planned, precision):
    """And with REML on all ranks together, and with a pass over the SNPs for each of two traits."""
    names = ("trait1", "trait2")
    at_once = scan(comm, study, "resident", pheno_name=names, covar=study.covar, precision=precision)
    planned(resident=False, null_team=comm.size, traits_at_once=1)
    panels = scan(comm, study, "panels", pheno_name=names, covar=study.covar, precision=precision)
    assert [read_facts(out)["plan"]["resident"] for out in (at_once, panels)] == [True, False]
    for name in names:
        first, second = found_h2(at_once, name), found_h2(panels, name)
        assert first == {label: pytest.approx(h2, abs=1e-6) for label, h2 in second.items()}
        if comm.rank == 0 and precision == "double":
            data = study.data(X=study.design(), y=study.trait(name))
            assert_scan(panels, low_rank_oracle.by_svd(*data, h2=second), name)
            assert_scan(at_once, low_rank_oracle.by_svd(*data, h2=first), name)
        elif comm.rank == 0:
            a, b = read_results(at_once, name), read_results(panels, name)
            np.testing.assert_allclose(a["LOG10P"], b["LOG10P"], rtol=1e-4, atol=1e-4)


@few_ranks
@pytest.mark.parametrize("missing", [True, False])
def test_mixed_precision_is_close_to_double_and_says_how_close(comm, study, missing):
    if not missing:
        on_root(comm, lambda: write_genotypes(study.bfile, np.nan_to_num(study.plink.dosages, nan=1.0)))
    double = read_results(scan(comm, study, h2=0.4, covar=study.covar), "trait1")
    for size in range(1, comm.size + 1):
        options = {"precision": "mixed", "team_size": size, "solver": "grid" if missing else "inverse"}
        out = scan(comm, study, f"mixed{size}", h2=0.4, covar=study.covar, **options)
        mixed, facts = read_results(out, "trait1"), read_facts(out, "trait1")
        for name in ("BETA", "SE", "STAT", "LOG10P"):
            atol = 1e-4 * np.abs(double[name]).max()
            np.testing.assert_allclose(mixed[name], double[name], rtol=1e-4, atol=atol, err_msg=name)
        assert (mixed["BETA"] != double["BETA"]).all()
        assert 0 < facts["mixed_check_beta"] < 1e-4 and 0 < facts["mixed_check_se"] < 1e-4
        log = Path(f"{out}.log").read_text()
        assert ("products exact in float32" in log) != missing and "mixed precision against double on" in log


# -- which SNPs measure similarity ---------------------------------------------------------------------------------


@few_ranks
def test_similarity_snps_are_counted_or_named(comm, study):
    """Evenly spaced, each in the middle of its share; or from a list, in the .bim's order whatever the list's."""
    spaced = [int((k + 0.5) * M / 40) for k in range(40)]
    named = [140, 3, 17, 88, 54, 101, 29, 76, 120, 9]
    path = str(study.folder / "similarity.txt")
    on_root(comm, lambda: write_lines(path, list(study.plink.snps[named])))
    runs = {"count": ({"similarity_count": 40}, spaced), "snps": ({"similarity_snps": path}, sorted(named))}
    for out, (options, chosen) in runs.items():
        found = scan(comm, study, out, h2=0.4, **options)
        if comm.rank == 0:
            data = study.data(np.array(chosen))
            assert_scan(found, low_rank_oracle.by_svd(*data, h2=dict.fromkeys(LABELS.values(), 0.4)))


@few_ranks
def test_chromosomes_without_similarity_snps_and_in_no_order(comm, study):
    """A chromosome without similarity SNPs is scanned with all of them; one may lie in pieces all over the .bim."""
    labels = np.array(["2", "Z", "1", "un"])[np.random.default_rng(4).integers(0, 4, M)]
    on_root(comm, lambda: relabel_chromosomes(study.bfile, labels))
    chosen = np.flatnonzero(labels != "un")[::2]
    path = str(study.folder / "similarity.txt")
    on_root(comm, lambda: write_lines(path, list(study.plink.snps[chosen])))
    plink = dataclasses.replace(study.plink, chromosomes=labels)
    out = scan(comm, study, similarity_snps=path, block_size=9)
    table = read_loco(out)
    assert list(table) == list(dict.fromkeys(labels))
    for label, row in table.items():
        assert int(row["SNPS"]) == (labels[chosen] == label).sum() and int(row["TESTED"]) == (labels == label).sum()
        assert float(row["H2"]) == found_h2(out)[label]
    assert table["un"]["SNPS"] == "0"
    if comm.rank == 0:
        warned = f"WARNING: {study.bfile} has no SNP of chromosome un: nothing is left out for it"
        assert Path(f"{out}.log").read_text().count(warned) == 1
        data = study.data(chosen, plink=plink)
        assert found_h2(out) == pytest.approx(low_rank_oracle.by_svd(*data).h2, abs=2e-8)
        assert_scan(out, low_rank_oracle.dense(*data, h2=found_h2(out)))


@few_ranks
def test_similarity_snps_of_another_fileset(comm, study):
    """With other SNPs, more samples, and the samples in another order."""
    rng, other = np.random.default_rng(8), str(study.folder / "other")
    extra, K = 20, 61
    order = rng.permutation(N + extra)
    snps = rng.binomial(2, rng.uniform(0.2, 0.8, K), (N + extra, K)).astype(float)
    snps[rng.random(snps.shape) < 0.03] = np.nan
    labels = np.array(["1", "1A", "Z", "9"])[np.arange(K) % 4]
    ids = [*study.plink.ids, *((f"E{k}", f"e{k}") for k in range(extra))]

    def write():
        write_genotypes(other, snps[order])
        write_lines(f"{other}.fam", [f"{ids[k][0]} {ids[k][1]} 0 0 1 -9" for k in order])
        write_lines(f"{other}.bim", [f"{label} s{k} 0 {k + 1} A C" for k, label in enumerate(labels)])

    on_root(comm, write)
    keep = str(study.folder / "keep.txt")
    kept = np.sort(rng.permutation(N)[:101])
    on_root(comm, lambda: write_lines(keep, [study.plink.ids[k] for k in kept]))
    out = scan(comm, study, similarity_bfile=other, similarity_every=1, keep=keep, covar=study.covar)
    assert read_facts(out, "trait1")["n"] == 101
    if comm.rank == 0:
        labels = np.where(labels == "Z", "chrZ", labels)
        tested, chromosomes, y, X = study.data(rows=kept, X=study.design())[2:]
        data = snps[kept], labels, tested, chromosomes, y, X
        assert found_h2(out) == pytest.approx(low_rank_oracle.by_svd(*data).h2, abs=2e-8)
        assert_scan(out, low_rank_oracle.dense(*data, h2=found_h2(out)))


@few_ranks
def test_filters_of_similarity_and_tested_snps(comm, study):
    """--chr says what is tested only; --extract and --exclude come before the choice, --maf and --geno after it."""
    plink, every = study.plink, 2
    extract, exclude = str(study.folder / "extract"), str(study.folder / "exclude")
    on_root(comm, lambda: (write_lines(extract, list(plink.snps[5:])), write_lines(exclude, list(plink.snps[30:50]))))
    chosen = {"chr": "1,Z", "extract": extract, "exclude": exclude, "maf": 0.15, "geno": 0.05}
    out = scan(comm, study, h2=0.4, similarity_every=every, **chosen)

    k, frequency = np.arange(M), plink.frequency()
    common = (np.minimum(frequency, 1 - frequency) >= 0.15) & (plink.missing() <= 0.05)
    listed = (k >= 5) & ~((k >= 30) & (k < 50))
    tested = np.isin(plink.chromosomes, ["1", "chrZ"]) & listed & common
    candidates = np.flatnonzero(listed)[::every]
    similar = candidates[common[candidates]]
    assert 10 < tested.sum() < 80 and 10 < similar.size < candidates.size
    np.testing.assert_array_equal(read_results(out, "trait1")["ID"], plink.snps[tested])
    if comm.rank == 0:
        G, c, _, _, y, X = study.data(similar)
        data = G, c, plink.dosages[:, tested], plink.chromosomes[tested], y, X
        assert_scan(out, low_rank_oracle.by_svd(*data, h2={"1": 0.4, "chrZ": 0.4}))


@few_ranks
def test_snps_without_an_estimate_keep_their_row_and_say_why(comm, study):
    """Some of them are similarity SNPs too: they are left out of G."""
    untestable = SnpsWithoutEstimate.among(study.plink.dosages)
    dosages, covariate = untestable.dosages, untestable.covariate
    covar = str(study.folder / "covar.tsv")
    on_root(comm, lambda: write_genotypes(study.bfile, dosages))
    on_root(comm, lambda: write_table(covar, study.plink.ids, {"copy": covariate}))
    if comm.rank == 0:
        constant = [k for k, note in untestable.notes.items() if "collinear" not in note]
        similar = np.setdiff1d(np.arange(0, M, EVERY), constant)
        plink = dataclasses.replace(study.plink, dosages=np.where(np.isnan(dosages).all(axis=0), 0.0, dosages))
        data = study.data(similar, X=np.column_stack([np.ones(N), covariate]), plink=plink)
        with np.errstate(invalid="ignore", divide="ignore"):
            oracle_scan = low_rank_oracle.by_svd(*data, h2=dict.fromkeys(LABELS.values(), 0.4))
    for precision, team_size in (("double", 1), ("double", comm.size), ("mixed", 1), ("mixed", comm.size)):
        options = {"precision": precision, "team_size": team_size, "block_size": 13}
        out = scan(comm, study, h2=0.4, covar=covar, **options)
        estimated = untestable.assert_noted(read_results(out, "trait1"), ("BETA", "SE", "STAT", "LOG10P"))
        if comm.rank == 0:
            assert_scan(out, oracle_scan, rtol=1e-8 if precision == "double" else 1e-4, where=estimated)


# -- as many similarity SNPs as samples ----------------------------------------------------------------------------


@pytest.mark.parametrize("loco", [True, False])
def test_the_n_x_n_form_is_chosen_and_equals_the_oracle(comm, study, loco):
    out = scan(comm, study, similarity_every=1, covar=study.covar, no_loco=not loco)
    assert "n x n matrices, which are cheaper" in Path(f"{out}.log").read_text()
    if comm.rank == 0:
        data = study.data(np.arange(M), X=study.design())
        expected = low_rank_oracle.by_svd(*data, loco=loco)
        found = found_h2(out) if loco else dict.fromkeys(expected.h2, read_facts(out, "trait1")["h2"])
        assert found == pytest.approx(expected.h2, abs=2e-8)
        assert_scan(out, low_rank_oracle.dense(*data, loco=loco, h2=found))


@few_ranks
def test_both_forms_agree(comm, study):
    """Whichever is asked for, with K above and below n, teams of any size, and traits of different samples."""
    columns = read_table(study.pheno)
    columns["trait2"][10:30] = np.nan
    pheno, names = str(study.folder / "missing.tsv"), ("trait1", "trait2")
    on_root(comm, lambda: write_table(pheno, study.plink.ids, columns))
    for every in (1, 2):
        options = {"similarity_every": every, "covar": study.covar, "h2": 0.6, "pheno": pheno, "pheno_name": names}
        a = scan(comm, study, "dense", form="dense", block_size=7, team_size=comm.size, **options)
        b = scan(comm, study, "low_rank", form="low-rank", **options)
        assert ["n x n matrices" in Path(f"{out}.log").read_text() for out in (a, b)] == [True, False]
        for name in names:
            first, second = read_results(a, name), read_results(b, name)
            np.testing.assert_array_equal(first["NOTE"], second["NOTE"])
            for column in ("BETA", "SE", "P"):
                atol = 1e-8 * np.nanmax(np.abs(second[column])) if column == "BETA" else 0
                np.testing.assert_allclose(first[column], second[column], rtol=1e-8, atol=atol, err_msg=column)


# -- several traits -----------------------------------------------------------------------------------------------


@few_ranks
@pytest.mark.parametrize("form", ["low-rank", "dense"])
@pytest.mark.parametrize("loco", [True, False])
def test_the_store_says_all_that_export_and_a_resumed_run_need(comm, study, form, loco):
    out = scan(comm, study, form=form, no_loco=not loco, covar=study.covar)
    mpgls.export(store=f"{out}.h5", out=study.folder / "e", comm=comm)
    comm.Barrier()
    assert Path(f"{study.folder}/e.tsv").read_bytes() == Path(f"{out}.trait1.tsv").read_bytes()
    facts = read_facts(out, "trait1")
    assert facts["df"] == N - 4 if not loco else all(null["h2_se"] > 0 for null in facts["loco"].values())
    scan(comm, study, form=form, no_loco=not loco, covar=study.covar, resume=True)
    assert read_facts(out, "trait1") == facts


@few_ranks
def test_traits_together_equal_each_trait_alone(comm, study):
    """Two share all samples, and so G'G; two others have samples of their own."""
    columns = read_table(study.pheno)
    columns["trait2"][10:40] = np.nan
    columns["trait4"] = columns["trait3"][::-1].copy()
    columns["trait3"][[0, 11, 77, 126]] = np.nan
    pheno = str(study.folder / "missing.tsv")
    on_root(comm, lambda: write_table(pheno, study.plink.ids, columns))
    names = ("trait2", "trait1", "trait3", "trait4")
    out = scan(comm, study, pheno=pheno, pheno_name=names, covar=study.covar, block_size=17)
    stages = sorted(path.name for path in study.folder.glob("o*.stage?.h5"))
    assert stages == sorted(f"o{suffix}.stage{k}.h5" for suffix in ("", ".set2", ".set3") for k in (0, 1, 2))
    if comm.rank == 0:
        for name in names:
            y = columns[name]
            used = np.isfinite(y)
            data = study.data(rows=used, y=y, X=study.design())
            assert read_facts(out, name)["n"] == used.sum()
            with np.errstate(invalid="ignore"):  # a SNP may not vary among them
                assert found_h2(out, name) == pytest.approx(low_rank_oracle.by_svd(*data).h2, abs=2e-8)
                expected = low_rank_oracle.by_svd(*data, h2=found_h2(out, name))
            assert_scan(out, expected, name, where=np.nanstd(data[2], axis=0) > 0)


# -- stages -------------------------------------------------------------------------------------------------------


def test_stages_one_at_a_time_equal_all_at_once(comm, study):
    options = {"pheno_name": ("trait1", "trait2"), "covar": study.covar}
    whole = scan(comm, study, "whole", **options)
    for stage in STAGES:
        out = scan(comm, study, "staged", stage=stage, **options)
        last = stage == STAGES[-1]
        assert Path(f"{out}.trait1.tsv").exists() == Path(f"{out}.h5").exists() == last
        assert Path(f"{out}.json" if last else f"{out}.stage{stage}.json").exists()
        assert last or Path(f"{out}.stage{stage}.h5").exists()
    for name in ("trait1", "trait2"):
        assert Path(f"{out}.{name}.tsv").read_bytes() == Path(f"{whole}.{name}.tsv").read_bytes()
        for label, model in read_facts(whole, name)["loco"].items():
            assert read_facts(out, name)["loco"][label] == model


@few_ranks
def test_a_stage_that_is_there_is_not_computed_again(comm, study):
    out = scan(comm, study, covar=study.covar)
    files = [Path(f"{out}.stage{k}.h5") for k in (0, 1, 2)]
    table, before = Path(f"{out}.trait1.tsv").read_bytes(), [path.stat().st_mtime_ns for path in files]
    scan(comm, study, covar=study.covar)
    log = Path(f"{out}.log").read_text()
    assert all(f"stage {k}: taken from {path}" in log for k, path in enumerate(files))
    assert [path.stat().st_mtime_ns for path in files] == before
    assert Path(f"{out}.trait1.tsv").read_bytes() == table
    # another trait: the same G'G; other similarity SNPs: nothing is kept
    scan(comm, study, pheno_name="trait2", covar=study.covar)
    log = Path(f"{out}.log").read_text()
    assert "stage 1: taken from" in log and "stage 2: taken from" not in log
    scan(comm, study, covar=study.covar, similarity_every=3)
    assert "taken from" not in Path(f"{out}.log").read_text()
    if comm.rank == 0:
        data = study.data(np.arange(0, M, 3), X=study.design())
        assert_scan(out, low_rank_oracle.by_svd(*data, h2=found_h2(out)))


@few_ranks
def test_what_changed_on_disk_is_made_again(comm, study, small_tiles):
    """A flipped bit of G'G, of the counts, of a null model: the strip or stage is made again, to the same bytes."""
    out = scan(comm, study, covar=study.covar)
    table, anew = (
        Path(f"{out}.trait1.tsv").read_bytes(),
        "is damaged, or of another version of mpgls, and is made again",
    )
    with h5py.File(f"{out}.stage1.h5") as file:
        K, strip = file["gram"].shape[0], int(file.attrs["strip"])
    of_gram = f"is damaged: strip {30 // strip + 1} of G'G is not what was written, and is made again"
    for stage, dataset, element, said in (
        (0, "sum_sq", 5, anew),
        (1, "gram", 30 * K + 40, of_gram),
        (1, "token", 3, anew),
        (2, "nulls", 0, anew),
    ):
        path = Path(f"{out}.stage{stage}.h5")

        def damage(path=path, dataset=dataset, element=element):
            with h5py.File(path) as file:
                place = file[dataset].id.get_offset() + element * file[dataset].dtype.itemsize
            data = bytearray(path.read_bytes())
            data[place] ^= 1
            path.write_bytes(data)

        on_root(comm, damage)
        scan(comm, study, covar=study.covar)
        log = Path(f"{out}.log").read_text()
        assert f"{path} {said}" in log
        assert ("strips are in" in log) == (dataset == "gram" and strip < K)
        assert Path(f"{out}.trait1.tsv").read_bytes() == table
        comm.Barrier()


@few_ranks
def test_files_are_known_by_what_is_in_them(comm, study):
    """Another list of SNPs, or other h2, under the old name: what was made of the old ones is not taken."""
    extract, h2_file = str(study.folder / "extract.txt"), str(study.folder / "h2.tsv")
    write_h2 = [lambda h2=h2: write_lines(h2_file, ["TRAIT\tH2", f"trait1\t{h2}"]) for h2 in (0.25, 0.5)]
    on_root(comm, lambda: (write_lines(extract, list(study.plink.snps[:100])), write_h2[0]()))
    options = {"extract": extract, "h2_file": h2_file, "no_loco": True}
    out = scan(comm, study, **options)
    on_root(comm, write_h2[1])
    scan(comm, study, **options)
    log = Path(f"{out}.log").read_text()
    assert "stage 1: taken from" in log and "stage 2: taken from" not in log
    assert read_facts(out, "trait1")["h2"] == 0.5
    on_root(comm, lambda: write_lines(extract, list(study.plink.snps[1:101])))
    scan(comm, study, **options)
    assert "taken from" not in Path(f"{out}.log").read_text()


@few_ranks
@pytest.mark.parametrize("needed", [0, 1, 2])
def test_a_stage_needs_the_one_before(comm, study, needed):
    """Missing, made of other inputs, incomplete, or no file of ours: the stage that must be run is named."""
    for stage in STAGES[:needed]:
        scan(comm, study, stage=stage)
    message = rf"stage 4 needs .*o\.stage{needed}\.h5, which is not there.*run --stage {needed} first"
    with pytest.raises(InputError, match=message):
        scan(comm, study, stage=4)
    for stage in STAGES[: needed + 1]:
        scan(comm, study, stage=stage, similarity_every=5)
    for stage in STAGES[:needed]:
        scan(comm, study, stage=stage)
    with pytest.raises(InputError, match=message):
        scan(comm, study, stage=4)
    on_root(comm, lambda: Path(f"{study.folder}/o.stage{needed}.h5").write_bytes(b"nothing of ours"))
    with pytest.raises(InputError, match=message):
        scan(comm, study, stage=4)
    # what spoils one stage does not spoil a run of all of them
    scan(comm, study)


@few_ranks
def test_a_chromosome_with_every_similarity_snp(comm, study):
    path = str(study.folder / "similarity.txt")
    on_root(comm, lambda: write_lines(path, list(study.plink.snps[study.plink.chromosomes == "1A"])))
    with pytest.raises(InputError, match="every similarity SNP is on chromosome 1A, so none is left"):
        scan(comm, study, similarity_snps=path)
    with pytest.raises(InputError, match=r"no SNP of any tested chromosome.* the tested ones are 1, chrZ, .* are 1A; "):
        scan(comm, study, similarity_snps=path, chr="1,Z")
    scan(comm, study, similarity_snps=path, chr="1,Z", no_loco=True)
