"""mpgls eigen: Phi = Z diag(lam) Z' on the process grid, once, for many later scans ([Elem] Algorithm 4, line 1)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mpgls.commands.common.session import RunOptions, Session
from mpgls.errors import InputError, MemoryPlanError, UsageError
from mpgls.la import eigen
from mpgls.la.grid import ProcessGrid
from mpgls.la.layout import grid_shape
from mpgls.la.matrix import GridMatrix
from mpgls.mpi import on_root
from mpgls.run.identity import file_identity
from mpgls.run.plan import GIB, grid_block
from mpgls.stream.eigen_file import create_eigen_file
from mpgls.stream.kinship_grid import center, load_kinship, save_columns, scale_to_unit_diagonal
from mpgls.study.grm import Kinship, open_kinship
from mpgls.study.tables import read_id_list

if TYPE_CHECKING:
    from mpi4py import MPI


@dataclass(frozen=True)
class EigenConfig:
    """Options of ``mpgls eigen``."""

    run: RunOptions
    grm: str
    grm_id: str | None = None
    keep: str | None = None
    remove: str | None = None
    center_grm: bool = False
    solver: str = "auto"
    slepc_options: str = ""
    eigenpairs: int | None = None

    def __post_init__(self) -> None:
        if self.solver not in eigen.SOLVERS:
            raise UsageError(f"--eigensolver must be one of {', '.join(eigen.SOLVERS)}, not {self.solver}")
        if self.eigenpairs is not None and self.eigenpairs < 1:
            raise UsageError(f"--eigenpairs must be at least 1, not {self.eigenpairs}")

    def inputs(self) -> list[str]:
        """Files that the command reads, as they are named on the command line."""
        return [name for name in (self.grm, self.grm_id, self.keep, self.remove) if name is not None]


def run(config: EigenConfig, comm: MPI.Comm) -> None:
    """Decompose a kinship and write the pairs. Collective. Raises MpglsError, the same on all ranks."""
    session = Session("eigen", config.run, comm, (".h5", ".pcs.tsv"), config.inputs())
    log, timings = session.log, session.timings
    kinship = on_root(comm, lambda: open_kinship(config.grm, config.grm_id))
    index = on_root(comm, lambda: chosen_samples(kinship, config))
    n = index.size
    check_memory(n, kinship.packed_lower, session)
    with ProcessGrid(comm) as grid:
        Phi_grid = GridMatrix.square(grid, n, grid_block(n, grid.shape))
        with timings.phase("load kinship") as loading:
            loading.nbytes += load_kinship(Phi_grid, kinship, index)
            if config.center_grm:
                center(Phi_grid)
            mean = scale_to_unit_diagonal(Phi_grid)
        log.info(f"n = {n:,}; kinship divided by its mean diagonal, {mean:.8g}")
        facts: dict[str, Any] = {"n": n, "mean_diagonal": mean}
        ids = [kinship.ids[i] for i in index]
        identity = on_root(comm, lambda: {"files": [file_identity(path) for path in kinship.files]})
        if config.eigenpairs is not None:
            facts |= write_leading(config, Phi_grid, mean, ids, identity, session)
        else:
            with timings.phase("eigendecomposition", flop=9.0 * n**3 / comm.size):
                pairs = eigen.eigh(Phi_grid, config.solver, config.slepc_options)
            log.info(
                f"{pairs.how}: eigenvalues {pairs.lam[0]:.6g} to {pairs.lam[-1]:.6g}; scaled residual "
                f"{pairs.residual:.2g}, orthogonality {pairs.orthogonality:.2g} (both below {eigen.THRESHOLD:g})"
            )
            facts |= {"solver": pairs.how, "residual": pairs.residual, "orthogonality": pairs.orthogonality}
            with timings.phase("write", nbytes=8.0 * n * n / comm.size):
                write(session, pairs, mean, ids, identity)
    session.finish(facts)


def chosen_samples(kinship: Kinship, config: EigenConfig) -> np.ndarray:
    """Positions in the kinship of the samples that --keep and --remove leave, in the kinship's order."""
    keep = set(read_id_list(config.keep)) if config.keep else None
    remove = set(read_id_list(config.remove)) if config.remove else set()
    chosen = [i for i, name in enumerate(kinship.ids) if (keep is None or name in keep) and name not in remove]
    if not chosen:
        raise InputError(f"no sample of {config.grm} is left after --keep and --remove")
    return np.array(chosen, dtype=np.int64)


def check_memory(n: int, packed: bool, session: Session) -> None:
    """Phi, Z and the solver's workspace of two more copies must fit. Raises MemoryPlanError."""
    machine = session.machine()
    need = machine.base + (4 + packed) * 8 * n * n // machine.ranks
    p_r, p_c = grid_shape(machine.ranks)
    session.log.info(f"plan: a {p_r} x {p_c} grid, at most {need / GIB:.2f} GiB a rank")
    if machine.limit is not None and need > machine.limit:
        ranks = -(-machine.ranks * (need - machine.base) // max(1, machine.limit - machine.base))
        raise MemoryPlanError(
            f"the eigendecomposition of {n:,} samples needs {need / GIB:.2f} GiB a rank, --memory allows "
            f"{machine.limit / GIB:.2f}: use at least {ranks} ranks with as much memory each"
        )


def write(
    session: Session,
    pairs: eigen.Eigenpairs,
    mean: float,
    ids: list[tuple[str, str]],
    identity: dict[str, Any],
) -> None:
    """All pairs into PREFIX.h5, which gets its name when it is complete. Collective."""
    comm, partial = session.comm, session.path(".h5.partial")
    attributes = {"solver": pairs.how, "mean_diagonal": mean, "kinship": identity}
    offset = on_root(comm, lambda: create_eigen_file(partial, pairs.lam, ids, attributes))
    save_columns(pairs.Z_grid, partial, lambda i: offset + 8 * len(ids) * i, lambda column, i: column.astype("<f8"))
    on_root(comm, lambda: os.replace(partial, session.path(".h5")))


def write_leading(
    config: EigenConfig,
    Phi_grid: GridMatrix,
    mean: float,
    ids: list[tuple[str, str]],
    identity: dict[str, Any],
    session: Session,
) -> dict[str, Any]:
    """The leading pairs by Krylov-Schur: PREFIX.h5, and PREFIX.pcs.tsv, a covariate table with one column a vector."""
    k = min(config.eigenpairs or 1, len(ids))
    with session.timings.phase("eigendecomposition"):
        lam, Z_rep = eigen.leading_eigenpairs(Phi_grid, k, config.slepc_options)

    def save() -> None:
        attributes = {"solver": "SLEPc EPS krylovschur", "mean_diagonal": mean, "kinship": identity}
        path, partial = session.path(".h5"), session.path(".h5.partial")
        offset = create_eigen_file(partial, lam[::-1], ids, attributes)
        with open(partial, "r+b") as file:
            file.seek(offset)
            file.write(np.ascontiguousarray(Z_rep[:, ::-1].T).tobytes())
        os.replace(partial, path)
        table = session.path(".pcs.tsv.partial")
        write_pcs(table, ids, Z_rep)
        os.replace(table, session.path(".pcs.tsv"))

    on_root(session.comm, save)
    session.log.info(f"{k} leading eigenvalues: {', '.join(f'{value:.6g}' for value in lam)}")
    return {"solver": "SLEPc EPS krylovschur", "eigenvalues": lam.tolist()}


def write_pcs(path: os.PathLike[str], ids: list[tuple[str, str]], Z_rep: np.ndarray) -> None:
    """Principal components as a covariate table: FID IID PC1 PC2 ..."""
    with open(path, "w", encoding="utf-8") as file:
        file.write("\t".join(["FID", "IID", *(f"PC{i + 1}" for i in range(Z_rep.shape[1]))]) + "\n")
        for (fid, iid), row in zip(ids, Z_rep, strict=True):
            file.write("\t".join([fid, iid, *(f"{value:.17g}" for value in row)]) + "\n")
