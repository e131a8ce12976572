"""Plots of mpgls ridge: the R2 of all targets against the permutations, and against the penalty."""

from __future__ import annotations

import os

import numpy as np

from mpgls.report.figure import FAINT, saved_figure
from mpgls.report.plots import _ACCENT, _COLOURS, _dots, _heading

LEVEL = 0.05
"""Family-wise error rate of the line in the plot of R2."""


def r2_against_null(path: str | os.PathLike[str], title: str, r2: np.ndarray, maxima: np.ndarray) -> None:
    """Mean R2 of each target, sorted, beside the largest of each permutation. Raises StorageError."""
    with saved_figure(path, (7.0, 4.2)) as figure:
        axes = figure.add_axes((0.1, 0.125, 0.6, 0.74))
        ordered = np.sort(r2)[::-1]
        _dots(axes, np.arange(1, ordered.size + 1), ordered, _COLOURS[0], 3.0)
        axes.axhline(0.0, color=FAINT, linewidth=0.8)
        axes.set_xlabel("targets, by $R^2$")
        axes.set_ylabel("mean $R^2$ over the outer folds")
        found = f"{r2.size:,} targets"
        if maxima.size:
            line = float(np.quantile(maxima, 1 - LEVEL))
            axes.axhline(line, color=_ACCENT, linewidth=1.0, linestyle="--")
            beside = figure.add_axes((0.72, 0.125, 0.25, 0.74), sharey=axes)
            beside.hist(maxima, bins=40, orientation="horizontal", color=_COLOURS[1])
            beside.axhline(line, color=_ACCENT, linewidth=1.0, linestyle="--")
            beside.tick_params(axis="y", labelleft=False)
            beside.set_xlabel("permutations, by largest $R^2$")
            found += f", {(r2 > line).sum():,} above the line of family-wise error {LEVEL:g}"
        _heading(axes, title, found)


def r2_by_alpha(path: str | os.PathLike[str], title: str, alphas: np.ndarray, by_alpha: np.ndarray) -> None:
    """Mean R2 (penalties, t) against the penalty: quantiles over targets, and the best. Raises StorageError."""
    order = np.argsort(alphas)
    x, curves = np.asarray(alphas)[order], by_alpha[order]
    with saved_figure(path, (5.6, 4.2)) as figure:
        axes = figure.add_axes((0.13, 0.125, 0.83, 0.74))
        low, middle, high = np.quantile(curves, (0.05, 0.5, 0.95), axis=1)
        axes.fill_between(x, low, high, color="#dfe5ea", linewidth=0, label="90% of the targets")
        axes.plot(x, middle, "o-", color=_COLOURS[0], markersize=3.5, linewidth=1.2, label="median")
        axes.plot(x, curves.max(axis=1), "o-", color=_ACCENT, markersize=3.5, linewidth=1.0, label="best target")
        axes.axhline(0.0, color=FAINT, linewidth=0.8)
        axes.set_xscale("log")
        axes.set_xlabel("penalty, relative to the kernel's mean diagonal")
        axes.set_ylabel("mean $R^2$ over the outer folds")
        axes.legend(frameon=False, fontsize=8)
        _heading(axes, title, f"{by_alpha.shape[1]:,} targets, the same penalty in all folds")
