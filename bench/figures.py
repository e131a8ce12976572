"""Plots of the benchmarks, in the style of the program's own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mpgls.report import plots

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS, ACCENT, FAINT = plots._COLOURS, plots._ACCENT, plots._FAINT


@contextlib.contextmanager
def chart(path: Path, size: tuple[float, float] = (7.0, 4.4)) -> Iterator[Axes]:
    """The axes of a figure that is saved to the PNG file ``path`` when the body is done."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with plots._figure(path, size) as figure:
        yield figure.add_axes((0.1, 0.125, 0.87, 0.735))


def heading(axes: Axes, title: str, subtitle: str) -> None:
    """Title and subtitle above the axes, at their left edge."""
    plots._heading(axes, title, subtitle)
