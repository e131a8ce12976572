"""Maps of a SNP's association over the brain: NIfTI images, and a picture of three slices through the peak."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mpgls.report.figure import FAINT, INK, PICTURE_BYTES, saved_figure
from mpgls.report.file_names import ENDINGS_OF_MAP
from mpgls.report.pixels import with_finite
from mpgls.report.plots import _short
from mpgls.study.images import VoxelGrid
from mpgls.study.nifti import Intent, write_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PLANES = (("x", 0), ("y", 1), ("z", 2))
# From pale orange over red to near black: seen on grey and on white, and the order survives in grey.
_HEAT = ("#fdc98a", "#f48a4a", "#d94a32", "#9e1b3c", "#4f0b33")
_BRAIN, _EDGE = "#e3e6ea", "#7d868f"
_PANEL_INCHES = 2.7
_FINE = 8


_ZEROS = 200
"""How many times smaller zeros become in an image, about."""


def map_bytes(shape: Sequence[int]) -> dict[str, int]:
    """Bytes of the files of a SNP's map on a grid of this shape, about, by the endings of their names."""
    image = 4 * math.prod(shape) // _ZEROS
    return dict(zip(ENDINGS_OF_MAP, (image, image, PICTURE_BYTES), strict=True))


def write_maps(
    prefix: str | os.PathLike[str],
    part: str,
    grid: VoxelGrid,
    voxels: np.ndarray,
    log10p: np.ndarray,
    labels: np.ndarray | None,
) -> list[Path]:
    """Write PREFIX.PART.log10p.nii.gz and PREFIX.PART.clusters.nii.gz; return the paths written.

    ``voxels`` (k,) are positions among those of ``grid``, ``log10p`` (k,) their -log10 p (float32 in the map) and
    ``labels`` (k,) says which belong to one cluster; in the map (int32) clusters count from 1, the largest first.
    All other voxels are 0. Without ``labels`` there is no second map. ``part`` is as `file_names.snp_parts` has it.
    Raises StorageError.
    """
    stem, at = f"{os.fspath(prefix)}.{part}", grid.coordinates[voxels]
    paths = [Path(f"{stem}.log10p.nii.gz")]
    write_image(paths[0], _volume(grid.shape, at, log10p, np.float32), grid.affine, Intent.LOG10PVAL)
    if labels is not None:
        paths.append(Path(f"{stem}.clusters.nii.gz"))
        write_image(paths[1], _volume(grid.shape, at, by_size(labels), np.int32), grid.affine, Intent.LABEL)
    return paths


def write_parcel_map(
    path: str | os.PathLike[str],
    shape: Sequence[int],
    affine: np.ndarray,
    coordinates: np.ndarray,
    labels: np.ndarray,
    values: np.ndarray,
    intent: Intent = Intent.NONE,
) -> None:
    """Write the NIfTI ``path``: in every voxel of parcel c (``labels`` (v,) from 0) ``values[c]``, float32; else 0.

    ``intent`` is what the values are. Raises StorageError.
    """
    write_image(Path(path), _volume(shape, coordinates, np.asarray(values)[labels], np.float32), affine, intent)


def draw_map(
    path: str | os.PathLike[str],
    title: str,
    grid: VoxelGrid,
    voxels: np.ndarray,
    log10p: np.ndarray,
    background: np.ndarray | None = None,
) -> None:
    """Draw three orthogonal slices through the voxel of the largest -log10 p into the PNG file ``path``.

    ``voxels`` and ``log10p`` (k,) as for `write_maps`; the other voxels of the mask are grey with an outline, or show
    ``background``, an anatomical image on the same grid. Left is left; positions are in mm.
    Without any voxel the slices go through the middle of the mask. Raises StorageError if the file cannot be written.
    """
    slices = _Slices(grid, voxels, log10p, background)
    widths, heights = slices.panel_sizes()
    unit = _PANEL_INCHES / max(*widths, *heights)
    across, tall = max(4.2, sum(widths) * unit + 1.35), max(heights) * unit + 1.0
    with saved_figure(path, (across, tall)) as figure:
        figure.text(0.15 / across, 1 - 0.12 / tall, _short(title), fontsize=12, weight="bold", va="top")
        figure.text(0.15 / across, 1 - 0.37 / tall, _subtitle(log10p), fontsize=9, color=FAINT, va="top")
        left, middle = 0.1, 0.1 + 0.5 * max(heights) * unit
        for letter, axis in _PLANES:
            wide, high = widths[axis] * unit, heights[axis] * unit
            axes = figure.add_axes((left / across, (middle - 0.5 * high) / tall, wide / across, high / tall))
            image = slices.draw(axes, axis)
            figure.text(
                (left + 0.5 * wide) / across, 1 - 0.8 / tall, f"{letter} = {slices.peak_mm[axis]:.0f} mm",
                fontsize=9, color=INK, ha="center",
            )  # fmt: skip
            left += wide + 0.1
        bar = figure.add_axes(((left + 0.12) / across, 0.25 / tall, 0.12 / across, (tall - 1.15) / tall))
        figure.colorbar(image, cax=bar).set_label("$-\\log_{10}\\,p$")


def by_size(labels: np.ndarray) -> np.ndarray:
    """int32 (k,): the clusters of ``labels`` numbered from 1, the one with the most entries first."""
    _, inverse, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    rank = np.empty(sizes.size, dtype=np.int32)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(1, sizes.size + 1, dtype=np.int32)
    return rank[inverse]


class _Slices:
    """The mask's bounding box, turned so that its axes run to the right, to the front and up, and cut at the peak."""

    def __init__(self, grid: VoxelGrid, voxels: np.ndarray, log10p: np.ndarray, background: np.ndarray | None) -> None:
        from nibabel.orientations import apply_orientation, io_orientation

        affine, coordinates = np.asarray(grid.affine, dtype=np.float64), grid.coordinates

        log10p = with_finite(np.asarray(log10p, dtype=np.float64))
        peak = coordinates[voxels[np.argmax(log10p)]] if len(voxels) else np.median(coordinates, axis=0).astype(int)
        self.peak_mm = affine[:3, :3] @ peak + affine[:3, 3]
        low = coordinates.min(axis=0) - 1
        extent, at = coordinates.max(axis=0) + 2 - low, coordinates - low
        ground = np.ones(len(at)) if background is None else np.asarray(background)[tuple(coordinates.T)]
        orientation = io_orientation(affine)
        self._mask, self._heat, self._ground = (
            np.asarray(apply_orientation(_volume(extent, at[those], values, np.float32), orientation))
            for those, values in ((slice(None), np.ones(len(at))), (voxels, log10p), (slice(None), ground))
        )
        to, flipped = orientation[:, 0].astype(int), orientation[:, 1] < 0
        self._size, self._peak = np.empty(3), np.empty(3, dtype=int)
        self._size[to] = np.sqrt(np.square(affine[:3, :3]).sum(axis=0))
        self._peak[to] = np.where(flipped, extent - 1 - (peak - low), peak - low)
        self._grey = background is not None
        self._range = (float(np.min(log10p, initial=np.inf)), float(np.max(log10p, initial=0.0)))
        if not len(voxels):
            self._range = (0.0, 1.0)

    def panel_sizes(self) -> tuple[list[float], list[float]]:
        """Widths and heights in mm of the slices across the axes 0, 1 and 2."""
        mm = self._size * self._mask.shape
        return [mm[1], mm[0], mm[0]], [mm[2], mm[2], mm[1]]

    def draw(self, axes: Axes, axis: int) -> Any:
        """Mask or anatomy, the entries over it, and a cross hair at the peak; returns the image of the entries."""
        from matplotlib.colors import LinearSegmentedColormap, ListedColormap

        mask, heat, ground = (
            np.take(volume, self._peak[axis], axis=axis).T for volume in (self._mask, self._heat, self._ground)
        )
        across, up = (k for k in range(3) if k != axis)
        extent = (0.0, self._size[across] * mask.shape[1], 0.0, self._size[up] * mask.shape[0])
        common: Any = {"origin": "lower", "extent": extent, "interpolation": "nearest", "aspect": "auto"}
        top = float(np.percentile(self._ground[self._mask > 0], 99.5)) or 1.0
        colours: Any = "gray" if self._grey else ListedColormap([_BRAIN])
        axes.imshow(np.ma.masked_where(mask == 0, ground), cmap=colours, vmin=0, vmax=top, **common)
        if mask.any():
            # voxels drawn as squares, so the outline keeps to their edges
            fine = np.kron(mask, np.ones((_FINE, _FINE)))
            axes.contour(fine, levels=[0.5], colors=[_EDGE], linewidths=0.7, extent=extent, origin="lower")
        scale = LinearSegmentedColormap.from_list("heat", _HEAT)
        low, high = self._range
        image = axes.imshow(np.ma.masked_less_equal(heat, 0), cmap=scale, vmin=low, vmax=high, **common)
        x, y = (self._peak[across] + 0.5) * self._size[across], (self._peak[up] + 0.5) * self._size[up]
        axes.axvline(x, color=_EDGE, linewidth=0.5, dashes=(4, 4))
        axes.axhline(y, color=_EDGE, linewidth=0.5, dashes=(4, 4))
        axes.set_axis_off()
        if axis > 0:
            axes.text(0.01, 0.02, "L", transform=axes.transAxes, fontsize=8, color=FAINT)
            axes.text(0.99, 0.02, "R", transform=axes.transAxes, fontsize=8, color=FAINT, ha="right")
        return image


def _subtitle(log10p: np.ndarray) -> str:
    if not len(log10p):
        return "no voxel beyond the threshold"
    return f"{len(log10p):,} voxels beyond the threshold   ·   largest $-\\log_{{10}}\\,p$ {float(np.max(log10p)):.2f}"


def _volume(shape: Sequence[int], coordinates: np.ndarray, values: np.ndarray, dtype: Any) -> np.ndarray:
    """An image of ``shape`` with ``values`` (k,) at ``coordinates`` (k, 3) and 0 elsewhere."""
    volume = np.zeros(tuple(int(extent) for extent in shape), dtype=dtype)
    volume[tuple(np.asarray(coordinates).T)] = values
    return volume
