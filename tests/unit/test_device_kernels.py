"""What runs on a GPU only, kernels and calls of cuBLAS, does what array operations say where there is none."""

from __future__ import annotations

import emulated_cupy
import numpy as np
import pytest
import strict_cupy
import strict_lanes
from emulated_cupy import EmulatedCard, cupy
from strict_card import StrictCard

from mpgls.device import kernels, outer
from mpgls.device import operator as device_operator
from mpgls.device.card import PRODUCTS
from mpgls.device.decoder import DeviceDecoder
from mpgls.device.operator import Centring, DeviceOperator, row_panels
from mpgls.device.parts import PRECISIONS
from mpgls.device.products import aligned, digit_products, double_product, half_product, integer_product, most_terms

needs_compiler = pytest.mark.skipif(emulated_cupy.COMPILER is None, reason="a C++ compiler is needed")


@pytest.fixture(autouse=True)
def no_history():
    strict_lanes.begin_anew()


def on_card(*arrays):
    return [strict_cupy.asarray(one) for one in arrays]


def test_cublas_is_asked_for_the_same_products():
    rng = np.random.default_rng(8)
    A, G = rng.integers(-128, 128, (5, 48)).astype(np.int8), rng.integers(-2, 3, (16, 64)).astype(np.int8)
    a, g = on_card(A, G)
    found = integer_product(cupy, a, g[:, :48], 2)
    assert np.array_equal(found.get(), integer_product(np, A, G[:, :48], 2))
    halves = [(rng.integers(-99, 99, shape) / 4).astype(np.float16) for shape in ((3, 32), (16, 32))]
    first = half_product(cupy, *on_card(*halves), 1 / 2048)
    expected = half_product(np, *halves, 1 / 2048)
    assert first.dtype == np.float32 and np.array_equal(first.get(), expected)
    both = half_product(cupy, *on_card(*halves), 1.0, first)
    assert np.array_equal(both.get(), half_product(np, *halves, 1.0, expected))


def test_cublas_multiplies_the_leading_numbers_of_columns():
    rng = np.random.default_rng(2)
    A, G = rng.integers(-9, 10, (5, 48)) / 8, rng.integers(-9, 10, (16, 64)) / 8  # whose sums are exact
    a, g = on_card(A, G)
    assert np.array_equal(double_product(cupy, a, g[:, :48]).get(), A @ G[:, :48].T)


def test_cublas_gets_panels_of_many_terms():
    k = aligned(2 * most_terms(128) + 5)
    A, G = np.full((1, k), -128, dtype=np.int8), np.full((16, k), 127, dtype=np.int8)
    assert np.all(integer_product(cupy, *on_card(A, G), 128).get() == -128.0 * 127.0 * k)


@needs_compiler
def test_digits_are_joined_as_they_are_by_array_operations():
    rng = np.random.default_rng(4)
    parts = rng.integers(-128, 128, (7, 5, 32)).astype(np.int8)
    G, worth = rng.integers(-2, 3, (16, 32)).astype(np.int8), 256.0 ** np.arange(7)
    found = digit_products(cupy, *on_card(parts, G, worth))
    assert np.array_equal(found.get(), digit_products(np, parts, G, worth))


@needs_compiler
@pytest.mark.parametrize("r", [1, 2, 31, 33, 64, 77, 129])
def test_sums_of_a_panel_have_the_bits_of_array_operations(r):
    rng, B, k = np.random.default_rng(r), 5, 4
    for dtype in (np.float32, np.float64):
        P, scale = rng.normal(size=(r, B)).astype(dtype), 2.0 ** rng.integers(-9, 9, r)
        W_one, d, F = rng.normal(size=r), rng.uniform(-0.5, 0.5, B), rng.normal(size=(r, k))
        found, expected = (
            device_operator.panel_sums(xp, to(P), device_operator.Panel(None, to(scale), to(W_one), to(F), True), to(d))
            for xp, to in ((cupy, strict_cupy.asarray), (np, np.copy))
        )
        np.testing.assert_array_equal(found.get(), expected)
        X = (P * scale.astype(dtype)[:, None] - (W_one[:, None] * d).astype(dtype)).astype(float)
        np.testing.assert_allclose(expected, np.vstack([F.T @ X, (X**2).sum(axis=0)]), rtol=1e-11, atol=1e-9)


@needs_compiler
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("in_order", [True, False])
def test_a_kernel_decodes_as_array_operations_do(precision, in_order, monkeypatch):
    monkeypatch.setattr(kernels, "MOST_ROWS", 3)
    rng, n_file, B = np.random.default_rng(6), 37, 8
    rows = np.arange(n_file) if in_order else rng.permutation(n_file)[:29]
    packed, c = rng.integers(0, 256, (B, 13)).astype(np.uint8), rng.integers(0, 3, B).astype(float)
    found, expected = (
        DeviceDecoder(card, n_file, rows, PRECISIONS[precision]) for card in (EmulatedCard(), StrictCard())
    )
    packed, c = on_card(packed, c)
    for one, other in (
        (found.genotypes(packed, c), expected.genotypes(packed, c)),
        (found.missing(packed[2:4]), expected.missing(packed[2:4])),
    ):
        np.testing.assert_array_equal(one.parts[0].get(), other.parts[0].get())


@needs_compiler
@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_operator_of_kernels_gives_what_array_operations_give(precision, monkeypatch):
    monkeypatch.setattr(device_operator, "HEIGHT", 48)
    found, expected = (operator_sums(card, precision) for card in (EmulatedCard(), StrictCard()))
    if precision == "exact":
        np.testing.assert_array_equal(found, expected)
    else:
        size = np.abs(expected).max(axis=1, keepdims=True)
        assert np.abs((found - expected) / size).max() < {"double": 1e-14, "mixed": 1e-6}[precision]


@needs_compiler
def test_sums_of_people_of_odd_numbers(monkeypatch):
    """Whose number is no multiple of four, which the integer units would refuse."""
    monkeypatch.setattr(outer, "HEIGHT", 7)
    rng, n = np.random.default_rng(1), 29
    A = np.zeros((32, 48), dtype=np.int8)
    A[:n] = rng.integers(-2, 3, (n, 48))
    s = rng.integers(-(2**31), 2**31, 48).astype(float)
    card, people = EmulatedCard(), np.arange(n)
    with card.lane(PRODUCTS):
        sums, (a, on) = outer.OuterSums(card, people, people), on_card(A, s)
        for _ in range(2):
            sums.add_whole(a, a, 2)
        S, times = card.to_host(sums.S), card.to_host(sums.times(a, on))
    expected = 2.0 * A[:n].astype(int) @ A[:n].T
    assert np.array_equal(np.tril(S), np.tril(expected))
    assert np.array_equal(times, A.astype(int) @ s.astype(int))


def operator_sums(card, precision):
    rng, n, B = np.random.default_rng(3), 120, 16
    W, F = np.tril(rng.normal(size=(n, n))), rng.normal(size=(n, 3))
    packed = rng.integers(0, 256, (B, n // 4), dtype=np.uint8)
    decoder = DeviceDecoder(card, n, np.arange(n), PRECISIONS[precision])
    operator = DeviceOperator(card, PRECISIONS[precision], 2**13)
    for panel, cols in row_panels(n, 1, triangle=True)[0]:
        operator.take(W[panel.start : panel.stop, : cols.stop], F[panel.start : panel.stop])
    assert operator.streamed_bytes > 0
    card.settle()
    with card.lane(PRODUCTS):
        packed, gaps = card.xp.asarray(packed), card.xp.arange(B)
        centring = Centring(card.xp.linspace(-0.5, 0.5, B), gaps, decoder.missing(packed))
        return card.to_host(operator.sums(decoder.genotypes(packed, card.xp.ones(B)), centring))


@needs_compiler
@pytest.mark.parametrize("people, others", [(range(3), range(7, 11)), (range(0), range(4)), (range(4), range(0))])
def test_a_rank_without_a_pair_of_the_lower_triangle_asks_for_nothing(people, others):
    """cuBLAS refuses products of no rows, and CUDA grids of no blocks."""
    card, (packed, c, s) = EmulatedCard(), on_card(np.full((16, 3), 0b10, np.uint8), np.ones(16), np.full(16, 3.0))
    rows, cols = (np.array(one, dtype=np.int64) for one in (people, others))
    strict_lanes.settle()
    with card.lane(PRODUCTS):
        sums = outer.OuterSums(card, rows, cols)
        sides = (DeviceDecoder(card, 12, at, PRECISIONS["exact"]).genotypes(packed, c) for at in (rows, cols))
        A, B = (cupy.ascontiguousarray(side.parts[0].T) for side in sides)
        sums.add_whole(A, B, 2)
        assert sums.flop == 0.0 and not sums.S.get().any() and sums.times(A, s).get().shape == (len(A),)
