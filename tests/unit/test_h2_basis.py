from __future__ import annotations

import numpy as np
import pytest

from mpgls.model.h2_basis import TOLERANCE, h2_basis

UPPER = 1.0 - 1e-6


def relative_error(h2, basis, lam_min, lam_max, points=30011):
    """The largest relative error of f on an independent grid, dense near lam_min."""
    mu = lam_min + (lam_max - lam_min) * np.concatenate([[0.0], np.geomspace(1e-12, 1.0, points)])
    exact = 1.0 / (np.asarray(h2) * mu[:, None] + (1.0 - np.asarray(h2)))
    approximate = 1.0 / (basis.nodes * mu[:, None] + (1.0 - basis.nodes)) @ basis.B
    return np.max(np.abs(approximate / exact - 1.0))


@pytest.mark.parametrize("precision", ["double", "mixed"])
@pytest.mark.parametrize(("lam_min", "lam_max"), [(0.0, 1e4), (0.0, 5.0), (0.3, 3.0), (1e-3, 60.0), (0.8, 1.2)])
@pytest.mark.parametrize("top", [0.4, 0.95, UPPER])
def test_error_is_within_the_tolerance(precision, lam_min, lam_max, top):
    h2 = np.concatenate([[0.0, top, 0.0], np.random.default_rng(1).uniform(0, top, 160)])
    basis = h2_basis(h2, lam_min, lam_max, TOLERANCE[precision])
    assert basis.error <= TOLERANCE[precision]
    assert relative_error(h2, basis, lam_min, lam_max) <= 1.5 * TOLERANCE[precision]
    assert set(basis.nodes) <= set(h2)
    assert basis.B.shape == (basis.nodes.size, h2.size)
    assert np.abs(basis.B).max() < 100  # nothing is lost to cancellation
    np.testing.assert_allclose(basis.B.sum(axis=0), 1.0, rtol=2 * TOLERANCE[precision])  # f = 1 at mu = 1


@pytest.mark.parametrize(("lam_max", "top", "most"), [(10.0, 0.8, 22), (100.0, 0.9, 33), (1e4, UPPER, 70)])
def test_number_of_nodes(lam_max, top, most):
    h2 = np.random.default_rng(2).uniform(0, top, 3000)
    h2[0] = top
    basis = h2_basis(h2, 0.0, lam_max, 1e-11)
    assert 5 < basis.nodes.size <= most
    assert relative_error(h2, basis, 0.0, lam_max, 997) <= 1.5e-11


def test_h2_crowded_at_the_upper_end():
    h2 = 1.0 - np.geomspace(1e-6, 1.0, 2001)
    basis = h2_basis(h2, 0.0, 1e4, 1e-11)
    assert basis.nodes.size < 90
    assert relative_error(h2, basis, 0.0, 1e4, 3001) <= 1.5e-11


def test_few_distinct_values_are_the_nodes_and_are_picked():
    h2 = np.array([0.7, 0.2, 0.7, 0.0, 0.2, 0.7])
    basis = h2_basis(h2, 0.0, 50.0, 1e-11)
    assert np.array_equal(np.sort(basis.nodes), [0.0, 0.2, 0.7])
    assert np.array_equal(basis.nodes @ basis.B, h2)
    assert np.array_equal(np.sort(basis.B, axis=0), np.tile([[0.0], [0.0], [1.0]], 6))


def test_one_trait_and_equal_eigenvalues():
    for h2 in (0.0, 0.5, UPPER):
        basis = h2_basis([h2], 0.0, 1e4, 1e-11)
        assert np.array_equal(basis.nodes, [h2]) and np.array_equal(basis.B, [[1.0]])
    basis = h2_basis(np.linspace(0, 1, 9), 1.0, 1.0, 1e-11)
    assert basis.nodes.size == 1 and basis.error < 1e-15


def test_values_that_almost_coincide():
    h2 = np.array([0.5, np.nextafter(0.5, 1), 0.5 + 1e-13, 0.1, 0.1 + 1e-9])
    basis = h2_basis(h2, 0.0, 100.0, 1e-11)
    assert relative_error(h2, basis, 0.0, 100.0) < 1.5e-11
    assert np.abs(basis.B).max() < 10


def test_measured_error_follows_a_loose_tolerance():
    h2 = np.random.default_rng(3).uniform(0, 0.9, 500)
    loose, tight = (h2_basis(h2, 0.0, 30.0, tolerance) for tolerance in (1e-2, 1e-11))
    assert loose.nodes.size < tight.nodes.size
    assert 1e-6 < loose.error <= 1e-2
    np.testing.assert_allclose(loose.error, relative_error(h2, loose, 0.0, 30.0), rtol=0.05)


def test_many_traits_are_checked_by_a_sample():
    h2 = np.random.default_rng(4).uniform(0, 0.9, 5000)
    basis = h2_basis(h2, 0.0, 30.0, 1e-5)
    np.testing.assert_allclose(basis.error, relative_error(h2, basis, 0.0, 30.0, 997), rtol=0.05)


@pytest.mark.parametrize(
    ("h2", "lam_min", "lam_max"),
    [([], 0, 1), ([1.2], 0, 1), ([-0.1], 0, 1), ([np.nan], 0, 1), ([1.0], 0, 1), ([0.9], -0.2, 1), ([0.5], 2, 1)],
)
def test_impossible_arguments(h2, lam_min, lam_max):
    with pytest.raises(ValueError):
        h2_basis(h2, lam_min, lam_max, 1e-11)
