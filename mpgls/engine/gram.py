"""Stage 1 of the low-rank model: G'G (K x K) on the process grid, strip by strip, kept in a file.

    for strips J of similarity SNPs:
        A_grid     = G_(J and after)' G_J       each process decodes its own rows' and columns' SNPs: no communication
        file[:, J] = A_grid                     then its checksums mark it as done

Only the lower triangle is computed. A run that was stopped goes on with the first strip that is not marked; a strip
that changed on disk is made again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mpgls.engine.kinship_grid import keep_lower, load_columns, mirror, save_columns
from mpgls.engine.similarity import Similarity
from mpgls.errors import InputError
from mpgls.la.grid import ProcessGrid
from mpgls.la.layout import GridLayout
from mpgls.la.matrix import GridMatrix
from mpgls.run.log import Log
from mpgls.run.plan import grid_block
from mpgls.run.world import World
from mpgls.stream.files import replaced, sync, writing
from mpgls.stream.hdf5 import STORE, allocate
from mpgls.stream.mark import Mark
from mpgls.stream.own_file import OwnFile, add_token
from mpgls.study.checked_rows import CheckedRows
from mpgls.study.checksums import ABSENT, SUM_DTYPE
from mpgls.study.hdf5 import check_seal, open_hdf5, seal

FORMAT, VERSION = "mpgls-gram", 3
_WITH_ROWS = ("gram", "sums")


@dataclass(frozen=True, eq=False)
class GramFile:
    """G'G on disk: row j of ``rows`` (K, K) holds column j from its diagonal on; ``strip`` of them are made at a time.

    ``sums`` (K,), as of the opening, are their checksums, `checksums.ABSENT` for one that is not done.
    """

    own: OwnFile
    strip: int
    rows: CheckedRows
    sums: np.ndarray

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.own.path

    @property
    def K(self) -> int:
        """Similarity SNPs."""
        return self.rows.width

    @property
    def done(self) -> np.ndarray:
        """bool (strips,)."""
        return np.logical_and.reduceat(self.sums != ABSENT, np.arange(0, self.K, self.strip))

    def read(self, start: int, stop: int) -> np.ndarray:
        """Columns start..stop of the lower triangle, as rows. Raises StorageError, InputError."""
        self.own.check()
        return self.rows.read(start, stop, lambda j, *_: f"column {j + 1:,} of G'G")

    def load(self, grid: ProcessGrid) -> GridMatrix:
        """G'G, both triangles, [MC,MR] on any grid. Collective over the grid."""
        GG_grid = GridMatrix.square(grid, self.K, grid_block(self.K, grid.shape))
        load_columns(GG_grid, self.read, self.K)
        keep_lower(GG_grid)
        mirror(GG_grid)
        return GG_grid


def find_gram(path: Path, mark: Mark, world: World) -> GramFile | None:
    """The file if it was made from the same (``mark``), otherwise None. Collective.

    A column that does not have its checksum is not done, and the log says so. Raises StorageError on all ranks.
    """
    file = world.on_root(lambda: _open(path, mark, world.log))
    if file is None:
        return None
    damaged: list[int] = []
    with world.together():
        for j in np.array_split(np.flatnonzero(file.sums != ABSENT), world.size)[world.rank].tolist():
            try:
                file.read(j, j + 1)
            except InputError:
                damaged.append(j)
    columns = np.array([j for of_rank in world.comm.allgather(damaged) for j in of_rank], dtype=np.int64)
    if columns.size:
        strips = ", ".join(str(k + 1) for k in np.unique(columns // file.strip))
        world.log.warn(f"{path} is damaged: strip {strips} of G'G is not what was written, and is made again")
        file.sums[columns] = ABSENT
    return file


def _open(path: Path, mark: Mark, log: Log) -> GramFile | None:
    if not path.exists():
        return None
    try:
        with open_hdf5(path, what=STORE) as file:
            if file.attrs.get("format") != FORMAT or file.attrs.get("made_from") != mark.text:
                return None
            if file.attrs.get("version") != VERSION:
                raise InputError("of another version")
            check_seal(file, path, *_WITH_ROWS)
            gram, sums = file["gram"], file["sums"]
            K, places = gram.shape[0], (gram.id.get_offset(), sums.id.get_offset())
            rows = CheckedRows(str(path), places[0], K, K, K, places[1])
            return GramFile(OwnFile.of(path, file), int(file.attrs["strip"]), rows, sums[0])
    except InputError:
        log.warn(f"{path} is damaged, or of another version of mpgls, and is made again")
        return None


def create_gram(path: Path, mark: Mark, K: int, strip: int, log: Log) -> GramFile:
    """A new file with nothing done. Call on one rank. Raises StorageError."""
    with replaced(path) as partial, open_hdf5(partial, "w", libver="latest") as file:
        file.attrs.update({"format": FORMAT, "version": VERSION, "made_from": mark.text, "strip": strip})
        add_token(file)
        allocate(file, "gram", (K, K), np.float64)
        allocate(file, "sums", (1, K), SUM_DTYPE)
        seal(file, *_WITH_ROWS)
    made = _open(path, mark, log)
    assert made is not None
    return made


def make_gram(G: Similarity, file: GramFile, mark: Mark, grid: ProcessGrid, world: World) -> GramFile:
    """G'G in the ``file``: what is there already is kept. Returns it with all of it done. Collective.

    Raises Stopped, on all ranks, when a signal asked for it between two strips.
    """
    left = np.flatnonzero(~file.done).tolist()
    if len(left) < file.done.size:
        world.log.info(f"stage 1: {file.done.size - len(left)} of {file.done.size} strips are in {file.path}")
    progress = world.progress("stage 1, G'G", sum(file.K - k * file.strip for k in left), "rows of strips")
    finished = 0
    for k in left:
        first, last = k * file.strip, min((k + 1) * file.strip, file.K)
        A_grid = strip_product(G, first, last, grid, world)
        with world.phase("write G'G", nbytes=A_grid.local.nbytes):
            _save_strip(A_grid, file, first, world)
        finished += file.K - first
        progress.at(finished)
        world.raise_if_stopped()
    return world.on_root(lambda: _complete(file, mark, world.log))


def _complete(file: GramFile, mark: Mark, log: Log) -> GramFile:
    """The file opened anew, with all of it done."""
    file.own.check()
    found = _open(file.path, mark, log)
    assert found is not None
    return found


def strip_product(G: Similarity, first: int, last: int, grid: ProcessGrid, world: World) -> GridMatrix:
    """Columns first..last of G'G from row ``first`` on, (K-first) x (last-first) [MC,MR], float64."""
    block = grid_block(G.K, grid.shape)
    layout = GridLayout.of((G.K - first, last - first), (block, block), grid.shape)
    A_grid = GridMatrix(grid, layout)
    rows, cols = first + A_grid.row_indices, first + A_grid.col_indices
    for here, A in G.gram(rows, cols, world):
        A_grid.local[here] = A
    return A_grid


def _save_strip(A_grid: GridMatrix, file: GramFile, first: int, world: World) -> None:
    """The columns of the strip to their places, synced, then their checksums. Collective; raises StorageError."""
    sums: list[tuple[int, np.ndarray]] = []

    def write(start: int, columns: np.ndarray) -> None:
        # whole rows of the file, because neighbouring columns are written together
        rows = np.hstack([np.zeros((len(columns), first)), columns])
        sums.append((first + start, file.rows.put(first + start, rows)))

    with world.together():
        file.own.check()
    save_columns(A_grid, file.path, write)
    with world.together(), writing(file.path):
        sync(file.path)
    of_ranks = world.comm.gather(sums) or []
    with world.together(), writing(file.path):
        for start, of_rows in (one for of_rank in of_ranks for one in of_rank):
            file.rows.mark(start, of_rows)
        sync(file.path)
