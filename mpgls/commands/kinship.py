"""mpgls kinship: the n x n relationship matrix from genotypes, streamed and accumulated on the process grid.

    S_c = sum_k x_k x_k'          over the SNPs k of chromosome c; all of them are one without --loco
    K   = 1/m sum_c S_c           x_k a SNP, centred by its mean ("centered"), and
                                  divided by its standard deviation ("standardized")

Every block of SNPs is read once, by one rank, and travels packed (2 bits a genotype) to all others; each decodes the
rows and the columns of its own part of S_c and adds one local matrix product. With --loco S_c is kept in the file, so
that K without a chromosome is (m K - S_c) / (m - m_c); at any time one S_c is in memory.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mpgls.commands.common.inputs import Study, StudyOptions, open_study, read_snps
from mpgls.commands.common.session import RunOptions, Session
from mpgls.errors import InputError, UsageError
from mpgls.la.grid import ProcessGrid
from mpgls.la.layout import GridLayout, grid_shape
from mpgls.la.matrix import GridMatrix
from mpgls.mpi import agree, on_root
from mpgls.run.clock import Clock
from mpgls.run.log import Progress
from mpgls.run.plan import GIB, WIDEST, does_not_fit, grid_block
from mpgls.stream.hdf5 import check_room
from mpgls.stream.kinship_grid import keep_lower, mirror, save_columns, trace
from mpgls.study.chromosomes import Chromosomes, chromosomes_of
from mpgls.study.filters import passes
from mpgls.study.genotypes import Decoder
from mpgls.study.grm import write_grm_id
from mpgls.study.kinship_h5 import KinshipH5, create_kinship_h5, finish_kinship_h5, read_kinship_h5
from mpgls.study.snp_keys import keys_of
from mpgls.study.tables import SampleId

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
    loco: bool = False
    block_size: int | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(f"--method must be one of {', '.join(METHODS)}, not {self.method}")
        if self.block_size is not None and self.block_size < 1:
            raise UsageError(f"--block-size must be at least 1, not {self.block_size}")


def run(config: KinshipConfig, comm: MPI.Comm) -> None:
    """Compute and write the kinship. Collective over ``comm``. Raises MpglsError, the same on all ranks."""
    suffixes = (".h5", ".h5.partial", ".grm.bin", ".grm.id", ".grm.N.bin")
    session = Session("kinship", config.run, comm, suffixes, config.study.files())
    with session.timings.phase("open and check"):
        study = open_study(config.study, comm, session.log, traits=False)
        index = comm.bcast(study.selection.index if study.selection is not None else None, root=0)
        chromosomes = on_root(comm, lambda: _chromosomes(config, study, index))
    block = _plan(config, study, chromosomes, session)
    with ProcessGrid(comm) as grid:
        file = create(config, study, chromosomes, session)
        K_grid = GridMatrix.square(grid, study.samples.size, grid_block(study.samples.size, grid.shape))
        counted = accumulate(K_grid, study, index, chromosomes, file, config, block, session)
        used = int(counted.sum())
        if used == 0:
            on_root(comm, lambda: os.unlink(file.path))
            raise InputError("no SNP is left after the filters: the kinship would be empty")
        K_grid.local /= used
        mean = trace(K_grid) / study.samples.size
        session.log.info(f"{used:,} SNPs used; mean diagonal {mean:.8f}")
        snps_of = [int(counted[chromosomes.positions(c)].sum()) for c in range(len(file.sums))]
        files = write(K_grid, study, file, index[counted], snps_of, config, session)
    facts = {"method": config.method, "snps": used, "n": study.samples.size, "mean_diagonal": mean, "files": files}
    loco = dict(zip(chromosomes.labels, snps_of, strict=True)) if config.loco else None
    session.finish(facts | {"loco": loco})


def accumulate(
    K_grid: GridMatrix,
    study: Study,
    index: np.ndarray,
    chromosomes: Chromosomes,
    file: KinshipH5,
    config: KinshipConfig,
    block: int,
    session: Session,
) -> np.ndarray:
    """K = sum_c S_c over the .bim rows ``index``, chromosome by chromosome, symmetric; S_c goes to the file if asked.

    Returns which SNPs passed the filters, (m,) bool. Collective.
    """
    S_grid = GridMatrix(K_grid.grid, K_grid.layout) if file.sums else K_grid
    products = OuterProducts(S_grid, study, config, block, session.timings)
    groups = [chromosomes.positions(c) for c in range(len(chromosomes.labels))]
    cut = [[group[start : start + block] for start in range(0, group.size, block)] for group in groups]
    stream = every_block(study, [index[snps] for blocks in cut for snps in blocks], K_grid.grid.comm, session)
    progress = Progress(session.log, "kinship", index.size, "SNPs")
    counted = np.zeros(index.size, dtype=bool)
    done = 0
    for c, blocks in enumerate(cut):
        for snps in blocks:
            counted[snps] = products.add(next(stream))
            done += snps.size
            progress.at(done)
        keep_lower(S_grid)
        mirror(S_grid)
        if file.sums:
            with session.timings.phase("write", nbytes=S_grid.local.nbytes):
                save_square(S_grid, file.path, file.sums[c].offset)
            K_grid.local += S_grid.local
            S_grid.local[...] = 0.0
    return counted


class OuterProducts:
    """S += X X' for blocks of packed SNPs: the lower triangle, and of the rest what lies in the same strips."""

    def __init__(self, S_grid: GridMatrix, study: Study, config: KinshipConfig, block: int, timings: Clock) -> None:
        self.S_grid, self.timings, self.filter = S_grid, timings, config.study.snps
        self.standardized = config.method == "standardized"
        bed, samples = study.fileset.bed, study.samples
        sides = S_grid.row_indices, S_grid.col_indices
        # the same samples twice: as the rows and as the columns of this rank's part of S
        self._row_decoder, self._col_decoder = (Decoder(bed.n, [samples[side]], np.float64) for side in sides)
        self._whole = Decoder(bed.n, [samples], np.float64)
        self._X_rows, self._X_cols = (np.empty((side.size, block), order="F") for side in sides)
        self._strips = list(lower_strips(S_grid))
        self._flop = sum(
            2.0 * (S_grid.local.shape[0] - first) * (strip.stop - strip.start) for first, strip in self._strips
        )

    def add(self, packed: np.ndarray) -> np.ndarray:
        """Add the SNPs ``packed`` (B, snp_bytes) that pass the filters and vary; returns which, (B,) bool."""
        B = packed.shape[0]
        X_rows, X_cols = self._X_rows[:, :B], self._X_cols[:, :B]
        with self.timings.phase("decode", nbytes=packed.size):
            stats = self._whole.stats(packed)
            counted = passes(stats, self.filter) & ~stats.monomorphic
            scale = counted.astype(np.float64)
            if self.standardized:
                np.divide(scale, stats.variance, out=scale, where=counted)
            self._row_decoder.decode(packed, [X_rows], stats)
            self._col_decoder.decode(packed, [X_cols], stats)
            X_rows *= scale
        with self.timings.phase("product", flop=self._flop * B):
            for first, strip in self._strips:
                self.S_grid.local[first:, strip] += X_rows[first:] @ X_cols[strip].T
        return counted


def every_block(study: Study, blocks: list[np.ndarray], comm: MPI.Comm, session: Session) -> Iterator[np.ndarray]:
    """The packed genotypes of ``blocks`` of .bim rows, one by one, on every rank; each block is read by one rank."""
    stream = iter(read_snps(study.fileset.bed, blocks[comm.rank :: comm.size], comm))
    buffer = np.empty((max(map(len, blocks)), study.fileset.bed.snp_bytes), dtype=np.uint8)
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


def create(config: KinshipConfig, study: Study, chromosomes: Chromosomes, session: Session) -> KinshipH5:
    """PREFIX.h5.partial without its numbers, with room for the sums of chromosomes if they are kept. Collective."""
    path, n = session.path(".h5.partial"), study.samples.size
    labels = chromosomes.labels if config.loco else ()

    def make() -> KinshipH5:
        check_room(path, 8 * n * n * (1 + len(labels)), f"the kinship and the sums of {len(labels)} chromosomes take")
        create_kinship_h5(path, _ids(study), {"method": config.method}, labels)
        return read_kinship_h5(str(path))

    return on_root(session.comm, make)


def write(
    K_grid: GridMatrix,
    study: Study,
    file: KinshipH5,
    index: np.ndarray,
    snps_of: list[int],
    config: KinshipConfig,
    session: Session,
) -> list[str]:
    """Complete the mpgls HDF5 and, if asked, write GCTA's three files; each gets its name when complete.

    ``index`` are the .bim rows of the SNPs that were used; ``snps_of`` their number on each chromosome. Collective.
    """
    n, comm = study.samples.size, K_grid.grid.comm
    files = [str(session.path(".h5"))]

    def complete() -> None:
        keys = [batch for _, batch in keys_of(study.fileset.variants, index)]
        finish_kinship_h5(file.path, snps_of, np.concatenate(keys), {"snps": index.size})
        os.replace(file.path, files[0])

    with session.timings.phase("write", nbytes=8.0 * n * n / comm.size):
        save_square(K_grid, file.path, file.offset)
        on_root(comm, complete)
    if config.grm_bin:
        files += _write_gcta(K_grid, _ids(study), index.size, session)
    session.log.info(f"kinship of {n:,} samples: {', '.join(files)}")
    return files


def save_square(A_grid: GridMatrix, path: str, offset: int) -> None:
    """Write a symmetric matrix, all n x n float64, at byte ``offset`` of an existing file. Collective."""
    n = A_grid.shape[0]
    save_columns(A_grid, path, lambda i: offset + 8 * n * i, lambda row, i: row.astype("<f8"))


def _ids(study: Study) -> list[SampleId]:
    ids = study.fileset.samples.ids()
    return [ids[row] for row in study.samples]


def _chromosomes(config: KinshipConfig, study: Study, index: np.ndarray) -> Chromosomes:
    return chromosomes_of(study.fileset.variants, index) if config.loco else Chromosomes.together(index.size)


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


def _plan(config: KinshipConfig, study: Study, chromosomes: Chromosomes, session: Session) -> int:
    """SNPs of a block, so that K, its mirrored copy and the decoded rows and columns fit the memory allowed.

    With --loco S_c is a third matrix beside K.
    """
    machine, n = session.machine(), study.samples.size
    p_r, p_c = grid_shape(machine.ranks)
    rows, cols = GridLayout.of((n, n), (grid_block(n, (p_r, p_c)),) * 2, (p_r, p_c)).local_shape(0, 0)
    fixed = machine.base + (2 + config.loco) * 8 * rows * cols + (16 << 20)
    per_snp = 8 * (rows + cols) + 4 * study.fileset.bed.snp_bytes
    block = max(1, min(config.block_size or WIDEST, study.selected))
    while machine.limit and fixed + block * per_snp > machine.limit and block > 32 and not config.block_size:
        block //= 2
    need = fixed + block * per_snp
    session.log.info(f"plan: a {p_r} x {p_c} grid, blocks of {block} SNPs, at most {need / GIB:.2f} GiB a rank")
    if config.loco:
        C = len(chromosomes.labels)
        session.log.info(
            f"plan: leave one chromosome out: sums of {C} chromosomes in the file, one at a time in memory; the file "
            f"takes {8 * n * n * (C + 1) / GIB:.2f} GiB"
        )
    if machine.limit and need > machine.limit:
        raise does_not_fit(machine, "the kinship", need, spreads=True)
    return block
