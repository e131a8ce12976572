"""``--device gpu`` through whole commands, with NumPy in place of CuPy: everything but the card itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import low_rank_oracle
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
    read_facts,
    read_kinship,
    read_plink,
    read_results,
    relabel_chromosomes,
    write_genotypes,
    write_kinship,
    write_lines,
)

import mpgls
from mpgls.device import cuda, operator, outer
from mpgls.engine import low_rank_card, low_rank_plan, similarity_on_card
from mpgls.errors import MemoryPlanError, UsageError

pytestmark = few_ranks

N, M, H2 = 61, 75, 0.4
EFFECTS = ("BETA", "SE", "STAT", "LOG10P")
TOLERANCE = {"double": 1e-10, "mixed": 1e-6, "exact": 1e-10}
"""Of a table, which has 10 digits or more."""


@dataclass(frozen=True)
class Study(SimulatedStudy):
    """Simulated files with missing genotypes, and an eigendecomposition of the kinship of some of the samples."""

    grm: str
    Phi: np.ndarray


@pytest.fixture(scope="module")
def study(module_comm, module_folder):
    comm, prefix = module_comm, str(module_folder / "g")
    mpgls.simulate(samples=N, snps=M, out=prefix, traits=1, missing=0.04, seed=3, comm=comm)
    plink = read_plink(prefix)
    X = plink.centred()
    Phi = oracle.scaled(X @ X.T / M)
    grm = module_folder / "K.h5"
    on_root(comm, lambda: write_kinship(grm, plink.ids, Phi))
    return Study(module_folder, prefix, f"{prefix}.pheno.tsv", f"{prefix}.covar.tsv", plink, str(grm), Phi)


@pytest.fixture(autouse=True)
def numpy_in_place_of_a_card(monkeypatch, comm):
    """Every rank has a "GPU" of as much memory as it may use, or of a terabyte, that forgives no more than CuPy.

    One rank alone has the kernels of a GPU and its calls of cuBLAS as well.
    """
    strict_lanes.begin_anew()
    monkeypatch.setattr(cuda, "open_card", lambda rank, size, limit: card_of(comm.size, limit))


def scan(comm, study, out, **options):
    """Run the command on the study. Returns the prefix of its outputs."""
    prefix = study.folder / out
    given = {"bfile": study.bfile, "pheno": study.pheno, "grm": study.grm, "h2": H2, "device": "gpu", "no_plots": True}
    mpgls.single_trait(out=prefix, threads=1, comm=comm, covar=study.covar, **(given | options))
    comm.Barrier()
    return prefix


def assert_effects(prefix, study, snps, precision, rows=slice(None)):
    """The table equals the oracle at H2, relative to the largest value of each column."""
    results, varies = read_results(prefix, "trait1"), snps.any(axis=0)
    np.testing.assert_array_equal(results["NOTE"], np.where(varies, ".", "monomorphic"))
    Phi = oracle.scaled(study.Phi[rows][:, rows])
    expected = oracle.scan(H2, Phi, study.design()[rows], study.trait()[rows], snps[:, varies])
    for name, values in zip(EFFECTS, (*expected[:3], -np.log10(expected[3])), strict=True):
        atol = TOLERANCE[precision] * np.abs(values).max()
        np.testing.assert_allclose(results[name][varies], values, rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize("precision", TOLERANCE)
def test_genotypes_with_gaps_equal_the_oracle(comm, study, precision):
    out = scan(comm, study, f"g_{precision}", precision=precision, block_size=20)
    if comm.rank == 0:
        assert_effects(out, study, study.plink.centred(), precision)
        assert read_facts(out, "trait1")["mixed_check_beta"] < TOLERANCE[precision]
        log = out.with_name(f"{out.name}.log").read_text()
        assert "no card: NumPy in its place: 0.00 GiB of L^-1" in log and f"{precision} precision on the GPU" in log
        assert "of a GPU (operator 0.00, genotypes 0.00, products 0.0" in log


@pytest.mark.parametrize("precision", TOLERANCE)
def test_dosages_with_gaps_equal_the_oracle(comm, study, precision):
    prefix = study.folder / "d"
    dosages = np.clip(study.plink.dosages + np.random.default_rng(2).normal(0, 0.1, (N, M)), 0, 2)
    dosages = np.round(dosages * 2**14) / 2**14
    lines = [(study.folder / f"g.{kind}").read_text().splitlines() for kind in ("bim", "fam")]
    on_root(comm, lambda: write_pgen(prefix, *lines, dosages, exact=False, step=1))
    out = scan(comm, study, f"d_{precision}", precision=precision, bfile=None, pfile=prefix, block_size=20)
    if comm.rank == 0:
        known = np.isfinite(dosages)
        centred = np.where(known, dosages - np.nanmean(dosages, axis=0), 0.0)
        assert_effects(out, study, centred, precision)


def test_exact_tables_have_the_same_bytes_in_any_block(comm, study):
    prefixes = [scan(comm, study, f"b{width}", precision="exact", block_size=width) for width in (7, 75)]
    if comm.rank == 0:
        narrow, wide = (Path(f"{prefix}.trait1.tsv").read_bytes() for prefix in prefixes)
        assert narrow == wide


@pytest.mark.parametrize("form", ["grm", "eigen"])
def test_a_team_of_cards_too_small_for_its_operator(comm, study, form, monkeypatch):
    """The panels are copied for every block; the plan says so, and how many GPUs would do."""
    monkeypatch.setattr(operator, "HEIGHT", 4)
    files = {}
    if form == "eigen":
        mpgls.eigen(grm=study.grm, out=study.folder / "e", threads=1, comm=comm)
        files = {"grm": None, "eigen": str(study.folder / "e.h5")}
    memory = {1: 42_000, 2: 65_000}[comm.size] / 2**30  # beside genotypes and products less than the operator
    sizes = {"gpu_memory": memory, "block_size": 16, "team_size": comm.size}
    out = scan(comm, study, f"t_{form}", precision="double", **sizes, **files)
    if comm.rank == 0:
        assert_effects(out, study, study.plink.centred(), "double")
        log = out.with_name(f"{out.name}.log").read_text()
        assert "do not fit and are copied to it for every block: teams of" in log, log
        assert "GiB more are copied to it for every block" in log


def test_some_of_the_samples(comm, study):
    keep = study.folder / "keep"
    on_root(comm, lambda: write_lines(keep, study.plink.ids[5:58]))
    out = scan(comm, study, "k", keep=str(keep), precision="exact")
    if comm.rank == 0:
        rows = slice(5, 58)
        assert_effects(out, study, study.plink.centred(rows), "exact", rows)


def test_men_on_x_are_counted_as_on_ranks(comm, study):
    prefix = study.folder / "x"

    def make():
        for kind in ("bim", "fam"):
            lines = (study.folder / f"g.{kind}").read_text().splitlines()
            write_lines(f"{prefix}.{kind}", lines)
        write_genotypes(prefix, study.plink.dosages)
        relabel_chromosomes(prefix, ["1"] * 40 + ["X"] * (M - 40))

    on_root(comm, make)
    sexes = study.folder / "sexes"
    rows = [f"{fid} {iid} {1 + k % 2}" for k, (fid, iid) in enumerate(study.plink.ids)]
    on_root(comm, lambda: write_lines(sexes, ["FID IID SEX", *rows]))
    given = {"bfile": str(prefix), "sex": str(sexes)}
    out, on_ranks = scan(comm, study, "xg", **given), scan(comm, study, "xc", device="cpu", **given)
    if comm.rank == 0:
        found, expected = (read_results(one, "trait1") for one in (out, on_ranks))
        for name in ("EAF", "N", "NOTE"):
            np.testing.assert_array_equal(found[name], expected[name])
        np.testing.assert_allclose(found["BETA"], expected["BETA"], rtol=1e-9, atol=1e-9)


# -- kinship ---------------------------------------------------------------------------------------------------------


def kinship(comm, study, out, **options):
    """The matrix that the command writes, of the study's genotypes unless told otherwise."""
    prefix = study.folder / out
    mpgls.kinship(out=prefix, threads=1, comm=comm, **({"bfile": study.bfile, "device": "gpu"} | options))
    comm.Barrier()
    return read_kinship(f"{prefix}.h5")


@pytest.fixture
def low_strips(monkeypatch):
    """Several strips of a small matrix."""
    monkeypatch.setattr(outer, "HEIGHT", 16)


@pytest.mark.parametrize("block_size", [None, 20])
@pytest.mark.parametrize("method", ["centered", "standardized", "gcta"])
def test_kinship_with_gaps_equals_the_dense_product(comm, study, low_strips, method, block_size):
    K = kinship(comm, study, f"K_{method}{block_size}", method=method, block_size=block_size)
    X, seen = study.plink.centred(), np.isfinite(study.plink.dosages)
    p = study.plink.frequency()
    scaled = {"centered": X, "standardized": X / X.std(axis=0), "gcta": X / np.sqrt(2 * p * (1 - p))}[method]
    pairs = seen.astype(float) @ seen.T if method == "gcta" else M
    np.testing.assert_allclose(K, scaled @ scaled.T / pairs, rtol=1e-12, atol=1e-13)
    np.testing.assert_array_equal(K, K.T)


def test_kinship_of_whole_numbers_has_the_bits_of_the_ranks(comm, study, low_strips):
    """Of SNPs that nobody lacks the sums are whole numbers on either."""
    prefix = study.folder / "whole"

    def make():
        for kind in ("bim", "fam"):
            write_lines(f"{prefix}.{kind}", (study.folder / f"g.{kind}").read_text().splitlines())
        write_genotypes(prefix, np.nan_to_num(study.plink.dosages))

    on_root(comm, make)
    on_card, on_ranks = (kinship(comm, study, f"W_{d}", bfile=str(prefix), device=d) for d in ("gpu", "cpu"))
    np.testing.assert_array_equal(on_card, on_ranks)


def test_kinship_of_dosages_by_chromosome(comm, study, low_strips):
    prefix, lines = study.folder / "kd", [(study.folder / f"g.{k}").read_text().splitlines() for k in ("bim", "fam")]
    dosages = np.clip(study.plink.dosages + np.random.default_rng(6).normal(0, 0.1, (N, M)), 0, 2)
    dosages = np.round(dosages * 2**14) / 2**14
    on_root(comm, lambda: write_pgen(prefix, *lines, dosages, exact=False, step=1))
    K = kinship(comm, study, "K_d", bfile=None, pfile=str(prefix), loco=True, block_size=30)
    X = np.where(np.isfinite(dosages), dosages - np.nanmean(dosages, axis=0), 0.0)
    np.testing.assert_allclose(K, X @ X.T / M, rtol=1e-12, atol=1e-13)


def test_kinship_that_the_cards_cannot_hold(comm, study):
    with pytest.raises(MemoryPlanError, match=r"needs 0.00 GiB of each of \d GPUs, .*: use about \d+ ranks with a GPU"):
        kinship(comm, study, "K_m", gpu_memory=2e-5)


# -- low-rank --------------------------------------------------------------------------------------------------------


def low_rank(comm, study, out, **options):
    """Run the command, every second SNP for similarity. Returns the prefix of its outputs."""
    prefix = study.folder / out
    given = {"bfile": study.bfile, "pheno": study.pheno, "similarity_every": 2, "form": "low-rank", "no_plots": True}
    mpgls.low_rank(out=prefix, threads=1, comm=comm, **(given | {"device": "gpu", "block_size": 20} | options))
    comm.Barrier()
    return prefix


@pytest.mark.parametrize("precision, resident", [("double", True), ("double", False), ("mixed", True)])
def test_low_rank_with_gaps_equals_the_dense_oracle(comm, study, precision, resident, monkeypatch):
    monkeypatch.setattr(similarity_on_card, "PANEL", 9)
    monkeypatch.setattr(low_rank_card, "SHARE", 0.5 if resident else 0.0)
    monkeypatch.setattr(low_rank_card, "OF_FACTORS", 0.5 if resident else 0.0)
    monkeypatch.setattr(low_rank_plan, "STRIP", 11)
    out = low_rank(comm, study, f"lr_{precision}_{resident}", h2=H2, precision=precision)
    if comm.rank == 0:
        plink = study.plink
        similar = plink.dosages[:, ::2], plink.chromosomes[::2]
        h2 = dict.fromkeys(plink.chromosomes, H2)
        expected = low_rank_oracle.dense(
            *similar, plink.dosages, plink.chromosomes, study.trait(), study.design(False), h2=h2
        )
        results, tolerance = read_results(out, "trait1"), {"double": 1e-9, "mixed": 1e-6}[precision]
        for name, values in (("BETA", expected.beta), ("SE", expected.se), ("LOG10P", expected.log10p)):
            np.testing.assert_allclose(
                results[name], values, rtol=0, atol=tolerance * np.abs(values).max(), err_msg=name
            )
        assert "products on the GPU against double on" in out.with_name(f"{out.name}.log").read_text()


@pytest.mark.parametrize("similarity", ["dosages", "counts"])
def test_low_rank_of_dosages_with_gaps_is_that_of_the_ranks(comm, study, similarity, monkeypatch):
    monkeypatch.setattr(similarity_on_card, "PANEL", 9)
    monkeypatch.setattr(low_rank_card, "SHARE", 0.5 if similarity == "counts" else 0.0)
    prefix, lines = study.folder / "ld", [(study.folder / f"g.{k}").read_text().splitlines() for k in ("bim", "fam")]
    dosages = np.clip(study.plink.dosages + np.random.default_rng(8).normal(0, 0.1, (N, M)), 0, 2)
    on_root(comm, lambda: write_pgen(prefix, *lines, np.round(dosages * 2**14) / 2**14, exact=False, step=1))
    of_similarity = {"similarity_bfile": study.bfile} if similarity == "counts" else {}
    options = {"bfile": None, "pfile": str(prefix), "h2": H2, **of_similarity}
    out, on_ranks = (low_rank(comm, study, f"ld_{similarity}_{d}", device=d, **options) for d in ("gpu", "cpu"))
    if comm.rank == 0:
        found, expected = (read_results(one, "trait1") for one in (out, on_ranks))
        for name in EFFECTS:
            atol = 1e-9 * np.nanmax(np.abs(expected[name]))
            np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"form": "dense"}, "--device gpu has no n x n form of low-rank: give --form low-rank"),
        ({"team_size": 2}, "each GPU holds a whole factor of low-rank: leave out either --team-size or --device"),
    ],
)
def test_forms_of_low_rank_that_are_on_ranks_only(comm, study, options, sentence):
    with pytest.raises(UsageError, match=sentence):
        low_rank(comm, study, "lr_d", **options)


# -- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"device": "cpu", "precision": "exact"}, "--precision exact needs --device gpu"),
        ({"device": "cpu", "gpu_memory": 1.0}, "--gpu-memory needs --device gpu or auto"),
        ({"ratio": "snp", "h2": None}, "--ratio is not there for GPUs: leave out either it or --device"),
        ({"model": "dominant"}, "--model is not there for GPUs"),
    ],
)
def test_options_that_do_not_go_together(comm, study, options, sentence):
    with pytest.raises(UsageError, match=sentence):
        scan(comm, study, "r", **options)


def test_a_card_without_room_for_a_block(comm, study):
    with pytest.raises(MemoryPlanError, match=r"need \d+\.\d\d GiB of a GPU, which has 0\.00: give a larger --gpu-mem"):
        scan(comm, study, "m", gpu_memory=1e-6)


def test_without_cupy_it_is_said_in_a_sentence(comm, study, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setitem(__import__("sys").modules, "cupy", None)
    with pytest.raises(UsageError, match=r"^a GPU needs CuPy, which cannot be imported .*: pip install 'mpgls\[gpu\]'"):
        scan(comm, study, "c")
    out = scan(comm, study, "a", device="auto")
    if comm.rank == 0:
        assert "--device auto: no GPU is used, because a GPU needs CuPy" in out.with_name("a.log").read_text()
        assert_effects(out, study, study.plink.centred(), "double")
