"""Partial products of whitened columns."""

from __future__ import annotations

import numpy as np
import pytest

from mpgls.model.products import ROWS, partial_products


def columns(rows, k, B, dtype=np.float64):
    rng = np.random.default_rng(rows + B)
    return tuple(np.asfortranarray(rng.standard_normal((rows, size)), dtype=dtype) for size in (k, B))


@pytest.mark.parametrize("rows", [0, 1, 7, ROWS, ROWS + 1, 2 * ROWS + 5])
@pytest.mark.parametrize("k, B", [(1, 1), (4, 9)])
def test_equals_the_plain_products(rows, k, B):
    F, X = columns(rows, k, B)
    S = partial_products(F, X)
    assert S.shape == (k + 1, B)
    np.testing.assert_allclose(S[:k], F.T @ X, rtol=1e-12, atol=1e-11)
    np.testing.assert_allclose(S[k], (X**2).sum(axis=0), rtol=1e-12)


def test_parts_of_the_rows_add_up():
    F, X = columns(301, 3, 5)
    parts = [partial_products(F[rows], X[rows]) for rows in (slice(0, 100), slice(100, 301))]
    np.testing.assert_allclose(sum(parts), partial_products(F, X), rtol=1e-12, atol=1e-12)


def test_single_precision_columns_are_summed_in_double():
    """The sum over 50 steps keeps what one float32 sum would lose."""
    X = np.full((50 * ROWS, 1), 0.1, dtype=np.float32, order="F")
    S = partial_products(X, X)
    assert S.dtype == np.float64
    expected = float(np.float32(0.1)) ** 2 * X.size
    np.testing.assert_allclose(S[:, 0], expected, rtol=2e-6)
