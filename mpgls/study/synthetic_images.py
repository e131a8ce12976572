"""Brain images of genotyped people: spherical effects of causal SNPs in smooth Gaussian noise ([vGWAS] section 3.2).

    y_i = sum_k a x_ik S_k + e_i        a = sqrt(snr) with a random sign, x_k the standardised SNP k,
                                        S_k the indicator of its sphere inside the mask

e_i is white noise smoothed with a Gaussian of ``sigma`` mm and scaled to unit variance in every voxel, so ``snr`` is
the variance of one SNP's effect over that of the noise. Nothing depends on the number of processes: the noise of a
person is a function of the seed and of the row of the .fam.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mpgls.study.nifti import Mask
from mpgls.study.synthetic_haplotypes import stream

# further kinds of `stream`, after those of synthetic_haplotypes
IMAGE_NOISE, IMAGE_PLACES, IMAGE_SNPS = 10, 11, 12
TRUNCATE = 4.0
"""Half the width of the smoothing kernel, in standard deviations."""


@dataclass(frozen=True, eq=False)
class Sphere:
    """Where a SNP acts: ``centre`` i j k, ``radius`` in mm, and the columns ``voxels`` of the mask within it."""

    centre: np.ndarray
    radius: float
    voxels: np.ndarray


def spheres(mask: Mask, count: int, seed: int, radius: float | None, volume: int | None) -> list[Sphere]:
    """``count`` spheres about random voxels of the mask, cut off at its edge; they may overlap.

    Each has the voxels within ``radius`` mm of its centre, or else the ``volume`` nearest ones (at equal distance the
    first in C order); its radius is then the distance of the farthest.
    """
    coordinates = mask.coordinates
    places = coordinates @ mask.affine[:3, :3].T
    centres = stream(seed, IMAGE_PLACES).integers(0, len(coordinates), size=count)
    made = []
    for centre in centres.tolist():
        distance = np.sqrt(np.square(places - places[centre]).sum(axis=1))
        if volume is None:
            assert radius is not None
            voxels, reach = np.flatnonzero(distance <= radius), radius
        else:
            voxels = np.sort(np.argsort(distance, kind="stable")[:volume])
            reach = float(distance[voxels].max())
        made.append(Sphere(coordinates[centre], reach, voxels))
    return made


def signs(count: int, seed: int) -> np.ndarray:
    """(count,) the directions of the effects, -1 or 1."""
    return stream(seed, IMAGE_PLACES, 1).choice([-1.0, 1.0], size=count)


class SmoothNoise:
    """Stationary Gaussian noise inside a mask, of unit variance, with the correlation of a Gaussian of ``sigma`` mm.

    White noise is drawn over the mask's bounding box and as far around it as the kernel reaches, so that the edge of
    the grid leaves no trace.
    """

    def __init__(self, mask: Mask, sigma: float, seed: int) -> None:
        from scipy.ndimage import gaussian_filter

        self._seed = seed
        voxel_mm = np.sqrt(np.square(mask.affine[:3, :3]).sum(axis=0))
        self._sigma = tuple((sigma / voxel_mm).tolist())
        reach = [int(TRUNCATE * s + 0.5) for s in self._sigma]
        low, high = mask.coordinates.min(axis=0), mask.coordinates.max(axis=0)
        self._shape = tuple((high - low + 1 + 2 * np.array(reach)).tolist())
        self._inside = tuple((mask.coordinates - low + reach).T)
        # var(e) = product over the axes of sum of the squared kernel
        impulses = [np.eye(1, 2 * r + 1, r)[0] for r in reach]
        kernels = [gaussian_filter(one, s, truncate=TRUNCATE) for one, s in zip(impulses, self._sigma, strict=True)]
        self._scale = 1.0 / np.sqrt(np.prod([np.square(kernel).sum() for kernel in kernels]))

    @property
    def nbytes(self) -> int:
        """Memory that an image's noise takes while it is made."""
        return 3 * 8 * int(np.prod(self._shape))

    def draw(self, person: int) -> np.ndarray:
        """(v,) float64: the noise of the person in row ``person`` of the .fam."""
        from scipy.ndimage import gaussian_filter

        white = stream(self._seed, IMAGE_NOISE, 0, person).standard_normal(self._shape)
        return gaussian_filter(white, self._sigma, truncate=TRUNCATE)[self._inside] * self._scale


@dataclass(frozen=True, eq=False)
class ImageRecipe:
    """Everything that an image is made of: ``snps`` (c, n) standardised dosages, and an effect and sphere for each."""

    noise: SmoothNoise
    snps: np.ndarray
    effects: np.ndarray
    spheres: list[Sphere]

    def image(self, column: int, person: int) -> np.ndarray:
        """(v,) float32: the voxels of the person in ``column`` of ``snps``, whose row of the .fam is ``person``."""
        values = self.noise.draw(person)
        for sphere, effect, dosage in zip(self.spheres, self.effects, self.snps[:, column], strict=True):
            values[sphere.voxels] += effect * dosage
        return values.astype(np.float32)
