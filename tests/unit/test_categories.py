"""Indicator columns of categories over the analysed samples."""

from __future__ import annotations

import numpy as np
import pytest

from mpgls.errors import InputError
from mpgls.study.categories import Covariates


def made(codes: list[int], levels: tuple[str, ...]) -> Covariates:
    """An age, and a category."""
    return Covariates(np.column_stack([np.arange(len(codes)), codes]).astype(float), ("age", "site"), {"site": levels})


def test_the_largest_level_is_the_base() -> None:
    covariates = made([2, 0, 2, 0, 2, 1, 0, 2], ("A", "B", "C", "D"))
    C, names = covariates.columns()
    assert names == ("age", "site=A", "site=B")
    np.testing.assert_array_equal(C.T, [range(8), [0, 1, 0, 1, 0, 0, 1, 0], [0, 0, 0, 0, 0, 1, 0, 0]])
    (line,) = covariates.lines()
    assert "site: a category of 3 levels; the base is C (4 samples), with indicators of A (3), B (1)" in line
    (warning,) = covariates.warnings()
    assert "site: a single sample has level B" in warning


def test_the_base_is_that_of_the_samples_taken() -> None:
    some = made([2, 0, 2, 0, 2, 1, 0, 2], ("A", "B", "C", "D")).take(np.array([6, 5, 3, 1, 2]))
    C, names = some.columns()
    assert names == ("age", "site=B", "site=C")
    np.testing.assert_array_equal(C, [[6, 0, 0], [5, 1, 0], [3, 0, 0], [1, 0, 0], [2, 0, 1]])


def test_of_equal_levels_the_first_is_the_base() -> None:
    assert made([1, 1, 0, 0], ("A", "B")).columns()[1] == ("age", "site=B")


@pytest.mark.parametrize(("levels", "warned"), [(10, 0), (11, 1)])
def test_many_levels_are_warned_of(levels: int, warned: int) -> None:
    covariates = made(list(range(levels)) * 3, tuple(f"s{k}" for k in range(levels)))
    assert len(list(covariates.warnings())) == warned


def test_what_is_no_category() -> None:
    with pytest.raises(InputError, match="'site' is 'B' in all 3 analysed samples"):
        made([1, 1, 1], ("A", "B")).columns()
    with pytest.raises(InputError, match="'site' has 40 levels among 40 analysed samples, too many for a category"):
        made(list(range(40)), tuple(map(str, range(40)))).columns()


def test_without_covariates() -> None:
    C, names = Covariates.none(4).columns()
    assert C.shape == (4, 0) and names == ()
