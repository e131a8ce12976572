"""The plan of a voxelwise GWAS, and the units that it cuts."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from mpgls.engine.voxel_units import ENTRY_DTYPE, cut_units
from mpgls.engine.voxelwise import batches, in_order
from mpgls.engine.voxelwise_plan import NARROWEST_CHUNK, VoxelwiseSizes, Wishes, plan_voxelwise
from mpgls.errors import MemoryPlanError, UsageError
from mpgls.run.plan import GIB, Machine

BASE = 120 << 20


def plan(ranks=2, per_node=None, gib=None, wishes=None, **sizes):
    machine = Machine(ranks, per_node or ranks, None if gib is None else int(gib * GIB), BASE)
    usual = {
        "n": 740, "m": 10_000, "v": 51_792, "r": 10, "permutations": 1001, "threshold": 1e-4, "snp_bytes": 185,
        "dtype": np.float32, "neighbours": 3,
    }  # fmt: skip
    return plan_voxelwise(machine, VoxelwiseSizes(**usual | sizes), wishes or Wishes())


def test_voxels_that_fit_stay_and_ranks_of_a_node_share_them():
    one = plan(gib=2)
    assert not one.streamed and one.team_size == 1 and one.block <= 1024
    assert one.stages["voxels"] < plan(per_node=1, gib=2).stages["voxels"]
    assert one.peak <= 2 * GIB


def test_a_team_holds_what_a_rank_cannot():
    one = plan(ranks=8, per_node=1, gib=1.0, n=2000, v=200_000)
    assert not one.streamed and 1 < one.team_size <= 8
    assert one.chunk * (8 // (8 // one.team_size)) >= 200_000
    assert one.peak <= 1.0 * GIB


def test_voxels_beyond_all_memory_are_streamed():
    one = plan(gib=4, n=2000, v=1_000_000, m=5000, permutations=11, snp_bytes=500)
    assert one.streamed and one.team_size == 1 and one.chunk < 1_000_000
    assert one.block >= 2500 and one.permutations == 11  # voxels are read once a rank
    assert one.peak <= 4 * GIB


def test_a_given_chunk_is_streamed_and_given_sizes_are_kept():
    one = plan(wishes=Wishes(team_size=2, block=700, chunk=5000, permutations=13))
    assert one.streamed and (one.chunk, one.block, one.team_size, one.permutations) == (5000, 700, 2, 13)


def test_there_are_units_for_every_team():
    for ranks, m, permutations in itertools.product((1, 4, 64), (1, 100, 3000, 50_000), (1, 11, 1001)):
        one = plan(ranks=ranks, per_node=1, m=m, permutations=permutations)
        units = cut_units(m, range(permutations), one.block, one.permutations)
        assert len(units) >= min(ranks, permutations * -(-m // 64)) * 0.9


def test_units_cover_every_snp_and_permutation_once():
    seen = np.zeros((103, 40), dtype=int)
    for unit in cut_units(103, range(7, 40), 10, 9):
        seen[unit.start : unit.stop, unit.first : unit.last] += 1
    assert (seen[:, 7:] == 1).all() and not seen[:, :7].any()


def test_what_cannot_fit_is_refused_with_what_would():
    with pytest.raises(MemoryPlanError, match=r"allows 0\.15: give --memory 0\.\d+") as caught:
        plan(gib=0.15, n=50_000, v=10_000)
    text = str(caught.value)
    assert f"chunks of {NARROWEST_CHUNK}" in text
    need = float(text.split("--memory")[2].split(",")[0])
    assert plan(gib=need, n=50_000, v=10_000).peak <= need * GIB


def test_a_card_holds_the_voxels_or_as_many_as_it_has_room_for():
    one = plan(card=70 * GIB).on_card
    assert one.voxels == one.chunk == 51_792 and one.stages["voxels"] >= 2 * 752 * 51_792
    assert plan(card=70 * GIB).permutations > plan().permutations  # units are as long
    for gib in (0.1, 0.2, 1.0):
        part = plan(card=int(gib * GIB), v=2_000_000).on_card
        assert 0 < part.voxels < 2_000_000 and sum(part.stages.values()) <= gib * GIB
        assert part.tile <= (2_000_000 + 16) * 1034
    with pytest.raises(MemoryPlanError, match=r"256 voxels need 0.0[1-9] GiB of a GPU, which has 0.01"):
        plan(card=GIB // 100)


def test_a_team_larger_than_the_ranks_is_refused():
    with pytest.raises(UsageError, match="from 1 to the number of ranks, 2, not 3"):
        plan(wishes=Wishes(team_size=3))


def test_entries_are_batched_by_whole_permutations(monkeypatch):
    monkeypatch.setattr("mpgls.engine.voxelwise.TOGETHER", 10)
    rng = np.random.default_rng(2)
    indices = np.arange(3, 60, 2)
    entries = np.zeros(200, dtype=ENTRY_DTYPE)
    entries["index"] = rng.choice(indices[3:], 200)
    entries["snp"], entries["voxel"] = rng.integers(0, 5, 200), np.arange(200)
    ordered = in_order(entries, 5, 200)
    key = [(one["index"], one["snp"], one["voxel"]) for one in ordered]
    assert key == sorted(key)
    parts = list(batches(ordered, indices))
    assert np.array_equal(np.concatenate([part for part, _ in parts]), ordered)
    assert np.array_equal(np.concatenate([some for _, some in parts]), indices)
    for part, some in parts:
        assert set(part["index"]) <= set(some)
        assert part.size <= 10 or some.size == 1
