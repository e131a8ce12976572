"""Manhattan and QQ plots as PNG files, drawn from a `Summary`: the same effort for 10^4 and for 10^8 SNPs."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mpgls.report.figure import FAINT, saved_figure
from mpgls.report.pixels import UNPLACED, UNPLACED_COLUMNS, PixelMap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mpgls.report.summary import Hit, Summary

GENOME_WIDE = 5e-8
# With fewer SNPs the Bonferroni line alone is shown: 5e-8 stands for about 10^6 independent tests.
GENOME_WIDE_FROM = 100_000
MAX_LABELS = 5
HIGHEST = 1000.0
"""The axis of -log10 p ends below it: what is beyond, infinity too, stands at its upper end as a triangle."""
_ABOVE = 0.96
"""Height of the triangles as a share of the axis."""

_COLOURS = ("#2f5d8a", "#8fb0cf")
_UNPLACED_COLOUR = "#a9a9a9"
_ACCENT = "#b5482f"


class Strip(NamedTuple):
    """One chromosome's interval of the horizontal axis: a position x is drawn at left + (x - first) * scale."""

    chrom: str
    left: float
    width: float
    first: int
    scale: float


class Threshold(NamedTuple):
    """A horizontal line of the Manhattan plot at -log10 p = height."""

    height: float
    label: str
    colour: str


def manhattan(summary: Summary, path: str | os.PathLike[str], title: str) -> None:
    """Draw -log10 p against position for every tested SNP into the PNG file ``path``.

    Lines: Bonferroni's 0.05 / m, and 5e-8 from 100,000 SNPs on. The best SNP of at most five chromosomes that reach
    the lower line (or else the best one) is named. SNPs without a position have a grey strip at the right.
    Raises StorageError if the file cannot be written.
    """
    with saved_figure(path, (11.0, 4.6)) as figure:
        axes = figure.add_axes((0.055, 0.125, 0.865, 0.755))
        strips = lay_out(summary.pixels)
        top = _axis_top(summary)
        ceiling = _ABOVE * top
        axes.set_ylim(0, top)
        axes.set_xlim(0, max((strip.left + strip.width for strip in strips), default=1.0))
        for k, strip in enumerate(strips):
            column, height = summary.pixels.points(strip.chrom)
            colour = _UNPLACED_COLOUR if strip.chrom == UNPLACED else _COLOURS[k % 2]
            _dots(axes, strip.left + (column - strip.first) * strip.scale, height, colour, 2.2, ceiling)
        _label_chromosomes(axes, strips)
        _draw_thresholds(axes, thresholds(summary.tested), top)
        axes.set_ylabel("−log₁₀ p")
        _whole_ticks(axes)
        _heading(axes, title, _manhattan_subtitle(summary))
        _name_hits(figure, axes, _labelled_hits(summary), {strip.chrom: strip for strip in strips}, ceiling)


def qq(summary: Summary, path: str | os.PathLike[str], title: str) -> None:
    """Draw observed against expected -log10 p into the PNG file ``path``, with a pointwise 95% band and lambda GC.

    Under the null the p value of rank i of m independent SNPs is Beta(i, m + 1 - i) distributed. Raises StorageError
    if the file cannot be written.
    """
    with saved_figure(path, (5.0, 5.2)) as figure:
        axes = figure.add_axes((0.12, 0.1, 0.84, 0.775))
        expected, observed = summary.qq_points()
        right = 1.03 * float(expected.max(initial=1.0))
        axes.set_xlim(0, right)
        top = max(right, 1.06 * float(np.max(observed, initial=0.0, where=observed < HIGHEST)))
        if np.any(observed >= HIGHEST):
            top *= 1.25  # room for them above all others and the diagonal
        axes.set_ylim(0, top)
        if summary.tested:
            band, low, high = null_band(summary.tested)
            axes.fill_between(band, low, high, color="#dfe5ea", linewidth=0, label="95% band, independent SNPs")
            axes.plot([0, right], [0, right], color=FAINT, linewidth=0.9, label="expected")
        _dots(axes, expected, observed, _COLOURS[0], 3.0, _ABOVE * top)
        axes.set_xlabel("expected −log₁₀ p")
        axes.set_ylabel("observed −log₁₀ p")
        _whole_ticks(axes)
        _heading(axes, title, f"{summary.tested:,} SNPs tested")
        if summary.tested:
            factor = f"λ GC = {summary.lambda_gc():.4f}"
            axes.text(0.03, 0.97, factor, transform=axes.transAxes, va="top", fontsize=11)
            axes.legend(loc="upper left", bbox_to_anchor=(0.005, 0.92), frameon=False, fontsize=8, labelcolor=FAINT)


def lay_out(pixels: PixelMap) -> list[Strip]:
    """Chromosomes side by side in natural order with small gaps; every one gets at least 0.4% of the axis."""
    names = pixels.chromosomes()
    spans = {name: float(high - low) for name, (low, high) in pixels.extent.items()}
    total = sum(spans.values()) or 1.0
    strips, left = [], 0.0
    gap = min(0.006, 0.2 / max(len(names), 1)) * total
    for name in names:
        first = pixels.extent[name][0] if name in pixels.extent else 0
        span = spans.get(name, UNPLACED_COLUMNS - 1.0)
        width = 0.025 * total if name == UNPLACED else max(span, min(0.004, 0.5 / len(names)) * total)
        strips.append(Strip(name, left + gap, width, first, width / span if span else 0.0))
        left += gap + width + gap
    return strips


def thin_labels(centres: Sequence[float], widths: Sequence[float], gap: float) -> list[int]:
    """Indices of the labels to print, from left to right, so that none comes nearer than ``gap`` to the one before.

    The last label is always printed; those that it meets make room for it. All lengths in one unit.
    """
    kept: list[int] = []
    last = len(centres) - 1
    for k in range(len(centres)):
        while k == last and kept and _meet(centres, widths, gap, kept[-1], k):
            kept.pop()
        if not kept or not _meet(centres, widths, gap, kept[-1], k):
            kept.append(k)
    return kept


def thresholds(tested: int) -> list[Threshold]:
    """The lines of the Manhattan plot, lowest first."""
    lines = []
    if tested:
        bonferroni = 0.05 / tested
        lines.append(Threshold(-math.log10(bonferroni), f"0.05/m\n= {_scientific(bonferroni)}", FAINT))
    if tested >= GENOME_WIDE_FROM:
        lines.append(Threshold(-math.log10(GENOME_WIDE), _scientific(GENOME_WIDE), _ACCENT))
    return sorted(lines)


def null_band(tested: int, points: int = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Expected -log10 p of log-spaced ranks, and the 2.5% and 97.5% quantiles of -log10 p there (each (k,))."""
    from scipy.special import betaincinv

    ranks = np.unique(np.geomspace(1, tested, points).astype(np.int64)).astype(np.float64)
    low, high = (-np.log10(betaincinv(ranks, tested + 1 - ranks, tail)) for tail in (0.975, 0.025))
    return -np.log10((ranks - 0.5) / tested), low, high


def _meet(centres: Sequence[float], widths: Sequence[float], gap: float, a: int, b: int) -> bool:
    return centres[b] - centres[a] < 0.5 * (widths[a] + widths[b]) + gap


def _dots(axes: Axes, x: np.ndarray, y: np.ndarray, colour: str, size: float, ceiling: float = np.inf) -> None:
    """Dots, and triangles at the ``ceiling`` for what is above it."""
    above = y > ceiling
    for shown, form, width in ((~above, "o", size), (above, "^", 2 * size)):
        if shown.any():
            axes.plot(
                x[shown], np.minimum(y[shown], ceiling), form, color=colour, markersize=width, markeredgewidth=0,
                rasterized=True, clip_on=False, zorder=2,
            )  # fmt: skip


def _whole_ticks(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.yaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))


def _heading(axes: Axes, title: str, subtitle: str) -> None:
    axes.annotate(
        title, (0, 1), (0, 21), xycoords="axes fraction", textcoords="offset points", fontsize=12, weight="bold"
    )
    axes.annotate(
        subtitle, (0, 1), (0, 8), xycoords="axes fraction", textcoords="offset points", fontsize=9, color=FAINT
    )


def _manhattan_subtitle(summary: Summary) -> str:
    parts = [f"{summary.tested:,} SNPs tested"]
    if summary.tested:
        parts.append(f"λ GC = {summary.lambda_gc():.3f}")
    untested = sum(summary.counts.values()) - summary.counts[0]
    if untested:
        parts.append(f"{untested:,} not tested")
    if unplaced := summary.pixels.counts.get(UNPLACED, 0):
        parts.append(f"{unplaced:,} without a position (grey, at the right)")
    if (beyond := summary.smallest[summary.smallest >= HIGHEST]).size:
        which = "p = 0" if np.isinf(beyond).all() else f"−log₁₀ p above {HIGHEST:.0f}"
        parts.append(f"{beyond.size:,} with {which} (triangles)")
    return "   ·   ".join(parts)


def _axis_top(summary: Summary) -> float:
    """Upper end of the -log10 p axis, with room for the lines and the labels above the best SNPs."""
    finite = summary.smallest[summary.smallest < HIGHEST]
    lines = [line.height for line in thresholds(summary.tested)]
    return 1.13 * max([1.0, float(finite.max(initial=0.0)), *lines])


def _label_chromosomes(axes: Axes, strips: list[Strip]) -> None:
    """Chromosome names below the axis, as many as there is room for; one chromosome alone gets positions in Mb."""
    placed = [strip for strip in strips if strip.chrom != UNPLACED]
    if len(placed) == 1:
        _label_positions(axes, placed[0])
        return
    size = 8.0
    dots_per_unit = axes.bbox.width / (axes.get_xlim()[1] or 1.0)
    # DejaVu Sans: a digit is 0.64 em wide
    em = size * axes.figure.dpi / 72
    centres = [(strip.left + 0.5 * strip.width) * dots_per_unit for strip in placed]
    names = [_bare(strip.chrom) for strip in placed]
    shown = thin_labels(centres, [0.64 * em * len(name) for name in names], 0.3 * em)
    axes.set_xticks([centres[k] / dots_per_unit for k in shown], [names[k] for k in shown], fontsize=size)
    axes.tick_params(axis="x", length=2.5, width=0.8)
    axes.set_xlabel("chromosome")


def _label_positions(axes: Axes, strip: Strip) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    per_mb = 1e6 * (strip.scale or 1.0)
    origin = strip.left - strip.first / 1e6 * per_mb
    low, high = strip.first / 1e6, strip.first / 1e6 + strip.width / per_mb
    ticks = [x for x in MaxNLocator(9).tick_values(low, high) if low <= x <= high]
    axes.set_xticks([origin + x * per_mb for x in ticks])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{(x - origin) / per_mb:.6g}"))
    axes.set_xlabel(f"position on chromosome {_bare(strip.chrom)} (Mb)")


def _draw_thresholds(axes: Axes, lines: list[Threshold], top: float) -> None:
    """Dashed lines, named in the right margin, where no SNP can cover the names."""
    near = len(lines) == 2 and lines[1].height - lines[0].height < 0.09 * top
    for k, (height, label, colour) in enumerate(lines):
        axes.axhline(height, color=colour, linewidth=0.9, dashes=(5, 3), zorder=1)
        axes.annotate(
            label,
            (1, height),
            (5, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va=("top", "bottom")[k] if near else "center",
            fontsize=8,
            color=colour,
            annotation_clip=False,
        )


def _labelled_hits(summary: Summary) -> list[Hit]:
    """The SNPs to name: best of their chromosome and above the lower line, or else the single best one."""
    hits = summary.chromosome_hits
    if not hits:
        return []
    line = thresholds(summary.tested)[0].height
    return [hit for hit in hits[:MAX_LABELS] if hit.log10p >= line] or hits[:1]


def _name_hits(figure: Figure, axes: Axes, hits: list[Hit], strips: dict[str, Strip], ceiling: float) -> None:
    """Mark the points and write the IDs beside their points where they meet neither each other nor the edge."""
    from matplotlib.patheffects import withStroke

    renderer: Any = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    taken: list[Any] = []
    points = {hit: _place(hit, strips) for hit in hits}
    across, height = np.array(list(points.values())).reshape(-1, 2).T
    _dots(axes, across, height, _ACCENT, 3.4, ceiling)
    for hit, (x, y) in points.items():
        point = (x, min(y, ceiling))
        for dx, dy, align in _OFFSETS:
            text = axes.annotate(
                _short(hit.id), point, (dx, dy), textcoords="offset points", ha=align, va="center", fontsize=8,
                zorder=4, path_effects=[withStroke(linewidth=2.5, foreground="white")],
            )  # fmt: skip
            box = text.get_window_extent(renderer)
            inside = axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 + 40 and box.y1 <= axes.bbox.y1 + 6
            if inside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            text.remove()


# Positions of a name about its point, in points: above, right, left, and then higher.
_OFFSETS = [
    (0, 9, "center"), (6, 3, "left"), (-6, 3, "right"), (6, 13, "left"), (-6, 13, "right"), (0, 20, "center"),
    (6, -8, "left"), (-6, -8, "right"),
]  # fmt: skip


def _place(hit: Hit, strips: dict[str, Strip]) -> tuple[float, float]:
    unplaced = hit.pos <= 0 or hit.chrom == "0"
    strip = strips[UNPLACED if unplaced else hit.chrom]
    column = PixelMap.column_of(hit.id) if unplaced else hit.pos
    return strip.left + (column - strip.first) * strip.scale, hit.log10p


def _bare(chrom: str) -> str:
    return chrom[3:] if chrom.lower().startswith("chr") and len(chrom) > 3 else chrom


def _short(name: str) -> str:
    # a dollar sign would start a formula
    return (name if len(name) <= 24 else name[:23] + "…").replace("$", r"\$")


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def _scientific(p: float) -> str:
    mantissa, exponent = f"{p:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}×10{str(int(exponent)).translate(_RAISED)}"
