"""Deviations from means, against exact rational arithmetic; the range that traits may have."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from mpgls.model.deviations import deviations, in_range


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("unit", [5e-324, 1e-308, 1e-160, 1.0, 1e160, 1e299])
@pytest.mark.parametrize("offset", [0.0, 1e3, 1e9])
def test_deviations_are_those_of_the_numbers_as_they_are(unit, offset, axis):
    A = np.random.default_rng(int(offset) % 97).normal(size=(23, 4)) + offset
    A = (A if axis == 0 else A.T) * unit
    D, size, mean = deviations(A, axis)
    for column, d, unit_of, middle in zip(*(np.moveaxis(B, axis, 0).T for B in (A, D, size, mean)), strict=True):
        exact = [Fraction(value) for value in column.tolist()]
        average = sum(exact) / len(exact)
        right = np.array([float((value - average) / Fraction(float(unit_of[0]))) for value in exact])
        np.testing.assert_allclose(d, right, rtol=0, atol=4e-16 * max(np.abs(right).max(), 1e-9))
        assert abs(Fraction(float(middle[0])) * Fraction(float(unit_of[0])) - average) <= abs(average) * Fraction(
            1, 10**15
        )
        assert np.frexp(unit_of[0])[0] == 0.5  # a power of two


def test_nothing_but_zeros():
    D, size, mean = deviations(np.zeros((5, 2)))
    assert not D.any() and not mean.any() and (size == 1).all()


@pytest.mark.parametrize(
    ("low", "high", "dtype", "expected"),
    [
        (0, 1, np.float64, True), (0, 1, np.float32, True), (1e6, 1e6 + 1e-150, np.float64, False),
        (-1e-160, 1e-160, np.float64, False), (0, 1e-140, np.float64, True), (0, 1e140, np.float64, True),
        (0, 1e160, np.float64, False), (-1.7e308, 1.7e308, np.float64, False), (0, 1e-20, np.float32, False),
        (0, 1e20, np.float32, False), (-1e9, 1e9, np.float32, True), (3, 3, np.float64, False),
    ],
)  # fmt: skip
def test_range(low, high, dtype, expected):
    assert in_range(low, high, dtype) == expected
