"""Bad images, from outside: one clear sentence from one rank, the right exit code, and nothing that looks finished."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from launch import MPIRUN
from refusals import INPUT, MEMORY, STORAGE, USAGE, edit_line, refused
from resident import must_succeed
from small_images import AFFINE, SHAPE, save, small_mask, write_images

pytestmark = pytest.mark.skipif(MPIRUN is None, reason="needs mpirun")

EXTRACT = "vgwas-extract --images images.tsv --mask mask.nii.gz --out out"
VOLUMES = "vgwas-extract --images all.nii.gz --image-ids ids.txt --mask mask.nii.gz --out out"
SIMULATE = "simulate-images --bfile sim --mask mask.nii.gz --out out"
PEOPLE, BAD = 9, 7
RANKS = (1, 4)
SHIFTED = AFFINE + np.array([[0, 0, 0, 1.5]] + [[0] * 4] * 3)
FIRST = tuple(np.argwhere(small_mask())[0])
VOXEL = "({}, {}, {})".format(*FIRST)


def one_nan() -> np.ndarray:
    Y = np.ones(SHAPE, dtype=np.float32)
    Y[FIRST] = np.nan
    return Y


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Good images of nine people, and genotypes."""
    write_images(tmp_path, PEOPLE)
    must_succeed(0, "simulate --samples 9 --snps 40 --chromosomes 1 --covariates 0 --out sim", tmp_path)
    return tmp_path


def save_bad(values: np.ndarray, affine: np.ndarray = AFFINE) -> Callable[[Path], None]:
    return lambda folder: save(folder / f"images/brain {BAD}.nii.gz", values, affine)


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (save_bad(np.ones((5, 7, 4))), ("5 x 7 x 4 voxels", "mask.nii.gz 5 x 7 x 6")),
        (save_bad(np.ones(SHAPE), SHIFTED), ("differ by up to 1.5", "resample")),
        (save_bad(one_nan()), (f"voxel {VOXEL} inside the mask is nan",)),
        (lambda folder: (folder / f"images/brain {BAD}.nii.gz").write_bytes(b"none"), ("not an image",)),
    ],
    ids=["shape", "affine", "nan", "damaged"],
)
def test_bad_image(study: Path, spoil: Callable[[Path], None], complaint: tuple[str, ...]) -> None:
    spoil(study)
    refused(study, EXTRACT, INPUT, f"brain {BAD}.nii.gz", *complaint, ranks=RANKS)
    assert not list(study.glob("out.h5*"))


def test_nan_in_a_4d_image(study: Path) -> None:
    volumes = np.ones((*SHAPE, PEOPLE), dtype=np.float32)
    volumes[..., 4] = one_nan()
    save(study / "all.nii.gz", volumes)
    refused(study, VOLUMES, INPUT, "all.nii.gz (person 'F4 I4')", f"voxel {VOXEL}", ranks=RANKS)


def test_masks(study: Path) -> None:
    save(study / "mask.nii.gz", np.zeros(SHAPE, dtype=np.uint8))
    refused(study, EXTRACT, INPUT, "mask.nii.gz is empty", "210 voxels", ranks=RANKS)
    refused(study, SIMULATE, INPUT, "mask.nii.gz is empty", ranks=(2,))
    refused(study, EXTRACT.replace("mask.nii.gz", "none.nii"), STORAGE, "none.nii", ranks=RANKS)


def test_list_of_images(study: Path) -> None:
    edit_line(study / "images.tsv", 4, lambda fields: [*fields[:2], "gone.nii"])
    refused(study, EXTRACT, INPUT, "images.tsv, line 4", "gone.nii", "'F2 I2'", ranks=RANKS)
    edit_line(study / "images.tsv", 4, lambda fields: ["F0", "I0", "mask.nii.gz"])
    refused(study, EXTRACT, INPUT, "'F0 I0' occurs twice, in lines 2 and 4", ranks=(2,))


def test_people_of_a_4d_image(study: Path) -> None:
    refused(study, VOLUMES.replace("--image-ids ids.txt ", ""), USAGE, "--image-ids", ranks=(2,))
    (study / "ids.txt").write_text("F0 I0\n")
    refused(study, VOLUMES, INPUT, "9 volumes", "ids.txt lists 1 people", ranks=(2,))


def test_options(study: Path) -> None:
    refused(study, f"{SIMULATE} --effect-radius 3 --effect-volume 4", USAGE, "--effect-", ranks=(0,))
    refused(study, f"{SIMULATE} --snr -1", USAGE, "--snr", ranks=(0,))
    refused(study, f"{SIMULATE} --maf 0.01 --causal 41", INPUT, "of 40 SNPs drawn", ranks=(2,))
    refused(study, f"{EXTRACT} --memory 0.001", MEMORY, "give --memory", ranks=(2,))
    refused(study, EXTRACT.replace("--out out", "--out no/out"), STORAGE, "no directory", ranks=(2,))


def test_person_without_image_and_constant_voxel_are_reported(study: Path) -> None:
    """Neither is an error: the person is left out and counted, the voxel kept and counted."""
    for k in range(PEOPLE):
        Y = np.full(SHAPE, float(k))
        Y[FIRST] = 1
        save(study / f"images/brain {k}.nii{'.gz' if k % 2 else ''}", Y)
    edit_line(study / "images.tsv", 3, lambda fields: [*fields[:2], "NA"])
    for ranks in RANKS:
        must_succeed(ranks, EXTRACT, study)
        said = (study / "out.log").read_text()
        assert "left out because their path is NA: 1 people" in said
        assert f"1 of {small_mask().sum()} voxels have the same value in all 8 images" in said
