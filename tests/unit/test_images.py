"""The voxel matrix, masks, lists of images, and the pieces of synthetic images."""

from __future__ import annotations

import itertools
import pickle
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
from small_images import AFFINE, SHAPE, save, small_mask, write_images
from small_study import unchecked

from mpgls.errors import InputError, StorageError, UsageError
from mpgls.study.images import create_voxels, open_voxels
from mpgls.study.nifti import ImageReader, Mask, open_images, read_mask, write_image
from mpgls.study.synthetic_haplotypes import stream
from mpgls.study.synthetic_images import IMAGE_NOISE, ImageRecipe, SmoothNoise, Sphere, signs, spheres

IDS = [("f1", "é1"), ("f1", "b"), ("g", "c")]
COORDINATES = np.argwhere(small_mask())


def write_matrix(path: Path, values: np.ndarray | None = None) -> np.ndarray:
    v = len(COORDINATES)
    Y = np.random.default_rng(2).standard_normal((3, v)).astype(np.float32) if values is None else values
    create_voxels(path, IDS, COORDINATES, SHAPE, AFFINE, "mask.nii").write(0, Y)
    return Y


# -- the voxel matrix -------------------------------------------------------------------------------------------------


def test_voxel_matrix_reads_back(tmp_path):
    Y = write_matrix(tmp_path / "v.h5")
    matrix = pickle.loads(pickle.dumps(open_voxels(tmp_path / "v.h5")))
    assert (matrix.n, matrix.v, matrix.shape, matrix.mask) == (3, len(COORDINATES), SHAPE, "mask.nii")
    assert matrix.ids == IDS
    np.testing.assert_array_equal(matrix.coordinates, COORDINATES)
    np.testing.assert_array_equal(matrix.affine, AFFINE)
    with h5py.File(tmp_path / "v.h5") as file:
        assert file.attrs["format"] == "mpgls-voxels" and file["voxels"].chunks is None
        np.testing.assert_array_equal(file["voxels"][...], Y)
        assert file["samples"].asstr()[0].tolist() == list(IDS[0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows", [None, [2, 0], [1, 1], []])
@pytest.mark.parametrize("span", [(0, 7), (5, 6), (3, 3), (0, len(COORDINATES)), (11, len(COORDINATES))])
def test_columns(tmp_path, dtype, rows, span):
    Y = write_matrix(tmp_path / "v.h5")
    matrix, wanted = open_voxels(tmp_path / "v.h5"), Y[slice(None) if rows is None else rows, slice(*span)]
    index = None if rows is None else np.array(rows, dtype=np.int64)
    got = matrix.columns(*span, index, dtype)
    assert got.dtype == dtype and got.flags.c_contiguous
    np.testing.assert_array_equal(got, wanted)
    out = np.full(wanted.shape, 9.0, dtype=dtype, order="F")
    assert matrix.columns(*span, index, out=out) is out
    np.testing.assert_array_equal(out, wanted)


def test_columns_outside_are_refused(tmp_path):
    write_matrix(tmp_path / "v.h5")
    matrix = open_voxels(tmp_path / "v.h5")
    for arguments in ((0, matrix.v + 1), (4, 3), (0, 1, np.array([3])), (0, 1, np.array([-1]))):
        with pytest.raises(ValueError, match="outside"):
            matrix.columns(*arguments)


def test_equal_arguments_give_equal_bytes(tmp_path):
    write_matrix(tmp_path / "a.h5")
    write_matrix(tmp_path / "b.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_value_that_is_not_finite_is_named(tmp_path):
    Y = np.zeros((3, len(COORDINATES)), dtype=np.float32)
    Y[1, 17] = np.nan
    write_matrix(tmp_path / "v.h5", Y)
    matrix = open_voxels(tmp_path / "v.h5")
    matrix.columns(0, 17)
    i, j, k = COORDINATES[17]
    with pytest.raises(InputError, match=rf"voxel \({i}, {j}, {k}\) of person 'f1 b' is nan"):
        matrix.columns(15, 20, np.array([2, 1]))
    # large numbers whose sum is beyond float32 are finite all the same
    write_matrix(tmp_path / "v.h5", np.full_like(Y, 3e38))
    assert open_voxels(tmp_path / "v.h5").columns(0, 9).max() == np.float32(3e38)


def test_damaged_voxel_matrices(tmp_path):
    path = tmp_path / "v.h5"
    with pytest.raises(StorageError, match="there is no voxel matrix"):
        open_voxels(path)
    path.write_text("no HDF5")
    with pytest.raises(InputError, match="not a voxel matrix: it is not an HDF5 file"):
        open_voxels(path)
    write_matrix(path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(InputError, match="not a readable voxel matrix"):
        open_voxels(path)
    for change, words in (
        (lambda file: file.attrs.update({"format": "mpgls-kinship"}), "not a voxel matrix"),
        (lambda file: file.attrs.update({"version": 3}), "later version"),
        (lambda file: file["coordinates"].write_direct(np.full(COORDINATES.shape, 6, "i4")), "outside the grid"),
        (lambda file: file["samples"].__setitem__(2, file["samples"][0]), "twice"),
        (lambda file: file.__delitem__("samples"), "not a readable voxel matrix"),
    ):
        write_matrix(path)
        with unchecked(path) as file:
            change(file)
        with pytest.raises(InputError, match=words):
            open_voxels(path)


# -- masks and images -------------------------------------------------------------------------------------------------


def test_mask_takes_what_is_finite_and_not_zero(tmp_path):
    values = np.zeros(SHAPE, dtype=np.float32)
    values[0, 1, 2], values[4, 6, 5], values[2, 2, 2], values[3, 3, 3] = -1, 0.5, np.nan, np.inf
    save(tmp_path / "m.nii.gz", values[..., None])
    mask = read_mask(tmp_path / "m.nii.gz")
    assert mask.shape == SHAPE and mask.coordinates.tolist() == [[0, 1, 2], [4, 6, 5]]
    np.testing.assert_allclose(mask.affine, AFFINE, atol=1e-6)


def test_images_of_a_list_and_of_a_4d_file(tmp_path):
    Y = write_images(tmp_path, 5)
    mask = read_mask(tmp_path / "mask.nii.gz")
    save(tmp_path / "all.nii", np.moveaxis(Y, 0, -1))
    sets = [open_images(tmp_path / "images.tsv")]
    sets += [open_images(tmp_path / name, tmp_path / "ids.txt") for name in ("all.nii", "all.nii.gz")]
    for images, order in itertools.product(sets, ([0, 1, 2, 3, 4], [4, 1])):
        assert images.ids == [(f"F{k}", f"I{k}") for k in range(5)]
        reader = ImageReader(images, mask)
        for k in order:
            np.testing.assert_array_equal(reader.read(k), Y[k][mask.inside])


def test_scaled_integers_are_scaled(tmp_path):
    write_images(tmp_path, 1)
    image = nibabel.Nifti1Image(np.arange(210, dtype=np.int16).reshape(SHAPE), AFFINE)
    image.header.set_slope_inter(0.5, -3)
    nibabel.save(image, tmp_path / "images" / "brain 0.nii")
    reader = ImageReader(open_images(tmp_path / "images.tsv"), read_mask(tmp_path / "mask.nii.gz"))
    values = np.asarray(nibabel.load(tmp_path / "images" / "brain 0.nii").dataobj)[small_mask()]
    assert values.std() > 1
    np.testing.assert_array_equal(reader.read(0), values.astype(np.float32))


def test_people_without_a_path_are_counted(tmp_path):
    write_images(tmp_path, 3)
    with open(tmp_path / "images.tsv", "a") as file:
        file.write("F9\tI9\tNA\nF8\tI8\t\n")
    images = open_images(tmp_path / "images.tsv")
    assert (len(images.ids), images.without) == (3, 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("FID\tIID\tFILE\nF0\tI0\tx.nii\n", "no column PATH; it names FID, IID, FILE"),
        ("FID\tIID\tPATH\nF0\tI0\n", "line 2: 2 fields"),
        ("FID\tIID\tPATH\nF0\tI0\timages/brain 0.nii\nF1\tI1\tx.nii\n", "line 3: there is no image .*x.nii .*'F1 I1'"),
        ("FID\tIID\tPATH\nF0\tI0\tmask.nii.gz\nF0\tI0\tmask.nii.gz\n", "'F0 I0' occurs twice, in lines 2 and 3"),
        ("FID\tIID\tPATH\nF0\tI0\tNA\n", "names no image"),
    ],
)
def test_bad_lists(tmp_path, text, words):
    write_images(tmp_path, 1)
    (tmp_path / "images.tsv").write_text(text)
    with pytest.raises(InputError, match=words):
        open_images(tmp_path / "images.tsv")


def test_bad_masks(tmp_path):
    path = tmp_path / "m.nii"
    with pytest.raises(StorageError, match="no such file"):
        read_mask(path)
    path.write_text("no image")
    with pytest.raises(InputError, match="not an image that nibabel can read"):
        read_mask(path)
    save(path, np.zeros(SHAPE))
    with pytest.raises(InputError, match="empty: none of its 210 voxels"):
        read_mask(path)
    save(path, np.ones((*SHAPE, 2)))
    with pytest.raises(InputError, match="5 x 7 x 6 x 2, not an image of three dimensions"):
        read_mask(path)
    flat = AFFINE.copy()
    flat[:, 2] = 0
    image = nibabel.Nifti1Image(np.ones(SHAPE), None)
    image.header.set_sform(flat, 1)
    nibabel.save(image, path)
    with pytest.raises(InputError, match="one to one"):
        read_mask(path)


def shifted(by: float) -> np.ndarray:
    moved = AFFINE.copy()
    moved[0, 3] += by
    return moved


def bad_value(value: float, count: int = 1) -> np.ndarray:
    Y = np.ones(SHAPE)
    Y[tuple(COORDINATES[5 : 5 + count].T)] = value
    return Y


OUTSIDE = np.where(small_mask(), 1.0, np.nan)
FIFTH = "\\({}, {}, {}\\)".format(*COORDINATES[5])


@pytest.mark.parametrize(
    ("values", "affine", "words"),
    [
        (np.ones((5, 7, 5)), AFFINE, "is 5 x 7 x 5 voxels, but the mask .*mask.nii.gz 5 x 7 x 6"),
        (np.ones((*SHAPE, 2)), AFFINE, "is 5 x 7 x 6 x 2 voxels"),
        (np.ones(SHAPE), shifted(0.25), "differ by up to 0.25; resample"),
        (bad_value(np.nan), AFFINE, f"voxel {FIFTH} inside the mask is nan$"),
        (bad_value(-np.inf, 4), AFFINE, rf"voxel {FIFTH} inside the mask is -inf \(and 3 more voxels\)"),
        (bad_value(1e39), AFFINE, f"voxel {FIFTH} inside the mask is inf"),
        (np.ones(SHAPE, dtype=np.complex64), AFFINE, "complex64 values"),
    ],
)  # fmt: skip
def test_bad_images_are_named(tmp_path, values, affine, words):
    write_images(tmp_path, 2)
    save(tmp_path / "images" / "brain 1.nii.gz", values, affine)
    reader = ImageReader(open_images(tmp_path / "images.tsv"), read_mask(tmp_path / "mask.nii.gz"))
    reader.read(0)
    with pytest.raises(InputError, match=rf"brain 1.nii.gz \(person 'F1 I1'\).*{words}"):
        reader.read(1)


def test_grid_of_an_image_may_differ_a_little_and_only_the_mask_counts(tmp_path):
    write_images(tmp_path, 1)
    save(tmp_path / "images" / "brain 0.nii", OUTSIDE[..., None], shifted(5e-5))
    reader = ImageReader(open_images(tmp_path / "images.tsv"), read_mask(tmp_path / "mask.nii.gz"))
    assert (reader.read(0) == 1).all()


def damaged(whole: bytes, damage: str) -> bytes:
    middle = len(whole) // 2 // 8 * 8
    return {"cut": whole[:middle], "garbled": whole[:middle] + bytes(64) + whole[middle + 64 :], "foreign": b"?"}[
        damage
    ]


@pytest.mark.parametrize(
    ("k", "name", "damage"),
    [
        (0, "brain 0.nii", "cut"),
        (0, "brain 0.nii", "foreign"),
        (1, "brain 1.nii.gz", "cut"),
        (1, "brain 1.nii.gz", "garbled"),  # an uncompressed image has no check sum
        (1, "brain 1.nii.gz", "foreign"),
    ],
)
def test_damaged_images(tmp_path, k, name, damage):
    write_images(tmp_path, 2)
    path = tmp_path / "images" / name
    path.write_bytes(damaged(path.read_bytes(), damage))
    reader = ImageReader(open_images(tmp_path / "images.tsv"), read_mask(tmp_path / "mask.nii.gz"))
    with pytest.raises(InputError, match=rf"{name}.*(damaged or truncated|not an image)"):
        reader.read(k)


@pytest.mark.parametrize("damage", ["cut", "garbled"])
def test_damaged_4d_file(tmp_path, damage):
    write_images(tmp_path, 40)
    path = tmp_path / "all.nii.gz"
    save(path, np.random.default_rng(0).integers(0, 99, (*SHAPE, 40)).astype(np.int16))
    path.write_bytes(damaged(path.read_bytes(), damage))
    reader = ImageReader(open_images(path, tmp_path / "ids.txt"), read_mask(tmp_path / "mask.nii.gz"))
    with pytest.raises(InputError, match=r"all.nii.gz \(person 'F\d+ I\d+'\) is damaged or truncated"):
        for k in range(40):
            reader.read(k)


def test_4d_file_must_fit_its_people(tmp_path):
    write_images(tmp_path, 3)
    (tmp_path / "two.txt").write_text("F0 I0\nF1 I1\n")
    (tmp_path / "twice.txt").write_text("F0 I0\nF1 I1\nF0 I0\n")
    with pytest.raises(InputError, match=r"has 3 volumes, but .*two.txt lists 2 people"):
        open_images(tmp_path / "all.nii.gz", tmp_path / "two.txt")
    with pytest.raises(InputError, match="'F0 I0' twice"):
        open_images(tmp_path / "all.nii.gz", tmp_path / "twice.txt")
    with pytest.raises(InputError, match="not an image of four dimensions"):
        open_images(tmp_path / "mask.nii.gz", tmp_path / "ids.txt")
    with pytest.raises(UsageError, match="--image-ids"):
        open_images(tmp_path / "all.nii.gz")
    with pytest.raises(UsageError, match="names its people itself"):
        open_images(tmp_path / "images.tsv", tmp_path / "ids.txt")


def test_written_image_reads_back_and_has_equal_bytes(tmp_path):
    values = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    for name in ("a.nii.gz", "b.nii.gz", "c.nii"):
        write_image(tmp_path / name, values, AFFINE)
        image = nibabel.load(tmp_path / name)
        np.testing.assert_array_equal(image.get_fdata(dtype=np.float32), values)
        np.testing.assert_allclose(image.affine, AFFINE, atol=1e-6)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    assert len(list(tmp_path.iterdir())) == 3


# -- synthetic images -------------------------------------------------------------------------------------------------

MASK = Mask("mask", small_mask(), AFFINE)


def distances(centre: np.ndarray) -> np.ndarray:
    return np.array([np.linalg.norm(AFFINE[:3, :3] @ (one - centre)) for one in COORDINATES])


def test_sphere_by_radius():
    for sphere in spheres(MASK, 7, 3, 5.5, None):
        assert sphere.radius == 5.5
        np.testing.assert_array_equal(sphere.voxels, np.flatnonzero(distances(sphere.centre) <= 5.5))


@pytest.mark.parametrize("volume", [1, 12, 10_000])
def test_sphere_by_volume(volume):
    for sphere in spheres(MASK, 5, 3, None, volume):
        distance = distances(sphere.centre)
        assert sphere.voxels.size == min(volume, len(COORDINATES))
        assert sphere.radius == pytest.approx(np.sort(distance)[sphere.voxels.size - 1])
        assert distance[sphere.voxels].max() <= np.delete(distance, sphere.voxels).min(initial=np.inf) + 1e-12


@pytest.mark.parametrize("sigma", [0.0, 1.5, 3.0])
def test_noise_is_the_convolution_of_white_noise_with_unit_variance(sigma):
    noise = SmoothNoise(MASK, sigma, 11).draw(4)
    voxel_mm = np.linalg.norm(AFFINE[:3, :3], axis=0)
    reach = [int(4 * sigma / mm + 0.5) for mm in voxel_mm]
    low, high = COORDINATES.min(axis=0), COORDINATES.max(axis=0)
    white = stream(11, IMAGE_NOISE, 0, 4).standard_normal(tuple(high - low + 1 + 2 * np.array(reach)))
    offsets = np.array(list(itertools.product(*(range(-r, r + 1) for r in reach))))
    with np.errstate(invalid="ignore"):
        weights = np.exp(-0.5 * np.nan_to_num(np.square(offsets * voxel_mm / sigma)).sum(axis=1)) if sigma else [1.0]
    weights = np.asarray(weights) / np.linalg.norm(weights)
    expected = [weights @ white[tuple((one - low + reach + offsets).T)] for one in COORDINATES]
    np.testing.assert_allclose(noise, expected, rtol=1e-10, atol=1e-10)


def test_image_is_noise_plus_effects():
    noise, v = SmoothNoise(MASK, 2.0, 5), len(COORDINATES)
    snps = np.random.default_rng(1).standard_normal((2, 6))
    recipe = ImageRecipe(noise, snps, np.array([0.5, -2.0]), [
        Sphere(COORDINATES[0], 1.0, np.array([0, 1, 2])), Sphere(COORDINATES[2], 1.0, np.array([2, v - 1])),
    ])  # fmt: skip
    expected = noise.draw(40)
    expected[[0, 1, 2]] += 0.5 * snps[0, 3]
    expected[[2, v - 1]] -= 2.0 * snps[1, 3]
    np.testing.assert_allclose(recipe.image(3, 40), expected, rtol=1e-6)
    assert set(signs(40, 1)) == {-1.0, 1.0}
