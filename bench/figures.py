"""Plots of the benchmarks, in the style of the program's own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mpgls.report import figure, plots

if TYPE_CHECKING:
    import argparse

    from matplotlib.axes import Axes

COLOURS, ACCENT, FAINT = plots._COLOURS, plots._ACCENT, figure.FAINT
IMAGES = Path(__file__).resolve().parent.parent / "docs" / "img"


def add_picture(parser: argparse.ArgumentParser, path: Path) -> None:
    """The option ``--png``: where the plot goes if not to ``path``."""
    parser.add_argument("--png", type=Path, metavar="FILE", help=f"the plot ({path}; none with --quick)")


def chosen_picture(options: argparse.Namespace, path: Path) -> Path | None:
    """The file of the plot: the one given, else ``path``; None where there is to be no plot."""
    return options.png or (None if options.quick else path)


@contextlib.contextmanager
def chart(path: Path, size: tuple[float, float] = (7.0, 4.4)) -> Iterator[Axes]:
    """The axes of a figure that is saved to the PNG file ``path`` when the body is done."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with figure.saved_figure(path, size) as drawn:
        yield drawn.add_axes((0.1, 0.125, 0.87, 0.735))


def heading(axes: Axes, title: str, subtitle: str) -> None:
    """Title and subtitle above the axes, at their left edge."""
    plots._heading(axes, title, subtitle)
