"""Leave one chromosome out, against a dense oracle for each chromosome, on any number of ranks."""

from __future__ import annotations

import inspect
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import oracle
import pytest
from ranks import few_ranks
from small_study import (
    SimulatedStudy,
    on_root,
    read_columns,
    read_facts,
    read_kinship,
    read_plink,
    read_results,
    read_table,
    relabel_chromosomes,
    write_table,
)

import mpgls
from mpgls.commands import multi_trait
from mpgls.engine import trait_scan
from mpgls.errors import InputError, MemoryPlanError, Stopped, UsageError
from mpgls.stream.store import open_store
from mpgls.study.grm import open_kinship

N, M = 103, 131
# chromosome 1 comes in two runs, under two names of it; the others side by side
RUNS = (("1", 29), ("Z", 23), ("chr1", 13), ("scaffold_12", 37), ("1A", 29))
LABELS = ("1", "Z", "scaffold_12", "1A")
EFFECTS = ("BETA", "SE", "STAT", "LOG10P")
NULLS = ("h2", "h2_se", "s2", "log_likelihood")


@dataclass(frozen=True)
class Study(SimulatedStudy):
    """Simulated files with missing genotypes and odd chromosomes, gaps in the second trait, and a kinship with sums."""

    grm: str

    @property
    def chromosomes(self):
        """The chromosome of each SNP, as the program calls it."""
        return np.array([name.removeprefix("chr") for name in self.plink.chromosomes])

    def Phi(self, without, rows=slice(None)):
        """The kinship of the SNPs that are not on a chromosome, mean diagonal 1 over ``rows``."""
        X = self.plink.centred()[:, self.chromosomes != without]
        return oracle.scaled((X @ X.T)[rows][:, rows])

    def model(self, trait, covariates):
        """The rows, X_L and y of a trait."""
        y = self.trait(trait)
        rows = np.flatnonzero(np.isfinite(y))
        return rows, self.design(covariates)[rows], y[rows]


@pytest.fixture(scope="module")
def study(module_comm, module_folder):
    comm, folder = module_comm, module_folder
    prefix, pheno = str(folder / "g"), str(folder / "traits.tsv")
    mpgls.simulate(samples=N, snps=M, traits=3, chromosomes=3, missing=0.04, seed=11, out=prefix, comm=comm)

    def change():
        relabel_chromosomes(prefix, [label for label, count in RUNS for _ in range(count)])
        traits = read_table(f"{prefix}.pheno.tsv")
        traits["trait2"][[3, 40, 41, 77]] = np.nan
        write_table(pheno, read_plink(prefix).ids, traits)

    on_root(comm, change)
    made = Study(folder, prefix, pheno, f"{prefix}.covar.tsv", read_plink(prefix), str(folder / "K.h5"))
    make_kinship(comm, made, "K")
    return made


def make_kinship(comm, study, out, loco=True, method="centered", block_size=None, **options):
    options |= {"method": method, "loco": loco, "block_size": block_size, "threads": 1}
    mpgls.kinship(bfile=study.bfile, out=study.folder / out, comm=comm, **options)
    comm.Barrier()
    return f"{study.folder / out}.h5"


def scan(comm, study, out="o", command=mpgls.single_trait, **options):
    """single-trait --loco; returns the prefix of its outputs."""
    usual = {"bfile": study.bfile, "pheno": study.pheno, "grm": study.grm, "loco": True, "no_plots": True, "threads": 1}
    command(out=study.folder / out, comm=comm, **usual | options)
    comm.Barrier()
    return study.folder / out


def scan_all(comm, study, out="m", **options):
    """multi-trait --loco, every test a hit; returns the prefix of its outputs."""
    return scan(comm, study, f"{out}_all", mpgls.multi_trait, **{"p_threshold": 1.0, **options})


def assert_same_table(path, other):
    """Equal text, and equal numbers up to rounding: two eigendecompositions on several ranks differ in the last bit."""
    found, wanted = read_columns(path), read_columns(other)
    assert list(found) == list(wanted)
    for name, values in wanted.items():
        try:
            ours, theirs = (
                np.array([v.replace("NA", "nan") for v in part], dtype=float) for part in (found[name], values)
            )
        except ValueError:
            assert found[name] == values
            continue
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-9, err_msg=name)


def assert_close(found, expected, rtol, name=""):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol * np.nanmax(np.abs(expected)), err_msg=name)


# -- the kinship --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["centered", "standardized"])
@pytest.mark.parametrize("block_size", [None, 1, 17])
def test_the_sums_are_those_of_the_chromosomes(comm, study, method, block_size):
    grm = make_kinship(comm, study, "k", method=method, block_size=block_size)
    X = study.plink.centred()
    if method == "standardized":
        X = X / np.maximum(X.std(axis=0), 1e-300)
    varies = X.any(axis=0)
    file = open_kinship(grm)
    assert [one.chromosome for one in file.sums] == list(LABELS)
    for label, one in zip(LABELS, file.sums, strict=True):
        mine = (study.chromosomes == label) & varies
        assert one.snps == mine.sum() == file.snps_of(f"chr{label}")
        np.testing.assert_allclose(one.source.read(0, N, N), X[:, mine] @ X[:, mine].T, rtol=1e-12, atol=1e-11)
        rest = X[:, ~(study.chromosomes == label) & varies]
        without = file.without(label)
        assert without.snps == rest.shape[1]
        np.testing.assert_allclose(without.rows(5, N), (rest @ rest.T / rest.shape[1])[5:], rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(read_kinship(grm), X @ X.T / varies.sum(), rtol=1e-12, atol=1e-12)
    assert read_facts(grm.removesuffix(".h5"))["loco"] == {one.chromosome: one.snps for one in file.sums}


def test_the_whole_is_that_of_a_kinship_without_sums(comm, study):
    with_sums, alone = read_kinship(study.grm), read_kinship(make_kinship(comm, study, "k", loco=False))
    np.testing.assert_allclose(with_sums, alone, rtol=1e-13, atol=1e-13)
    assert not open_kinship(study.folder / "k.h5").sums


# -- single-trait and multi-trait against the oracle --------------------------------------------------------------


@pytest.mark.parametrize("covariates", [False, True])
def test_each_chromosome_is_scanned_without_itself(comm, study, covariates):
    traits = ("trait1", "trait2")
    out = scan(comm, study, pheno_name=traits, covar=study.covar if covariates else None, block_size=12)
    if comm.rank > 0:
        return
    snps, order = study.plink.centred(), study.chromosomes
    for trait in traits:
        rows, X_L, y = study.model(trait, covariates)
        results, facts = read_results(out, trait), read_facts(out, trait)
        table = read_columns(f"{out}.{trait}.loco.tsv")
        assert table["CHR"] == list(LABELS) == list(facts["loco"]) and set(table["TRAIT"]) == {trait}
        np.testing.assert_array_equal(results["ID"], study.plink.snps)
        varies = study.plink.centred(rows).any(axis=0)
        for k, label in enumerate(LABELS):
            null, Phi, mine = facts["loco"][label], study.Phi(label, rows), (order == label) & varies
            assert null["h2"] == pytest.approx(oracle.sharp_h2(Phi, X_L, y), abs=1e-7)
            assert null["h2_se"] == pytest.approx(oracle.h2_se(null["h2"], Phi, X_L, y), rel=1e-6)
            assert null["log_likelihood"] == pytest.approx(oracle.reml(null["h2"], Phi, X_L, y), rel=1e-10)
            assert [float(table[name][k]) for name in ("H2", "H2_SE", "S2", "LOGLIK")] == [null[n] for n in NULLS]
            assert (int(table["SNPS"][k]), int(table["TESTED"][k])) == (
                ((order == label) & snps.any(axis=0)).sum(), mine.sum()
            )  # fmt: skip
            x = study.plink.centred(rows)[:, mine]
            beta, se, stat, p = oracle.scan(null["h2"], Phi, X_L, y, x)
            for name, expected in zip(EFFECTS, (beta, se, stat, -np.log10(p)), strict=True):
                assert_close(results[name][mine], expected, 1e-8, f"{trait} {label} {name}")


def test_many_traits_are_their_single_trait_scans(comm, study):
    out = scan_all(comm, study, covar=study.covar, dense=True, block_size=12, trait_block=1)
    assert read_facts(out)["groups"][0]["chromosome"] == "1"
    single = scan(comm, study, "s", covar=study.covar, h2_file=f"{out}.loco.tsv")
    for trait in ("trait1", "trait2", "trait3"):
        mpgls.export(store=f"{out}.h5", trait=trait, out=study.folder / f"x.{trait}", comm=comm)
    comm.Barrier()
    if comm.rank > 0:
        return
    rows, hits, nulls = (read_columns(f"{out}.{name}.tsv") for name in ("traits", "hits", "loco"))
    tested = np.array(nulls["TESTED"], dtype=float).reshape(3, len(LABELS))
    for j, trait in enumerate(("trait1", "trait2", "trait3")):
        results, facts = read_results(single, trait), read_facts(single, trait)
        mine = np.flatnonzero(np.array(hits["TRAIT"]) == trait)
        where = {name: k for k, name in enumerate(results["ID"])}
        order = [where[hits["ID"][k]] for k in mine]
        assert len(order) == int(rows["TESTED"][j]) == facts["tested"] == tested[j].sum()
        dense = read_results(study.folder / "x", trait)
        for name in EFFECTS:
            assert_close(np.array([float(hits[name][k]) for k in mine]), results[name][order], 1e-8, name)
            assert_close(dense[name][order], results[name][order], 1e-6, name)  # float32 in the store
        best = order[int(np.argmin(results["P"][order]))]
        assert (rows["BEST_SNP"][j], rows["BEST_CHR"][j]) == (results["ID"][best], results["CHR"][best])
        assert float(rows["LOG10P_MAX"][j]) == pytest.approx(results["LOG10P"][best], rel=1e-6)
        assert float(rows["LAMBDA_GC"][j]) == pytest.approx(facts["lambda_gc"], rel=0.02)  # from bins
        h2 = np.array([facts["loco"][label]["h2"] for label in LABELS])
        assert float(rows["H2"][j]) == pytest.approx(np.average(h2, weights=tested[j]), rel=1e-12)
        _, X_L, y = study.model(trait, True)
        sharp = [oracle.sharp_h2(study.Phi(label, study.model(trait, True)[0]), X_L, y) for label in LABELS]
        np.testing.assert_allclose(h2, sharp, rtol=0, atol=1e-7)


def test_histograms_count_all_chromosomes(comm, study):
    out = scan_all(comm, study, pheno_name=("trait1", "trait3"), trait_block=1, pass_traits=1)
    if comm.rank == 0:
        rows = read_columns(f"{out}.traits.tsv")
        with h5py.File(f"{out}.histograms.h5") as file:
            (group,) = file.values()
            assert group["traits"].asstr()[...].tolist() == ["trait1", "trait3"]
            counts = group["counts"][...]
        np.testing.assert_array_equal(counts.sum(axis=1), np.array(rows["TESTED"], dtype=int))
        assert not list(study.folder.glob("m.histograms.h5.*"))


def test_teams_and_passes_do_not_matter(comm, study):
    expected = scan(comm, study, "s", pheno_name=("trait1",), h2=0.4, block_size=7)
    for size in range(1, comm.size + 1):
        for kind in (scan, scan_all):
            more = {"pass_traits": 1, "trait_block": 1} if kind is scan_all else {}
            names = ("trait1", "trait3") if kind is scan_all else ("trait1",)
            out = kind(comm, study, "t", pheno_name=names, h2=0.4, team_size=size, block_size=5, **more)
            if comm.rank == 0:
                wanted = read_results(expected, "trait1")
                if kind is scan:
                    assert_close(read_results(out, "trait1")["BETA"], wanted["BETA"], 1e-9)
                else:
                    hits = read_columns(f"{out}.hits.tsv")
                    mine = [float(b) for b, trait in zip(hits["BETA"], hits["TRAIT"], strict=True) if trait == "trait1"]
                    assert_close(np.array(mine), wanted["BETA"][np.isfinite(wanted["BETA"])], 1e-9)
            comm.Barrier()


@few_ranks
def test_principal_components_are_those_of_the_kinship_without_the_chromosome(comm, study):
    pytest.importorskip("slepc4py")
    out = scan(comm, study, pheno_name=("trait1",), pcs=2, h2=0.3)
    if comm.rank == 0:
        _, X_L, y = study.model("trait1", False)
        results = read_results(out, "trait1")
        for label in LABELS:
            Phi, mine = study.Phi(label), (study.chromosomes == label) & np.isfinite(results["BETA"])
            design = np.column_stack([X_L, np.linalg.eigh(Phi)[1][:, :-3:-1]])
            beta = oracle.scan(0.3, Phi, design, y, study.plink.centred()[:, mine])[0]
            assert_close(results["BETA"][mine], beta, 1e-8, label)


@few_ranks
def test_h2_can_be_given_for_some_chromosomes(comm, study):
    table = study.folder / "h2.tsv"
    on_root(comm, lambda: table.write_text("TRAIT\tCHR\tH2\ntrait1\tchrZ\t0.25\ntrait1\t1a\t0.5\ntrait9\t1\t0.1\n"))
    out = scan(comm, study, pheno_name=("trait1",), h2_file=str(table))
    nulls = read_facts(out, "trait1")["loco"]
    assert (nulls["Z"]["h2"], nulls["1A"]["h2"]) == (0.25, 0.5)
    assert [nulls[label]["h2_source"] for label in LABELS] == ["REML", "given", "REML", "given"]
    comm.Barrier()
    on_root(comm, lambda: table.write_text("TRAIT\tCHR\tH2\ntrait9\t1\t0.1\n"))
    with pytest.raises(InputError, match=r"h2.tsv has none of the 1 traits of this run on any of the 4 chromosomes"):
        scan(comm, study, pheno_name=("trait1",), h2_file=str(table))


@few_ranks
def test_a_chromosome_of_which_the_kinship_has_nothing(comm, study):
    grm = make_kinship(comm, study, "k", chr="1,Z,1A")
    out = scan(comm, study, pheno_name=("trait1",), grm=grm)
    assert "has no SNP of chromosome scaffold_12: nothing is left out for it" in log_of(out)
    if comm.rank == 0:
        _, X_L, y = study.model("trait1", False)
        facts = read_facts(out, "trait1")["loco"]["scaffold_12"]
        assert facts["left_out"] == 0
        assert facts["h2"] == pytest.approx(oracle.sharp_h2(study.Phi("scaffold_12"), X_L, y), abs=1e-7)


# -- runs that were stopped ---------------------------------------------------------------------------------------


def stop_in(monkeypatch, module, name, number):
    """Ask for a stop as the ``number``-th call of ``module.name`` begins, which takes the world."""
    whole, calls = getattr(module, name), []

    def until_then(*arguments):
        calls.append(1)
        world = inspect.signature(whole).bind(*arguments).arguments["world"]
        if len(calls) == number:
            world.stop.ask()
        return whole(*arguments)

    monkeypatch.setattr(module, name, until_then)


@few_ranks
@pytest.mark.parametrize("call", [5, 6])
def test_a_stopped_scan_is_resumed(comm, study, monkeypatch, call):
    options = {"pheno_name": ("trait1", "trait2"), "block_size": 6, "team_size": comm.size}  # all ranks together
    out = scan(comm, study, "whole", **options)
    with monkeypatch.context() as patch:  # in the first or second trait of the third chromosome
        stop_in(patch, trait_scan, "left_blocks", call)
        with pytest.raises(Stopped):
            scan(comm, study, "o", **options)
    comm.Barrier()
    done = [place.done for place in open_store(study.folder / "o.h5").traits]
    assert 0 < done[1].sum() <= done[0].sum() < done[0].size
    comm.Barrier()
    again = scan(comm, study, "o", resume=True, **options)
    if comm.rank == 0:
        for trait in options["pheno_name"]:
            for name in ("BETA", "SE"):
                assert_close(read_results(again, trait)[name], read_results(out, trait)[name], 1e-12, name)
            if call == 5:  # the traits that are left scale the kinship alike
                for name in (f"{trait}.tsv", f"{trait}.loco.tsv"):
                    assert Path(f"{again}.{name}").read_bytes() == Path(f"{out}.{name}").read_bytes()
        log = log_of(again).split("resume:")[1]
        assert "trait1, chromosome 1A" in log and "trait1, chromosome X" not in log
        assert ("trait1, chromosome scaffold_12" in log) == (call == 5)


@few_ranks
@pytest.mark.parametrize("call", [1, 4])
def test_a_stopped_scan_of_many_traits_is_resumed(comm, study, monkeypatch, call):
    options = {"trait_block": 1, "pass_traits": 1, "dense": True, "block_size": 9}
    out = scan_all(comm, study, "whole", **options)
    with monkeypatch.context() as patch:
        stop_in(patch, multi_trait, "scan_tiles", call)
        with pytest.raises(Stopped):
            scan_all(comm, study, "m", **options)
    comm.Barrier()
    again = scan_all(comm, study, "m", resume=True, **options)
    if comm.rank == 0:
        for name in ("traits", "hits", "loco"):
            assert_same_table(f"{again}.{name}.tsv", f"{out}.{name}.tsv")
        with h5py.File(f"{again}.histograms.h5") as mine, h5py.File(f"{out}.histograms.h5") as wanted:
            for group in wanted:
                np.testing.assert_array_equal(mine[group]["counts"], wanted[group]["counts"])
        assert (f"{call - 1} pass(es) are done" in log_of(again)) == (call > 1)


@few_ranks
def test_with_and_without_loco_do_not_resume_each_other(comm, study):
    scan(comm, study, pheno_name=("trait1",), h2=0.4)
    with pytest.raises(InputError, match="other inputs or options"):
        scan(comm, study, pheno_name=("trait1",), h2=0.4, loco=False, resume=True)


# -- what is refused, and what the log says -----------------------------------------------------------------------


def log_of(out):
    return Path(f"{out}.log").read_text()


def log_for_all(comm, out):
    """Read by rank 0, before the next run begins a new log. Collective."""
    return comm.bcast(log_of(out) if comm.rank == 0 else None, root=0)


@few_ranks
@pytest.mark.parametrize("kind", [scan, scan_all])
def test_a_kinship_without_sums(comm, study, kind):
    grm = make_kinship(comm, study, "k", loco=False)
    with pytest.raises(InputError, match=r"k\.h5 has no sums of single chromosomes.*mpgls kinship --loco"):
        kind(comm, study, grm=grm)
    with pytest.raises(UsageError, match="--loco decomposes a kinship for each chromosome"):
        kind(comm, study, grm=None, eigen="E.h5")


@few_ranks
def test_a_chromosome_that_is_all_of_the_kinship(comm, study):
    grm = make_kinship(comm, study, "k", chr="Z")
    with pytest.raises(InputError, match="all 23 SNPs of the kinship are on chromosome Z, so nothing is left"):
        scan(comm, study, grm=grm)
    with pytest.raises(InputError, match=r"k\.h5 has no SNP of any tested chromosome, so nothing can be left out"):
        scan(comm, study, pheno_name=("trait1",), grm=grm, chr="1,1A")


@few_ranks
def test_a_snp_without_a_chromosome(comm, study):
    prefix = str(study.folder / "u")

    def unplace():
        for suffix in ("bed", "fam"):
            shutil.copy(f"{study.bfile}.{suffix}", f"{prefix}.{suffix}")
        labels = list(study.plink.chromosomes)
        labels[57] = "0"
        shutil.copy(f"{study.bfile}.bim", f"{prefix}.bim")
        relabel_chromosomes(prefix, labels)

    on_root(comm, unplace)
    other = replace(study, bfile=prefix)
    message = rf"u\.bim, line 58: SNP {study.plink.snps[57]} has no chromosome \(its label is '0'\)"
    for action in (lambda: scan(comm, other), lambda: make_kinship(comm, other, "k")):
        with pytest.raises(InputError, match=message):
            action()


@few_ranks
def test_the_log_warns_of_proximal_contamination_once(comm, study):
    warning = f"the kinship was made of SNPs that are tested, {study.plink.snps[0]} for one"
    for kind, name in ((scan, "o"), (scan_all, "m")):
        text = log_for_all(comm, kind(comm, study, name, pheno_name=("trait1",), loco=False, h2=0.3))
        assert text.count("proximal contamination") == 1 and warning in text
        comm.Barrier()
        assert "contamination" not in log_for_all(comm, kind(comm, study, name, pheno_name=("trait1",), h2=0.3))
        comm.Barrier()
    grm = make_kinship(comm, study, "k", loco=False, chr="Z")
    options = {"loco": False, "grm": grm, "chr": "1", "h2": 0.3}
    assert "contamination" not in log_for_all(comm, scan(comm, study, pheno_name=("trait1",), **options))


@few_ranks
def test_the_plan_speaks_of_chromosomes(comm, study):
    text = "plan: leave one chromosome out: 4 chromosomes in turn"
    for kind, name in ((scan, "o"), (scan_all, "m")):
        assert text in log_for_all(comm, kind(comm, study, name, pheno_name=("trait1",), h2=0.3))
        with pytest.raises(MemoryPlanError):
            kind(comm, study, name, pheno_name=("trait1",), memory=1e-4)
    assert "plan: leave one chromosome out: sums of 4 chromosomes" in log_of(study.folder / "K")
