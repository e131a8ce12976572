"""The plan of a scan on GPUs: where null models are made, and what that leaves for blocks and operators."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mpgls.device.parts import PRECISIONS
from mpgls.engine.device_plan import CardSizes, plan_on_cards
from mpgls.engine.scan_plan import ScanSizes
from mpgls.run.plan import GIB, Machine

N = 80_000
TRIANGLE = 4 * N**2  # bytes of float64: 23.8 GiB
SCAN = ScanSizes(n=N, m=500_000, columns=5, snp_bytes=N // 4, item=8)
CARD_OF_80_GB = int(0.9 * 80e9)


def machine(ranks=1):
    return Machine(ranks, ranks, None, GIB // 10)


def plan(limit, precision="mixed", ranks=1, team_size=None, block=None, **changes):
    sizes = CardSizes(replace(SCAN, **changes), PRECISIONS[precision], int(limit), N, False)
    return plan_on_cards(machine(ranks), sizes, team_size, block)


@pytest.mark.parametrize("precision, parts", [("mixed", 4), ("double", 8)])
def test_80_000_samples_are_factorised_on_a_card_of_80_gb(precision, parts):
    """Phi and a factor, and then L^-1 beside the operator and a block, are within the card."""
    made = plan(CARD_OF_80_GB, precision)
    assert made.factorises and not made.streamed
    assert 2 * TRIANGLE < made.null < 2.15 * TRIANGLE <= CARD_OF_80_GB
    assert parts * N**2 / 2 + TRIANGLE < sum(made.on_card.values()) + TRIANGLE < CARD_OF_80_GB
    text = made.text(machine())
    assert "plan: null models on the GPU of rank 0: V and its factor, 50.12 GiB, until" in text


def test_a_narrower_block_comes_before_the_ranks():
    roomy, tight = plan(4 * CARD_OF_80_GB, "double"), plan(2.25 * TRIANGLE, "double")
    assert roomy.factorises and tight.factorises
    assert tight.block < roomy.block


def test_a_card_without_room_leaves_the_factor_to_the_ranks():
    made = plan(1.9 * TRIANGLE)
    assert not made.factorises and not made.streamed
    assert "plan: null models on the ranks: a GPU has no room for V and its factor, 50.12 GiB" in made.text(machine())
    hold = plan(CARD_OF_80_GB)
    # the ranks then hold L and L^-1 beside Phi
    assert made.stages["null model"] > hold.stages["null model"]
    assert made.stages["handing over the factor"] > hold.stages["handing over the factor"] + 2 * TRIANGLE


def test_an_operator_that_is_copied_for_every_block_leaves_no_room():
    made = plan(0.4 * TRIANGLE, "exact")
    assert made.streamed and not made.factorises


def test_each_card_takes_chromosomes_of_its_own():
    chromosomes = (40_000,) * 12
    made = plan(CARD_OF_80_GB, ranks=4, parts=chromosomes)
    assert (made.worlds, made.team_size, made.factorises) == (4, 1, True)
    assert "4 worlds, of whole chromosomes" in made.text(machine(4))
    assert "null models on the GPU of the first rank of each world" in made.text(machine(4))
    # teams of two cards, and cards on which no null model fits
    assert plan(CARD_OF_80_GB, ranks=4, parts=chromosomes, team_size=2).worlds == 2
    assert plan(1.9 * TRIANGLE, ranks=4, parts=chromosomes).worlds == 1


def test_a_larger_team_that_makes_null_models_comes_before_a_smaller_one_that_does_not():
    limit = 2.11 * TRIANGLE  # two triangles, but not L^-1 beside all of the operator
    assert not plan(limit, "double").factorises
    assert (plan(limit, "double", ranks=4).team_size, plan(limit, "double", ranks=4).factorises) == (2, True)


def test_an_eigenbasis_has_no_factor():
    made = plan(CARD_OF_80_GB, basis=True)
    assert made.null == 0 and not made.factorises and "null models" not in made.text(machine())
