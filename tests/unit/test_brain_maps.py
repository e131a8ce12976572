"""NIfTI maps of a SNP and of parcels, and the picture of a map."""

from __future__ import annotations

import gzip
import itertools
import struct

import matplotlib.image
import nibabel
import numpy as np
import pytest
from small_images import AFFINE, SHAPE, small_mask

from mpgls.errors import StorageError
from mpgls.report.brain_maps import _Slices, by_size, draw_map, write_maps, write_parcel_map
from mpgls.study.images import VoxelGrid

COORDINATES = np.argwhere(small_mask())
GRID = VoxelGrid(SHAPE, AFFINE, COORDINATES)
VOXELS = np.array([3, 4, 9, 20, 50])
LOG10P = np.array([4.5, 9.25, 4.0, 6.0, 5.0])


def test_maps_hold_the_entries_and_nothing_else(tmp_path):
    labels = np.array([7, 5, 5, 5, 0])
    paths = write_maps(tmp_path / "out", "rs1", GRID, VOXELS, LOG10P, labels)
    assert [path.name for path in paths] == ["out.rs1.log10p.nii.gz", "out.rs1.clusters.nii.gz"]
    for path, values, dtype in zip(paths, (LOG10P, [3, 1, 1, 1, 2]), (np.float32, np.int32), strict=True):
        image = nibabel.load(path)
        expected = np.zeros(SHAPE)
        for voxel, value in zip(VOXELS, values, strict=True):
            expected[tuple(COORDINATES[voxel])] = value
        np.testing.assert_array_equal(np.asarray(image.dataobj), expected)
        assert image.get_data_dtype() == dtype
        np.testing.assert_allclose(image.affine, AFFINE, atol=1e-6)


def header_of(path):
    """Codes and affines of a NIfTI-1 header, by their places in it."""
    data = gzip.decompress(path.read_bytes())
    intent, qform, sform = (struct.unpack_from("<h", data, at)[0] for at in (68, 252, 254))
    return intent, qform, sform, np.frombuffer(data, "<f4", 6, 256), np.frombuffer(data, "<f4", 12, 280).reshape(3, 4)


def test_maps_say_what_they_are_and_where(tmp_path):
    turned = np.array([[0.0, -2.0, 0.0, 5.0], [2.0, 0.0, 0.0, -7.0], [0.0, 0.0, 3.0, 1.0], [0, 0, 0, 1]])
    grid = VoxelGrid(SHAPE, turned, COORDINATES)
    paths = write_maps(tmp_path / "out", "rs1", grid, VOXELS, LOG10P, np.zeros(5, dtype=int))
    for path, code in zip(paths, (24, 1002), strict=True):  # NIFTI_INTENT_LOG10PVAL, NIFTI_INTENT_LABEL
        intent, qform, sform, (b, c, d, *offset), rows = header_of(path)
        assert (intent, qform, sform) == (code, 2, 2)
        np.testing.assert_allclose(rows, turned[:3])
        # a quarter turn about z is the quaternion (cos 45, 0, 0, sin 45); the offset is that of the affine
        np.testing.assert_allclose([b, c, d], [0, 0, np.sqrt(0.5)], atol=1e-6)
        assert offset == [5.0, -7.0, 1.0]


def test_a_map_that_shears_has_no_qform(tmp_path):
    sheared = np.array([[2.0, 0.5, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0], [0.0, 0.0, 2.0, 0.0], [0, 0, 0, 1]])
    (path,) = write_maps(tmp_path / "out", "rs1", VoxelGrid(SHAPE, sheared, COORDINATES), VOXELS, LOG10P, None)
    _, qform, sform, _, rows = header_of(path)
    assert (qform, sform) == (0, 2)
    np.testing.assert_allclose(rows, sheared[:3])
    np.testing.assert_allclose(nibabel.load(path).affine, sheared)


def test_maps_without_clusters_or_entries(tmp_path):
    (path,) = write_maps(tmp_path / "out", "rs1", GRID, VOXELS[:0], LOG10P[:0], None)
    assert not np.asarray(nibabel.load(path).dataobj).any()
    paths = write_maps(tmp_path / "out", "rs1", GRID, VOXELS[:0], LOG10P[:0], VOXELS[:0])
    assert len(paths) == 2 and not np.asarray(nibabel.load(paths[1]).dataobj).any()


def test_clusters_are_numbered_by_size():
    assert by_size(np.array([4, 9, 9, -1, 9, 4])).tolist() == [2, 1, 1, 3, 1, 2]
    # equal sizes keep the order of their labels
    assert by_size(np.array([8, 2, 8, 2])).tolist() == [2, 1, 2, 1]


def test_unwritable_map_is_told(tmp_path):
    with pytest.raises(StorageError, match="cannot write"):
        write_maps(tmp_path / "no" / "out", "rs1", GRID, VOXELS, LOG10P, None)
    with pytest.raises(StorageError, match="cannot write the plot"):
        draw_map(tmp_path / "no" / "out.png", "rs1", GRID, VOXELS, LOG10P)


def test_parcel_map(tmp_path):
    labels = np.random.default_rng(0).integers(0, 4, len(COORDINATES))
    values = np.array([0.5, -1.0, 2.0, 3.5])
    write_parcel_map(tmp_path / "p.nii.gz", SHAPE, AFFINE, COORDINATES, labels, values)
    volume = np.asarray(nibabel.load(tmp_path / "p.nii.gz").dataobj)
    np.testing.assert_array_equal(volume[small_mask()], values[labels])
    assert not volume[~small_mask()].any()


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, -1), (-1, -1, -1)])
def test_slices_show_the_same_place_however_the_grid_is_stored(order, flips):
    """Axes stored in another order or direction: after turning, all is where it is in the grid of RAS order."""
    straight = np.diag([2.0, 3.0, 4.0, 1.0])
    straight[:3, 3] = [-4, -9, 1]
    T = np.zeros((4, 4))  # straight indices = T @ stored indices
    T[3, 3] = 1
    for stored, (axis, flip) in enumerate(zip(order, flips, strict=True)):
        T[axis, stored] = flip
        T[axis, 3] = 0 if flip > 0 else SHAPE[axis] - 1
    stored_coordinates = (np.linalg.inv(T) @ np.column_stack([COORDINATES, np.ones(len(COORDINATES))]).T).T[:, :3]
    expected = _Slices(VoxelGrid(SHAPE, straight, COORDINATES), VOXELS, LOG10P, None)
    stored = np.rint(stored_coordinates).astype(int)
    turned = _Slices(VoxelGrid(SHAPE, straight @ T, stored), VOXELS, LOG10P, None)
    np.testing.assert_allclose(turned.peak_mm, straight[:3, :3] @ COORDINATES[4] + straight[:3, 3], atol=1e-12)
    for name in ("_mask", "_heat", "_size", "_peak"):
        np.testing.assert_allclose(getattr(turned, name), getattr(expected, name), err_msg=name)
    assert expected._heat[tuple(expected._peak)] == LOG10P.max()
    low = COORDINATES.min(axis=0) - 1
    np.testing.assert_array_equal(expected._peak, COORDINATES[4] - low)


@pytest.mark.parametrize("entries", [5, 1, 0])
@pytest.mark.parametrize("anatomy", [False, True])
def test_picture_is_drawn(tmp_path, entries, anatomy):
    background = np.random.default_rng(0).uniform(10, 20, SHAPE) if anatomy else None
    path = tmp_path / "map.png"
    draw_map(path, "rs$1", GRID, VOXELS[:entries], LOG10P[:entries], background)
    pixels = matplotlib.image.imread(path)[..., :3]
    assert pixels.shape[1] > pixels.shape[0] > 400
    # the colours of the entries, strongly red, are in the slices, left of the colour bar
    slices = pixels[160:, : int(0.8 * pixels.shape[1])]
    red = (slices[..., 0] - slices[..., 2] > 0.15).sum()
    assert red > 500 if entries else red == 0
    assert list(tmp_path.iterdir()) == [path]
