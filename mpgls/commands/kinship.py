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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mpgls.commands.common.inputs import Study, StudyOptions, open_study
from mpgls.commands.common.session import RunOptions, Session
from mpgls.engine.genotype_blocks import GenotypeBlocks
from mpgls.engine.kinship_sums import chromosome_sums, save_square
from mpgls.errors import InputError, UsageError
from mpgls.la.grid import ProcessGrid
from mpgls.la.layout import GridLayout, grid_shape
from mpgls.la.matrix import GridMatrix
from mpgls.mpi import on_root
from mpgls.run.plan import GIB, WIDEST, does_not_fit, grid_block
from mpgls.run.world import World
from mpgls.stream.hdf5 import check_room
from mpgls.engine.kinship_grid import save_columns, trace
from mpgls.study.chromosomes import Chromosomes, chromosomes_of
from mpgls.study.grm import write_grm_id
from mpgls.study.kinship_h5 import KinshipH5, create_kinship_h5, finish_kinship_h5, read_kinship_h5
from mpgls.study.snp_keys import keys_of
from mpgls.study.tables import SampleId

if TYPE_CHECKING:
    from mpi4py import MPI

METHODS = ("centered", "standardized")


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
    genotypes = GenotypeBlocks(study.fileset.bed, study.samples, index, config.study.snps, block)
    session.stop.advice = "run the same command again"
    world = World(comm, session.log, session.timings, session.stop)
    with ProcessGrid(comm) as grid:
        file = create(config, study, chromosomes, session)
        K_grid = GridMatrix.square(grid, study.samples.size, grid_block(study.samples.size, grid.shape))
        S_grid = GridMatrix(grid, K_grid.layout) if config.loco else K_grid
        used = []
        for c, of_chromosome in chromosome_sums(S_grid, genotypes, chromosomes, config.method == "standardized", world):
            used.append(of_chromosome)
            if config.loco:
                with world.phase("write", nbytes=S_grid.local.nbytes):
                    save_square(S_grid, file.path, file.sums[c].offset)
                K_grid.local += S_grid.local
        counted = np.sort(np.concatenate(used))
        if counted.size == 0:
            on_root(comm, lambda: os.unlink(file.path))
            raise InputError("no SNP is left after the filters: the kinship would be empty")
        K_grid.local /= counted.size
        mean = trace(K_grid) / study.samples.size
        session.log.info(f"{counted.size:,} SNPs used; mean diagonal {mean:.8f}")
        snps_of = [one.size for one in used[: len(file.sums)]]
        files = write(K_grid, study, file, index[counted], snps_of, config, session)
    facts = {
        "method": config.method, "snps": counted.size, "n": study.samples.size, "mean_diagonal": mean, "files": files,
    }  # fmt: skip
    loco = dict(zip(chromosomes.labels, snps_of, strict=True)) if config.loco else None
    session.finish(facts | {"loco": loco})


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
