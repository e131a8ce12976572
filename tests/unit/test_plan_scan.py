"""The plan of a scan: the smallest team and the widest block that fit, and what it says when nothing does."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from mpgls.engine.kinship_plan import KinshipSizes, plan_kinship
from mpgls.engine.part_worlds import deal_parts
from mpgls.engine.scan_plan import ScanSizes, plan_scan
from mpgls.engine.team_solvers import MESSAGES
from mpgls.errors import MemoryPlanError, UsageError
from mpgls.run.plan import GIB, NARROWEST, WIDEST, Machine, grid_block

STUDY = ScanSizes(n=40_000, m=1_000_000, columns=5, snp_bytes=10_000, item=8)
FACTOR = 8 * 40_000**2  # 11.9 GiB


def machine(ranks=16, ranks_per_node=1, gib=None, base=GIB // 10):
    return Machine(ranks, ranks_per_node, None if gib is None else int(gib * GIB), base)


def plan(at, team_size=None, block=None, solver="auto", **changes):
    return plan_scan(at, replace(STUDY, **changes), team_size, block, solver)


def test_without_a_limit_every_rank_is_a_team():
    made = plan(machine())
    assert (made.grid, made.team_size) == ((4, 4), 1)
    assert WIDEST // 2 < made.block <= WIDEST


@pytest.mark.parametrize("gib, team", [(20, 1), (11, 2), (5, 4), (3.2, 8)])
def test_the_team_is_the_smallest_that_fits(gib, team):
    made = plan(machine(gib=gib))
    assert made.team_size <= team and made.peak <= gib * GIB
    if made.team_size > 1:
        with pytest.raises(MemoryPlanError):
            plan(machine(gib=gib), team_size=made.team_size - 1)


def test_ranks_of_a_node_share_the_factor():
    alone, shared = (plan(machine(ranks_per_node=k)).stages["scan"] for k in (1, 8))
    assert alone - shared == FACTOR - FACTOR // 8


def test_mixed_precision_halves_the_factor():
    stages = [plan(machine(), item=item).stages["handing over the factor"] for item in (8, 4)]
    assert stages[0] - stages[1] == FACTOR // 2


def test_further_scans_keep_phi_and_its_factor():
    once, again = (plan(machine(), keeps_model=keeps).stages["scan"] for keeps in (False, True))
    assert again - once == 2 * FACTOR // 16


def test_a_narrower_block_comes_before_a_larger_team():
    wide = plan(machine(ranks=256))
    assert wide.peak == wide.stages["scan"]
    tight = plan(machine(ranks=256, gib=(wide.peak - 1) / GIB))
    assert tight.team_size == 1 and tight.block < wide.block


@pytest.mark.parametrize("m, block", [(1, NARROWEST), (5_000, 157), (16 * 2500, 834), (10**9, WIDEST)])
def test_every_rank_gets_several_blocks(m, block):
    assert plan(machine(), m=m).block == block


@pytest.mark.parametrize("kind", ["packed_kinship", "several_sets"])
def test_copies_of_the_kinship_count(kind):
    share = FACTOR // 16
    assert plan(machine(), **{kind: True}).stages["null model"] - plan(machine()).stages["null model"] == share


def test_rows_of_the_inverse_take_half_the_memory_of_a_factor_on_a_grid():
    """n (n + 128) / 2 numbers and no more, but L^-1 on the grid of all ranks beside L while they are dealt."""
    inverse, grid = (plan(machine(4, 4), 4, 100, solver).stages for solver in ("inverse", "grid"))
    share, rows = FACTOR // 4, 8 * 40_000 * 40_128 // 2 // 4
    assert grid["scan"] - inverse["scan"] == share - rows
    assert inverse["handing over the factor"] - grid["handing over the factor"] == MESSAGES + rows
    assert plan(machine(4, 4), 1).stages == plan(machine(4, 4), 1, solver="grid").stages


@pytest.mark.parametrize("m, ranks, solver", [(40_000, 2, "grid"), (400_000, 2, "inverse"), (40_000, 16, "inverse")])
def test_the_inverse_is_taken_where_many_snps_pay_for_it(m, ranks, solver):
    """1/0.9 + n/(3 m 0.3) against (R/2)^0.47 / 0.61."""
    made = plan(machine(ranks), ranks, m=m)
    assert made.solver == solver
    asked, other = plan(machine(ranks), ranks, m=m, solver=solver), {"grid": "inverse", "inverse": "grid"}[solver]
    assert (asked.solver, asked.why) == (solver, made.why)
    expected = {"inverse": 1 / 0.9 + 40_000 / (0.9 * m), "grid": (ranks / 2) ** 0.47 / 0.61}
    ratio = f"{expected[solver] / expected[other]:.2g} times the time of {other} expected, inverting L included"
    assert f"teams of {ranks} by {solver} ({ratio}); SNP" in made.text(machine(ranks))


def test_a_basis_needs_no_inversion_and_has_no_zeros():
    made = plan(machine(2, 2), 2, 64, m=40_000, basis=True)
    assert made.solver == "inverse" and "inverting" not in made.why
    assert made.stages["scan"] == plan(machine(2, 2), 2, 64, "grid", m=40_000, basis=True).stages["scan"]


def test_a_solver_that_does_not_fit_gives_way():
    inverse, grid = (plan(machine(2), 2, 64, solver, m=10**6).peak for solver in ("inverse", "grid"))
    assert grid < inverse
    made = plan(machine(2, gib=(inverse - 1) / GIB), 2, 64, m=10**6)
    assert made.solver == "grid" and "1.4 times the time of inverse" in made.why


def test_wishes_are_kept():
    made = plan(machine(), team_size=4, block=77)
    assert (made.team_size, made.block) == (4, 77)


@pytest.mark.parametrize("team_size", [0, 17])
def test_teams_that_cannot_be(team_size):
    with pytest.raises(UsageError, match=f"--team-size must be from 1 to the number of ranks, 16, not {team_size}"):
        plan(machine(), team_size=team_size)


def test_the_ranks_that_it_names_would_fit():
    with pytest.raises(MemoryPlanError, match="use at least") as caught:
        plan(machine(gib=1.5))
    ranks = int(re.search(r"at least (\d+) ranks", str(caught.value)).group(1))
    assert ranks > 16 and plan(machine(ranks=ranks, gib=1.5)).peak <= 1.5 * GIB


def test_the_memory_that_it_names_would_fit():
    with pytest.raises(MemoryPlanError) as caught:
        plan(machine(gib=1.5))
    gib = float(re.search(r"--memory ([\d.]+)$", str(caught.value)).group(1))
    assert plan(machine(gib=gib)).peak <= gib * GIB


def test_a_limit_below_the_program_itself():
    with pytest.raises(MemoryPlanError, match="the program alone"):
        plan(machine(gib=0.05))


def test_the_text_names_grid_team_block_and_bytes():
    text = plan(machine(gib=20)).text(machine(gib=20))
    for part in (
        "16 ranks",
        "4 x 4 grid",
        "teams of 1",
        f"SNP blocks of {plan(machine(gib=20)).block}",
        "of 20.00 GiB allowed",
        "null model",
    ):
        assert part in text


@pytest.mark.parametrize("n, grid, block", [(1, (1, 1), 1), (7, (2, 2), 1), (151, (3, 1), 13), (100_000, (8, 8), 128)])
def test_every_process_row_has_blocks(n, grid, block):
    assert grid_block(n, grid) == block


CHROMOSOMES = tuple(range(24_000, 2_000, -1_000))  # 22 of them


def test_chromosomes_are_dealt_evenly_each_to_one_world():
    world_of = deal_parts([5.0, 4.0, 3.0, 3.0, 3.0], 2)  # the largest first: 5 + 3 and 4 + 3 + 3
    assert world_of.tolist() == [0, 1, 1, 0, 1]
    assert deal_parts([1.0] * 22, 22).tolist() == list(range(22))
    sums = np.bincount(deal_parts(CHROMOSOMES, 4), CHROMOSOMES)
    assert sums.sum() == sum(CHROMOSOMES) and sums.max() <= sum(CHROMOSOMES) / 4 + min(CHROMOSOMES)


@pytest.mark.parametrize("ranks, worlds", [(1, 1), (2, 2), (11, 11), (16, 16), (44, 22), (23, 1)])
def test_worlds_take_whole_chromosomes(ranks, worlds):
    made = plan(machine(ranks, ranks), parts=CHROMOSOMES)
    assert (made.worlds, math.prod(made.grid)) == (worlds, ranks // worlds)
    assert plan(machine(ranks, ranks)).worlds == 1  # nothing to deal


def test_the_whole_kinship_stays_in_memory_where_several_parts_need_it():
    once, kept = (plan(machine(2, 2), parts=CHROMOSOMES, n_kinship=n) for n in (0, 50_000))
    assert (once.keeps, kept.keeps, kept.peak - once.peak) == (False, True, 8 * 50_000**2)
    assert plan(machine(2, 2, gib=(kept.peak - 1) / GIB), parts=CHROMOSOMES, n_kinship=50_000) == once
    assert not plan(machine(22, 22), parts=CHROMOSOMES, n_kinship=50_000).keeps  # each is read for one part


def test_there_are_as_many_worlds_as_memory_allows():
    """Of n x n numbers a rank of a world has its share; without --memory what is free on the node counts."""
    many = plan(machine(16, 16), parts=CHROMOSOMES)
    tight = plan(machine(16, 16, gib=many.peak / GIB - 0.1), parts=CHROMOSOMES)
    assert 1 < tight.worlds < many.worlds == 16
    free = replace(machine(16, 16), free=many.peak - 1)
    assert plan(free, parts=CHROMOSOMES).worlds == tight.worlds
    assert plan(replace(free, free=GIB), parts=CHROMOSOMES).worlds == 1
    assert plan(machine(16, 16), team_size=16, parts=CHROMOSOMES).worlds == 1
    assert plan_kinship(free, KinshipSizes(40_000, 10**6, 10_000, True, parts=CHROMOSOMES)).worlds > 1
