"""The plan of a multi-trait scan on GPUs: what fits on a card, what is given up first, and what the log says."""

from __future__ import annotations

import pytest

from mpgls.device.parts import PRECISIONS
from mpgls.engine.device_plan import CardSizes
from mpgls.engine.scan_plan import ScanSizes
from mpgls.engine.tile_card_plan import CardTileSizes, plan_tiles_on_cards
from mpgls.engine.tile_plan import PANEL, Tiles, TileSizes, TileWishes
from mpgls.errors import MemoryPlanError, UsageError
from mpgls.run.plan import GIB, Machine

N, M, T, Q = 20_000, 1_000_000, 100_000, 4


def plan(gib, ranks=1, precision="mixed", tiles=None, t=T, n=N, **wishes):
    sizes = TileSizes(n, M, t, Q, n // 4, 4, from_file=True)
    scan = ScanSizes(n, M, Q + 1, n // 4, 4, basis=True)
    of_card = CardTileSizes(sizes, CardSizes(scan, PRECISIONS[precision], int(gib * GIB), n, False))
    return plan_tiles_on_cards(Machine(ranks, ranks, None, 0), of_card, TileWishes(**wishes), tiles)


def test_a_large_card_has_the_basis_and_all_traits():
    made = plan(139)
    assert (made.team_size, made.panel, made.resident, made.streamed) == (1, PANEL, T, 0)
    assert made.on_card["basis"] == pytest.approx(4 * N**2, rel=0.01) == made.room[0]
    assert 4 * N * T < made.on_card["traits"] < 4 * N * T * 1.1
    assert sum(made.on_card.values()) <= 139 * GIB
    assert "one pass over the SNPs" in made.text(Machine(1, 1, None, 0), T)


@pytest.mark.parametrize("ranks", [1, 2])
def test_passes_then_narrow_blocks_then_a_basis_that_is_copied(ranks):
    gib, seen = 16.0, []
    while True:
        try:
            made = plan(gib, ranks)
        except MemoryPlanError as error:
            assert "give a larger --gpu-memory, or a smaller --block-size and --trait-block" in str(error)
            break
        assert sum(made.on_card.values()) <= gib * GIB
        assert made.resident == T or made.resident % made.panel == 0
        text = made.text(Machine(ranks, ranks, None, 0), T)
        assert ("do not fit and are copied to it for every block" in text) == (made.streamed > 0)
        seen.append((made.streamed > 0, -(-T // made.resident), made.block))
        gib *= 0.8
    assert seen[0][:2] == (False, 1) and seen[-1][0] and seen[-1][1] > 8 and seen[-1][2] < seen[0][2]
    assert [streamed for streamed, _, _ in seen] == sorted(streamed for streamed, _, _ in seen)


def test_two_small_cards_share_a_basis_that_one_cannot_hold():
    one, two = plan(28, 1, n=100_000, t=2_000), plan(28, 2, n=100_000, t=2_000)
    assert one.streamed > 0 and one.enough == 2
    assert two.streamed == 0 and two.team_size == 2


def test_wishes_and_the_tiles_of_a_run_that_is_resumed():
    made = plan(139, block=64, panel=100, pass_traits=300)
    assert made.tiles == Tiles(64, 100, 300)
    assert plan(100, tiles=made.tiles).tiles == made.tiles
    with pytest.raises(MemoryPlanError, match="tiles of 64 SNPs x 100 traits need"):
        plan(0.01, tiles=made.tiles)
    with pytest.raises(UsageError, match="--team-size"):
        plan(139, team_size=2)


def test_double_takes_twice_the_room_of_mixed():
    mixed, double = (plan(139, precision=precision).on_card for precision in ("mixed", "double"))
    assert double["basis"] == 2 * mixed["basis"] and double["traits"] > 1.9 * mixed["traits"]
