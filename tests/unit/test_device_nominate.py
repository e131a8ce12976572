"""Nominations of a card, on NumPy: no pair beyond the threshold is lost, whatever float16 rounds."""

from __future__ import annotations

import emulated_cupy
import numpy as np
import pytest
import strict_cupy
import strict_lanes
from strict_card import StrictCard

from mpgls.device import nominate
from mpgls.device.card import PRODUCTS
from mpgls.device.nominate import Nominator, Threshold, half_error
from mpgls.device.threshold import Found, add_beyond

N = 256
EDGE = 2.0**-4 * (1 + 2.0**-11 - 2.0**-22)
"""Just below the middle of two float16 numbers: it loses nearly 2^-11 of itself."""


@pytest.fixture(autouse=True)
def no_history():
    strict_lanes.begin_anew()


def adversary(turned):
    """x and y of length 1 whose numbers all round towards zero; y is x with ``turned`` signs changed."""
    x = np.full(N, EDGE)
    x[0] = 0.0
    x[0] = np.sqrt(1.0 - x @ x)
    y = x.copy()
    y[N - turned :] *= -1
    return x, y


def nominated(x, y, share, n=N, Z=None):
    """(SNP, voxel) of the rows x and y, in the order of the samples, as a set."""
    Z = np.zeros((1, n)) if Z is None else Z
    nominator = Nominator(StrictCard(), Threshold(share, n, len(Z)), 1 << 12, 16)
    nominator.take_voxels(y, np.ones(len(y), dtype=bool))
    nominator.take_snps(np.vstack([Z, x]))
    snp, voxel = nominator.finish(nominator.start(np.arange(n)))
    return set(zip(snp.tolist(), voxel.tolist(), strict=True))


@pytest.mark.parametrize("turned", [1, 20, 60, 110])
def test_a_pair_just_beyond_the_threshold_is_not_lost(turned, monkeypatch):
    """The float16 product is off by nearly 2^-10 beta, all of it to one side."""
    x, y = (one[None].astype(np.float32) for one in adversary(turned))
    beta = float(x[0].astype(np.float64) @ y[0].astype(np.float64))
    product = float(x[0].astype(np.float16).astype(np.float64) @ y[0].astype(np.float16).astype(np.float64))
    assert 0.9 * 2.0**-10 * beta < beta - product < half_error(N)
    at, below = (beta * (1 - 1e-9)) ** 2, (beta + half_error(N)) ** 2
    assert nominated(x, y, at) == {(0, 0)}
    assert nominated(x, -y, at) == {(0, 0)}
    assert nominated(x, y, below) == set()
    monkeypatch.setattr(nominate, "half_error", lambda n: 0.0)
    assert nominated(x, y, at) == set()


@pytest.mark.parametrize("n", [40, 997])
def test_products_are_within_the_bound(n, monkeypatch):
    """Of rows with few large numbers and many small ones, down to those that float16 does not have."""
    monkeypatch.setattr(nominate, "TERMS", 64)
    rng = np.random.default_rng(n)
    rows = rng.standard_normal((60, n)) * 10.0 ** rng.uniform(-9, 0, (60, n))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    card = StrictCard()
    nominator = Nominator(card, Threshold(0.5, n, 1), 1 << 12, 16)
    with card.lane(PRODUCTS):
        half = nominator._half(rows, len(rows))
        found = card.to_host(nominate._product(card.xp, half, half)).astype(np.float64) / nominate.SCALE**2
    expected = rows.astype(np.longdouble) @ rows.T.astype(np.longdouble)
    assert np.abs(found - expected).max() < half_error(n)


def test_what_confounds_get_back_lowers_the_threshold():
    """Of voxels that lie nearly in Z_w the bound is that of what is left, which float16 does not see."""
    rng = np.random.default_rng(3)
    n, r = 120, 3
    Z = np.linalg.qr(rng.standard_normal((n, r)))[0].T
    x = rng.standard_normal((40, n))
    y = 0.02 * rng.standard_normal((50, n)) + rng.standard_normal((50, r)) @ Z
    x, y = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (x, y))
    beta, gamma2 = x @ y.T, ((Z @ y.T) ** 2).sum(axis=0)
    share = float(np.quantile(beta**2 / (1 - gamma2), 0.7))
    beyond = set(map(tuple, np.argwhere(beta**2 >= share * (1 - gamma2)).tolist()))
    assert gamma2.min() > 0.9 and beyond <= nominated(x, y, share, n, Z)


@pytest.mark.skipif(emulated_cupy.COMPILER is None, reason="needs g++")
@pytest.mark.parametrize("shape, room", [((37, 300), 5000), ((5, 1030), 40), ((1, 1), 1)])
def test_the_kernel_finds_what_array_operations_find(shape, room):
    rng = np.random.default_rng(4)
    tile, bound = rng.standard_normal(shape, dtype=np.float32), rng.uniform(0.5, 2, shape[1]).astype(np.float32)
    bound[-1] = abs(tile[0, -1])  # which is reached
    with StrictCard().lane(PRODUCTS):
        on_card = [strict_cupy.asarray(one) for one in (tile, bound)]
        mine, theirs = Found.empty(emulated_cupy.cupy, room), Found.empty(strict_cupy, tile.size * 2)
        for first in (3, 700_000):
            add_beyond(emulated_cupy.cupy, *on_card, first, 2 * shape[1], mine)
            add_beyond(strict_cupy, *on_card, first, 2 * shape[1], theirs)
        found, expected = ([one.get() for one in pair] for pair in (mine, theirs))
    count = int(expected[1][0])
    assert count == int(found[1][0]) == 2 * int((np.abs(tile) >= bound).sum()) > 0
    of_tile = {first + i * 2 * shape[1] + j for first in (3, 700_000) for i, j in np.argwhere(np.abs(tile) >= bound)}
    assert set(expected[0][:count].tolist()) == of_tile
    kept = found[0][: min(room, count)].tolist()
    assert len(set(kept)) == len(kept) and set(kept) <= of_tile
