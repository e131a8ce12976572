"""mpgls kinship: the n x n relationship matrix from genotypes, streamed and accumulated on the process grid.

    K = 1/m sum_k x_k x_k'        x_k a SNP, centred by its mean ("centered"), and
                                  divided by its standard deviation ("standardized")

Every block of SNPs is read once, by one rank, and travels packed (2 bits a genotype) to all others; each decodes the
rows and the columns of its own part of K and adds one local matrix product.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mpgls.commands.inputs import Study, StudyOptions, open_study, read_snps
from mpgls.commands.plan_scan import WIDEST, grid_block
from mpgls.commands.session import RunOptions, Session
from mpgls.errors import InputError, MemoryPlanError, UsageError, agree, on_root
from mpgls.la.grid import ProcessGrid
from mpgls.la.layout import GridLayout, grid_shape
from mpgls.la.matrix import GridMatrix
from mpgls.runtime import GIB, Progress
from mpgls.stream.kinship_grid import keep_lower, mirror, save_columns, trace
from mpgls.study.filters import passes
from mpgls.study.genotypes import Decoder
from mpgls.study.grm import create_kinship_h5, write_grm_id

if TYPE_CHECKING:
    from mpi4py import MPI

METHODS = ("centered", "standardized")
STRIPS = 16
"""Column strips of the local product; above the diagonal a strip is cut off, which saves almost half."""


@dataclass(frozen=True)
class KinshipConfig:
    """Options of ``mpgls kinship``."""

    run: RunOptions
    study: StudyOptions
    method: str = "centered"
    grm_bin: bool = False
    block_size: int | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(f"--method must be one of {', '.join(METHODS)}, not {self.method}")
        if self.block_size is not None and self.block_size < 1:
            raise UsageError(f"--block-size must be at least 1, not {self.block_size}")


def run(config: KinshipConfig, comm: MPI.Comm) -> None:
    """Compute and write the kinship. Collective over ``comm``. Raises MpglsError, the same on all ranks."""
    suffixes = (".h5", ".grm.bin", ".grm.id", ".grm.N.bin")
    session = Session("kinship", config.run, comm, suffixes, config.study.files())
    with session.timings.phase("open and check"):
        study = open_study(config.study, comm, session.log, traits=False)
    rows = study.samples
    block = _plan(config, study, rows.size, session)
    with ProcessGrid(comm) as grid:
        K_grid = GridMatrix.square(grid, rows.size, grid_block(rows.size, grid.shape))
        used = accumulate(K_grid, study, rows, config, block, session)
        if used == 0:
            raise InputError("no SNP is left after the filters: the kinship would be empty")
        K_grid.local /= used
        keep_lower(K_grid)
        mirror(K_grid)
        mean = trace(K_grid) / rows.size
        session.log.info(f"{used:,} SNPs used; mean diagonal {mean:.8f}")
        files = write(K_grid, study, rows, used, config, session)
    session.finish({"method": config.method, "snps": used, "n": rows.size, "mean_diagonal": mean, "files": files})


def accumulate(
    K_grid: GridMatrix, study: Study, rows: np.ndarray, config: KinshipConfig, block: int, session: Session
) -> int:
    """K += X X' over all selected SNPs, lower triangle; returns how many SNPs passed the filters. Collective."""
    grid, timings, bed = K_grid.grid, session.timings, study.fileset.bed
    comm = grid.comm
    # the same samples twice: as the rows and as the columns of this rank's part of K
    row_decoder = Decoder(bed.n, [rows[K_grid.row_indices]], np.float64)
    col_decoder = Decoder(bed.n, [rows[K_grid.col_indices]], np.float64)
    whole = Decoder(bed.n, [rows], np.float64)
    X_rows, X_cols = (
        np.empty((indices.size, block), order="F") for indices in (K_grid.row_indices, K_grid.col_indices)
    )
    strips = list(lower_strips(K_grid))
    flop = sum(2.0 * (K_grid.local.shape[0] - first) * (strip.stop - strip.start) for first, strip in strips)
    progress = Progress(session.log, "kinship", study.selected, "SNPs")
    used = done = 0
    for packed in every_block(study, block, comm, session):
        with timings.phase("decode", nbytes=packed.size):
            stats = whole.stats(packed)
            scale = passes(stats, config.study.snps).astype(np.float64)
            scale[stats.monomorphic] = 0.0
            used += int(scale.sum())
            if config.method == "standardized":
                scale = np.divide(scale, np.sqrt(stats.variance), out=np.zeros_like(scale), where=scale > 0)
            B = packed.shape[0]
            row_decoder.decode(packed, [X_rows[:, :B]], stats)
            col_decoder.decode(packed, [X_cols[:, :B]], stats)
            X_rows[:, :B] *= scale * (scale if config.method == "standardized" else 1.0)
        with timings.phase("product", flop=flop * B):
            for first, strip in strips:
                K_grid.local[first:, strip] += X_rows[first:, :B] @ X_cols[strip, :B].T
        done += B
        progress.at(done)
    return used


def every_block(study: Study, block: int, comm: MPI.Comm, session: Session) -> Iterator[np.ndarray]:
    """The packed genotypes of all selected SNPs, block by block, on every rank; each block is read by one rank."""
    selection = comm.bcast(study.selection.index if study.selection is not None else None, root=0)
    blocks = [selection[start : start + block] for start in range(0, selection.size, block)]
    stream = iter(read_snps(study.fileset.bed, blocks[comm.rank :: comm.size], comm))
    buffer = np.empty((block, study.fileset.bed.snp_bytes), dtype=np.uint8)
    for k, wanted in enumerate(blocks):
        packed, error = buffer[: wanted.size], None
        with session.timings.phase("read and share", nbytes=packed.size / comm.size):
            if k % comm.size == comm.rank:
                try:
                    packed[...] = next(stream)[1]
                except Exception as caught:
                    error = caught
            agree(comm, error or session.stop.problem("run the same command again"))
            comm.Bcast(packed, root=k % comm.size)
        yield packed


def lower_strips(K_grid: GridMatrix) -> Iterator[tuple[int, slice]]:
    """Strips of local columns with the first local row on or below the diagonal of the strip's first column."""
    width = max(1, -(-K_grid.col_indices.size // STRIPS))
    for start in range(0, K_grid.col_indices.size, width):
        strip = slice(start, min(start + width, K_grid.col_indices.size))
        yield int(np.searchsorted(K_grid.row_indices, K_grid.col_indices[start])), strip


def write(
    K_grid: GridMatrix, study: Study, rows: np.ndarray, used: int, config: KinshipConfig, session: Session
) -> list[str]:
    """Write the kinship as mpgls HDF5 and, if asked, as GCTA's three files; each gets its name when complete."""
    n, comm = rows.size, K_grid.grid.comm
    all_ids = study.fileset.samples.ids()
    ids = [all_ids[row] for row in rows]
    files = [str(session.path(".h5"))]
    partial = session.path(".h5.partial")
    attributes = {"method": config.method, "snps": used}
    with session.timings.phase("write", nbytes=8.0 * n * n / comm.size):
        offset = on_root(comm, lambda: create_kinship_h5(partial, ids, attributes))
        save_columns(K_grid, partial, lambda i: offset + 8 * n * i, lambda row, i: row.astype("<f8"))
        on_root(comm, lambda: os.replace(partial, files[0]))
    if config.grm_bin:
        files += _write_gcta(K_grid, ids, used, session)
    session.log.info(f"kinship of {n:,} samples: {', '.join(files)}")
    return files


def _write_gcta(K_grid: GridMatrix, ids: list[tuple[str, str]], used: int, session: Session) -> list[str]:
    """PREFIX.grm.bin, the lower triangle row by row in float32; PREFIX.grm.N.bin, the number of SNPs; PREFIX.grm.id."""
    comm, n = K_grid.grid.comm, len(ids)
    prefix = str(session.path(""))
    with session.timings.phase("write", nbytes=4.0 * n * (n + 1) / comm.size):
        for suffix, make in (
            (".grm.bin", lambda row, i: row[: i + 1].astype("<f4")),
            (".grm.N.bin", lambda row, i: np.full(i + 1, used, dtype="<f4")),
        ):
            partial = Path(prefix + suffix + ".partial")
            on_root(comm, functools.partial(partial.write_bytes, b""))
            save_columns(K_grid, partial, lambda i: 2 * i * (i + 1), make)
            on_root(comm, functools.partial(os.replace, partial, prefix + suffix))
        on_root(comm, lambda: write_grm_id(prefix, ids))
    return [prefix + suffix for suffix in (".grm.bin", ".grm.id", ".grm.N.bin")]


def _plan(config: KinshipConfig, study: Study, n: int, session: Session) -> int:
    """SNPs of a block, so that K, its mirrored copy and the decoded rows and columns fit the memory allowed."""
    machine = session.machine()
    p_r, p_c = grid_shape(machine.ranks)
    rows, cols = GridLayout.of((n, n), (grid_block(n, (p_r, p_c)),) * 2, (p_r, p_c)).local_shape(0, 0)
    fixed = machine.base + 2 * 8 * rows * cols + (16 << 20)
    per_snp = 8 * (rows + cols) + 4 * study.fileset.bed.snp_bytes
    block = config.block_size or max(1, min(WIDEST, study.selected))
    while machine.limit and fixed + block * per_snp > machine.limit and block > 32 and not config.block_size:
        block //= 2
    need = fixed + block * per_snp
    session.log.info(f"plan: a {p_r} x {p_c} grid, blocks of {block} SNPs, at most {need / GIB:.2f} GiB a rank")
    if machine.limit and need > machine.limit:
        short = f"the kinship needs {need / GIB:.2f} GiB a rank, --memory allows {machine.limit / GIB:.2f}"
        if machine.limit <= machine.base:
            raise MemoryPlanError(f"{short}: the program alone takes {machine.base / GIB:.2f} GiB")
        ranks = -(-machine.ranks * (need - machine.base) // (machine.limit - machine.base))
        raise MemoryPlanError(
            f"{short}: use at least {ranks} ranks with as much memory each, or --memory {need / GIB * 1.02:.2f}"
        )
    return block
