"""Brain images of genotyped people: spherical effects of causal SNPs in smooth Gaussian noise ([vGWAS] section 3.2).

    y_i = sum_k a x_ik S_k + e_i        a = sqrt(snr) with a random sign, x_k the standardised SNP k,
                                        S_k the indicator of its sphere inside the mask

e_i is white noise smoothed with a Gaussian of ``sigma`` mm and scaled to unit variance in every voxel, so ``snr`` is
the variance of one SNP's effect over that of the noise. Nothing depends on the number of processes: the noise of a
person is a function of the seed and of the row of the .fam.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mpgls.errors import InputError
from mpgls.study.count_filters import passes
from mpgls.study.filters import SnpFilter
from mpgls.study.genotypes import Decoder
from mpgls.study.nifti import Mask
from mpgls.study.plink import Fileset
from mpgls.study.synthetic_haplotypes import stream

# further kinds of `stream`, after those of synthetic_haplotypes
IMAGE_NOISE, IMAGE_PLACES, IMAGE_SNPS = 10, 11, 12
TRUNCATE = 4.0
"""Half the width of the smoothing kernel, in standard deviations."""
LOOKED_AT, TRIED = 256, 100_000
"""SNPs that are decoded together when causal ones are drawn, and most SNPs that are tried."""


@dataclass(frozen=True, eq=False)
class CausalSnps:
    """The SNPs with an effect: ``ids``, standardised dosages ``x`` (c, n) and ``sd`` (c,) of the copies of A1."""

    ids: list[str]
    x: np.ndarray
    sd: np.ndarray


def draw_causal(
    fileset: Fileset,
    index: np.ndarray,
    samples: np.ndarray,
    snp_filter: SnpFilter,
    read: Callable[[np.ndarray], np.ndarray],
    *,
    count: int,
    seed: int,
) -> CausalSnps:
    """``count`` random SNPs of ``index`` that pass the filter and vary in ``samples``, a missing genotype at the mean.

    ``index`` and ``samples`` are rows of the .bim and the .fam; ``read`` gives the genotypes of .bim rows, ascending.
    Raises InputError when there are too few, and what ``read`` raises.
    """
    order = stream(seed, IMAGE_SNPS).choice(index.size, size=min(index.size, TRIED), replace=False)
    decoder = Decoder(fileset.bed.n, [samples], np.float64, fileset.bed.males)
    ids: list[str] = []
    x: list[np.ndarray] = []
    for start in range(0, order.size, LOOKED_AT):
        if len(ids) >= count:
            break
        wanted = index[order[start : start + LOOKED_AT]]
        ascending = np.argsort(wanted)
        packed = read(wanted[ascending])[np.argsort(ascending)]
        values = np.empty((samples.size, wanted.size), order="F")
        stats = decoder.decode(packed, [values])
        for j in np.flatnonzero(passes(stats, snp_filter) & ~stats.monomorphic)[: count - len(ids)]:
            ids.append(fileset.variants.read(int(wanted[j]), int(wanted[j]) + 1).id[0])
            x.append(values[:, j])
    if len(ids) < count:
        raise InputError(
            f"only {len(ids)} of {order.size:,} SNPs drawn from {fileset.variants.path} vary and pass the "
            f"filters: choose --causal {len(ids)} or fewer"
        )
    dosages = np.array(x).reshape(len(ids), samples.size)
    # sums of squares in a fixed order, so that the bytes do not depend on BLAS
    sd = np.sqrt(np.square(dosages).mean(axis=1))
    return CausalSnps(ids, dosages / sd[:, None], sd)


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
