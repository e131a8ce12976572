"""Tiles of many traits on a card, on NumPy that forgives no more than CuPy: what is kept of them is what ranks keep."""

from __future__ import annotations

import device_tiles
import pytest
import strict_lanes
from strict_card import StrictCard

from mpgls.device import operator, parts
from mpgls.device.parts import PRECISIONS


@pytest.fixture(autouse=True)
def several_strips(monkeypatch):
    """Of traits, and of columns that are split."""
    strict_lanes.begin_anew()
    monkeypatch.setattr(operator, "HEIGHT", 5)
    monkeypatch.setattr(parts, "STRIP", 16)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_pass_keeps_what_the_products_of_ranks_keep(precision):
    expected = device_tiles.found_by(None, precision)
    device_tiles.assert_same(device_tiles.found_by(StrictCard(), precision), expected, precision)
