"""Outer and inner folds of a nested cross-validation, dealt by keyed shuffles, whole groups together."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from mpgls.errors import InputError
from mpgls.model.permute import permutation

FOLD_KEYS = 2**63
"""Permutations from this index on shuffle folds; those of the targets have smaller ones."""


@dataclass(frozen=True, eq=False)
class OuterFold:
    """The positions of the samples that are predicted, ascending: ``test``, and within the others ``inner``."""

    test: np.ndarray
    inner: tuple[np.ndarray, ...]


@dataclass(frozen=True, eq=False)
class NestedFolds:
    """All folds over ``n`` samples."""

    n: int
    outer: tuple[OuterFold, ...]

    @functools.cached_property
    def tests(self) -> list[np.ndarray]:
        """The test samples of each outer fold, then of each inner fold, outer fold by outer fold."""
        return [fold.test for fold in self.outer] + [inner for fold in self.outer for inner in fold.inner]

    @functools.cached_property
    def left_out(self) -> list[np.ndarray]:
        """For each entry of `tests` the samples that are not trained on: test, or outer and inner test together."""
        inner = [np.concatenate([inner, fold.test]) for fold in self.outer for inner in fold.inner]
        return [fold.test for fold in self.outer] + inner

    def training(self, k: int) -> np.ndarray:
        """The samples that predict entry k of `tests`, ascending."""
        kept = np.ones(self.n, dtype=bool)
        kept[self.left_out[k]] = False
        return np.flatnonzero(kept)

    @property
    def inner_count(self) -> int:
        """Inner folds of an outer one."""
        return len(self.outer[0].inner)

    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        """Outer fold of each sample (n,), and its inner fold under each outer one (n, outer folds), -1 in its test."""
        outer = np.empty(self.n, dtype=np.int64)
        inner = np.full((self.n, len(self.outer)), -1, dtype=np.int64)
        for o, fold in enumerate(self.outer):
            outer[fold.test] = o
            for i, test in enumerate(fold.inner):
                inner[test, o] = i
        return outer, inner


def nested_folds(n: int, outer: int, inner: int, seed: int, groups: np.ndarray | None = None) -> NestedFolds:
    """``outer`` folds of n samples, and ``inner`` folds of what each leaves to train on; each at least 2.

    Samples with the same entry of ``groups`` (n,) stay together. Raises InputError when a fold would be empty, or a
    group is larger than a fold.
    """
    everyone = np.arange(n)
    of_sample = deal(n, outer, seed, FOLD_KEYS, groups, "outer")
    folds = []
    for o in range(outer):
        left = everyone[of_sample != o]
        theirs = None if groups is None else groups[left]
        of_left = deal(left.size, inner, seed, FOLD_KEYS + 1 + o, theirs, "inner")
        folds.append(OuterFold(everyone[of_sample == o], tuple(left[of_left == i] for i in range(inner))))
    return NestedFolds(n, tuple(folds))


def folds_of_labels(outer: np.ndarray, inner: np.ndarray) -> NestedFolds:
    """The counterpart of `NestedFolds.labels`; any distinct numbers will do as labels."""
    folds = []
    for o, label in enumerate(np.unique(outer)):
        test, column = outer == label, inner[:, o]
        labels = np.unique(column[~test])
        folds.append(OuterFold(np.flatnonzero(test), tuple(np.flatnonzero((column == k) & ~test) for k in labels)))
    return NestedFolds(outer.size, tuple(folds))


def deal(n: int, count: int, seed: int, key: int, groups: np.ndarray | None = None, kind: str = "outer") -> np.ndarray:
    """The fold (n,) of each of n samples: a shuffle dealt round, so that sizes differ by one at most.

    With ``groups`` the largest group goes first, each to the fold that is smallest then. Raises InputError.
    """
    if n < count:
        raise InputError(f"{n} samples are fewer than {count} {kind} folds")
    shuffled = permutation(seed, key, n)
    if groups is None:
        of_sample = np.empty(n, dtype=np.int64)
        of_sample[shuffled] = np.arange(n) % count
        return of_sample
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if sizes.size < count:
        raise InputError(f"{sizes.size} groups are fewer than {count} {kind} folds: every group stays in one fold")
    if sizes.max() > -(-n // count):
        raise InputError(
            f"the largest group has {sizes.max()} of {n} samples, more than one of {count} {kind} folds: "
            "ask for fewer folds, or give them in --folds-file"
        )
    # groups of the same size in the order of the shuffle
    first_seen = np.full(sizes.size, n)
    np.minimum.at(first_seen, group[shuffled], np.arange(n))
    of_group, filled = np.empty(sizes.size, dtype=np.int64), np.zeros(count, dtype=np.int64)
    for g in np.lexsort((first_seen, -sizes)):
        of_group[g] = filled.argmin()
        filled[of_group[g]] += sizes[g]
    return of_group[group]
