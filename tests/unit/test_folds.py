"""Folds: sizes, groups, keys, and what cannot be dealt."""

from __future__ import annotations

import numpy as np
import pytest

from mpgls.errors import InputError
from mpgls.model.folds import deal, folds_of_labels, nested_folds


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a.tests, b.tests, strict=True))


@pytest.mark.parametrize(("n", "outer", "inner"), [(127, 10, 5), (11, 2, 3), (30, 5, 2)])
def test_every_sample_is_tested_once_on_each_level(n, outer, inner):
    folds = nested_folds(n, outer, inner, seed=3)
    assert np.array_equal(np.sort(np.concatenate(folds.tests[:outer])), np.arange(n))
    for o, fold in enumerate(folds.outer):
        assert len(fold.inner) == inner
        rest = np.setdiff1d(np.arange(n), fold.test)
        assert np.array_equal(np.sort(np.concatenate(fold.inner)), rest)
        sizes = [test.size for test in fold.inner]
        assert max(sizes) - min(sizes) <= 1
        k = outer + o * inner
        assert np.array_equal(folds.training(k), np.setdiff1d(rest, fold.inner[0]))
        assert np.array_equal(folds.training(o), rest)
    sizes = [fold.test.size for fold in folds.outer]
    assert max(sizes) - min(sizes) <= 1


def test_the_seed_is_the_key():
    assert same(nested_folds(90, 5, 3, 1), nested_folds(90, 5, 3, 1))
    assert not same(nested_folds(90, 5, 3, 1), nested_folds(90, 5, 3, 2))


def test_labels_make_the_same_folds():
    folds = nested_folds(61, 4, 3, seed=5)
    outer, inner = folds.labels()
    assert (inner[outer == 2, 2] == -1).all()
    assert same(folds_of_labels(outer * 10, inner * 7), folds)


def test_groups_stay_together_and_fill_folds_evenly():
    rng = np.random.default_rng(0)
    groups = rng.permutation(np.repeat(np.arange(60), rng.integers(1, 6, 60)))
    folds = nested_folds(groups.size, 7, 4, 1, groups)
    for tests in ([fold.test for fold in folds.outer], *[fold.inner for fold in folds.outer]):
        seen = [set(groups[test]) for test in tests]
        assert sum(map(len, seen)) == len(set.union(*seen))
        sizes = [test.size for test in tests]
        assert max(sizes) - min(sizes) <= 5


@pytest.mark.parametrize(
    ("groups", "sentence"),
    [
        (None, "5 samples are fewer than 6 outer folds"),
        (np.array([0, 0, 1, 1, 2, 2]), "3 groups are fewer than 6"),
    ],
)
def test_too_few(groups, sentence):
    with pytest.raises(InputError, match=sentence):
        deal(5 if groups is None else groups.size, 6, 1, 0, groups)


def test_a_group_larger_than_a_fold():
    groups = np.array([0] * 20 + list(range(1, 41)))
    with pytest.raises(InputError, match="largest group has 20 of 60 samples"):
        deal(60, 5, 1, 0, groups)
