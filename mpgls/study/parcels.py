"""Parcels: the voxels of a mask grouped into connected regions that behave alike over people, and their mean signals.

Ward's clustering, which joins only neighbouring clusters, as [Ridge] uses it to bring a brain from 10^5 voxels to 10^3.
"""

from __future__ import annotations

import warnings

import numpy as np

from mpgls.errors import InputError, UsageError
from mpgls.study.images import VoxelMatrix

BLOCK_BYTES = 32 << 20
"""Float32 values of the voxel matrix that are held together while averaging."""


def parcellate(matrix: VoxelMatrix, count: int, rows: np.ndarray) -> np.ndarray:
    """Labels int32 (v,) of ``count`` parcels, from 0 in the order of their first voxels, by the people ``rows``.

    Ward's hierarchical clustering (scikit-learn's ward_tree) of the voxels' columns over ``rows``, each column centred
    and scaled to unit norm, where neighbours are voxels that share a face. Pieces of the mask that do not touch are
    joined where their voxels are most alike. Holds about 3 v k float64 of k people.

    Raises UsageError unless 1 <= count <= v; InputError for a value that is not finite.
    """
    if not 1 <= count <= matrix.v:
        raise UsageError(f"{count} parcels of {matrix.v:,} voxels: choose between 1 and the number of voxels")
    if rows.size == 0:
        raise InputError(f"no person of {matrix.path} is left to make parcels of")
    if count == matrix.v:
        return np.arange(matrix.v, dtype=np.int32)
    return _renumber(_ward(_standardised(matrix, rows), neighbour_graph(matrix.coordinates), count))


def parcel_means(matrix: VoxelMatrix, labels: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(len(rows), parcels) float64: the mean of each person's voxels over each parcel of ``labels`` (v,), from 0.

    Reads the rows once, a few people at a time. Raises what `VoxelMatrix.columns` raises.
    """
    from scipy.sparse import csr_matrix

    sizes = np.bincount(labels)
    # M_jc = 1 / size of parcel c for its voxels j: means = Y M
    weights = 1.0 / sizes[labels]
    averages = csr_matrix((weights, (np.arange(labels.size), labels)), shape=(labels.size, sizes.size))
    means = np.empty((rows.size, sizes.size))
    step = max(1, BLOCK_BYTES // (4 * max(1, matrix.v)))
    for start in range(0, rows.size, step):
        part = slice(start, start + step)
        means[part] = matrix.columns(0, matrix.v, rows[part]) @ averages
    return means


def neighbour_graph(coordinates: np.ndarray) -> np.ndarray:
    """(pairs, 2) positions in ``coordinates`` (v, 3) of all pairs of voxels that share a face, the smaller first.

    ``coordinates`` are in C order, so a voxel's neighbours along an axis are found by bisection.
    """
    extents = coordinates.max(axis=0).astype(np.int64) + 2
    strides = np.array([extents[1] * extents[2], extents[2], 1])
    keys = coordinates.astype(np.int64) @ strides
    pairs = []
    for stride in strides.tolist():
        at = np.minimum(np.searchsorted(keys, keys + stride), keys.size - 1)
        found = np.flatnonzero(keys[at] == keys + stride)
        pairs.append(np.column_stack([found, at[found]]))
    return np.concatenate(pairs)


def _standardised(matrix: VoxelMatrix, rows: np.ndarray) -> np.ndarray:
    """(v, k) float64: a voxel's values over ``rows``, centred, with unit norm; zero where they do not vary."""
    Y = np.empty((matrix.v, rows.size))
    step = max(1, BLOCK_BYTES // (4 * rows.size))
    for start in range(0, matrix.v, step):
        stop = min(start + step, matrix.v)
        y = matrix.columns(start, stop, rows).T.astype(np.float64)
        y -= y.mean(axis=1, keepdims=True)
        norm = np.sqrt(np.square(y).sum(axis=1, keepdims=True))
        Y[start:stop] = np.divide(y, norm, out=np.zeros_like(y), where=norm > 0)
    return Y


def _ward(Y: np.ndarray, pairs: np.ndarray, count: int) -> np.ndarray:
    """Labels (v,) of the ``count`` clusters that Ward's tree over the rows of ``Y`` has when it is cut there."""
    from scipy.sparse import coo_matrix

    try:
        from sklearn.cluster import FeatureAgglomeration
    except ImportError:
        raise UsageError("parcels need the Python package scikit-learn: pip install 'mpgls[images]'") from None
    both = np.concatenate([pairs, pairs[:, ::-1]])
    graph = coo_matrix((np.ones(len(both)), (both[:, 0], both[:, 1])), shape=(len(Y), len(Y))).tocsr()
    ward = FeatureAgglomeration(n_clusters=count, connectivity=graph, linkage="ward", compute_full_tree=False)
    with warnings.catch_warnings():
        # that the graph has several components, and is completed
        warnings.simplefilter("ignore", UserWarning)
        return np.asarray(ward.fit(Y.T).labels_)


def _renumber(labels: np.ndarray) -> np.ndarray:
    """The same clusters, numbered from 0 in the order in which they first occur."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(first.size, dtype=np.int32)
    rank[np.argsort(first)] = np.arange(first.size, dtype=np.int32)
    return rank[inverse]
