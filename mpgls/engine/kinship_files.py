"""A kinship on the process grid to its files, which get their names when they are complete."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from mpgls.engine.kinship_grid import save_columns, save_rows
from mpgls.la.matrix import GridMatrix
from mpgls.run.world import World
from mpgls.stream.files import replaced_by_all, writing
from mpgls.study.checked_rows import CheckedRows
from mpgls.study.grm import write_grm_id
from mpgls.study.kinship_h5 import KinshipH5, create_kinship_h5, finish_kinship_h5
from mpgls.study.snp_keys import keys_of
from mpgls.study.tables import SampleId
from mpgls.study.variants import VariantRows


class KinshipFile:
    """The mpgls HDF5 file ``path`` of a kinship by ``method``, with room for the sums of the chromosomes ``labels``.

    Making it and all methods are collective, saving a matrix over its grid; a ``with`` block that raises leaves nothing
    of it. Raises StorageError, on all ranks, where the file cannot be written.
    """

    def __init__(self, path: Path, ids: Sequence[SampleId], method: str, labels: Sequence[str], world: World) -> None:
        self.path, self.partial, self.world = path, path.with_name(path.name + ".partial"), world

        def make() -> KinshipH5:
            return create_kinship_h5(self.partial, ids, {"method": method}, labels)

        self._places = world.on_root(make)

    def save_sum(self, c: int, S_grid: GridMatrix) -> None:
        """Keep S_c, the sum of the chromosome ``labels[c]``."""
        self._save(S_grid, self._places.sums[c].rows)

    def save(self, K_grid: GridMatrix) -> None:
        """Keep K."""
        self._save(K_grid, self._places.rows)

    def complete(self, variants: VariantRows, index: np.ndarray, snps_of: Sequence[int]) -> None:
        """K was made of the .bim rows ``index``, ``snps_of[c]`` of them on each chromosome; the file is complete."""

        def finish() -> None:
            keys = [batch for _, batch in keys_of(variants, index)]
            finish_kinship_h5(self.partial, snps_of, np.concatenate(keys), {"snps": index.size})
            with writing(self.path):
                os.replace(self.partial, self.path)

        with self.world.phase("write"):
            self.world.on_root(finish)

    def _save(self, A_grid: GridMatrix, rows: CheckedRows) -> None:
        with self.world.phase("write", nbytes=A_grid.local.nbytes):
            save_rows(A_grid, rows)

    def __enter__(self) -> KinshipFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self.world.rank == 0:
            with contextlib.suppress(OSError):
                self.partial.unlink(missing_ok=True)


def write_gcta(
    prefix: str, K_grid: GridMatrix, counts: GridMatrix | int, ids: Sequence[SampleId], world: World
) -> list[Path]:
    """GCTA's files of a kinship, which are returned: PREFIX.grm.bin and .grm.N.bin, lower triangles, and .grm.id.

    ``counts`` are the SNPs of each pair, or of all. Collective. Raises StorageError on all ranks.
    """
    K_path, N_path = Path(f"{prefix}.grm.bin"), Path(f"{prefix}.grm.N.bin")
    with world.phase("write", nbytes=4.0 * K_grid.local.size):
        _write_triangle(K_path, K_grid, None, world)
        if isinstance(counts, int):
            _write_triangle(N_path, K_grid, counts, world)
        else:
            _write_triangle(N_path, counts, None, world)
        world.on_root(lambda: write_grm_id(prefix, ids))
    return [K_path, Path(f"{prefix}.grm.id"), N_path]


def _write_triangle(path: Path, A_grid: GridMatrix, value: int | None, world: World) -> None:
    """The lower triangle row by row in float32, or as many times ``value``."""

    def write(start: int, rows: np.ndarray) -> None:
        triangle = [row[: i + 1] for i, row in enumerate(rows, start)]
        numbers = np.concatenate(triangle) if value is None else np.full(sum(map(len, triangle)), value)
        with open(partial, "r+b") as file:
            file.seek(2 * start * (start + 1))
            file.write(numbers.astype("<f4").data)

    with replaced_by_all(world.comm, path) as partial:
        save_columns(A_grid, partial, write)
