"""Figures in one style, saved as PNG files by Agg, whatever backend the user's own figures have."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpgls.errors import MpglsError, StorageError
from mpgls.mpi import together

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mpi4py import MPI

INK, FAINT = "#262626", "#6e6e6e"
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


PICTURE_BYTES = 100_000
"""Of a picture, about."""


def draw_all(pictures: Mapping[Path, Callable[[Path], None]], say: Callable[[str], None]) -> list[Path]:
    """Draw each picture at its path; return the paths of those that were made.

    A run does not end for its pictures: where Matplotlib is missing or fails, ``say`` gets one sentence and the rest
    is left out. Raises StorageError when a picture cannot be written.
    """
    made: list[Path] = []
    for path, draw in pictures.items():
        try:
            draw(path)
        except MpglsError:
            raise
        except Exception as error:  # a package of the user's that is broken fails in any way
            say(
                f"WARNING: {path} is not drawn, because Matplotlib failed ({type(error).__name__}: {error}); "
                "the tables are complete"
            )
            return made
        made.append(path)
    return made


def draw_on_ranks(
    comm: MPI.Comm, pictures: Mapping[Path, Callable[[Path], None]], say: Callable[[str], None]
) -> list[Path]:
    """`draw_all` of the ``pictures`` that rank 0 has, dealt to the ranks; rank 0 gets the paths of those made.

    Collective. What draws a picture travels to its rank: a function of a module with its arguments (a ``partial``).
    Raises StorageError on all ranks when a picture cannot be written.
    """
    mine = comm.scatter([dict(list(pictures.items())[rank :: comm.size]) for rank in range(comm.size)], root=0)
    said: list[str] = []
    with together(comm):
        made = draw_all(mine, said.append)
    everyone = comm.gather((made, said), root=0) or []
    for text in [text for _, texts in everyone for text in texts][:1]:
        say(text)
    drawn = {path for paths, _ in everyone for path in paths}
    return [path for path in pictures if path in drawn]


@contextlib.contextmanager
def saved_figure(path: str | os.PathLike[str], size: tuple[float, float]) -> Iterator[Figure]:
    """A figure of ``size`` (inches), saved to ``path`` (complete or not at all) when the body is done.

    Raises StorageError when it cannot be written.
    """
    _import_matplotlib()
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # a matplotlibrc of the user's may ask for LaTeX
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=size, dpi=200)
        FigureCanvasAgg(figure)
        yield figure
        try:
            figure.savefig(partial, format="png")
            os.replace(partial, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise StorageError(f"cannot write the plot {path}: {error.strerror or error}") from None


def _import_matplotlib() -> None:
    """Import Matplotlib whatever MPLBACKEND says; the user's own figures get the backend that it names.

    The import itself fails for a backend that is not installed here, such as that of a notebook's kernel.
    """
    if "matplotlib" in sys.modules:
        return
    asked = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    finally:
        if asked is not None:
            os.environ["MPLBACKEND"] = asked
    if asked:
        with contextlib.suppress(ValueError):
            matplotlib.rcParams["backend"] = asked
