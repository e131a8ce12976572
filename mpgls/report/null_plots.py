"""The null distribution of a decision statistic as a PNG file: maxima under permutation, and the data's best SNPs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mpgls.model.extremes import Tail
from mpgls.report.figure import FAINT, saved_figure
from mpgls.report.pixels import with_finite
from mpgls.report.plots import _ACCENT, _COLOURS, _heading, _short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLES = {
    "log10p": ("Smallest p value", "$-\\log_{10}\\,p$ of the best voxel"),
    "volume": ("Total volume", "voxels beyond the threshold"),
    "sum_log10p": ("Sum over voxels", "$\\Sigma -\\log_{10}\\,p$ of the voxels beyond the threshold"),
    "cluster_volume": ("Largest cluster", "voxels of the largest cluster"),
    "cluster_mass": ("Heaviest cluster", "$\\Sigma -\\log_{10}\\,p$ of the heaviest cluster"),
    "tfce": ("TFCE", "largest threshold-free cluster enhancement score"),
}
"""Title and axis of each statistic of `mpgls.model.clusters.STATISTICS`."""

LEVEL = 0.05
MAX_LABELS = 5


def null_plot(
    path: str | os.PathLike[str],
    statistic: str,
    maxima: np.ndarray,
    observed_top: Sequence[float],
    labels: Sequence[str],
    tail: Tail | None = None,
) -> None:
    """Draw a histogram of ``maxima`` (P,) into the PNG file ``path``, with the data's largest values marked.

    ``observed_top`` are the largest values of the unpermuted data, in any order, and ``labels`` the names of their
    SNPs; infinite values stand a little beyond all others. Beyond the dashed line the corrected p is at most 0.05; up
    to five SNPs there are named, or else the best one. A good ``tail`` is drawn over the histogram. Raises StorageError
    if the file cannot be written.
    """
    title, axis = TITLES.get(statistic, (statistic, statistic))
    maxima, observed = np.asarray(maxima, dtype=np.float64), np.asarray(observed_top, dtype=np.float64)
    shown = ~np.isnan(observed)
    names = [name for name, show in zip(labels, shown, strict=True) if show]
    drawn = with_finite(np.concatenate([maxima, observed[shown]]))
    maxima, observed = drawn[: maxima.size], drawn[maxima.size :]
    with saved_figure(path, (6.4, 4.2)) as figure:
        axes = figure.add_axes((0.1, 0.125, 0.865, 0.73))
        axes.set_xlabel(axis)
        axes.set_ylabel("permutations")
        _heading(axes, title, _subtitle(maxima, tail))
        if maxima.size == 0:
            return
        edges = bin_edges(maxima)
        heights = axes.hist(maxima, bins=edges.tolist(), color=_COLOURS[1], linewidth=0)[0]
        top = 1.0 if np.ndim(heights) != 1 else float(np.max(heights))
        axes.set_ylim(0, 1.35 * top)
        axes.set_xlim(*_span(edges, observed))
        line = critical_value(maxima)
        _draw_level(axes, line, top)
        if tail is not None and tail.good:
            _draw_tail(axes, tail, edges, maxima.size)
        _mark(axes, observed, names, line, top)


def bin_edges(maxima: np.ndarray) -> np.ndarray:
    """Edges of about sqrt(P) bins, 10 to 60; whole counts get bins of whole numbers, centred on them."""
    low, high = float(maxima.min()), float(maxima.max())
    bins = int(np.clip(np.sqrt(maxima.size), 10, 60))
    if np.all(maxima == np.round(maxima)):
        width = max(1.0, np.ceil((high - low + 1) / bins))
        return np.arange(low - 0.5, high + 0.5 + width, width)
    return np.linspace(low, high, bins + 1)


def critical_value(maxima: np.ndarray, level: float = LEVEL) -> float:
    """The largest maximum whose excess makes the corrected p at most ``level``; infinity with too few permutations."""
    # (1 + #{maxima > c}) / (P + 1) <= level
    allowed = int(np.floor(level * (maxima.size + 1) + 1e-9)) - 1
    return float(np.sort(maxima)[maxima.size - 1 - allowed]) if allowed >= 0 else float("inf")


def _subtitle(maxima: np.ndarray, tail: Tail | None) -> str:
    text = f"maxima of {maxima.size:,} permutations"
    if tail is None or np.isnan(tail.p_fit):
        return text
    verdict = "" if tail.good else ", not used"
    return f"{text}   ·   Pareto tail: shape {tail.shape:.2f}, fit p = {tail.p_fit:.2g}{verdict}"


def _span(edges: np.ndarray, observed: np.ndarray) -> tuple[float, float]:
    low, high = float(edges[0]), max(float(edges[-1]), float(observed.max(initial=edges[-1])))
    margin = 0.04 * (high - low or 1.0)
    return low - margin, high + margin


def _draw_level(axes: Axes, line: float, top: float) -> None:
    if np.isfinite(line):
        axes.axvline(line, color=FAINT, linewidth=0.9, dashes=(5, 3), ymax=0.8)
        axes.text(line, 1.09 * top, " 0.05", color=FAINT, fontsize=8, ha="left", va="center")


def _draw_tail(axes: Axes, tail: Tail, edges: np.ndarray, permutations: int) -> None:
    """The fitted density, as the number of permutations in a bin."""
    x = np.linspace(tail.threshold, axes.get_xlim()[1], 200)
    expected = tail.density(x) * permutations * float(edges[1] - edges[0])
    axes.plot(x, expected, color=_COLOURS[0], linewidth=1.2)


def _mark(axes: Axes, observed: np.ndarray, names: Sequence[str], line: float, top: float) -> None:
    """A mark for each observed value; names where it is beyond ``line``, or of the largest, the largest highest up."""
    from matplotlib.patheffects import withStroke

    axes.plot(observed, np.full(observed.size, 0.02 * top), "v", color=_ACCENT, markersize=5, markeredgewidth=0,
              clip_on=False, zorder=3)  # fmt: skip
    named = np.argsort(-observed, kind="stable")[:MAX_LABELS]
    named = named[: max(1, int(np.count_nonzero(observed[named] > line)))]
    for step, k in enumerate(named[::-1].tolist()):
        height = (0.16 + 0.12 * step) * top
        axes.plot([observed[k]] * 2, [0.05 * top, height], color=_ACCENT, linewidth=0.7)
        axes.annotate(
            _short(names[k]), (observed[k], height), (-3, 0), textcoords="offset points", ha="right", va="center",
            fontsize=8, path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )  # fmt: skip
