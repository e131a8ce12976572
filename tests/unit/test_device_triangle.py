"""The panelled triangle of a card, without one: factor, inverse and solves against LAPACK on the whole matrix."""

from __future__ import annotations

import numpy as np
import pytest
import strict_lanes
from strict_card import StrictCard

from mpgls.device import triangle
from mpgls.device.card import PRODUCTS, NumpyCard
from mpgls.device.triangle import Triangle, bytes_of_triangles, triangle_size
from mpgls.la.layout import Block
from mpgls.la.scalapack import NotPositiveDefinite

WIDTH = 8
SIZES = [1, 7, 8, 9, 23]
"""One panel and less, one more than a panel, one less than three."""


@pytest.fixture(autouse=True, params=[NumpyCard, StrictCard], ids=["numpy", "strict"])
def card(request, monkeypatch):
    """Several panels of small matrices, on NumPy and on what forgives no more than CuPy."""
    monkeypatch.setattr(triangle, "WIDTH", WIDTH)
    strict_lanes.begin_anew()
    card = request.param()
    with card.lane(PRODUCTS):
        yield card


def symmetric(n, seed=1):
    """A positive definite matrix of mean diagonal 1."""
    A = np.random.default_rng(seed).normal(size=(n, 2 * n + 1))
    A = A @ A.T
    return A / A.diagonal().mean()


def on_card(card, A):
    """A symmetric matrix by its lower part: diagonal blocks are whole, and nothing else above the diagonal is kept."""
    held = Triangle.empty(card, len(A))
    for panel in held.panels:
        panel.whole[...] = card.xp.asarray(A[panel.cols.start :, panel.cols.start : panel.cols.stop])
    return held


def factor_of(card, A, a=1.0, b=0.0, kept=None, dtype=np.float64):
    """L of a A + b I."""
    L = Triangle.empty(card, len(A), dtype)
    L.fill(on_card(card, A), a, b, None if kept is None else card.xp.asarray(kept.astype(float)))
    L.factorise()
    return L


def whole(held):
    """The triangle as a square on the host."""
    return held.card.to_host(held.block(Block(range(held.n), range(held.n))))


def assert_close(found, expected):
    """Relative to the largest number."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("n", SIZES)
def test_factor_and_inverse_are_those_of_the_whole_matrix(card, n):
    A = symmetric(n)
    L = factor_of(card, A, 0.7, 0.3)
    expected = np.linalg.cholesky(0.7 * A + 0.3 * np.eye(n))
    assert_close(whole(L), expected)
    np.testing.assert_allclose(L.log_det(), np.linalg.slogdet(0.7 * A + 0.3 * np.eye(n))[1], rtol=1e-12, atol=1e-12)
    L.invert()
    assert_close(whole(L), np.linalg.inv(expected))
    assert not np.triu(whole(L), 1).any()


@pytest.mark.parametrize("n", SIZES)
def test_few_columns_are_solved_and_multiplied(card, n):
    A, C = symmetric(n), np.random.default_rng(2).normal(size=(n, 3))
    L, right = factor_of(card, A), np.linalg.inv(np.linalg.cholesky(A))
    forward, back, columns = (card.xp.array(C) for _ in range(3))
    L.solve(forward)
    L.solve_transposed(back)
    assert_close(card.to_host(forward), right @ C)
    assert_close(card.to_host(back), right.T @ C)
    L.invert()
    assert_close(card.to_host(L.multiply(columns)), right @ C)
    assert_close(card.to_host(L.multiply_transposed(columns)), right.T @ C)


@pytest.mark.parametrize("left_out", [False, True])
def test_a_symmetric_matrix_by_its_lower_part(card, left_out):
    n = SIZES[-1]
    A, C, kept = symmetric(n), np.random.default_rng(3).normal(size=(n, 2)), np.ones(n, dtype=bool)
    kept[[0, 5, 8, 22]] = not left_out
    chosen = A * np.outer(kept, kept)
    mask = card.xp.asarray(kept.astype(float)) if left_out else None
    product, square = on_card(card, A).product(card.xp.asarray(C), mask)
    assert_close(card.to_host(product), chosen @ C)
    assert square == pytest.approx((chosen**2).sum(), rel=1e-13)
    L = factor_of(card, A, 2.0, 1.0, kept if left_out else None)
    assert_close(whole(L), np.linalg.cholesky(2.0 * chosen + np.eye(n)))


@pytest.mark.parametrize("rows", [range(3), range(5, 12), range(16, 23), range(2, 23)])
def test_blocks_of_rows_have_zeros_above_the_diagonal(card, rows):
    L, expected = factor_of(card, symmetric(23)), np.linalg.cholesky(symmetric(23))
    for cols in (range(rows.stop), range(23), range(6, 9), range(0)):
        found = card.to_host(L.block(Block(rows, cols)))
        np.testing.assert_allclose(found, expected[np.ix_(rows, cols)], rtol=0, atol=1e-12)


def test_search_points_are_in_single_precision(card):
    L = factor_of(card, symmetric(23), dtype=np.float32)
    assert L.memory.dtype == np.float32
    error = np.abs(whole(L) - np.linalg.cholesky(symmetric(23))).max()
    assert 1e-9 < error < 1e-5


@pytest.mark.parametrize("bad, order", [(0, 8), (7, 8), (8, 16), (22, 23)])
def test_a_matrix_without_a_factor_is_found_where_it_ends(card, bad, order):
    """Whether the card raises, or gives numbers that are none."""
    A = symmetric(23)
    A[bad, bad] -= 5.0
    with pytest.raises(
        NotPositiveDefinite, match=rf"a leading minor of order {order} \(of 23\) or less is not positive"
    ):
        factor_of(card, A)


def test_a_triangle_takes_half_of_a_square(monkeypatch):
    monkeypatch.setattr(triangle, "WIDTH", 1024)
    n = 80_000
    assert 4 * n**2 < 8 * triangle_size(n) < 4.06 * n**2
    assert bytes_of_triangles(n, 2) < 0.9 * 80e9  # Phi and a factor on a card of 80 GB
    monkeypatch.setattr(triangle, "WIDTH", 8)
    assert triangle_size(9) == 9 * 8 + 1
