"""Tiles of many traits on a card, on NumPy that forgives no more than CuPy: what is kept of them is what ranks keep."""

from __future__ import annotations

import device_tiles
import numpy as np
import pytest
import strict_cupy
import strict_lanes
from emulated_cupy import COMPILER, EmulatedCard, cupy
from strict_card import StrictCard

from mpgls.device import operator, parts
from mpgls.device.parts import PRECISIONS
from mpgls.device.tiles import Bins, count_tile

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="a C++ compiler is needed")


@pytest.fixture(autouse=True)
def several_strips(monkeypatch):
    """Of traits, and of columns that are split."""
    strict_lanes.begin_anew()
    monkeypatch.setattr(operator, "HEIGHT", 5)
    monkeypatch.setattr(parts, "STRIP", 16)


@pytest.mark.parametrize("kind", [StrictCard, pytest.param(EmulatedCard, marks=needs_compiler)])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_pass_keeps_what_the_products_of_ranks_keep(precision, kind):
    expected = device_tiles.found_by(None, precision)
    device_tiles.assert_same(device_tiles.found_by(kind(), precision), expected, precision)


@needs_compiler
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_kernel_counts_as_array_operations_do(dtype):
    """With more columns than threads, one node, a row and columns that are left out, and an x of 1."""
    rng, k = np.random.default_rng(1), 300
    tile = rng.normal(size=(4, k)) * 0.1, np.ones((4, 1)), rng.uniform(1, 2, (1, k))
    tile[0][2, 77] = tile[0][2, 210] = np.sqrt(tile[2][0, [77, 210]]).max()
    rows, columns = np.array([False, True, False, False]), rng.random(k) < 0.2
    columns[[77, 210]] = False
    found = []
    for xp in (cupy, strict_cupy):
        of_card = [xp.asarray(one.astype(dtype)) for one in tile]
        counts = xp.zeros((4, 98), dtype=np.uint32)
        bins = Bins(20, (115 << 3) - 1, 97, 1 - 1e-6)
        left_out = xp.asarray(rows), xp.asarray(columns)
        largest, column = count_tile(xp, tuple(of_card), left_out, counts, bins)
        found.append((largest.get(), column.get(), counts.get()[:, :-1]))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
    x = tile[0] ** 2 / tile[2]
    largest, column, counts = found[0]
    np.testing.assert_allclose(largest, [x[0, ~columns].max(), -1, 1, x[3, ~columns].max()], rtol=1e-6)
    assert column[2] == 77 and counts[2, -1] == 2
    assert counts.sum(axis=1).tolist() == [int((~columns).sum()) * (not one) for one in rows]
