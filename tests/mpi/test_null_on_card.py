"""Null models whose factors are made on a card, with a stand-in for CuPy: the same as on the process grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import strict_lanes
from emulated_cupy import card_of
from ranks import few_ranks
from small_study import (
    SimulatedStudy,
    on_root,
    read_columns,
    read_facts,
    read_plink,
    read_results,
    relabel_chromosomes,
    write_kinship,
    write_lines,
)
from strict_card import StrictCard

import mpgls
from mpgls.device import cuda, operator, triangle
from mpgls.device.card import PRODUCTS
from mpgls.engine import similarity_on_card
from mpgls.engine.factor_on_card import factors_of
from mpgls.errors import NumericalError
from mpgls.la.grid import ProcessGrid
from mpgls.la.matrix import GridMatrix
from mpgls.la.scalapack import NotPositiveDefinite
from mpgls.la.teams import split_teams
from mpgls.model import reml
from mpgls.run.world import World

pytestmark = few_ranks

N, M = 61, 40
H2_APART = 2 * reml.TOLERANCE
"""REML ends within its tolerance on either; effects follow to 1e-8."""


@pytest.fixture(autouse=True)
def numpy_in_place_of_a_card(monkeypatch, comm):
    """Every rank has a "GPU" that forgives no more than CuPy; several panels of small matrices."""
    strict_lanes.begin_anew()
    monkeypatch.setattr(cuda, "open_card", lambda rank, size, limit: card_of(comm.size, limit))
    monkeypatch.setattr(triangle, "WIDTH", 16)
    monkeypatch.setattr(operator, "HEIGHT", 14)


# -- factors ---------------------------------------------------------------------------------------------------------


class Pair:
    """Factors of one matrix (n, n) on the grid and on a card."""

    def __init__(self, comm, grid, n):
        A = np.random.default_rng(4).normal(size=(n, 2 * n))
        self.A, self.n = A @ A.T / (2 * n), n
        A_grid = GridMatrix.square(grid, n, 5)
        A_grid.local[...] = self.A[np.ix_(A_grid.row_indices, A_grid.col_indices)]
        self.both = [factors_of(A_grid, World(comm), card) for card in (None, StrictCard())]


@pytest.mark.parametrize("n", [1, 7, 17, 47])
def test_factors_are_those_of_the_grid(comm, n):
    C, kept = np.random.default_rng(5).normal(size=(n, 3)), np.arange(n) % 5 != 1
    with ProcessGrid(comm) as grid:
        pair = Pair(comm, grid, n)
        for mask in (None, kept):
            chosen = pair.A * (1.0 if mask is None else np.outer(mask, mask))
            L = np.linalg.cholesky(0.6 * chosen + 0.4 * np.eye(n))
            right = np.linalg.inv(L)
            for factors in pair.both:
                product, square = factors.product(C, mask)
                np.testing.assert_allclose(product, chosen @ C, rtol=0, atol=1e-12)
                assert square == pytest.approx((chosen**2).sum(), rel=1e-12)
                factor = factors.factor(0.6, 0.4, np.float64, mask)
                found = factor.powers(C)
                assert found.log_det == pytest.approx(2 * np.log(L.diagonal()).sum(), rel=1e-11, abs=1e-11)
                M_inverse = right.T @ right
                for power, gram in enumerate(found[1:], 1):
                    expected = C.T @ np.linalg.matrix_power(M_inverse, power) @ C
                    np.testing.assert_allclose(gram, expected, rtol=0, atol=1e-11 * np.abs(expected).max())
                for transposed, W in ((False, right), (True, right.T)):
                    np.testing.assert_allclose(factor.solve(C, transposed), W @ C, rtol=0, atol=1e-11)


def test_rows_of_the_inverse_go_to_the_ranks_that_want_them(comm):
    n = 47
    with ProcessGrid(comm) as grid:
        pair = Pair(comm, grid, n)
        right = np.linalg.inv(np.linalg.cholesky(0.6 * pair.A + 0.4 * np.eye(n)))
        wanted = [panels[0] for panels in [operator.row_panels(n, 1, True)] * comm.size]
        for factors in pair.both:
            factor = factors.factor(0.6, 0.4, np.float64)
            blocks = list(zip(factor.row_blocks(wanted), wanted[comm.rank], strict=True))
            assert len(blocks) == len(wanted[comm.rank]) > 3
            for W, (rows, cols) in blocks:
                with strict_lanes.lane(PRODUCTS):
                    found = W if isinstance(W, np.ndarray) else W.get()
                np.testing.assert_allclose(found, right[np.ix_(rows, cols)], rtol=0, atol=1e-12)
            C = np.ones((n, 1))
            np.testing.assert_allclose(factor.solve(C), right @ C, rtol=0, atol=1e-11)
            np.testing.assert_allclose(factor.solve(C, transposed=True), right.T @ C, rtol=0, atol=1e-11)
            again = factors.factor(0.5, 0.5, np.float64)  # the matrix comes to the card once more
            expected = np.linalg.solve(np.linalg.cholesky(0.5 * (pair.A + np.eye(n))), C)
            np.testing.assert_allclose(again.solve(C), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("team_size", [1, 2])
def test_ranks_hold_a_factor_of_a_card(comm, team_size):
    n = 19
    with ProcessGrid(comm) as grid, split_teams(comm, min(team_size, comm.size)) as team:
        pair = Pair(comm, grid, n)
        X = np.random.default_rng(6).normal(size=(n, 2))
        applied = []
        for factors in pair.both:
            with factors.factor(0.6, 0.4, np.float64).hold(team, 2, np.float64) as L_team:
                for columns, panels in L_team.exchange(X.T):
                    for panel, rows in zip(panels, L_team.row_panels, strict=True):
                        panel[...] = columns.T[rows]
                applied.append(L_team.apply(2).copy())
        np.testing.assert_allclose(applied[1], applied[0], rtol=0, atol=1e-13)


@pytest.mark.parametrize("stays", [False, True])
def test_a_card_is_left_to_others_and_comes_back(comm, stays):
    """What is freed on the card is made again when it is needed."""
    with ProcessGrid(comm) as grid:
        pair = Pair(comm, grid, 17)
        pair.both[1].stays = stays
        found = []
        for factors in pair.both:
            for _ in range(2):
                found.append(factors.factor(0.6, 0.4, np.float64).solve(np.ones((17, 1))))
                factors.leave()
        for one in found[1:]:
            np.testing.assert_allclose(one, found[0], rtol=0, atol=1e-12)


def test_every_rank_hears_that_there_is_no_factor(comm):
    with ProcessGrid(comm) as grid:
        pair = Pair(comm, grid, 47)
        for factors in pair.both:
            for dtype in (np.float32, np.float64):
                with pytest.raises(NotPositiveDefinite, match=r"order \d+ \(of 47\).* is not positive definite"):
                    factors.factor(-1.0, 0.5, dtype)


# -- whole commands --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Study(SimulatedStudy):
    """Simulated files with missing genotypes on two chromosomes, and the kinship of each left out."""

    grm: str


@pytest.fixture(scope="module")
def study(module_comm, module_folder):
    comm, prefix = module_comm, str(module_folder / "g")
    mpgls.simulate(samples=N, snps=M, out=prefix, traits=2, missing=0.04, seed=3, comm=comm)
    on_root(comm, lambda: relabel_chromosomes(prefix, ["1"] * 20 + ["2"] * (M - 20)))
    mpgls.kinship(bfile=prefix, loco=True, out=module_folder / "K", threads=1, comm=comm)
    comm.Barrier()
    files = (f"{prefix}.pheno.tsv", f"{prefix}.covar.tsv", read_plink(prefix))
    return Study(module_folder, prefix, *files, str(module_folder / "K.h5"))


def both(comm, study, name, command, **options):
    """The command on a card and on ranks; returns the prefixes of their outputs."""
    prefixes = []
    for device in ("gpu", "cpu"):
        prefix = study.folder / f"{name}_{device}"
        given = {"bfile": study.bfile, "pheno": study.pheno, "pheno_name": ("trait1",), "no_plots": True} | options
        if device == "cpu":
            given.pop("gpu_memory", None)
        command(out=prefix, threads=1, comm=comm, device=device, **given)
        prefixes.append(prefix)
    comm.Barrier()
    return prefixes


def log_of(prefix):
    return Path(f"{prefix}.log").read_text()


def assert_alike(on_card, on_ranks, traits=("trait1",)):
    """Null models and tables agree."""
    for trait in traits:
        found, expected = (read_results(one, trait) for one in (on_card, on_ranks))
        for column in ("BETA", "SE", "LOG10P"):
            atol = 1e-8 * np.nanmax(np.abs(expected[column]))
            np.testing.assert_allclose(found[column], expected[column], rtol=0, atol=atol, err_msg=column)
        found, expected = (read_facts(one, trait) for one in (on_card, on_ranks))
        of_parts = [(facts.get("loco") or {"": facts}).values() for facts in (found, expected)]
        for card, ranks in zip(*of_parts, strict=True):
            assert 0 < ranks["h2"] < 1
            assert card["h2"] == pytest.approx(ranks["h2"], abs=H2_APART)
            assert card["h2_se"] == pytest.approx(ranks["h2_se"], rel=1e-6)
            assert card["log_likelihood"] == pytest.approx(ranks["log_likelihood"], rel=1e-12)


def test_reml_and_scan_are_those_of_the_ranks(comm, study):
    prefixes = both(comm, study, "s", mpgls.single_trait, grm=study.grm, covar=study.covar, blup=True)
    if comm.rank == 0:
        assert_alike(*prefixes)
        card, ranks = (np.array(read_columns(f"{one}.trait1.blup.tsv")["GENETIC"], dtype=float) for one in prefixes)
        np.testing.assert_allclose(card, ranks, rtol=0, atol=1e-9)
        assert "plan: null models on the GPU of rank 0: V and its factor, 0.00 GiB" in log_of(prefixes[0])


def test_several_traits_of_some_of_the_samples(comm, study):
    keep = study.folder / "keep"
    on_root(comm, lambda: write_lines(keep, study.plink.ids[4:57]))
    options = {"grm": study.grm, "keep": str(keep), "pheno_name": ("trait1", "trait2"), "precision": "exact"}
    on_card = study.folder / "some"
    mpgls.single_trait(out=on_card, bfile=study.bfile, pheno=study.pheno, no_plots=True, device="gpu", threads=1,
                       comm=comm, **options)  # fmt: skip
    on_ranks = study.folder / "some_cpu"
    mpgls.single_trait(out=on_ranks, bfile=study.bfile, pheno=study.pheno, no_plots=True, threads=1, comm=comm,
                       **(options | {"precision": "double"}))  # fmt: skip
    comm.Barrier()
    if comm.rank == 0:
        assert_alike(on_card, on_ranks, ("trait1", "trait2"))


def test_one_chromosome_left_out(comm, study):
    """Where there are several cards, each takes chromosomes of its own."""
    prefixes = both(comm, study, "l", mpgls.single_trait, grm=study.grm, loco=True)
    if comm.rank == 0:
        assert_alike(*prefixes)
        assert ("plan: 2 worlds, of whole chromosomes, of 1 rank" in log_of(prefixes[0])) == (comm.size == 2)


def test_a_card_that_cannot_hold_two_triangles(comm, study, monkeypatch):
    """The ranks factorise, and the log says so."""
    monkeypatch.setattr(operator, "HEIGHT", 4)
    sizes = {"gpu_memory": {1: 42_000, 2: 65_000}[comm.size] / 2**30, "block_size": 16, "team_size": comm.size}
    prefixes = both(comm, study, "f", mpgls.single_trait, grm=study.grm, **sizes)
    if comm.rank == 0:
        assert_alike(*prefixes)
        assert "plan: null models on the ranks: a GPU has no room for V and its factor, 0.00 GiB" in log_of(prefixes[0])


def test_low_rank_with_a_chromosome_left_out(comm, study, monkeypatch):
    monkeypatch.setattr(similarity_on_card, "PANEL", 9)
    prefixes = both(comm, study, "lr", mpgls.low_rank, similarity_every=2, form="low-rank")
    if comm.rank == 0:
        assert_alike(*prefixes)
        assert "the factors of each chromosome before its scan, on GPUs, 0.00 GiB" in log_of(prefixes[0])


@pytest.fixture(scope="module")
def no_covariance(module_comm, study):
    """A kinship with eigenvalues from -1.4 to 3.4."""
    grm = study.folder / "bad.h5"
    K = np.eye(N) - 1.2 * (np.eye(N, k=1) + np.eye(N, k=-1))
    on_root(module_comm, lambda: write_kinship(grm, study.plink.ids, K))
    return str(grm)


def test_a_kinship_that_is_no_covariance_is_refused_by_all_ranks(comm, study, no_covariance):
    for device in ("gpu", "cpu"):
        given = {"bfile": study.bfile, "pheno": study.pheno, "pheno_name": ("trait1",), "grm": no_covariance}
        sentence = r"^trait1: .* is not positive semidefinite: at h2 = 0.9, .* has no Cholesky factor \(.* of order \d+"
        with pytest.raises(NumericalError, match=sentence) as raised:
            mpgls.single_trait(out=study.folder / f"bad_{device}", h2=0.9, device=device, threads=1, comm=comm, **given)
        assert raised.value.exit_code == 6
        comm.Barrier()


def test_reml_goes_round_where_there_is_no_factor(comm, study, no_covariance):
    """The second point of the search, 0.5, has none."""
    prefixes = both(comm, study, "round", mpgls.single_trait, grm=no_covariance)
    if comm.rank == 0:
        card, ranks = (read_facts(one, "trait1") for one in prefixes)
        assert card["h2"] == pytest.approx(ranks["h2"], abs=H2_APART)
        assert "REML single: h2 0.50000000  log-likelihood -inf" in log_of(prefixes[0])
