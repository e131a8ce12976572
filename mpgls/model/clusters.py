"""Statistics of a SNP over the brain: volumes, sums and clusters of its supra-threshold voxels, and TFCE.

A *supra-threshold entry* is a pair of SNP and voxel whose p value is below the sparsity threshold. Entries come as flat
arrays, sorted by (group, voxel), where a group is one SNP under one permutation packed into an integer. All clusters of
all groups are found at once: entry (g, v) has the key g n_voxels + v, its neighbours' keys are looked up among the
sorted keys, and one graph pass finds the connected components. Positive and negative effects share clusters, as the
p value is two-sided (Da Mota et al., "Machine learning patterns for neuroimaging-genetic studies in the cloud", 2014).

Every figure of a group depends on the entries of that group alone, bit for bit, whatever groups come with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CONNECTIVITIES = (6, 18, 26)
"""Neighbours of a voxel: by a common face; face or edge; face, edge or corner."""

STATISTICS = ("log10p", "volume", "sum_log10p", "cluster_volume", "cluster_mass", "tfce")
"""Decision statistics of a SNP, all larger where more extreme; the fields of `RECORD_DTYPE` that hold them."""

NEED_NEIGHBOURS = ("cluster_volume", "cluster_mass", "tfce")
"""Those of `STATISTICS` that exist only where the coordinates of the voxels are known."""

RECORD_DTYPE = np.dtype(
    [
        ("t", "<f8"),
        ("log10p", "<f8"),
        ("volume", "<i8"),
        ("sum_log10p", "<f8"),
        ("cluster_volume", "<i8"),
        ("cluster_mass", "<f8"),
        ("tfce", "<f8"),
        ("eaf", "<f8"),
        ("peak_voxel", "<i4"),
        ("n", "<i4"),
        ("note", "<i4"),
    ]
)
"""One SNP: t and -log10 p at its best voxel, number of supra-threshold voxels, their sum of -log10 p, the most voxels
and the largest sum of a cluster, the largest TFCE score, frequency of A1, the best voxel (-1: none beyond the
threshold), samples with a genotype, and a code of model.gls.Note."""

MAX_HEIGHTS = 10_000
"""Heights of TFCE beyond this many steps above the start are left out, so that an exact fit cannot take forever."""


@dataclass(frozen=True)
class Neighbours:
    """Pairs of adjacent voxels: ``table`` int32 (v, connectivity / 2), -1 where there is none.

    Each pair stands once, in the row of the voxel that comes first in the C order of the coordinates.
    """

    table: np.ndarray

    @classmethod
    def of(cls, coordinates: np.ndarray, connectivity: int = 6) -> Neighbours:
        """Adjacent voxels among ``coordinates``, int (v, 3), in any order.

        Raises ValueError for another connectivity than 6, 18 or 26, and where two voxels have the same coordinates.
        """
        if connectivity not in CONNECTIVITIES:
            raise ValueError(f"connectivity must be 6, 18 or 26, not {connectivity}")
        place = np.asarray(coordinates, dtype=np.int64)
        if place.ndim != 2 or place.shape[1] != 3:
            raise ValueError(f"coordinates must have 3 columns, not the shape {place.shape}")
        if len(place) == 0:
            return cls(np.empty((0, connectivity // 2), dtype=np.int32))
        strides = _strides(place)
        key = (place - place.min(axis=0)) @ strides
        order = np.argsort(key, kind="stable")
        ordered = key[order]
        twins = np.flatnonzero(np.diff(ordered) == 0)
        if twins.size:
            first, second = sorted(order[twins[0] : twins[0] + 2].tolist())
            raise ValueError(f"voxels {first} and {second} have the same coordinates {place[first].tolist()}")
        table = np.empty((len(key), connectivity // 2), dtype=np.int32)
        for column, step in enumerate(_half_of(connectivity) @ strides):
            position, found = _find(ordered, key + step)
            table[:, column] = np.where(found, order[position], -1)
        return cls(table)

    @property
    def voxels(self) -> int:
        return len(self.table)


@dataclass(frozen=True)
class Edges:
    """Pairs of adjacent entries of the same group: positions ``first`` and ``second`` among k ``entries``."""

    first: np.ndarray
    second: np.ndarray
    entries: int

    @classmethod
    def of(cls, group: np.ndarray, voxel: np.ndarray, neighbours: Neighbours) -> Edges:
        """All adjacent pairs of the entries ``group`` (k,), ``voxel`` (k,), sorted by (group, voxel)."""
        base = np.asarray(group, dtype=np.int64) * neighbours.voxels
        key = base + voxel
        first, second = [], []
        for column in neighbours.table.T:
            other = column[voxel]
            there = np.flatnonzero(other >= 0)
            position, found = _find(key, base[there] + other[there])
            first.append(there[found])
            second.append(position[found])
        return cls(np.concatenate(first), np.concatenate(second), len(key))

    def within(self, kept: np.ndarray) -> Edges:
        """The pairs of which both entries are among ``kept`` (k,) bool, counted anew among those."""
        both = kept[self.first] & kept[self.second]
        position = np.cumsum(kept) - 1
        return Edges(position[self.first[both]], position[self.second[both]], int(np.count_nonzero(kept)))

    def components(self) -> np.ndarray:
        """The connected component of each entry: int64 (k,), from 0 on."""
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components

        if self.first.size == 0:
            return np.arange(self.entries)
        shape = (self.entries, self.entries)
        graph = coo_matrix((np.ones(self.first.size), (self.first, self.second)), shape=shape)
        return connected_components(graph, directed=False)[1].astype(np.int64)


@dataclass(frozen=True)
class ClusterStats:
    """Figures of each group, 0 where it has no entry.

    ``volume`` int64 (groups,): entries; ``total``: sum of their weights; ``largest_volume`` int64 and
    ``largest_mass``: the most entries, and the largest sum of weights, of one of its clusters.
    """

    volume: np.ndarray
    largest_volume: np.ndarray
    total: np.ndarray
    largest_mass: np.ndarray


def label_entries(group: np.ndarray, voxel: np.ndarray, neighbours: Neighbours) -> np.ndarray:
    """The cluster of each entry: int64 (k,), from 0 on, different in different groups.

    ``group`` int64 (k,) and ``voxel`` int32 (k,) are sorted by (group, voxel).
    """
    return Edges.of(group, voxel, neighbours).components()


def cluster_statistics(
    group: np.ndarray,
    voxel: np.ndarray,
    weight: np.ndarray,
    neighbours: Neighbours,
    groups: int,
    edges: Edges | None = None,
) -> ClusterStats:
    """Volume, sum of ``weight`` (k,), largest cluster volume and largest cluster mass of each of ``groups`` groups.

    ``group`` (k,) counts from 0 to groups - 1; entries are sorted by (group, voxel). ``edges`` saves finding the
    adjacent entries again.
    """
    label = (edges or Edges.of(group, voxel, neighbours)).components()
    clusters = int(label.max(initial=-1)) + 1
    owner = np.zeros(clusters, dtype=np.int64)
    owner[label] = group
    largest_volume, largest_mass = np.zeros(groups, dtype=np.int64), np.zeros(groups)
    np.maximum.at(largest_volume, owner, np.bincount(label, minlength=clusters))
    np.maximum.at(largest_mass, owner, np.bincount(label, weights=weight, minlength=clusters))
    volume = np.bincount(group, minlength=groups)
    return ClusterStats(volume, largest_volume, np.bincount(group, weights=weight, minlength=groups), largest_mass)


@dataclass(frozen=True)
class Heights:
    """Where TFCE is taken: at start + step, start + 2 step, ...; extent to the power ``E``, height to ``H``."""

    start: float
    step: float
    E: float = 0.5
    H: float = 2.0


def tfce_scores(
    group: np.ndarray,
    voxel: np.ndarray,
    height: np.ndarray,
    neighbours: Neighbours,
    heights: Heights,
    edges: Edges | None = None,
) -> np.ndarray:
    """Threshold-free cluster enhancement of each entry (k,): the sum over the heights h at or below its own of

        extent(h)^E h^H step,   h = start + step, start + 2 step, ...

    where extent(h) is the number of entries of its group that are connected with it by entries of height >= h
    (Smith and Nichols, NeuroImage 44, 2009, eq. 1). Only supra-threshold entries are there, so ``start`` is the
    threshold on the scale of ``height`` and the integral begins there.
    """
    E, H, step = heights.E, heights.H, heights.step
    score = np.zeros(len(height))
    height = np.asarray(height, dtype=np.float64)
    left, edges = np.arange(len(height)), edges or Edges.of(group, voxel, neighbours)
    extent = np.zeros(0)
    for k in range(1, MAX_HEIGHTS + 1):
        h = heights.start + k * step
        kept = height[left] >= h
        if k == 1 or not kept.all():
            left, edges = left[kept], edges.within(kept)
            label = edges.components()
            extent = np.power(np.bincount(label).astype(np.float64), E)[label]
        if left.size == 0:
            break
        score[left] += extent * (h**H * step)
    return score


def tfce(
    group: np.ndarray,
    voxel: np.ndarray,
    height: np.ndarray,
    neighbours: Neighbours,
    groups: int,
    heights: Heights,
    edges: Edges | None = None,
) -> np.ndarray:
    """The largest TFCE score of each group (groups,), 0 where it has no entry; see `tfce_scores`."""
    score = tfce_scores(group, voxel, height, neighbours, heights, edges)
    largest = np.zeros(groups)
    np.maximum.at(largest, group, score)
    return largest


def snp_statistics(
    group: np.ndarray,
    voxel: np.ndarray,
    t: np.ndarray,
    log10p: np.ndarray,
    groups: int,
    neighbours: Neighbours | None,
    heights: Heights,
) -> dict[str, np.ndarray]:
    """All `STATISTICS` of each group, each (groups,); those of `NEED_NEIGHBOURS` only where ``neighbours`` are given.

    ``t`` and ``log10p`` (k,) belong to the entries, sorted by (group, voxel). Masses are sums of -log10 p; TFCE is
    taken over |t| at the ``heights``, from the |t| of the sparsity threshold on.
    """
    peak = np.zeros(groups)
    np.maximum.at(peak, group, log10p)
    if neighbours is None:
        volume, total = np.bincount(group, minlength=groups), np.bincount(group, weights=log10p, minlength=groups)
        return {"log10p": peak, "volume": volume, "sum_log10p": total}
    edges = Edges.of(group, voxel, neighbours)
    stats = cluster_statistics(group, voxel, log10p, neighbours, groups, edges)
    score = tfce(group, voxel, np.abs(t), neighbours, groups, heights, edges)
    figures = (peak, stats.volume, stats.total, stats.largest_volume, stats.largest_mass, score)
    return dict(zip(STATISTICS, figures, strict=True))


def _half_of(connectivity: int) -> np.ndarray:
    """The steps (c / 2, 3) to those neighbours that come later in C order."""
    steps = np.array([(i, j, k) for i in (0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1) if (i, j, k) > (0, 0, 0)])
    farthest = {6: 1, 18: 2, 26: 3}[connectivity]
    return steps[np.abs(steps).sum(axis=1) <= farthest]


def _strides(place: np.ndarray) -> np.ndarray:
    """Strides (3,) of a grid with a margin, so that no step from one voxel meets another by wrapping around."""
    extent = [int(high) - int(low) + 3 for low, high in zip(place.min(axis=0), place.max(axis=0), strict=True)]
    if extent[0] * extent[1] * extent[2] >= 1 << 62:
        raise ValueError(f"the coordinates span {' x '.join(map(str, extent))} voxels: they are no indices of a grid")
    return np.array([extent[1] * extent[2], extent[2], 1], dtype=np.int64)


def _find(ordered: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where ``wanted`` stands in the ascending ``ordered``, and whether it is there."""
    position = np.searchsorted(ordered, wanted)
    np.minimum(position, max(len(ordered) - 1, 0), out=position)
    return position, ordered[position] == wanted if len(ordered) else np.zeros(len(wanted), dtype=bool)
