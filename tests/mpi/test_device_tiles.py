"""``mpgls multi-trait --device gpu`` through the whole command, with NumPy in place of CuPy."""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import h5py
import numpy as np
import oracle
import pytest
import strict_lanes
from emulated_cupy import card_of
from pgen_files import write_pgen
from ranks import few_ranks
from small_study import (
    SimulatedStudy,
    on_root,
    read_columns,
    read_facts,
    read_plink,
    read_rows,
    read_table,
    write_genotypes,
    write_kinship,
    write_lines,
    write_table,
)

import mpgls
from mpgls.commands import multi_trait
from mpgls.device import cuda, operator
from mpgls.engine import held_basis
from mpgls.engine.tiles_on_card import TraitRows
from mpgls.errors import MemoryPlanError, Stopped, UsageError

pytestmark = few_ranks

N, M, T = 61, 75, 5
H2 = (0.0, 0.37, 0.5, 0.52, 0.93)
TRAITS = tuple(f"trait{k + 1}" for k in range(T))
EFFECTS = ("BETA", "SE", "STAT", "LOG10P")
TOLERANCE = {"double": 1e-10, "mixed": 1e-6, "exact": 1e-10}
"""Of a table, which has 10 digits or more."""
HEIGHT, MEMORY = 3, {1: 240_000, 2: 272_000}
"""Traits of a tile: less than there are; bytes of a card that cannot hold the basis, by ranks."""


@dataclass(frozen=True)
class Study(SimulatedStudy):
    """Simulated files with missing genotypes, a kinship, and heritabilities of the traits."""

    grm: str
    h2_file: str
    Phi: np.ndarray


@pytest.fixture(scope="module")
def study(module_comm, module_folder):
    comm, folder, prefix = module_comm, module_folder, str(module_folder / "g")
    mpgls.simulate(samples=N, snps=M, out=prefix, traits=T, chromosomes=2, missing=0.04, seed=3, comm=comm)
    plink = read_plink(prefix)
    X = plink.centred()
    Phi = X @ X.T / M + 0.01 * np.eye(N)
    grm, h2_file = folder / "K.h5", folder / "h2.tsv"
    lines = ["TRAIT\tH2", *(f"{name}\t{h2!r}" for name, h2 in zip(TRAITS, H2, strict=True))]
    on_root(comm, lambda: (write_kinship(grm, plink.ids, Phi), write_lines(h2_file, lines)))
    return Study(folder, prefix, f"{prefix}.pheno.tsv", f"{prefix}.covar.tsv", plink, str(grm), str(h2_file), Phi)


@pytest.fixture(autouse=True)
def numpy_in_place_of_a_card(monkeypatch, comm):
    """Every rank has a "GPU" of as much memory as it may use, or of a terabyte; tiles are low."""
    strict_lanes.begin_anew()
    monkeypatch.setattr(cuda, "open_card", lambda rank, size, limit: card_of(comm.size, limit))
    monkeypatch.setattr(operator, "HEIGHT", HEIGHT)


def scan(comm, study, out, **options):
    """Run the command on the study, every test a hit unless told otherwise. Returns the prefix of its outputs."""
    prefix = study.folder / out
    given = {"bfile": study.bfile, "pheno": study.pheno, "covar": study.covar, "grm": study.grm, "device": "gpu"}
    usual = {"p_threshold": 1.0, "no_plots": True, "threads": 1, "h2_file": study.h2_file}
    mpgls.multi_trait(out=prefix, comm=comm, **(given | usual | options))
    comm.Barrier()
    return prefix


def read_hits(prefix):
    """``prefix.hits.tsv``: trait -> column -> array in the order of the .bim."""
    text = ("TRAIT", "CHR", "ID", "EA", "NEA")
    columns = {
        name: np.array(values, dtype=None if name in text else float)
        for name, values in read_columns(f"{prefix}.hits.tsv").items()
    }
    return {name: {key: one[columns["TRAIT"] == name] for key, one in columns.items()} for name in TRAITS}


def read_dense(prefix):
    """``prefix.h5``: trait -> (BETA, SE) over all SNPs."""
    with h5py.File(f"{prefix}.h5") as file:
        m, names = file["index"].shape[0], file["names"].asstr()[...]
        assert file["sums"][...].all()
        beta, se = (np.concatenate(list(file[name][...]), axis=1)[:, :m] for name in ("beta", "se"))
        return {name: (beta[k], se[k]) for k, name in enumerate(names)}


def expected(study, name, snps, rows=slice(None)):
    """The oracle's columns of a trait at its h2, of SNPs over some of the samples."""
    Phi, y = oracle.scaled(study.Phi[rows][:, rows]), read_table(study.pheno)[name][rows]
    made = oracle.scan(H2[TRAITS.index(name)], Phi, study.design()[rows], y, snps)
    return dict(zip(EFFECTS, (*made[:3], -np.log10(made[3])), strict=True))


def assert_close(found, wanted, tolerance):
    """Equal columns, relative to the largest value of each."""
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=tolerance * np.abs(values).max(), err_msg=name)


def assert_same_files(prefix, others):
    """Traits, best SNPs and histograms are those of another run."""
    for mine, theirs in zip(read_rows(f"{prefix}.traits.tsv"), read_rows(f"{others}.traits.tsv"), strict=True):
        assert mine.keys() == theirs.keys()
        for name, value in theirs.items():
            try:
                assert float(mine[name]) == pytest.approx(float(value), rel=1e-9, abs=1e-9, nan_ok=True), name
            except ValueError:
                assert mine[name] == value, name
    with h5py.File(f"{prefix}.histograms.h5") as mine, h5py.File(f"{others}.histograms.h5") as theirs:
        for group in theirs:
            np.testing.assert_array_equal(mine[group]["counts"], theirs[group]["counts"])


@pytest.mark.parametrize("precision", TOLERANCE)
def test_tiles_of_genotypes_with_gaps_equal_the_oracle(comm, study, precision):
    sizes = {"block_size": 20, "trait_block": 4}
    out = scan(comm, study, f"g_{precision}", precision=precision, dense=True, **sizes)
    if comm.rank == 0:
        hits, dense = read_hits(out), read_dense(out)
        for name in TRAITS:
            wanted = expected(study, name, study.plink.centred())
            assert_close(hits[name], wanted, TOLERANCE[precision])
            beta, se = dense[name]
            assert_close({"BETA": beta, "SE": se}, {key: wanted[key] for key in ("BETA", "SE")}, 1e-6)
            np.testing.assert_array_equal(hits[name]["N"], np.isfinite(study.plink.dosages).sum(axis=0))
        log = out.with_name(f"{out.name}.log").read_text()
        assert "no card: NumPy in its place: 0.00 GiB of Z'" in log and "of a GPU (basis 0.00, genotypes" in log
        assert f"{precision} precision on the GPU against double on 20 SNPs" in log
        assert read_facts(out)["mixed_check_beta"] < TOLERANCE[precision]


@pytest.mark.parametrize("precision", ["double", "mixed"])
def test_tiles_of_dosages_with_gaps_equal_the_oracle(comm, study, precision):
    prefix, lines = study.folder / "d", [(study.folder / f"g.{k}").read_text().splitlines() for k in ("bim", "fam")]
    dosages = np.clip(study.plink.dosages + np.random.default_rng(2).normal(0, 0.1, (N, M)), 0, 2)
    dosages = np.round(dosages * 2**14) / 2**14
    on_root(comm, lambda: write_pgen(prefix, *lines, dosages, exact=False, step=1))
    out = scan(comm, study, f"d_{precision}", precision=precision, bfile=None, pfile=prefix, block_size=40)
    if comm.rank == 0:
        centred = np.where(np.isfinite(dosages), dosages - np.nanmean(dosages, axis=0), 0.0)
        hits = read_hits(out)
        for name in TRAITS:
            assert_close(hits[name], expected(study, name, centred), TOLERANCE[precision])


def test_traits_with_masks_of_their_own_and_untestable_ones(comm, study):
    """Every group has its basis; a trait without variance has no test, a SNP without variance neither."""
    lacking, pheno = {"trait2": slice(0, 7), "trait5": slice(30, 34)}, study.folder / "masks"
    columns = read_table(study.pheno)
    for name, rows in lacking.items():
        columns[name][rows] = np.nan
    columns["trait3"] = 7.0 - 2.0 * next(iter(read_table(study.covar).values()))
    on_root(comm, lambda: write_table(pheno, study.plink.ids, columns))
    options = {"pheno": str(pheno), "block_size": 30, "dense": True, "test": "wald", "p_threshold": 0.2}
    out, on_ranks = scan(comm, study, "m", **options), scan(comm, study, "mc", device="cpu", **options)
    if comm.rank == 0:
        hits, wanted, dense, of_ranks = read_hits(out), read_hits(on_ranks), read_dense(out), read_dense(on_ranks)
        for name in TRAITS:
            np.testing.assert_array_equal(hits[name]["ID"], wanted[name]["ID"])
            assert (0 < hits[name]["ID"].size < M) == (name != "trait3")
            assert_close(hits[name], {key: wanted[name][key] for key in EFFECTS if wanted[name][key].size}, 1e-9)
            np.testing.assert_allclose(dense[name], of_ranks[name], rtol=2e-7)
        assert np.isnan(dense["trait3"]).all() and np.isfinite(dense["trait2"]).any()
        assert_same_files(out, on_ranks)


@pytest.mark.parametrize("form", ["grm", "eigen"])
def test_cards_too_small_for_the_basis_and_all_traits(comm, study, form, monkeypatch):
    """Z' is copied for every block, and there are passes; with two ranks each card has half of its rows."""
    files, alive = {}, weakref.WeakSet()

    class Counted(TraitRows):
        def take(self, panel):
            alive.add(self)
            assert len(alive) == 1, "the rows of the pass before are still there"
            return super().take(panel)

    monkeypatch.setattr(held_basis, "TraitRows", Counted)
    if form == "eigen":
        mpgls.eigen(grm=study.grm, out=study.folder / "e", threads=1, comm=comm)
        files = {"grm": None, "eigen": str(study.folder / "e.h5")}
    sizes = {
        "block_size": 16,
        "team_size": comm.size,
        "trait_block": 2,
        "pass_traits": 2,
        "gpu_memory": MEMORY[comm.size] / 2**30,
    }
    out = scan(comm, study, f"s_{form}", **sizes, **files)
    if comm.rank == 0:
        hits, log = read_hits(out), out.with_name(f"{out.name}.log").read_text()
        for name in TRAITS:
            assert_close(hits[name], expected(study, name, study.plink.centred()), TOLERANCE["double"])
        assert "do not fit and are copied to it for every block: teams of" in log, log
        assert "3 passes over the SNPs, which rotate them anew" in log, log
        assert "GiB more are copied to it for every block" in log
        assert not list(study.folder.glob("*scratch*"))


def test_one_chromosome_left_out_and_some_of_the_samples(comm, study):
    keep, K = study.folder / "keep", study.folder / "KL"
    on_root(comm, lambda: write_lines(keep, [" ".join(one) for one in study.plink.ids[5:58]]))
    mpgls.kinship(bfile=study.bfile, out=K, loco=True, threads=1, comm=comm)
    options = {"grm": f"{K}.h5", "loco": True, "keep": str(keep), "p_threshold": 0.1, "h2_file": None}
    out, on_ranks = scan(comm, study, "l", **options), scan(comm, study, "lc", device="cpu", **options)
    if comm.rank == 0:
        hits, wanted = read_hits(out), read_hits(on_ranks)
        for name in TRAITS:
            np.testing.assert_array_equal(hits[name]["ID"], wanted[name]["ID"])
            assert_close(hits[name], {key: wanted[name][key] for key in EFFECTS}, 1e-9)
        assert_same_files(out, on_ranks)


@pytest.mark.parametrize("precision", ["double", "mixed"])
def test_a_snp_that_tells_all_of_a_trait_or_nothing_beside_the_covariates(comm, study, precision):
    """SE 0 for the first; no estimate for the second; the first of equal SNPs is the best.

    In mixed precision a SNP may leave a share of 1e-8, which the check in double does not take for a difference.
    """
    left_over = np.random.default_rng(9).normal(size=N) * {"double": 0.0, "mixed": 1e-4}[precision]
    dosages, names = np.nan_to_num(study.plink.dosages), study.plink.snps
    dosages[:, 3], dosages[:, 40] = 1.0, dosages[:, 8]
    columns = {"trait1": 3.0 + 2.0 * dosages[:, 8] + left_over, "trait2": read_table(study.pheno)["trait2"]}
    pheno, covar, prefix = (study.folder / f"all_{name}" for name in ("pheno", "covar", "g"))

    def make():
        for kind in ("bim", "fam"):
            write_lines(f"{prefix}.{kind}", (study.folder / f"g.{kind}").read_text().splitlines())
        write_genotypes(str(prefix), dosages)
        write_table(pheno, study.plink.ids, columns)
        write_table(covar, study.plink.ids, {"c": dosages[:, 20]})

    on_root(comm, make)
    files = {"bfile": str(prefix), "pheno": str(pheno), "covar": str(covar), "h2_file": None, "h2": 0.4}
    out = scan(comm, study, f"all_{precision}", precision=precision, block_size=10, **files)
    if comm.rank == 0:
        design = np.column_stack([np.ones(N), dosages[:, 20]])
        left = dosages - design @ np.linalg.lstsq(design, dosages, rcond=None)[0]
        size = np.linalg.norm(left, axis=0)
        varies = size > 1e-9
        alike = np.abs(left.T @ left[:, 8]) > (1 - 1e-9) * size * size[8]
        rows = [row for row in read_rows(f"{out}.hits.tsv") if row["TRAIT"] == "trait1"]
        assert {row["ID"] for row in rows} == set(names[varies])
        assert (
            {row["ID"] for row in rows if float(row["SE"]) == 0} == set(names[varies & alike]) >= {names[8], names[40]}
        )
        best = next(row for row in read_rows(f"{out}.traits.tsv") if row["TRAIT"] == "trait1")
        assert read_facts(out)["mixed_check_se"] < 1e-5
        assert (best["BEST_SNP"], best["TESTED"]) == (names[varies & alike][0], str(varies.sum()))


def test_a_stopped_run_is_resumed(comm, study, monkeypatch):
    """In the second pass; what the first has found is kept, whose rows are not on the card any more."""
    options, scan_tiles, calls = {"trait_block": 2, "pass_traits": 2, "block_size": 30}, multi_trait.scan_tiles, []

    def until_the_second(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise Stopped("stopped", 15)
        return scan_tiles(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(multi_trait, "scan_tiles", until_the_second)
        with pytest.raises(Stopped):
            scan(comm, study, "stop", **options)
    comm.Barrier()
    out = scan(comm, study, "stop", resume=True, **options)
    if comm.rank == 0:
        assert "1 pass(es) are done" in out.with_name("stop.log").read_text()
        hits = read_hits(out)
        for name in TRAITS:
            assert_close(hits[name], expected(study, name, study.plink.centred()), TOLERANCE["double"])


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"device": "cpu", "precision": "exact"}, "--precision exact needs --device gpu"),
        (
            {"ratio": "snp", "h2_file": None, "p_threshold": 1e-4},
            "--ratio is not there for GPUs: leave out either it or --device",
        ),
        ({"model": "dominant"}, "--model is not there for GPUs"),
        ({"gpu_memory": 1e-6}, r"tiles of 32 SNPs x 5 traits need 0.00 GiB of a GPU, which has 0.00: give a larger"),
    ],
)
def test_what_cards_do_not_do_is_said_in_a_sentence(comm, study, options, sentence):
    with pytest.raises((UsageError, MemoryPlanError), match=sentence):
        scan(comm, study, "r", **options)
