"""Covariates as an orthonormal basis: the same space, whatever their units and offsets; dependence by name."""

from __future__ import annotations

import numpy as np
import pytest

from mpgls.errors import InputError
from mpgls.study.design import Design


def exact_projection(C, y):
    """Residuals of y on [1 | C] in extended precision, by modified Gram-Schmidt in np.longdouble, twice."""
    columns = [np.ones(len(y), dtype=np.longdouble), *(np.asarray(c, dtype=np.longdouble) for c in C.T)]
    basis = []
    for column in columns:
        for _ in range(3):
            for q in basis:
                column = column - q * (q @ column)
        basis.append(column / np.sqrt(column @ column))
    left = np.asarray(y, dtype=np.longdouble)
    for _ in range(2):
        for q in basis:
            left = left - q * (q @ left)
    return left


def residuals(design, y):
    return y - design.X_L @ (design.X_L.T @ y)


def test_the_basis_is_orthonormal_and_begins_with_a_constant():
    C = np.random.default_rng(1).normal(size=(50, 4)) + 1e6
    design = Design.of(C, list("abcd"))
    assert np.abs(design.X_L.T @ design.X_L - np.eye(5)).max() < 1e-14
    assert np.ptp(design.X_L[:, 0]) == 0
    assert design.names == ("intercept", *"abcd")


@pytest.mark.parametrize("seed", range(20))
def test_the_same_space_as_in_extended_precision(seed):
    rng = np.random.default_rng(seed)
    n, k = int(rng.integers(20, 200)), int(rng.integers(1, 6))
    C = rng.normal(size=(n, k)) @ rng.normal(size=(k, k))
    C = C * 10.0 ** rng.uniform(-8, 8, k) * 1.0
    C += C.std(axis=0) * 10.0 ** rng.uniform(-2, 6, k)
    y = rng.normal(size=n)
    found, right = residuals(Design.of(C, [f"c{j}" for j in range(k)]), y), exact_projection(C, y)
    assert np.abs(found - right).max() < 1e-8


def test_powers_of_a_year_are_no_linear_combination():
    rng = np.random.default_rng(2)
    year = rng.integers(1990, 2021, size=300).astype(float)
    y = rng.normal(size=300)
    centred = year - 2005
    powers = Design.of(np.column_stack([year, year**2, year**3]), ["year", "year2", "year3"])
    right = Design.of(np.column_stack([centred, centred**2, centred**3]), ["year", "year2", "year3"])
    assert np.abs(residuals(powers, y) - residuals(right, y)).max() < 1e-8


def test_effects_are_those_of_the_users_columns():
    rng = np.random.default_rng(3)
    C = rng.normal(size=(80, 3)) * [1.0, 50.0, 1e-3] + [0.0, 1000.0, 5.0]
    design = Design.of(C, list("abc"))
    X = np.column_stack([np.ones(80), C])
    b = np.array([2.0, -1.0, 0.03, 400.0])
    a = design.X_L.T @ (X @ b)
    effects, errors = design.effects(a, np.eye(4), 4.0)
    np.testing.assert_allclose(effects, b, rtol=1e-9)
    np.testing.assert_allclose(errors, 2.0 * np.sqrt(np.diag(np.linalg.inv(X.T @ X))), rtol=1e-7)
    more = design.with_columns(rng.normal(size=(80, 1)), ["PC1"])
    assert more.names == ("intercept", *"abc", "PC1") and more.effects(np.append(a, 7.0), np.eye(5), 1.0)[0, 4] == 7.0


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6, 1e9])
def test_dependent_columns_are_named(offset):
    rng = np.random.default_rng(4)
    A = rng.normal(size=(60, 2)) + offset
    with pytest.raises(InputError, match="'sum' is a linear combination of 'a' and 'b'"):
        Design.of(np.column_stack([A, A.sum(axis=1)]), ["a", "b", "sum"])


@pytest.mark.parametrize("power", [1, 2, 3])
def test_coordinates_in_metres_are_no_linear_combination(power):
    """East and north of a field of 100 m, and their products up to a degree; next to the same from its corner."""
    rng = np.random.default_rng(5)
    e, n = rng.uniform(0, 100, (2, 150))
    y, names = rng.normal(size=150), []

    def surface(east, north):
        terms = [(i, j) for i in range(power + 1) for j in range(power + 1 - i) if i + j]
        names[:] = [f"e{i}n{j}" for i, j in terms]
        return np.column_stack([east**i * north**j for i, j in terms])

    if power == 3:  # what float64 holds of cubes of 5e6 m is not enough: they are refused, and named
        with pytest.raises(InputError, match=r"'e.n.' is a linear combination of"):
            Design.of(surface(4e5 + e, 5e6 + n), names)
        return
    C = surface(4e5 + e, 5e6 + n)
    found = residuals(Design.of(C, names), y)
    assert np.abs(found - exact_projection(C, y)).max() < 1e-7


@pytest.mark.parametrize("largest", [3, 6, 9])
def test_dependent_columns_are_named_whatever_their_means(largest):
    rng = np.random.default_rng(6)
    A = rng.normal(size=(60, 2)) + 10.0**largest * np.array([1.0, -3.0])
    C = np.column_stack([A, 2 * A[:, 0] - A[:, 1] / 4 + 7])
    with pytest.raises(InputError, match="'c' is a linear combination of"):
        Design.of(C, ["a", "b", "c"])


def test_constant_columns_are_named():
    C = np.column_stack([np.arange(9.0), np.full(9, 1e9)])
    with pytest.raises(InputError, match="covariate 'site' is constant over the 9 analysed samples"):
        Design.of(C, ["age", "site"])


def test_no_covariates():
    design = Design.of(np.empty((7, 0)), [])
    assert design.X_L.shape == (7, 1) and design.names == ("intercept",)
    np.testing.assert_allclose(design.effects(np.array([np.sqrt(7.0) * 3.0]), np.eye(1), 7.0), [[3.0], [1.0]])


@pytest.mark.parametrize("unit", [1e-200, 1e-140, 1e140, 1e250])
def test_a_covariate_of_another_unit_has_the_effect_in_that_unit(unit):
    c = np.r_[-1.0, 0, 1, 2, 5]
    design = Design.of(c[:, None] * unit, ["c"])
    effects, errors = design.effects(design.X_L.T @ (3 + 2 * c), np.eye(2), 1.0)
    np.testing.assert_allclose(effects * [1, unit], [3, 2], rtol=1e-12)
    np.testing.assert_allclose(errors[1] * unit, 1 / np.sqrt(np.square(c - c.mean()).sum()), rtol=1e-12)
