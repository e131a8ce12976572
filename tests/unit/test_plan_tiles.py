"""The plan of a multi-trait scan: what fits, what is given up first, and what it says when nothing does."""

from __future__ import annotations

import itertools
import re

import pytest

from mpgls.engine.team_solvers import MESSAGES
from mpgls.engine.tile_plan import PANEL, Tiles, TileSizes, TileWishes, histogram_bytes, plan_tiles
from mpgls.errors import MemoryPlanError, UsageError
from mpgls.model.h2_nodes import NODES
from mpgls.model.histograms import Bins, Statistic
from mpgls.run.plan import GIB, NARROWEST, WIDEST, Machine

STUDY = {
    "n": 3_000,
    "m": 400_000,
    "t": 20_000,
    "q": 4,
    "snp_bytes": 750,
    "item": 8,
    "from_file": False,
    "packed_kinship": False,
    "several_groups": False,
    "dense": False,
    "ratios": False,
}
SHARE = 8 * 3_000**2  # the kinship


def machine(ranks=2, ranks_per_node=2, gib=None, base=GIB // 10):
    return Machine(ranks, ranks_per_node, None if gib is None else int(gib * GIB), base)


def plan(at, **changes):
    sizes = {name: changes.pop(name, value) for name, value in STUDY.items()}
    return plan_tiles(at, TileSizes(**sizes), TileWishes(**changes))


def passes(made, t=STUDY["t"]):
    return -(-t // made.resident)


def test_without_a_limit_there_is_one_pass_of_wide_tiles():
    made = plan(machine())
    assert (made.team_size, made.panel, made.resident) == (1, PANEL, STUDY["t"])
    assert WIDEST // 2 < made.block <= WIDEST
    assert "one pass over the SNPs" in made.text(machine(), STUDY["t"])


def test_every_stage_fits_and_passes_grow_as_memory_shrinks():
    gib, seen = plan(machine()).peak / GIB * 1.01, []
    while True:
        try:
            made = plan(machine(gib=gib), team_size=1)
        except MemoryPlanError:
            break
        assert all(0 < size <= gib * GIB for size in made.stages.values()), gib
        assert made.resident == STUDY["t"] or made.resident % made.panel == 0
        assert made.panel <= made.resident
        seen.append(passes(made))
        gib *= 0.93
    assert seen[0] == 1 and seen[-1] >= 8 and len(set(seen)) >= 3
    assert "passes over the rotated SNPs, kept in scratch files" in made.text(machine(gib=gib), STUDY["t"])


@pytest.mark.parametrize("dense", [False, True])
def test_traits_at_the_nodes_of_h2_and_a_third_tile_take_room(dense):
    """R^-1 b_T (q numbers) and rss_0 of each trait at each node, where pairs have ratios of their own."""
    without, made = (plan(machine(), dense=dense, ratios=ratios) for ratios in (False, True))
    assert made.tiles == without.tiles
    traits = 8 * NODES * (STUDY["q"] + 1) * STUDY["t"]
    least = traits + dense * 8 * made.block * made.panel
    assert least < made.stages["scan"] - without.stages["scan"] < 3 * least
    assert made.stages["null models"] - without.stages["null models"] > traits


@pytest.mark.parametrize("t, panel, pass_traits, resident", [
    (10, None, None, 10),
    (10, 3, None, 10),
    (10, 3, 7, 6),
    (10, 3, 2, 2),
    (10, None, 4, 4),
    (10, 64, 100, 10),
    (1, None, 1, 1),
    (20_000, None, 5_000, 4_096),
])  # fmt: skip
def test_a_pass_is_of_whole_panels(t, panel, pass_traits, resident):
    made = plan(machine(), t=t, panel=panel, pass_traits=pass_traits)
    assert made.resident == resident and made.panel <= resident
    assert resident == t or resident % made.panel == 0


@pytest.mark.parametrize("change", ["packed_kinship", "several_groups"])
def test_copies_of_the_kinship_count(change):
    small, large = (plan(machine(), **{change: yes}).stages["eigendecomposition"] for yes in (False, True))
    assert large - small == SHARE // 2


def test_eigenvectors_from_a_file_need_no_workspace():
    made = plan(machine(), from_file=True)
    assert made.stages["eigendecomposition"] == machine().base + SHARE // 2
    assert max(made.stages, key=made.stages.get) != "eigendecomposition"


def test_a_dense_store_and_double_precision_cost_memory():
    scan = plan(machine())
    assert plan(machine(), dense=True).stages["scan"] > scan.stages["scan"]
    mixed = plan(machine(), item=4)
    for name in ("handing over the basis", "null models", "scan"):
        assert mixed.stages[name] < scan.stages[name]


def test_larger_teams_share_the_basis():
    one, four = (plan(machine(4, 1), team_size=size).stages["handing over the basis"] for size in (1, 4))
    assert one - four == SHARE - SHARE // 4 - MESSAGES


def test_a_larger_team_is_taken_when_a_basis_does_not_fit_one_rank():
    big = {"n": 40_000, "snp_bytes": 10_000}
    made = plan(machine(16, 1, gib=9), **big)
    assert made.team_size > 1 and made.peak <= 9 * GIB


def test_wishes_are_kept():
    made = plan(machine(4, 2), team_size=3, block=77, panel=55)
    assert (made.team_size, made.block, made.panel) == (3, 77, 55)


@pytest.mark.parametrize("size", [0, 3])
def test_impossible_team_sizes(size):
    with pytest.raises(UsageError, match="--team-size must be from 1 to the number of ranks, 2"):
        plan(machine(), team_size=size)


@pytest.mark.parametrize("n, gib", [(9_000, 0.7), (20_000, 3)])
def test_what_does_not_fit_is_refused_with_what_would(n, gib):
    with pytest.raises(MemoryPlanError) as caught:
        plan(machine(4, 1, gib=gib), n=n)
    text = str(caught.value)
    assert re.match(r"the [a-z ]+ needs [\d.]+ GiB a rank", text) and f"--memory allows {gib:.2f}" in text
    wanted = float(re.search(r"--memory ([\d.]+)$", text).group(1))
    assert wanted > gib and plan(machine(4, 1, gib=wanted), n=n).peak <= wanted * GIB
    ranks = int(re.search(r"at least (\d+) ranks", text).group(1))
    assert ranks > 4 and plan(machine(ranks, 1, gib=gib), n=n).peak <= gib * GIB


def test_a_limit_below_the_program_itself():
    with pytest.raises(MemoryPlanError, match=r"the program alone takes 0\.10"):
        plan(machine(gib=0.05))


@pytest.mark.parametrize("n", [50, 1_411, 100_000])
def test_histograms_are_counted_in_full(n):
    assert histogram_bytes(n) >= 4 * Bins(Statistic.of(n, 3, "t")).count


def test_few_snps_and_traits():
    made = plan(machine(), m=3, t=2)
    assert (made.block, made.panel, made.resident) == (NARROWEST, 2, 2)


def test_the_text_names_sizes_and_bytes():
    text = plan(machine(gib=2)).text(machine(gib=2), STUDY["t"])
    for part in ("2 ranks", "teams of 1", "tiles of", "of 2.00 GiB allowed", "null models", "handing over the basis"):
        assert part in text


def test_a_resumed_run_keeps_its_tiles():
    tiles, sizes = Tiles(96, 500, 1_500), TileSizes(**STUDY)
    assert plan_tiles(machine(), sizes, TileWishes(block=64), tiles).tiles == tiles
    alone = plan_tiles(machine(4, 1), sizes, TileWishes(team_size=1), tiles)
    made = plan_tiles(machine(4, 1, gib=0.999 * alone.peak / GIB), sizes, TileWishes(), tiles)
    assert made.tiles == tiles and made.team_size > 1
    with pytest.raises(MemoryPlanError):
        plan_tiles(machine(4, 1, gib=0.11), sizes, TileWishes(), tiles)


def test_passes_and_panels_cover_the_traits_once():
    made = plan(machine(), t=10, panel=3, pass_traits=7)
    passes = made.passes(part=2, group=1, traits=10)
    panels = [panel for one in passes for panel in made.panels(one, 10)]
    assert {one[:2] for one in passes} == {(2, 1)} and len(passes) == 2
    assert panels[0][0] == 0 and panels[-1][1] == 10 and all(a[1] == b[0] for a, b in itertools.pairwise(panels))
    assert [(one.first, one.stop) for one in passes] == [(0, panels[1][1]), (panels[2][0], 10)]
