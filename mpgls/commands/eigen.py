"""mpgls eigen: Phi = Z diag(lam) Z' on the process grid, once, for many later scans ([Elem] Algorithm 4, line 1)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mpgls.engine.dry_run import dry_run
from mpgls.engine.eigenpairs import decompose, leading_pairs, save_pairs
from mpgls.engine.kinship_grid import center, load_kinship, scale_to_unit_diagonal
from mpgls.engine.kinship_plan import plan_eigen
from mpgls.errors import InputError, UsageError
from mpgls.la.grid import ProcessGrid
from mpgls.la.matrix import GridMatrix
from mpgls.report.component_table import COMPONENT_BYTES, write_components
from mpgls.run.genotype_options import SampleOptions
from mpgls.run.inputs import say_tables
from mpgls.run.job import Job, open_job
from mpgls.run.option_groups import DryRunOptions, EigensolverOptions
from mpgls.run.options import at_least, option, required_here
from mpgls.run.plan import Machine, grid_block
from mpgls.run.results import Results
from mpgls.run.study_options import KinshipOptions
from mpgls.stream.eigen_file import write_eigen_file
from mpgls.study.grm import Kinship, open_kinship
from mpgls.study.sample_ids import SampleFilter

if TYPE_CHECKING:
    from mpi4py import MPI

    from mpgls.engine.cost import RunCost


@dataclass(frozen=True, kw_only=True)
class Eigen(SampleOptions, KinshipOptions, EigensolverOptions, DryRunOptions):
    """Options of ``mpgls eigen``."""

    command = "eigen"
    summary = "eigendecomposition of a kinship, once, for many later scans"
    example = "mpirun -n 4 mpgls eigen --grm mice_K.h5 --out mice_E"

    grm: str = required_here(KinshipOptions, "grm")
    eigenpairs: int | None = option(
        None,
        "only the K leading pairs, also as covariate table",
        group="kinship",
        metavar="K",
        check=at_least(1),
    )

    def check(self) -> None:
        super().check()
        if self.dry_run and self.eigenpairs is not None:
            raise UsageError("--dry-run knows what all eigenpairs cost, not how many steps --eigenpairs needs")


def run(options: Eigen, comm: MPI.Comm) -> Results:
    """Decompose a kinship and write the pairs. Collective. Raises MpglsError, the same on all ranks."""
    with open_job(options, comm, (".h5", ".pcs.tsv")) as job:
        if job.is_complete():
            return job.results()
        world = job.world
        with world.phase("open and check"):
            kinship = world.on_root(lambda: open_kinship(options.grm, options.grm_id))
            listed = world.on_root(lambda: SampleFilter.read(options.keep, options.remove, kinship.ids))
            say_tables(world.log, kinship.summary, *listed.summaries())
            index = chosen_samples(kinship, listed)
            job.identify()
            check_room(options, index.size, job)
            if options.dry_run:
                machine = job.machine()
                return dry_run(lambda at: cost_on(at, index.size, kinship.packed_lower), machine, options.rates, job)
            check_memory(index.size, kinship.packed_lower, job)
        with world.phase("eigenpairs"), ProcessGrid(comm) as grid:
            Phi_grid = GridMatrix.square(grid, index.size, grid_block(index.size, grid.shape))
            with world.phase("load kinship") as loading:
                loading.nbytes += load_kinship(Phi_grid, kinship, index)  # Phi_grid = Phi_cols
                if options.center_grm:
                    center(Phi_grid)
                mean = scale_to_unit_diagonal(Phi_grid, kinship.path)
            world.log.info(f"n = {index.size:,}; kinship divided by its mean diagonal, {mean:.8g}")
            ids = [kinship.ids[i] for i in index]
            about = {"mean_diagonal": mean, "kinship": {"files": of_kinship(job)}}
            write = write_all if options.eigenpairs is None else write_leading
            facts, tables = write(Phi_grid, ids, about, job, options)
        facts |= {"n": len(ids), "mean_diagonal": mean}
        return job.finish(facts, files=[job.path(".h5")], tables=tables)


def write_all(
    Phi_grid: GridMatrix, ids: list[tuple[str, str]], about: dict[str, Any], job: Job, options: Eigen
) -> tuple[dict[str, Any], dict[str, Path]]:
    """All pairs into PREFIX.h5. Collective. Returns facts for the manifest, and no table."""
    pairs = decompose(Phi_grid, options.eigensolver, options.slepc_options, job.world, "kinship")
    save_pairs(job.path(".h5"), pairs, ids, about, job.world)
    return {"solver": pairs.how, "residual": pairs.residual, "orthogonality": pairs.orthogonality}, {}


def write_leading(
    Phi_grid: GridMatrix, ids: list[tuple[str, str]], about: dict[str, Any], job: Job, options: Eigen
) -> tuple[dict[str, Any], dict[str, Path]]:
    """The leading pairs by Krylov-Schur: PREFIX.h5, and PREFIX.pcs.tsv, a covariate table. Collective.

    Returns facts for the manifest, and the table.
    """
    k, how = min(options.eigenpairs or 1, len(ids)), "SLEPc EPS krylovschur"
    lam, Z_rep = leading_pairs(Phi_grid, k, options.slepc_options, job.world)
    path, table = job.path(".h5"), job.path(".pcs.tsv")

    def save() -> None:
        write_eigen_file(path, lam[::-1], Z_rep.T[::-1], ids, {"solver": how, **about})
        write_components(table, ids, Z_rep)

    with job.world.phase("write"):
        job.world.on_root(save)
    return {"solver": how, "eigenvalues": lam.tolist()}, {"pcs": table}


def chosen_samples(kinship: Kinship, listed: SampleFilter) -> np.ndarray:
    """Positions in the kinship of the samples that --keep and --remove leave, in the kinship's order."""
    chosen = listed.rows(kinship.ids)
    if not chosen.size:
        raise InputError(f"no sample of {kinship.path} is left after --keep and --remove")
    return chosen


def check_room(options: Eigen, n: int, job: Job) -> None:
    """Z, or the leading pairs and their table, must have room. Raises StorageError."""
    if options.eigenpairs is None:
        job.check_room({".h5": 8 * n * n})
    else:
        k = min(options.eigenpairs, n)
        job.check_room({".h5": 8 * n * k, ".pcs.tsv": COMPONENT_BYTES * n * k})


def check_memory(n: int, packed: bool, job: Job) -> None:
    """Phi, Z and the solver's workspace of two more copies must fit. Raises MemoryPlanError."""
    machine = job.machine()
    job.world.log.info(plan_eigen(machine, n, packed).text(machine))


def cost_on(machine: Machine, n: int, packed: bool) -> RunCost:
    """What all eigenpairs cost. Raises MemoryPlanError."""
    from mpgls.engine.kinship_cost import eigen_cost

    return eigen_cost(machine, plan_eigen(machine, n, packed), n)


def of_kinship(job: Job) -> list[dict[str, Any]]:
    """What identifies the kinship's files."""
    return [one for one in job.identities if one["option"] == "--grm"]
