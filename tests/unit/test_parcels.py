"""Parcels of a voxel matrix and their means."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import label
from small_images import AFFINE, SHAPE, small_mask

from mpgls.errors import InputError, UsageError
from mpgls.study import parcels
from mpgls.study.images import create_voxels, open_voxels
from mpgls.study.parcels import neighbour_graph, parcel_means, parcellate


def matrix_of(path, mask: np.ndarray, Y: np.ndarray):
    coordinates = np.argwhere(mask)
    ids = [("f", f"i{k}") for k in range(len(Y))]
    create_voxels(path, ids, coordinates, mask.shape, AFFINE, "m").write(0, Y)
    return open_voxels(path)


@pytest.mark.parametrize("mask", [small_mask(), np.ones(SHAPE, bool), np.ones((1, 1, 3), bool)])
def test_neighbours_share_a_face(mask):
    coordinates = np.argwhere(mask)
    expected = {
        (a, b)
        for a in range(len(coordinates))
        for b in range(a + 1, len(coordinates))
        if np.abs(coordinates[a] - coordinates[b]).sum() == 1
    }
    pairs = [tuple(pair) for pair in neighbour_graph(coordinates).tolist()]
    assert len(pairs) == len(set(pairs)) and set(pairs) == expected


def test_planted_parcels_are_found(tmp_path):
    """Four blocks of voxels, each with a signal of its own, and a block without any variation."""
    mask = np.ones((4, 6, 5), bool)
    truth = (np.indices(mask.shape)[0] // 2 * 2 + np.indices(mask.shape)[1] // 3).ravel()
    rng = np.random.default_rng(3)
    signals = rng.standard_normal((4, 31))
    Y = signals[truth].T * rng.uniform(1, 5, truth.size) + 0.01 * rng.standard_normal((31, truth.size)) + 100
    rows = np.arange(30)
    labels = parcellate(matrix_of(tmp_path / "v.h5", mask, Y), 4, rows)
    assert labels.dtype == np.int32
    # numbered in the order of their first voxels, as the truth is
    np.testing.assert_array_equal(labels, truth)


def test_parcels_are_connected_and_as_many_as_asked(tmp_path):
    mask = np.ones(SHAPE, bool)
    Y = np.random.default_rng(4).standard_normal((13, mask.sum()))
    Y[:, 7] = 1.0
    for count in (1, 2, 17, mask.sum()):
        labels = parcellate(matrix_of(tmp_path / "v.h5", mask, Y), count, np.arange(13))
        assert np.array_equal(np.unique(labels), np.arange(count))
        volume = labels.reshape(SHAPE)
        assert all(label(volume == c)[1] == 1 for c in range(count))
        first = [np.flatnonzero(labels == c)[0] for c in range(count)]
        assert first == sorted(first)


def test_mask_in_pieces_is_parcelled(tmp_path):
    mask = np.zeros(SHAPE, bool)
    mask[0], mask[2, :3], mask[4, 4:] = True, True, True
    Y = np.random.default_rng(5).standard_normal((9, mask.sum()))
    labels = parcellate(matrix_of(tmp_path / "v.h5", mask, Y), 2, np.arange(9))
    assert np.array_equal(np.unique(labels), [0, 1])


def test_means(tmp_path, monkeypatch):
    mask = small_mask()
    Y = np.random.default_rng(6).standard_normal((11, mask.sum())).astype(np.float32)
    matrix = matrix_of(tmp_path / "v.h5", mask, Y)
    labels = np.random.default_rng(7).permutation(np.arange(Y.shape[1]) % 5)
    rows = np.array([10, 0, 3, 4])
    expected = np.column_stack([Y[rows][:, labels == c].astype(np.float64).mean(axis=1) for c in range(5)])
    np.testing.assert_allclose(parcel_means(matrix, labels, rows), expected, rtol=1e-12)
    monkeypatch.setattr(parcels, "BLOCK_BYTES", 1)
    np.testing.assert_allclose(parcel_means(matrix, labels, rows), expected, rtol=1e-12)


def test_bad_counts(tmp_path):
    matrix = matrix_of(tmp_path / "v.h5", small_mask(), np.ones((2, small_mask().sum())))
    for count in (0, matrix.v + 1):
        with pytest.raises(UsageError, match="parcels"):
            parcellate(matrix, count, np.arange(2))
    with pytest.raises(InputError, match="no person"):
        parcellate(matrix, 2, np.arange(0))
