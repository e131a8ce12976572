"""The plan of a low-rank run: what is resident, teams, blocks, and what it says when nothing fits."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import pytest

from mpgls.engine.low_rank_plan import LowRankSizes, plan_low_rank
from mpgls.errors import MemoryPlanError, UsageError
from mpgls.run.plan import GIB, NARROWEST, WIDEST, Machine

STUDY = LowRankSizes(
    n=100_000,
    K=20_000,
    largest_part=90_000,
    snp_bytes=25_000,
    similarity_bytes=25_000,
    item=8,
    traits=1,
    columns=5,
)
FACTOR = 8 * 20_000**2  # 3.0 GiB
RESIDENT = 8 * 100_000 * 20_000  # 14.9 GiB


def machine(ranks=16, ranks_per_node=1, gib=None, base=GIB // 10):
    return Machine(ranks, ranks_per_node, None if gib is None else int(gib * GIB), base)


def plan(at, team_size=None, block=None, solver="auto", **changes):
    return plan_low_rank(at, replace(STUDY, **changes), team_size, block, solver)


def test_a_block_is_as_wide_as_its_columns():
    """X, H, its float64 and the panel of L^-1 H of each column."""
    one, three = (plan(machine(), block=64, tested=tested).stages["scan"] for tested in (1, 3))
    least = 2 * 64 * (8 * 100_000 + 3 * 8 * 20_000)
    assert least <= three - one <= 2 * least


def test_without_a_limit_nothing_is_spared():
    made = plan(machine(), traits=7)
    assert made.resident and (made.team_size, made.null_team, made.traits_at_once) == (1, 1, 7)
    assert made.grid == (4, 4) and made.strip == 4 * 512
    assert WIDEST // 2 < made.block <= WIDEST


def test_with_less_memory_more_is_given_up_and_the_plan_fits():
    """A narrower block, G decoded in panels, fewer traits at a time, larger teams: in this order."""
    seen = []
    for gib in (200, 60, 40, 30, 20, 12, 9, 7, 5, 3, 2.5, 2):
        made = plan(machine(gib=gib), traits=8)
        assert made.peak <= gib * GIB
        seen.append((made.team_size, 8 // made.traits_at_once, not made.resident, made.block))
    costs = [cost[:3] for cost in seen]
    assert costs == sorted(costs)
    assert costs[0] == (1, 1, False) and costs[-1][0] > 1
    assert len(set(costs)) >= 5


@pytest.mark.parametrize("ranks", [1, 2, 3, 5, 12])
def test_the_largest_team_is_all_ranks(ranks):
    """Where K x K is large against n x K, the least memory is a team of all ranks, whatever their number."""
    study = {"n": 21_000, "K": 20_000, "block": 32}
    whole = plan(machine(ranks), team_size=ranks, **study)
    smaller = [plan(machine(ranks), team_size=size, **study).stages["scan"] for size in range(1, ranks)]
    assert all(need > whole.stages["scan"] for need in smaller)


def test_three_ranks_may_be_one_team():
    study = {"n": 20_001, "K": 20_000, "block": 32, "solver": "grid"}
    room = plan(machine(3), team_size=2, **study).stages["factors"] - RESIDENT * 20_001 // 100_000 - 1
    made = plan(machine(3, gib=room / GIB), **study)
    assert made.team_size == 3 and not made.resident


def test_reml_takes_a_larger_team_before_g_is_let_go():
    study = {"n": 30_000, "K": 20_000, "block": 32}
    made = plan(machine(gib=12), **study)
    assert made.resident and made.team_size == 1 and made.null_team == 2
    assert plan(machine(gib=16), **study).null_team == 1


def test_every_stage_counts_what_is_resident():
    a, b = (plan(machine(gib=gib)).stages for gib in (None, 12))
    assert not plan(machine(gib=12)).resident
    for stage in ("G'G", "REML", "factors"):
        assert a[stage] - b[stage] == RESIDENT, stage


def test_ranks_of_a_node_share_g_and_the_factor():
    alone, shared = (plan(machine(ranks_per_node=k), block=64).stages for k in (1, 8))
    packed = 20_000 * 25_000
    assert alone["REML"] - shared["REML"] == RESIDENT + packed - (RESIDENT // 8 + packed // 8)
    assert alone["scan"] - shared["scan"] == (RESIDENT + packed + FACTOR) * 7 // 8


def test_mixed_precision_halves_g_and_the_factor():
    double, single = (plan(machine(), item=item).stages["factors"] for item in (8, 4))
    assert double - single == (FACTOR + RESIDENT) // 2


def test_given_sizes_win():
    made = plan(machine(gib=100), team_size=4, block=77)
    assert (made.team_size, made.block) == (4, 77)
    assert plan(machine(), largest_part=40).block == NARROWEST  # one block would leave ranks idle; a smaller one, BLAS


def test_impossible_wishes():
    for size in (0, 17):
        with pytest.raises(UsageError, match=f"--team-size must be from 1 to the number of ranks, 16, not {size}"):
            plan(machine(), team_size=size)


def test_what_would_fit_fits():
    for ranks, traits in itertools.product((1, 6, 16), (1, 3)):
        with pytest.raises(MemoryPlanError, match=r"--memory allows 0\.90") as told:
            plan(machine(ranks, gib=0.9), traits=traits)
        advised = float(re.search(r"or --memory ([0-9.]+)$", str(told.value))[1])
        assert plan(machine(ranks, gib=advised), traits=traits).peak <= advised * GIB


def test_the_log_says_how_g_is_kept():
    at = machine(gib=12)
    text = plan(at).text(at)
    assert "20,000 similarity SNPs, decoded in panels from packed genotypes" in text
    assert "G'G on a 4 x 4 grid in strips of 2048" in text and "of 12.00 GiB allowed" in text
    assert "decoded once and resident on every node" in plan(machine()).text(machine())


# -- on GPUs -----------------------------------------------------------------------------------------------------------

CARD = 72 * 10**9  # nine tenths of 80 GB
LARGE = {"n": 1_000_000, "K": 50_000, "snp_bytes": 250_000, "similarity_bytes": 250_000, "item": 4}


def test_on_a_card_packed_snps_factors_and_null_models_have_room():
    at = machine(ranks=1)
    made = plan(at, team_size=1, of_card=CARD, **LARGE)
    assert not made.resident  # nothing is decoded on the host
    assert made.on_card.similarity == 50_000 * 250_000 and made.on_card.factors >= 4 * 50_000**2 // 2
    assert 8 * 50_000**2 < made.on_card.null < 8.7 * 50_000**2  # two triangles of float64
    assert made.on_card.holds_null and made.of_gram("card") == ("card", True)
    assert made.on_card.peak <= CARD
    text = made.text(at)
    assert re.search(r"of a GPU \(similarity SNPs 11\.64, factors 4\.7\d, products \d+\.\d\d\); null models, and", text)
    assert "the factors of each chromosome before its scan, on GPUs, 20.15 GiB, half of which, G'G, stays" in text
    tight = plan(at, team_size=1, of_card=50 * 10**9, traits=4, block=2048, **LARGE)
    assert tight.of_gram("card") == ("card", False) and "stays" not in tight.text(at).split("null models")[1]


def test_a_smaller_card_gives_up_what_stays_and_then_the_null_models():
    small = plan(machine(ranks=1), team_size=1, of_card=24 * 10**9, **LARGE)
    assert small.on_card.similarity == 0 and "which are copied in panels for every block" in small.text(machine())
    assert not small.on_card.holds_null and small.of_gram("card") == (None, False)
    assert "the factors of each chromosome before its scan, on the ranks" in small.text(machine())
    wide = plan(machine(ranks=1), team_size=1, of_card=CARD, **LARGE)
    assert small.on_card.peak <= 24 * 10**9 and small.block <= wide.block


def test_a_card_too_small_for_any_block_is_refused():
    with pytest.raises(
        MemoryPlanError, match=r"^low-rank needs \d+\.\d\d GiB of each GPU, .* and it has 0\.93: give a la"
    ):
        plan(machine(ranks=1), team_size=1, of_card=10**9, **LARGE)
