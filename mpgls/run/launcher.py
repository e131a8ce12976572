"""What the launcher says of this process before MPI is initialised."""

from __future__ import annotations

import os


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
