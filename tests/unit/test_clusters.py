"""Clusters, volumes, masses and TFCE against scipy.ndimage.label, map by map and height by height."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from scipy import ndimage

from mpgls.model.clusters import (
    CONNECTIVITIES,
    MAX_HEIGHTS,
    NEED_NEIGHBOURS,
    RECORD_DTYPE,
    STATISTICS,
    Edges,
    Heights,
    Neighbours,
    cluster_statistics,
    label_entries,
    snp_statistics,
    tfce,
    tfce_scores,
)

START, STEP = 1.6, 0.1
HEIGHTS = Heights(START, STEP)
STRUCTURE = {c: ndimage.generate_binary_structure(3, rank) for rank, c in enumerate(CONNECTIVITIES, start=1)}


@dataclass
class Maps:
    """Random maps (groups, v) over a mask, and their entries beyond the threshold; some groups have none."""

    mask: np.ndarray
    values: np.ndarray
    group: np.ndarray
    voxel: np.ndarray
    height: np.ndarray

    @property
    def groups(self) -> int:
        return len(self.values)

    def volume(self, group: int) -> np.ndarray:
        """The map of a group as an image, 0 outside the mask and below the threshold."""
        image = np.zeros(self.mask.shape)
        image[self.mask] = np.where(self.values[group] >= START, self.values[group], 0.0)
        return image


def make_maps(shape: tuple[int, int, int] = (7, 11, 5), groups: int = 13, seed: int = 0, whole: bool = False) -> Maps:
    rng = np.random.default_rng(seed)
    mask = np.ones(shape, dtype=bool) if whole else rng.uniform(size=shape) < 0.8
    values = np.abs(rng.standard_normal((groups, int(mask.sum()))))
    values[1:4] += 0.7
    values[groups // 2] = 0.0
    values[groups - 1] = 0.0
    group, voxel = np.nonzero(values >= START)
    return Maps(mask, values, group, voxel.astype(np.int32), values[group, voxel])


def same_partition(first: np.ndarray, second: np.ndarray) -> bool:
    pairs = len(np.unique(np.stack([first, second]), axis=1).T)
    return pairs == len(np.unique(first)) == len(np.unique(second))


@pytest.mark.parametrize("connectivity", CONNECTIVITIES)
def test_neighbours_are_those_of_the_image(connectivity):
    mask = np.random.default_rng(3).uniform(size=(4, 5, 6)) < 0.6
    coordinates = np.argwhere(mask)
    table = Neighbours.of(coordinates, connectivity).table
    first, column = np.nonzero(table >= 0)
    found = set(zip(first.tolist(), table[first, column].tolist(), strict=True))
    gap = np.abs(coordinates[:, None] - coordinates[None])
    near = (gap.max(axis=2) == 1) & (gap.sum(axis=2) <= {6: 1, 18: 2, 26: 3}[connectivity])
    assert found == {(i, j) for i, j in np.argwhere(near).tolist() if i < j}
    assert table.dtype == np.int32 and table.shape == (len(coordinates), connectivity // 2)


def test_neighbours_of_voxels_in_any_order_and_anywhere():
    coordinates = np.argwhere(np.ones((3, 4, 5), dtype=bool))
    order = np.random.default_rng(1).permutation(len(coordinates))
    plain, mixed = Neighbours.of(coordinates, 18).table, Neighbours.of(coordinates[order] - 1000, 18).table

    def pairs(table, names):
        first, column = np.nonzero(table >= 0)
        return {frozenset((int(names[a]), int(names[table[a, c]]))) for a, c in zip(first, column, strict=True)}

    assert pairs(plain, np.arange(60)) == pairs(mixed, order)
    assert Neighbours.of(np.empty((0, 3), dtype=int), 26).table.shape == (0, 13)


@pytest.mark.parametrize(
    ("coordinates", "connectivity", "message"),
    [
        (np.zeros((1, 3)), 8, "connectivity must be 6, 18 or 26, not 8"),
        (np.array([[1, 2, 3], [0, 0, 0], [1, 2, 3]]), 6, r"voxels 0 and 2 have the same coordinates \[1, 2, 3\]"),
        (np.zeros((4, 2)), 6, r"3 columns, not the shape \(4, 2\)"),
        (np.array([[0, 0, 0], [1 << 40, 1 << 40, 1]]), 6, "no indices of a grid"),
    ],
)
def test_unusable_coordinates_are_refused(coordinates, connectivity, message):
    with pytest.raises(ValueError, match=message):
        Neighbours.of(coordinates, connectivity)


@pytest.mark.parametrize("whole", [False, True], ids=["mask", "box"])
@pytest.mark.parametrize("connectivity", CONNECTIVITIES)
def test_labels_are_those_of_ndimage(connectivity, whole):
    maps = make_maps(whole=whole)
    neighbours = Neighbours.of(np.argwhere(maps.mask), connectivity)
    label = label_entries(maps.group, maps.voxel, neighbours)
    assert label.dtype == np.int64
    expected, clusters = [], 0
    for g in range(maps.groups):
        image, count = ndimage.label(maps.volume(g) > 0, STRUCTURE[connectivity])
        found = image[maps.mask]
        expected.append(found[found > 0] + clusters)
        clusters += count
    assert clusters > 40
    assert same_partition(label, np.concatenate(expected))


@pytest.mark.parametrize("connectivity", CONNECTIVITIES)
def test_statistics_of_every_group_are_those_of_ndimage(connectivity):
    maps = make_maps(seed=connectivity)
    neighbours = Neighbours.of(np.argwhere(maps.mask), connectivity)
    stats = cluster_statistics(maps.group, maps.voxel, maps.height, neighbours, maps.groups)
    for g in range(maps.groups):
        image = maps.volume(g)
        label, count = ndimage.label(image > 0, STRUCTURE[connectivity])
        sizes = ndimage.sum_labels(image > 0, label, range(1, count + 1))
        masses = ndimage.sum_labels(image, label, range(1, count + 1))
        assert stats.volume[g] == np.count_nonzero(image)
        assert stats.largest_volume[g] == max(sizes, default=0)
        np.testing.assert_allclose(stats.total[g], image.sum(), rtol=1e-13)
        np.testing.assert_allclose(stats.largest_mass[g], max(masses, default=0), rtol=1e-13)
    assert stats.volume[-1] == stats.largest_volume[-1] == stats.total[-1] == stats.largest_mass[-1] == 0


@pytest.mark.parametrize(("E", "H"), [(0.5, 2.0), (1.0, 1.0)])
@pytest.mark.parametrize("connectivity", CONNECTIVITIES)
def test_tfce_is_the_sum_over_heights(connectivity, E, H):
    maps = make_maps(seed=7, groups=7)
    neighbours = Neighbours.of(np.argwhere(maps.mask), connectivity)
    score = tfce_scores(maps.group, maps.voxel, maps.height, neighbours, Heights(START, STEP, E, H))
    largest = tfce(maps.group, maps.voxel, maps.height, neighbours, maps.groups, Heights(START, STEP, E, H))
    for g in range(maps.groups):
        image, expected = maps.volume(g), np.zeros(maps.mask.shape)
        for k in range(1, 60):
            h = START + k * STEP
            label, count = ndimage.label(image >= h, STRUCTURE[connectivity])
            extent = np.concatenate([[0.0], ndimage.sum_labels(image >= h, label, range(1, count + 1))])
            expected += np.where(label > 0, extent[label] ** E * h**H * STEP, 0.0)
        mine = maps.group == g
        np.testing.assert_allclose(score[mine], expected[maps.mask][maps.voxel[mine]], rtol=1e-12)
        np.testing.assert_allclose(largest[g], expected.max(), rtol=1e-12)


def test_a_height_counts_for_the_entry_that_just_reaches_it():
    neighbours = Neighbours.of(np.array([[0, 0, 0], [0, 0, 1]]), 6)
    height = np.array([START + 2 * STEP, START + 3 * STEP])
    score = tfce_scores(np.zeros(2, np.int64), np.array([0, 1], np.int32), height, neighbours, HEIGHTS)
    pair, single = [np.sqrt(2) * (START + k * STEP) ** 2 * STEP for k in (1, 2)], (START + 3 * STEP) ** 2 * STEP
    np.testing.assert_allclose(score, [sum(pair), sum(pair) + single], rtol=1e-14)


def test_an_infinite_statistic_ends():
    neighbours = Neighbours.of(np.array([[0, 0, 0]]), 6)
    score = tfce(np.array([0]), np.array([0], np.int32), np.array([np.inf]), neighbours, 1, HEIGHTS)
    heights = START + STEP * np.arange(1, MAX_HEIGHTS + 1)
    np.testing.assert_allclose(score, np.sum(heights**2 * STEP), rtol=1e-12)


def test_a_group_has_the_same_bits_alone_and_in_company():
    """Rank counts and tile sizes decide which SNPs are taken together; they must not be seen in the result."""
    maps = make_maps(groups=30, seed=5)
    maps.height[::7] += 12.0
    neighbours = Neighbours.of(np.argwhere(maps.mask), 26)
    t = np.where(np.arange(maps.group.size) % 2, maps.height, -maps.height)
    together = snp_statistics(maps.group, maps.voxel, t, maps.height, maps.groups, neighbours, HEIGHTS)
    for first, last in [(0, 1), (1, 2), (3, 11), (29, 30), (10, 30)]:
        mine = (maps.group >= first) & (maps.group < last)
        part = maps.group[mine] - first, maps.voxel[mine], t[mine], maps.height[mine]
        alone = snp_statistics(*part, last - first, neighbours, HEIGHTS)
        for name in STATISTICS:
            np.testing.assert_array_equal(alone[name], together[name][first:last], err_msg=name)


def test_all_statistics_of_a_snp():
    maps = make_maps()
    log10p = np.square(maps.height)
    neighbours = Neighbours.of(np.argwhere(maps.mask), 6)
    found = snp_statistics(maps.group, maps.voxel, -maps.height, log10p, maps.groups, neighbours, HEIGHTS)
    assert tuple(found) == STATISTICS
    assert set(STATISTICS) < set(RECORD_DTYPE.names)
    stats = cluster_statistics(maps.group, maps.voxel, log10p, neighbours, maps.groups)
    masked = np.where(maps.values >= START, maps.values, 0.0)
    np.testing.assert_array_equal(found["log10p"], np.square(masked.max(axis=1)))
    np.testing.assert_array_equal(found["volume"], stats.volume)
    np.testing.assert_array_equal(found["sum_log10p"], stats.total)
    np.testing.assert_array_equal(found["cluster_volume"], stats.largest_volume)
    np.testing.assert_array_equal(found["cluster_mass"], stats.largest_mass)
    expected = tfce(maps.group, maps.voxel, maps.height, neighbours, maps.groups, HEIGHTS)
    np.testing.assert_array_equal(found["tfce"], expected)

    plain = snp_statistics(maps.group, maps.voxel, maps.height, log10p, maps.groups, None, HEIGHTS)
    assert tuple(plain) == tuple(name for name in STATISTICS if name not in NEED_NEIGHBOURS)
    for name, values in plain.items():
        np.testing.assert_array_equal(values, found[name])


@pytest.mark.parametrize("with_neighbours", [True, False])
def test_no_entry_at_all(with_neighbours):
    nothing = np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0), np.empty(0)
    neighbours = Neighbours.of(np.argwhere(np.ones((2, 2, 2))), 26) if with_neighbours else None
    for name, values in snp_statistics(*nothing, 3, neighbours, HEIGHTS).items():
        np.testing.assert_array_equal(values, np.zeros(3), err_msg=name)


def test_groups_of_many_permutations_do_not_overflow():
    """10^4 permutations of 10^5 SNPs over 10^6 voxels: keys up to 10^15."""
    neighbours = Neighbours(np.full((1_000_000, 3), -1, np.int32))
    neighbours.table[999_998, 0] = 999_999
    group = np.array([10**9 - 2, 10**9 - 1, 10**9 - 1])
    edges = Edges.of(group, np.array([999_999, 999_998, 999_999], np.int32), neighbours)
    assert edges.components().tolist() == [0, 1, 1]
