from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from mpgls.model.permute import permutation

FIXED = [0, 6, 5, 3, 4, 9, 7, 8, 2, 1]


def test_index_0_leaves_everybody_in_place():
    np.testing.assert_array_equal(permutation(5, 0, 7), np.arange(7))
    np.testing.assert_array_equal(permutation(5, 0, 4, np.array([1, 0, 1, 0])), np.arange(4))


@pytest.mark.parametrize("n", [1, 2, 17, 740])
def test_every_sample_appears_once(n):
    for index in range(1, 6):
        found = permutation(3, index, n)
        assert found.dtype == np.int64
        np.testing.assert_array_equal(np.sort(found), np.arange(n))


def test_seed_and_index_make_different_permutations():
    made = {tuple(permutation(seed, index, 50)) for seed in range(5) for index in range(1, 41)}
    assert len(made) == 200


def test_the_same_in_another_process():
    """A later run, on another machine, adds permutations to those of a finished one."""
    code = "from mpgls.model.permute import permutation; print(*permutation(12, 345, 30))"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout
    assert list(map(int, there.split())) == permutation(12, 345, 30).tolist()


def test_the_permutations_of_a_seed_never_change():
    """Results of earlier versions can be added to only while this holds."""
    assert permutation(1, 1, 10).tolist() == FIXED
    keys = np.random.Philox(key=np.array([1, 1], dtype=np.uint64)).random_raw(10)
    assert permutation(1, 1, 10).tolist() == sorted(range(10), key=keys.tolist().__getitem__)


def test_every_order_is_equally_likely():
    counts: dict[tuple, int] = {}
    for index in range(1, 4801):
        order = tuple(permutation(9, index, 4).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 24
    assert stats.chisquare(list(counts.values())).pvalue > 1e-4


def test_samples_stay_in_their_exchangeability_blocks():
    blocks = np.array(["b", "a", "c", "a", "b", "b", "a", "b", "b"])
    moved = np.zeros(9, dtype=bool)
    for index in range(1, 60):
        found = permutation(2, index, 9, blocks)
        np.testing.assert_array_equal(np.sort(found), np.arange(9))
        np.testing.assert_array_equal(blocks[found], blocks)
        moved |= found != np.arange(9)
    np.testing.assert_array_equal(moved, blocks != "c")


def test_every_order_within_the_blocks_is_equally_likely():
    blocks = np.array([7, 1, 7, 1, 7])
    counts: dict[tuple, int] = {}
    for index in range(1, 2401):
        order = tuple(permutation(4, index, 5, blocks).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 12
    assert stats.chisquare(list(counts.values())).pvalue > 1e-4


@pytest.mark.parametrize(("seed", "index"), [(-1, 1), (1, -1)])
def test_negative_keys_are_refused(seed, index):
    with pytest.raises(ValueError, match="must not be negative"):
        permutation(seed, index, 5)
