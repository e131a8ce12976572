"""On a card: what NumPy in its place cannot show. Run where one is: pytest -m gpu tests/unit/test_gpu.py."""

from __future__ import annotations

import device_tiles
import numpy as np
import pytest

from mpgls.device.card import COPIES, PRODUCTS, NumpyCard
from mpgls.device.decoder import DeviceDecoder
from mpgls.device.operator import Centring, DeviceOperator, row_panels
from mpgls.device.outer import OuterSums
from mpgls.device.parts import PRECISIONS
from mpgls.device.products import aligned, half_product, integer_product
from mpgls.device.triangle import Triangle
from mpgls.errors import MemoryPlanError
from mpgls.la.layout import Block
from mpgls.la.scalapack import NotPositiveDefinite

pytestmark = pytest.mark.gpu

N, B = 1500, 64


def test_integer_products_are_those_of_numpy(card):
    rng = np.random.default_rng(1)
    A, G = rng.integers(-128, 128, (96, 2048)).astype(np.int8), rng.integers(-128, 128, (64, 2048)).astype(np.int8)
    with card.lane(PRODUCTS):
        found = card.to_host(integer_product(card.xp, card.xp.asarray(A), card.xp.asarray(G), 128))
    assert np.array_equal(found, integer_product(np, A, G, 128))


def test_half_products_are_summed_in_float32(card):
    A, G = (np.random.default_rng(k).normal(size=(64, 4096)).astype(np.float16) for k in (1, 2))
    with card.lane(PRODUCTS):
        found = card.to_host(half_product(card.xp, card.xp.asarray(A), card.xp.asarray(G)))
    exact = A.astype(np.float64) @ G.astype(np.float64).T
    assert found.dtype == np.float32 and np.abs(found - exact).max() < 1e-4 * np.abs(exact).max()


@pytest.mark.parametrize("room", [2**40, 2**21], ids=["resident", "streamed"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_operator_gives_what_numpy_gives(card, precision, room):
    rng = np.random.default_rng(3)
    W, F = np.tril(rng.normal(size=(N, N))), rng.normal(size=(N, 3))
    packed, rows = rng.integers(0, 256, (B, N // 4), dtype=np.uint8), np.arange(N)
    found, expected = (_sums(one, W, F, packed, rows, precision, room) for one in (card, NumpyCard()))
    if precision == "exact":
        assert np.array_equal(found, expected)
    else:
        size = np.abs(expected).max(axis=1, keepdims=True)
        assert np.abs((found - expected) / size).max() < {"double": 1e-12, "mixed": 1e-5}[precision]


def _sums(card, W, F, packed, rows, precision, room):
    decoder = DeviceDecoder(card, N, rows, PRECISIONS[precision])
    operator = DeviceOperator(card, PRECISIONS[precision], room)
    for panel, cols in row_panels(N, 1, triangle=True)[0]:
        operator.take(W[panel.start : panel.stop, : cols.stop], F[panel.start : panel.stop])
    card.settle()
    with card.lane(COPIES):
        on_card = card.xp.asarray(packed)
        missing, one, two = decoder.counts(on_card)
        mean = (one + 2.0 * two) / (N - missing)
        c, gaps = card.xp.rint(mean), card.xp.arange(B)
        copied = card.mark()
    with card.lane(PRODUCTS):
        card.follow(copied)
        centring = Centring(mean - c, gaps, decoder.missing(on_card))
        return card.to_host(operator.sums(decoder.genotypes(on_card, c), centring))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_samples_in_any_order_are_decoded_as_numpy_does(card, precision):
    rng = np.random.default_rng(4)
    rows, packed = rng.permutation(N)[: N - 11], rng.integers(0, 256, (B, N // 4), dtype=np.uint8)
    c = rng.integers(0, 3, B).astype(float)

    def decoded(one):
        decoder = DeviceDecoder(one, N, rows, PRECISIONS[precision])
        one.settle()
        with one.lane(PRODUCTS):
            on_card = one.xp.asarray(packed)
            parts = decoder.genotypes(on_card, one.xp.asarray(c)).parts[0], decoder.missing(on_card).parts[0]
            return [one.to_host(part) for part in parts]

    for found, expected in zip(decoded(card), decoded(NumpyCard()), strict=True):
        assert np.array_equal(found, expected)


def test_sums_of_people_of_odd_numbers_are_exact(card):
    rng, n, k = np.random.default_rng(5), 1413, 272
    A = np.zeros((aligned(n), k), dtype=np.int8)
    A[:n] = rng.integers(-2, 3, (n, k))
    s = rng.integers(-(2**30), 2**30, k).astype(float)
    with card.lane(PRODUCTS):
        sums, on_card = OuterSums(card, np.arange(n), np.arange(n)), card.xp.asarray(A)
        sums.add_whole(on_card, on_card, 2)
        sums.add_whole(on_card, on_card, 2)
        S, times = card.to_host(sums.S), card.to_host(sums.times(on_card, card.xp.asarray(s)))
    a = A.astype(float)
    assert np.array_equal(np.tril(S), np.tril(2 * a[:n] @ a[:n].T))
    assert np.array_equal(times, A.astype(int) @ s.astype(int))


@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-11), (np.float32, 1e-3)])
def test_a_factor_and_its_inverse_are_those_of_numpy(card, dtype, tolerance):
    rng = np.random.default_rng(4)
    A = rng.normal(size=(N, 2 * N))
    A = A @ A.T / (2 * N)
    with card.lane(PRODUCTS):
        L = factor_on(card, A, 0.6, dtype)
        expected = np.linalg.cholesky(0.6 * A + 0.4 * np.eye(N))
        everything = Block(range(N), range(N))
        found = card.to_host(L.block(everything))
        assert found.dtype == dtype and np.abs(found - expected).max() < tolerance
        C = rng.normal(size=(N, 3))
        for solve, W in ((L.solve, expected), (L.solve_transposed, expected.T)):
            columns = card.xp.array(C, dtype=dtype)
            solve(columns)
            assert np.abs(W @ card.to_host(columns) - C).max() < tolerance
        L.invert()
        assert np.abs(card.to_host(L.block(everything)) @ expected - np.eye(N)).max() < tolerance


def test_a_matrix_without_a_factor_is_noticed(card):
    for bad in (0, N - 1):
        A = np.eye(N)
        A[bad, bad] = -1.0
        with pytest.raises(NotPositiveDefinite, match="a leading minor of order"), card.lane(PRODUCTS):
            factor_on(card, A, 1.0, np.float64)


def factor_on(card, A, a, dtype):
    """L of a A + (1-a) I."""
    held, L = Triangle.empty(card, len(A)), Triangle.empty(card, len(A), dtype)
    for panel in held.panels:
        panel.whole[...] = card.xp.asarray(np.ascontiguousarray(A[panel.cols.start :, _columns(panel)]))
    L.fill(held, a, 1.0 - a, None)
    L.factorise()
    return L


def _columns(panel):
    return slice(panel.cols.start, panel.cols.stop)


def test_too_little_memory_is_said_in_a_sentence(card):
    with pytest.raises(MemoryPlanError, match="the GPU has no room"), card.lane(PRODUCTS):
        card.xp.zeros(2 * card.limit, dtype=np.int8)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_pass_of_traits_keeps_what_ranks_keep(card, precision):
    device_tiles.assert_same(device_tiles.found_by(card, precision), device_tiles.found_by(None, precision), precision)
