"""The panelled triangle of a card, on NumPy: factor, inverse and solves against LAPACK on the whole matrix."""

from __future__ import annotations

import numpy as np
import pytest

from mpgls.device import triangle
from mpgls.device.card import NumpyCard
from mpgls.device.triangle import Triangle, bytes_of_triangles, triangle_size
from mpgls.la.layout import Block
from mpgls.la.scalapack import NotPositiveDefinite

WIDTH = 8
SIZES = [1, 7, 8, 9, 23]
"""One panel and less, one more than a panel, one less than three."""


@pytest.fixture(autouse=True)
def narrow_panels(monkeypatch):
    """Several panels of small matrices."""
    monkeypatch.setattr(triangle, "WIDTH", WIDTH)


def symmetric(n, seed=1):
    """A positive definite matrix of mean diagonal 1."""
    A = np.random.default_rng(seed).normal(size=(n, 2 * n + 1))
    A = A @ A.T
    return A / A.diagonal().mean()


def on_card(A):
    """A symmetric matrix by its lower part: diagonal blocks are whole, and nothing else above the diagonal is kept."""
    held = Triangle.empty(NumpyCard(), len(A))
    for panel in held.panels:
        panel.whole[...] = A[panel.cols.start :, panel.cols.start : panel.cols.stop]
    return held


def factor_of(A, a=1.0, b=0.0, kept=None, dtype=np.float64):
    held, L = on_card(A), Triangle.empty(NumpyCard(), len(A), dtype)
    L.fill(held, a, b, None if kept is None else kept.astype(float))
    L.factorise()
    return L


def whole(held):
    """The triangle as a square."""
    return held.block(Block(range(held.n), range(held.n)))


@pytest.mark.parametrize("n", SIZES)
def test_factor_and_inverse_are_those_of_the_whole_matrix(n):
    A = symmetric(n)
    L = factor_of(A, 0.7, 0.3)
    expected = np.linalg.cholesky(0.7 * A + 0.3 * np.eye(n))
    np.testing.assert_allclose(whole(L), expected, rtol=0, atol=1e-14)
    np.testing.assert_allclose(L.log_det(), np.linalg.slogdet(0.7 * A + 0.3 * np.eye(n))[1], rtol=1e-12, atol=1e-12)
    L.invert()
    np.testing.assert_allclose(whole(L), np.linalg.inv(expected), rtol=0, atol=1e-12)
    assert not np.triu(whole(L), 1).any()


@pytest.mark.parametrize("n", SIZES)
def test_few_columns_are_solved_and_multiplied(n):
    A, C = symmetric(n), np.random.default_rng(2).normal(size=(n, 3))
    L, right = factor_of(A), np.linalg.inv(np.linalg.cholesky(A))
    forward, back = C.copy(), C.copy()
    L.solve(forward)
    L.solve_transposed(back)
    np.testing.assert_allclose(forward, right @ C, rtol=0, atol=1e-12 * np.abs(right @ C).max())
    np.testing.assert_allclose(back, right.T @ C, rtol=0, atol=1e-12 * np.abs(right.T @ C).max())
    L.invert()
    np.testing.assert_allclose(L.multiply(C), right @ C, rtol=0, atol=1e-12 * np.abs(right @ C).max())
    np.testing.assert_allclose(L.multiply_transposed(C), right.T @ C, rtol=0, atol=1e-12 * np.abs(right.T @ C).max())


@pytest.mark.parametrize("left_out", [False, True])
def test_a_symmetric_matrix_by_its_lower_part(left_out):
    n = SIZES[-1]
    A, C, kept = symmetric(n), np.random.default_rng(3).normal(size=(n, 2)), np.ones(n, dtype=bool)
    kept[[0, 5, 8, 22]] = not left_out
    chosen = A * np.outer(kept, kept)
    product, square = on_card(A).product(C, kept.astype(float) if left_out else None)
    np.testing.assert_allclose(product, chosen @ C, rtol=0, atol=1e-13)
    assert square == pytest.approx((chosen**2).sum(), rel=1e-13)
    L = factor_of(A, 2.0, 1.0, kept if left_out else None)
    np.testing.assert_allclose(whole(L), np.linalg.cholesky(2.0 * chosen + np.eye(n)), rtol=0, atol=1e-13)


@pytest.mark.parametrize("rows", [range(3), range(5, 12), range(16, 23), range(2, 23)])
def test_blocks_of_rows_have_zeros_above_the_diagonal(rows):
    L, expected = factor_of(symmetric(23)), np.linalg.cholesky(symmetric(23))
    for cols in (range(rows.stop), range(23), range(6, 9), range(0)):
        np.testing.assert_allclose(L.block(Block(rows, cols)), expected[np.ix_(rows, cols)], rtol=0, atol=1e-14)


def test_search_points_are_in_single_precision():
    L = factor_of(symmetric(23), dtype=np.float32)
    assert L.memory.dtype == np.float32
    error = np.abs(whole(L) - np.linalg.cholesky(symmetric(23))).max()
    assert 1e-9 < error < 1e-5


@pytest.mark.parametrize("bad, order", [(0, 8), (7, 8), (8, 16), (22, 23)])
def test_a_matrix_without_a_factor_is_found_where_it_ends(bad, order):
    A = symmetric(23)
    A[bad, bad] -= 5.0
    with pytest.raises(
        NotPositiveDefinite, match=rf"a leading minor of order {order} \(of 23\) or less is not positive"
    ):
        factor_of(A)


class SilentCard(NumpyCard):
    """What a GPU gives that does not say that it failed: numbers that are none."""

    def cholesky(self, A):
        return np.full_like(A, np.nan) if np.linalg.eigvalsh(A).min() <= 0 else np.linalg.cholesky(A)


def test_a_factor_that_is_no_number_is_none():
    n = 9
    held = Triangle.empty(SilentCard(), n)
    held.fill(on_card(-symmetric(n)), 1.0, 0.5, None)
    with pytest.raises(NotPositiveDefinite, match="order 8"):
        held.factorise()


def test_a_triangle_takes_half_of_a_square(monkeypatch):
    monkeypatch.setattr(triangle, "WIDTH", 1024)
    n = 80_000
    assert 4 * n**2 < 8 * triangle_size(n) < 4.06 * n**2
    assert bytes_of_triangles(n, 2) < 0.9 * 80e9  # Phi and a factor on a card of 80 GB
    monkeypatch.setattr(triangle, "WIDTH", 8)
    assert triangle_size(9) == 9 * 8 + 1
