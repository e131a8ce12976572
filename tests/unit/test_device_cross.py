"""Products of centred SNPs on a card, without one: counts and dosages, with gaps, against long double."""

from __future__ import annotations

import numpy as np
import pytest
import strict_lanes
from strict_card import StrictCard
from test_device_operator import packed_bytes

from mpgls.device.card import PRODUCTS
from mpgls.device.cross import centred_product, counted
from mpgls.device.decoder import DeviceDecoder
from mpgls.device.parts import PRECISIONS

N = 45


def made_up(seed, snps, dosages, gaps):
    """SNPs (n, m), NaN where missing."""
    rng = np.random.default_rng(seed)
    x = rng.binomial(2, rng.uniform(0.02, 0.98, snps), (N, snps)).astype(float)
    if dosages:
        x = np.clip(x + rng.normal(0, 0.3, x.shape), 0, 2).astype(np.float32).astype(float)
    if gaps:
        x[rng.random(x.shape) < 0.05] = np.nan
    return x


def centred(x):
    """x - mean, 0 where missing, in long double."""
    x = x.astype(np.longdouble)
    seen = ~np.isnan(x)
    return np.where(seen, x - np.where(seen, x, 0).sum(axis=0) / seen.sum(axis=0), 0)


@pytest.mark.parametrize("gaps", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("dosages", [(False, False), (True, False), (False, True), (True, True)])
def test_products_are_those_of_long_double(dosages, gaps):
    strict_lanes.begin_anew()
    card, sides = StrictCard(), []
    left, right = made_up(1, 7, dosages[0], gaps[0]), made_up(2, 18, dosages[1], gaps[1])
    with card.lane(PRODUCTS):
        decoder = DeviceDecoder(card, N, np.arange(N), PRECISIONS["exact"])
        for x, of_dosages in zip((left, right), dosages, strict=True):
            rows = np.where(np.isnan(x), -1, x).T.astype(np.float32) if of_dosages else packed_bytes(x)
            missing = np.flatnonzero(np.isnan(x).any(axis=0))
            sides.append(counted(card, decoder, card.xp.asarray(rows), np.nanmean(x, axis=0), missing))
        found = card.to_host(centred_product(card.xp, *sides, N))
    expected = centred(left).T @ centred(right)
    assert found.shape == expected.shape
    tolerance = 1e-9 if any(dosages) else 1e-13  # a dosage is a multiple of 2^-37
    assert np.abs(found - expected).max() < tolerance * N
