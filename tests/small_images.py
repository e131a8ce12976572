"""Tiny brain images with an oblique, anisotropic affine: a mask, one image a person, a list and a 4-D file."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np

SHAPE = (5, 7, 6)
AFFINE = np.array([[2.0, 0.3, 0, -5], [-0.2, -3, 0.1, 2], [0, 0.2, 4, 1.5], [0, 0, 0, 1]])


def small_mask(seed: int = 0) -> np.ndarray:
    """(SHAPE) bool: about 60% of the grid."""
    return np.random.default_rng(seed).random(SHAPE) < 0.6


def save(path: Path, values: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    nibabel.save(nibabel.Nifti1Image(values, affine), path)


def write_images(folder: Path, people: int, seed: int = 1) -> np.ndarray:
    """mask.nii.gz, images/*.nii(.gz), images.tsv, all.nii.gz and ids.txt; returns the values (people, SHAPE)."""
    (folder / "images").mkdir(exist_ok=True)
    Y = np.random.default_rng(seed).standard_normal((people, *SHAPE)).astype(np.float32)
    save(folder / "mask.nii.gz", small_mask().astype(np.uint8))
    rows = []
    for k in range(people):
        name = f"images/brain {k}.nii" + (".gz" if k % 2 else "")
        save(folder / name, Y[k])
        rows.append(f"F{k}\tI{k}\t{name}\n")
    (folder / "images.tsv").write_text("FID\tIID\tPATH\n" + "".join(rows))
    save(folder / "all.nii.gz", np.moveaxis(Y, 0, -1))
    (folder / "ids.txt").write_text("".join(f"F{k} I{k}\n" for k in range(people)))
    return Y
