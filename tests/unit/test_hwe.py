"""The exact test of Hardy-Weinberg equilibrium against its definition in whole numbers."""

from __future__ import annotations

from fractions import Fraction
from math import comb, factorial

import numpy as np
import pytest

from mpgls.model.hwe import fails_hwe, hwe_p


def exact_p(two: int, one: int, none: int) -> Fraction:
    """The definition: pairs of 2n alleles in any order, all alike; no rounding."""
    n, r = two + one + none, 2 * two + one
    ways = {h: 2**h * factorial(n) // factorial(h) // factorial((r - h) // 2) // factorial(n - h - (r - h) // 2)
            for h in range(r % 2, min(r, 2 * n - r) + 1, 2)}  # fmt: skip
    assert sum(ways.values()) == comb(2 * n, r)
    return Fraction(sum(w for w in ways.values() if w <= ways[one]), comb(2 * n, r))


CASES = [
    (0, 0, 0), (0, 0, 5), (5, 0, 0), (0, 1, 0), (0, 5, 0), (1, 0, 1), (1, 57, 14), (3, 11, 25), (20, 0, 20),
    (0, 40, 0), (10, 20, 10), (2, 3, 195), (7, 101, 93), (60, 10, 60),
]  # fmt: skip


@pytest.mark.parametrize("counts", CASES)
def test_p_is_the_definition(counts: tuple[int, int, int]) -> None:
    assert hwe_p(*counts) == pytest.approx(float(exact_p(*counts)), rel=1e-12)
    assert hwe_p(*counts[::-1]) == hwe_p(*counts)


@pytest.mark.parametrize("threshold", [1e-50, 1e-9, 1e-3, 0.05, 0.3, 0.9])
def test_fails_where_p_is_below_the_threshold(threshold: float) -> None:
    rng = np.random.default_rng(4)
    counts = np.vstack([CASES, rng.multinomial(150, [0.2, 0.3, 0.5], 60), rng.multinomial(90, [0.02, 0.1, 0.88], 60)])
    expected = [exact_p(*row) < Fraction(threshold) for row in counts.tolist()]
    np.testing.assert_array_equal(fails_hwe(*counts.T, threshold), expected)


def test_p_at_the_threshold_does_not_fail() -> None:
    p = hwe_p(1, 57, 14)
    assert fails_hwe(np.array([1]), np.array([57]), np.array([14]), np.nextafter(p, 1))[0]
    assert not fails_hwe(np.array([1]), np.array([57]), np.array([14]), p)[0]


def test_a_million_people() -> None:
    """In equilibrium and far from it; the sums neither overflow nor vanish."""
    two, one, none = (
        np.array([40_000, 40_000, 100_000]),
        np.array([320_000, 310_000, 0]),
        np.array([640_000, 650_000, 900_000]),
    )
    assert fails_hwe(two, one, none, 1e-6).tolist() == [False, True, True]
    assert hwe_p(40_000, 320_000, 640_000) == pytest.approx(1.0, abs=0.01)
