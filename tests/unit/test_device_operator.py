"""The operator of a GPU, on NumPy: splits, products and centring against sums in long double."""

from __future__ import annotations

import numpy as np
import pytest
from strict_card import StrictCard

from mpgls.device import operator as device_operator
from mpgls.device.card import PRODUCTS
from mpgls.device.decoder import DeviceDecoder
from mpgls.device.operator import Centring, DeviceOperator, row_panels
from mpgls.device.parts import PRECISIONS, Columns
from mpgls.device.products import aligned, half_product, integer_product, most_terms
from mpgls.study.genotypes import keep_bytes

N_FILE, N, B, Q = 90, 83, 21, 3
TOLERANCE = {"double": 1e-13, "mixed": 1e-6, "exact": 1e-12}


def packed_bytes(x):
    """A .bed row of each SNP of x (n, m), NaN where missing."""
    codes = np.where(np.isnan(x), 1, np.select([x == 2, x == 1], [0, 2], 3)).T.astype(np.uint8)
    codes = np.pad(codes, ((0, 0), (0, -len(x) % 4)))
    return np.bitwise_or.reduce(codes.reshape(len(codes), -1, 4) << np.array([0, 2, 4, 6], dtype=np.uint8), axis=2)


@pytest.fixture(autouse=True)
def low_panels(monkeypatch):
    """Several panels of small matrices."""
    monkeypatch.setattr(device_operator, "HEIGHT", 16)


class Study:
    """A factor L of samples ``rows`` of a file, genotypes or dosages of all of it, and [X_L | y]."""

    def __init__(self, dosages=False, in_order=True):
        rng = np.random.default_rng(5)
        self.rows = np.sort(rng.permutation(N_FILE)[:N]) if in_order else rng.permutation(N_FILE)[:N]
        frequency = np.array([0.02, 0.98, *rng.uniform(0.1, 0.9, B - 2)])
        self.x = rng.binomial(2, frequency, (N_FILE, B)).astype(float)
        if dosages:
            self.x = np.clip(self.x + rng.normal(0, 0.2, self.x.shape), 0, 2).astype(np.float32).astype(float)
            self.x[0, 3], self.x[1, 3], self.x[2, 3] = 2.0, 2e-4, 0.0
        self.x[rng.random(self.x.shape) < 0.02] = np.nan
        self.x[:, 5] = np.where(np.isnan(self.x[:, 5]), 1.0, self.x[:, 5])
        self.dosages = dosages
        A = rng.normal(size=(N, N))
        self.L = np.linalg.cholesky(A @ A.T / N + 0.5 * np.eye(N)) * rng.uniform(1e-3, 1e3, (N, 1))
        self.F = np.column_stack([np.ones(N), rng.normal(size=(N, Q - 1))])

    @property
    def packed(self):
        """As the card gets it."""
        if self.dosages:
            return np.where(np.isnan(self.x), -1.0, self.x).T.astype(np.float32)
        return packed_bytes(self.x)

    def expected(self, W, F_tilde):
        """F~'X~ and x~'x~ in long double."""
        x = self.x[self.rows].astype(np.longdouble)
        seen = ~np.isnan(x)
        centred = np.where(seen, x - np.where(seen, x, 0).sum(axis=0) / seen.sum(axis=0), 0)
        X_tilde = W.astype(np.longdouble) @ centred
        return np.vstack([F_tilde.T.astype(np.longdouble) @ X_tilde, (X_tilde**2).sum(axis=0)]), X_tilde

    def mean(self):
        return np.nanmean(self.x[self.rows], axis=0)


def sums(study, W, F_tilde, precision, snps=slice(None), room=2**40, ranks=1, triangle=True):
    """What the cards of a team of ``ranks`` add up for some of the SNPs."""
    packed, mean = study.packed[snps], study.mean()[snps]
    missing = np.flatnonzero(np.isnan(study.x[study.rows]).any(axis=0)[snps])
    c = np.rint(mean)
    total = 0
    for panels in row_panels(N, ranks, triangle):
        card = StrictCard()
        xp = card.xp
        decoder = DeviceDecoder(card, N_FILE, study.rows, PRECISIONS[precision])
        operator = DeviceOperator(card, PRECISIONS[precision], room)
        for rows, cols in panels:
            operator.take(W[rows.start : rows.stop, : cols.stop], F_tilde[rows.start : rows.stop])
        assert (operator.streamed_bytes == 0) == (room == 2**40) and operator.resident_bytes <= room
        card.settle()
        with card.lane(PRODUCTS):
            on_card = xp.asarray(packed)
            X = (decoder.dosages if study.dosages else decoder.genotypes)(on_card, xp.asarray(c))
            gaps = decoder.missing(xp.asarray(packed[missing])) if missing.size else None
            centring = Centring(xp.asarray(mean - c), xp.asarray(missing), gaps)
            total = total + card.to_host(operator.sums(X, centring))
    return total


def scaled_difference(found, expected, F_tilde):
    """Of x~'x~ relative to itself, of F~'x~ to |F~| |x~|."""
    size = np.vstack([np.sqrt((F_tilde**2).sum(axis=0))[:, None] * np.sqrt(expected[-1]), expected[-1]])
    return float(np.max(np.abs(found - expected) / size))


@pytest.mark.parametrize("dosages", [False, True], ids=["genotypes", "dosages"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_whitened_sums_are_those_of_long_double(precision, dosages):
    study = Study(dosages)
    W = np.linalg.inv(study.L)
    W = np.tril(W)
    F_tilde = W @ study.F
    expected, _ = study.expected(W, F_tilde)
    found = sums(study, W, F_tilde, precision)
    assert scaled_difference(found, expected, F_tilde) < TOLERANCE[precision]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("ranks, room", [(1, 20_000), (2, 2**40), (3, 2_000)])
def test_teams_and_panels_that_are_copied_give_the_same(precision, ranks, room):
    study = Study(in_order=False)
    W = np.linalg.qr(np.random.default_rng(1).normal(size=(N, N)))[0]  # a basis: no triangle
    F_tilde = W @ study.F
    expected, _ = study.expected(W, F_tilde)
    found = sums(study, W, F_tilde, precision, ranks=ranks, room=room, triangle=False)
    assert scaled_difference(found, expected, F_tilde) < TOLERANCE[precision]


@pytest.mark.parametrize("dosages", [False, True], ids=["genotypes", "dosages"])
def test_exact_sums_have_the_same_bits_in_any_block(dosages):
    study = Study(dosages)
    W = np.tril(np.linalg.inv(study.L))
    F_tilde = W @ study.F
    whole = sums(study, W, F_tilde, "exact")
    for width in (1, 5):
        blocks = [sums(study, W, F_tilde, "exact", slice(k, k + width)) for k in range(0, 10, width)]
        assert np.array_equal(np.hstack(blocks), whole[:, :10])


def test_exact_sums_do_not_round_where_double_does():
    """Of a row of W with numbers 2^40 apart every digit of each counts."""
    W = np.array([[2.0**40, 1.0, -(2.0**40), 2.0**-12]])
    parts, scale = PRECISIONS["exact"].split(np, W)
    X = Columns([np.array([[1, 1, 1, 1]], dtype=np.int8)], True)
    assert float((PRECISIONS["exact"].product(np, parts, X) * scale[:, None])[0, 0]) == 1.0 + 2.0**-12


@pytest.mark.parametrize("precision, digits", [("mixed", 2.0**-22), ("exact", 2.0**-53), ("double", 0.0)])
def test_parts_add_up_to_the_matrix(precision, digits):
    W = np.random.default_rng(2).normal(size=(7, 32)) * 10.0 ** np.arange(-9, 12, 3)[:, None]
    W[3] = 0.0
    parts, scale = PRECISIONS[precision].split(np, W)
    worth = {"double": [1.0], "mixed": [1.0, 1 / 2048], "exact": 256.0 ** np.arange(7)}[precision]
    total = sum(u * part.astype(np.longdouble) for u, part in zip(worth, parts, strict=True)) * scale[:, None]
    assert np.all(np.abs(total - W).max(axis=1) <= digits * np.abs(W).max(axis=1))
    assert np.all(np.log2(scale) == np.rint(np.log2(scale)))


def test_int32_does_not_overflow_where_there_are_many_terms():
    k = aligned(2 * most_terms(128) + 5)
    A, G = np.full((1, k), -128, dtype=np.int8), np.full((1, k), -128, dtype=np.int8)
    assert integer_product(np, A, G, 128)[0, 0] == k * 2.0**14
    assert integer_product(np, A, G, 1)[0, 0] != k * 2.0**14  # one panel of all of them wraps around


def test_half_products_are_summed_in_float32():
    k = 4096
    A, G = np.full((1, k), 2.0, dtype=np.float16), np.full((1, k), 1.5, dtype=np.float16)
    assert half_product(np, A, G)[0, 0] == 3.0 * k  # float16 has no number between 12,288 and 12,296


@pytest.mark.parametrize("n_file, n", [(8, 8), (13, 13), (13, 6)])
def test_counts_and_columns_of_odd_numbers_of_samples(n_file, n):
    rng = np.random.default_rng(n_file)
    x = rng.integers(0, 3, (n_file, 9)).astype(float)
    x[rng.random(x.shape) < 0.2] = np.nan
    rows = np.sort(rng.permutation(n_file)[:n])
    card = StrictCard()
    decoder = DeviceDecoder(card, n_file, rows, PRECISIONS["exact"])
    packed = packed_bytes(x)
    assert keep_bytes(rows, n_file).size == packed.shape[1]
    on_card = card.xp.asarray(packed)
    missing, one, two = card.to_host(decoder.counts(on_card))
    here = x[rows]
    assert np.array_equal(missing, np.isnan(here).sum(axis=0))
    assert np.array_equal(one, (here == 1).sum(axis=0)) and np.array_equal(two, (here == 2).sum(axis=0))
    (columns,) = map(card.to_host, decoder.genotypes(on_card, card.xp.ones(9)).parts)
    assert np.array_equal(columns[:, :n], np.where(np.isnan(here), 0, here - 1).T) and not columns[:, n:].any()


@pytest.mark.parametrize("ranks", [1, 2, 5])
@pytest.mark.parametrize("triangle", [True, False])
def test_every_row_is_in_one_panel(ranks, triangle):
    panels = [panel for of_rank in row_panels(50, ranks, triangle) for panel in of_rank]
    assert sorted(row for rows, _ in panels for row in rows) == list(range(50))
    assert all(cols == range(rows.stop if triangle else 50) for rows, cols in panels)


def test_sums_in_order_are_sums():
    values = np.random.default_rng(3).integers(-9, 9, (37, 4)).astype(float)
    assert np.array_equal(device_operator.ordered_sums(values.copy()), values.sum(axis=0))
    assert np.array_equal(device_operator.ordered_sums(values[:1].copy()), values[0])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_columns_of_any_numbers_are_whitened(precision):
    """As those of G'X are, whose sizes differ much from SNP to SNP."""
    rng = np.random.default_rng(9)
    W, F = np.tril(rng.normal(size=(N, N))), rng.normal(size=(N, Q))
    H = rng.normal(size=(N, 5)) * 10.0 ** np.arange(-6, 9, 3)
    H[:, 2] = 0.0
    card = StrictCard()
    operator = DeviceOperator(card, PRECISIONS[precision], 2**40)
    for rows, cols in row_panels(N, 1, True)[0]:
        operator.take(W[rows.start : rows.stop, : cols.stop], F[rows.start : rows.stop])
    H_tilde = W.astype(np.longdouble) @ H
    expected = np.vstack([F.T @ H_tilde, (H_tilde**2).sum(axis=0)])
    with card.lane(PRODUCTS):
        found, some = card.to_host(operator.sums_of_any(card.xp.asarray(H))), [0, 1, 3, 4]
    assert not found[:, 2].any()
    assert scaled_difference(found[:, some], expected[:, some], F) < TOLERANCE[precision]
