"""What the launcher says of this process before MPI is initialised."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from mpgls.errors import UsageError

if TYPE_CHECKING:
    from mpi4py import MPI

STEP = ("SLURM_STEP_ID", "SLURM_STEPID")
"""What a process of a Slurm step finds in its environment, a shell of ``srun --pty`` too."""
PMI = ("PMIX_RANK", "PMI_RANK", "PMI_FD", "OMPI_COMM_WORLD_SIZE", "OMPI_MCA_pmix")
"""One of these says how the ranks of a job find each other."""


def start_mpi() -> MPI.Comm:
    """MPI.COMM_WORLD, initialised.

    Open MPI takes a process in a Slurm step for one that srun started with PMI, and aborts without a word of ours when
    there is none. So a process alone hides the step from it; several are told what to do. Raises UsageError.
    """
    in_step = any(name in os.environ for name in STEP) and not any(name in os.environ for name in PMI)
    if in_step and launched_size() > 1 and _is_open_mpi():
        raise UsageError(
            f"srun started {launched_size()} tasks without PMI, so they cannot find each other: start with mpirun, or "
            "with srun --mpi=pmix"
        )
    hidden = {name: os.environ.pop(name) for name in STEP if in_step and name in os.environ}
    try:
        from mpi4py import MPI

        if not MPI.Is_initialized():
            MPI.Init_thread()
    finally:
        os.environ.update(hidden)
    return MPI.COMM_WORLD


def _is_open_mpi() -> bool:
    """Whether mpi4py's MPI is Open MPI, asked without initialising it."""
    import mpi4py

    mpi4py.rc.initialize, mpi4py.rc.finalize = False, True
    from mpi4py import MPI

    return MPI.get_vendor()[0] == "Open MPI"


def check_launcher(comm_size: int) -> str | None:
    """A sentence when the launcher started more ranks than COMM_WORLD holds: two MPIs that do not know each other."""
    ranks = launched_size()
    if ranks == 1 or comm_size > 1:
        return None
    return (
        f"the launcher started {ranks} ranks but MPI.COMM_WORLD holds 1: mpirun and the MPI library of mpi4py are "
        "different ones, so every rank would compute everything; start with the mpirun that belongs to mpi4py's MPI "
        "(see mpgls doctor)"
    )


def launched_size() -> int:
    """The number of ranks that the launcher started, known before MPI is initialised; 1 without a launcher."""
    for variable in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS", "SLURM_STEP_NUM_TASKS"):
        value = os.environ.get(variable, "")
        if value.isdigit() and int(value) > 1:
            return int(value)
    return 1


def launched_rank() -> int:
    """The rank that the launcher gave this process, known before MPI is initialised; 0 without a launcher."""
    for variable in ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK", "SLURM_PROCID"):
        value = os.environ.get(variable, "")
        if value.isdigit():
            return int(value)
    return 0
