"""Pictures of a multi-trait scan: the map of hits (SNP position x trait), and a QQ plot over all traits.

Both cost the same for 6 and for 20,000 traits: the map draws at most one dot for each pixel, the best one.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mpgls.report.figure import FAINT, INK, saved_figure
from mpgls.report.hits import HitVariants, pieces
from mpgls.report.pixels import UNPLACED, PixelMap, with_finite
from mpgls.report.plots import (
    _COLOURS,
    Strip,
    _dots,
    _heading,
    _label_chromosomes,
    _scientific,
    _short,
    _whole_ticks,
    lay_out,
    null_band,
)
from mpgls.report.table import VariantReader

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mpgls.model.histograms import Bins

MAX_NAMES = 48
"""Up to this many traits are named at the axis; more are numbered."""
SPREAD_TRAITS = 2000
"""Traits whose own QQ curves are computed for the band of the pooled QQ plot."""

_WIDTH, _DPI = 11.0, 200
_LEFT, _RIGHT, _BELOW, _ABOVE = 0.75, 1.15, 0.6, 0.62  # margins in inches
_BAND = "#f2f4f6"
# From pale blue over violet to dark red: the lightest is still seen on white, and the order survives in grey.
_SCALE = ("#9fbcd8", "#5f86bd", "#4b4f9c", "#6a2a74", "#7d1440", "#4a0615")


def genome_of(variants: VariantReader, index: np.ndarray) -> PixelMap:
    """Chromosomes and their extents over the SNPs in the ascending .bim rows ``index``.

    Ranks may take a part each and `PixelMap.merge` them.
    """
    pixels = PixelMap()
    for _, _, piece in pieces(variants, index):
        pixels.add(piece, np.arange(len(piece.id)), np.zeros(len(piece.id)))
    return pixels


def hits_map(
    path: str | os.PathLike[str],
    title: str,
    hits: np.ndarray,
    traits: Sequence[str],
    variants: VariantReader,
    genome: PixelMap,
    threshold: float,
) -> None:
    """Draw the merged ``hits`` (HIT_DTYPE) of ``traits`` into the PNG file ``path``, coloured by -log10 p.

    ``genome`` lays out the horizontal axis; traits go from top to bottom in the order of ``traits``. ``threshold`` is
    the p value below which a pair is a hit. Raises StorageError if the file cannot be written.
    """
    t = len(traits)
    height = float(np.clip(0.26 * t, 1.6, 5.6))
    names = [_short(name) for name in traits] if t <= MAX_NAMES else []
    left = 0.2 + 0.062 * max(map(len, names)) if names else _LEFT
    size = (_WIDTH, height + _BELOW + _ABOVE)
    with saved_figure(path, size) as figure:
        box = (left / size[0], _BELOW / size[1], 1 - (left + _RIGHT) / size[0], height / size[1])
        axes = figure.add_axes(box)
        strips = lay_out(genome)
        axes.set_xlim(0, max((strip.left + strip.width for strip in strips), default=1.0))
        axes.set_ylim(t - 0.5, -0.5)
        for k in range(0, len(strips), 2):
            axes.axvspan(*_surrounding(strips, k), color=_BAND, linewidth=0, zorder=0)
        _label_traits(axes, names, t, height)
        x = _positions(hits, variants, strips)
        _draw_hits(
            figure, axes, x, hits["trait"].astype(np.float64), with_finite(hits["log10p"]), height / t, threshold
        )
        _label_chromosomes(axes, strips)
        _heading(axes, title, _subtitle(hits, t, threshold, genome))


def pooled_qq(path: str | os.PathLike[str], title: str, groups: Sequence[tuple[Bins, np.ndarray]]) -> None:
    """Draw observed against expected -log10 p of all traits together into the PNG file ``path``.

    Each of ``groups`` has its bins and the counts (t, bins.count) of its traits. The grey band is the pointwise 95%
    band of as many independent tests as there were; with two traits or more, the blue one is where 90% of the traits'
    own curves lie. Raises StorageError if the file cannot be written.
    """
    expected, observed, tested = qq_points(groups)
    traits = sum(int(np.count_nonzero(counts.any(axis=1))) for _, counts in groups)
    with saved_figure(path, (5.0, 5.2)) as figure:
        axes = figure.add_axes((0.12, 0.1, 0.84, 0.775))
        right = 1.03 * float(expected.max(initial=1.0))
        axes.set_xlim(0, right)
        axes.set_ylim(0, max(right, 1.06 * float(observed.max(initial=0.0))))
        if tested:
            band, low, high = null_band(tested)
            axes.fill_between(band, low, high, color="#dfe5ea", linewidth=0, label="95% band, independent tests")
            if traits > 1:
                spread = trait_spread(groups)
                axes.fill_between(*spread, color=_COLOURS[1], alpha=0.45, linewidth=0, label="90% of the traits")
            axes.plot([0, right], [0, right], color=FAINT, linewidth=0.9, label="expected")
            axes.legend(loc="upper left", frameon=False, fontsize=8, labelcolor=FAINT)
        _dots(axes, expected, observed, _COLOURS[0], 3.0)
        axes.set_xlabel("expected $-\\log_{10}\\,p$")
        axes.set_ylabel("observed $-\\log_{10}\\,p$")
        _whole_ticks(axes)
        _heading(axes, title, f"{tested:,} tests of {traits:,} trait{'' if traits == 1 else 's'}")


def qq_points(groups: Sequence[tuple[Bins, np.ndarray]]) -> tuple[np.ndarray, np.ndarray, int]:
    """Expected and observed -log10 p of all tests together, descending, and their number.

    One point for each bin with tests: its middle, against -log10((i - 1/2) / m) for the mean rank i in it of m tests.
    Points that a reader could not tell apart are left out.
    """
    observed = np.concatenate([np.empty(0), *(_middles(bins) for bins, _ in groups)])
    counts = np.concatenate(
        [np.empty(0, dtype=np.int64), *(counts.sum(axis=0, dtype=np.int64) for _, counts in groups)]
    )
    order = np.argsort(observed, kind="stable")[::-1]
    order = order[counts[order] > 0]
    observed, counts = observed[order], counts[order]
    rank, tested = np.cumsum(counts) - 0.5 * counts, int(counts.sum())
    expected = -np.log10(rank / max(tested, 1))
    cells = np.stack([np.floor(expected * 500), np.floor(observed * 500)])
    keep = np.ones(observed.size, dtype=bool)
    keep[1:] = (np.diff(cells, axis=1) != 0).any(axis=0)
    return expected[keep], observed[keep], tested


def trait_spread(groups: Sequence[tuple[Bins, np.ndarray]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Expected -log10 p, and the 5% and 95% quantiles over traits of the observed value there (each (k,)).

    From at most SPREAD_TRAITS traits, evenly chosen of those with tests.
    """
    chosen = []
    for bins, counts in groups:
        middles = _middles(bins)
        chosen += [(middles, row) for row in counts if row.any()]
    chosen = chosen[:: -(-len(chosen) // SPREAD_TRAITS) or 1]
    fewest = min((int(row.sum()) for _, row in chosen), default=0)
    if fewest == 0:
        return (np.empty(0),) * 3
    grid = np.linspace(0, math.log10(2 * fewest), 60)
    curves = np.empty((len(chosen), grid.size))
    for curve, (middles, row) in zip(curves, chosen, strict=True):
        filled = np.flatnonzero(row)
        inside = row[filled][::-1]
        rank = (np.cumsum(inside) - 0.5 * inside)[::-1]
        curve[:] = np.interp(grid, -np.log10(rank / row.sum()), middles[filled])
    low, high = np.quantile(curves, (0.05, 0.95), axis=0)
    return grid, low, high


def _middles(bins: Bins) -> np.ndarray:
    """-log10 p in the middle of each bin."""
    edges = bins.edges()
    return np.minimum(bins.statistic.log10_p(0.5 * (edges[:-1] + edges[1:])), 1e5)


def best_of_each_pixel(column: np.ndarray, row: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Indices of the points to draw, ascending by value: in each (column, row) the one with the largest value."""
    order = np.argsort(value, kind="stable")[::-1]
    keys = (row[order].astype(np.int64) << 32) | column[order].astype(np.int64)
    first = np.unique(keys, return_index=True)[1]
    return order[np.sort(first)[::-1]]


def _surrounding(strips: list[Strip], k: int) -> tuple[float, float]:
    """Ends of strip k with half of the gaps beside it."""
    left, right = strips[k].left, strips[k].left + strips[k].width
    if k > 0:
        left = 0.5 * (left + strips[k - 1].left + strips[k - 1].width)
    if k + 1 < len(strips):
        right = 0.5 * (right + strips[k + 1].left)
    return left, right


def _positions(hits: np.ndarray, variants: VariantReader, strips: list[Strip]) -> np.ndarray:
    """Where on the horizontal axis each hit lies."""
    found = HitVariants(variants, hits["row"])
    strip_of = {strip.chrom: strip for strip in strips}
    x = np.empty(found.rows.size)
    for k, (chrom, pos, name) in enumerate(zip(found.chrom, found.pos.tolist(), found.id, strict=True)):
        unplaced = pos <= 0 or chrom == "0"
        strip = strip_of[UNPLACED if unplaced else chrom]
        x[k] = strip.left + ((PixelMap.column_of(name) if unplaced else pos) - strip.first) * strip.scale
    return x[found.at(hits["row"])]


def _draw_hits(
    figure: Figure, axes: Axes, x: np.ndarray, y: np.ndarray, value: np.ndarray, row_height: float, threshold: float
) -> None:
    """Dots and their colour scale; ``row_height`` is that of a trait in inches."""
    from matplotlib.colors import LinearSegmentedColormap, LogNorm

    if value.size == 0:
        axes.text(0.5, 0.5, "no hits", transform=axes.transAxes, ha="center", va="center", color=FAINT)
        return
    column = np.floor(x / axes.get_xlim()[1] * axes.bbox.width)
    row = np.floor(y * min(1.0, row_height * _DPI))
    shown = best_of_each_pixel(column, row, value)
    low = max(-math.log10(threshold), 0.1)
    high = max(float(value.max()), 1.5 * low)
    dots = axes.scatter(
        x[shown],
        y[shown],
        c=value[shown],
        s=float(np.clip(0.55 * 72 * row_height, 2.0, 5.5)) ** 2,
        norm=LogNorm(low, high),
        cmap=LinearSegmentedColormap.from_list("hits", _SCALE),
        linewidths=0,
        rasterized=True,
        clip_on=False,
        zorder=2,
    )
    place = axes.get_position()
    bar = figure.colorbar(dots, cax=figure.add_axes((place.x1 + 0.022, place.y0, 0.011, place.height)))
    bar.outline.set_visible(False)
    ticks = _log_ticks(low, high)
    bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    bar.ax.minorticks_off()
    bar.ax.tick_params(length=2.5, width=0.8, labelsize=8)
    bar.set_label("$-\\log_{10}\\,p$", fontsize=8.5)


def _log_ticks(low: float, high: float) -> list[float]:
    """At most about six round numbers from ``low`` to ``high``."""
    for steps in ((1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9), (1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        ticks = [a * 10.0**e for e in range(-1, 6) for a in steps if low <= a * 10.0**e <= high]
        if len(ticks) <= 6:
            break
    return ticks or [low]


def _label_traits(axes: Axes, names: list[str], t: int, height: float) -> None:
    """Names of few traits at their rows; numbers, from 1 on, of many."""
    axes.tick_params(axis="y", length=0 if names else 2.5, width=0.8)
    if names:
        size = float(np.clip(0.8 * 72 * height / t, 5.0, 8.5))
        axes.set_yticks(range(t), names, fontsize=size)
        axes.hlines(np.arange(t), *axes.get_xlim(), color="#e3e6e9", linewidth=0.5, zorder=0.5)
        return
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    ticks = [k for k in MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]).tick_values(1, t) if 1 <= k <= t]
    axes.set_yticks([k - 1 for k in ticks])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{round(y) + 1:,}"))
    axes.set_ylabel("trait, in the order of the file", color=INK)


def _subtitle(hits: np.ndarray, t: int, threshold: float, genome: PixelMap) -> str:
    parts = [
        f"{hits.size:,} hits with $p$ < {_scientific(threshold)}",
        f"{np.unique(hits['trait']).size:,} of {t:,} traits",
        f"{np.unique(hits['row']).size:,} SNPs",
    ]
    if unplaced := genome.counts.get(UNPLACED, 0):
        parts.append(f"SNPs without a position: {unplaced:,} of the scan (at the right)")
    return "   ·   ".join(parts)
