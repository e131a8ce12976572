"""Stage 1 of the low-rank model: G'G (K x K) on the process grid, strip by strip, kept in a file.

    for strips J of similarity SNPs:
        A_grid     = G_(J and after)' G_J       each process decodes its own rows' and columns' SNPs: no communication
        file[:, J] = A_grid                     then the strip is marked as done

Only the lower triangle is computed. A run that was stopped goes on with the first strip that is not marked.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mpgls.engine.kinship_grid import keep_lower, load_columns, mirror, save_columns
from mpgls.engine.similarity import PANEL, Similarity
from mpgls.errors import InputError
from mpgls.la.grid import ProcessGrid
from mpgls.la.layout import GridLayout
from mpgls.la.matrix import GridMatrix
from mpgls.mpi import together
from mpgls.run.plan import grid_block
from mpgls.run.world import World
from mpgls.stream.files import replaced, sync, writing
from mpgls.stream.hdf5 import STORE, allocate, read_exactly
from mpgls.stream.mark import Mark
from mpgls.stream.own_file import OwnFile, add_token
from mpgls.study.hdf5 import open_hdf5

FORMAT, VERSION = "mpgls-gram", 2


@dataclass(frozen=True)
class GramFile:
    """G'G on disk: ``gram`` float64 (K, K), row j holds column j from its diagonal on; and a done-map of its strips."""

    own: OwnFile
    K: int
    strip: int
    offset: int
    done_offset: int
    done: np.ndarray

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.own.path

    def read(self, start: int, stop: int) -> np.ndarray:
        """Columns start..stop of the lower triangle, as rows."""
        columns = np.empty((stop - start, self.K))
        with self.own.open() as file:
            read_exactly(file, self.offset + 8 * self.K * start, columns)
        return columns

    def load(self, grid: ProcessGrid) -> GridMatrix:
        """G'G, both triangles, [MC,MR] on any grid. Collective over the grid."""
        GG_grid = GridMatrix.square(grid, self.K, grid_block(self.K, grid.shape))
        load_columns(GG_grid, self.read, self.K)
        keep_lower(GG_grid)
        mirror(GG_grid)
        return GG_grid


def open_gram(path: Path, mark: Mark) -> GramFile | None:
    """The file if it is there and was made from the same (``mark``), otherwise None. Raises StorageError."""
    if not path.exists():
        return None
    try:
        with open_hdf5(path, what=STORE) as file:
            if file.attrs.get("format") != FORMAT or file.attrs.get("made_from") != mark.text:
                return None
            gram, done = file["gram"], file["done"]
            offsets = gram.id.get_offset(), done.id.get_offset()
            return GramFile(OwnFile.of(path, file), gram.shape[0], int(file.attrs["strip"]), *offsets, done[...])
    except InputError:  # damaged: it is made again
        return None


def create_gram(path: Path, mark: Mark, K: int, strip: int) -> GramFile:
    """A new file with nothing done. Raises StorageError."""
    with replaced(path) as partial, open_hdf5(partial, "w", libver="latest") as file:
        file.attrs.update({"format": FORMAT, "version": VERSION, "made_from": mark.text, "strip": strip})
        add_token(file)
        allocate(file, "gram", (K, K), np.float64)
        allocate(file, "done", (-(-K // strip),), np.uint8)
    made = open_gram(path, mark)
    assert made is not None
    return made


def make_gram(G: Similarity, path: Path, mark: Mark, strip: int, grid: ProcessGrid, world: World) -> GramFile:
    """G'G in the file at ``path``: what is there already is kept. Collective.

    Raises Stopped, on all ranks, when a signal asked for it between two strips.
    """
    file = world.on_root(lambda: open_gram(path, mark) or create_gram(path, mark, G.K, strip))
    left = np.flatnonzero(file.done == 0).tolist()
    if len(left) < file.done.size:
        world.log.info(f"stage 1: {file.done.size - len(left)} of {file.done.size} strips are in {path}")
    progress = world.progress("stage 1, G'G", sum(file.K - k * file.strip for k in left), "rows of strips")
    finished = 0
    for k in left:
        first, last = k * file.strip, min((k + 1) * file.strip, file.K)
        A_grid = strip_product(G, first, last, grid, world)
        with world.phase("write G'G") as writing:
            writing.nbytes += _save_strip(A_grid, file, first)
            world.comm.Barrier()
            world.on_root(functools.partial(_mark_done, file, k))
        finished += file.K - first
        progress.at(finished)
        world.raise_if_stopped()
    return world.on_root(lambda: _complete(file, mark))


def _complete(file: GramFile, mark: Mark) -> GramFile:
    """The file opened anew, with all of it done."""
    file.own.check()
    found = open_gram(file.path, mark)
    assert found is not None
    return found


def strip_product(G: Similarity, first: int, last: int, grid: ProcessGrid, world: World) -> GridMatrix:
    """Columns first..last of G'G from row ``first`` on, (K-first) x (last-first) [MC,MR], float64."""
    block = grid_block(G.K, grid.shape)
    layout = GridLayout.of((G.K - first, last - first), (block, block), grid.shape)
    A_grid = GridMatrix(grid, layout)
    rows, cols = first + A_grid.row_indices, first + A_grid.col_indices
    D_cols, D_rows = (np.empty((G.n, width), dtype=G.dtype, order="F") for width in (cols.size, min(PANEL, rows.size)))
    with world.phase("decode", nbytes=G.n * cols.size / 4):
        G.decode(cols, D_cols)
    total = G.n * G.off_center[cols]  # D'1: missing genotypes count as the mean
    for start in range(0, rows.size, PANEL):
        part = rows[start : start + PANEL]
        D = D_rows[:, : part.size]
        with world.phase("decode", nbytes=G.n * part.size / 4):
            G.decode(part, D)
        with world.phase("G'G", flop=2.0 * G.n * part.size * cols.size):
            A = G.correct(D.T @ D_cols, part, total)
            A_grid.local[start : start + part.size] = A / G.sd[cols]
    return A_grid


def _save_strip(A_grid: GridMatrix, file: GramFile, first: int) -> int:
    """The columns of the strip to their places, synced. Collective; returns this rank's bytes."""
    with together(A_grid.grid.comm):
        file.own.check()
    nbytes = save_columns(
        A_grid,
        file.path,
        lambda j: file.offset + 8 * file.K * (first + j),
        # whole rows of the file, because neighbouring columns are written together
        lambda column, j: np.concatenate([np.zeros(first), column]).astype("<f8"),
    )
    with together(A_grid.grid.comm):
        sync(file.path)
    return nbytes


def _mark_done(file: GramFile, strip: int) -> None:
    with writing(file.path), file.own.open("r+b") as out:
        out.seek(file.done_offset + strip)
        out.write(b"\x01")
        out.flush()
        os.fsync(out.fileno())
