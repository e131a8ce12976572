"""Starting a command under MPI, and ending all ranks together whatever happens on one of them."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from mpgls import cli
from mpgls.errors import MpglsError, UsageError, is_agreed
from mpgls.runtime import check_launcher, stderr

if TYPE_CHECKING:
    from mpi4py import MPI

INTERNAL_ERROR = 1


def main(argv: Sequence[str] | None = None) -> None:
    """The ``mpgls`` program; returns only by ``sys.exit`` or MPI_Abort."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    launched_rank = int(os.environ.get("OMPI_COMM_WORLD_RANK") or os.environ.get("PMI_RANK") or 0)
    try:
        command = cli.parse(arguments)
    except UsageError as error:  # before MPI: every rank sees the same command line
        if launched_rank == 0:
            stderr(f"mpgls: {error}")
        sys.exit(error.exit_code)
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    sys.excepthook = _abort_on_uncaught
    sys.exit(_run(command, comm, launched_rank))


def _run(command: cli.Command, comm: MPI.Comm, launched_rank: int) -> int:
    """Run the command; an error that all ranks agreed on ends in order, one that they did not ends the job."""
    try:
        problem = check_launcher(comm.size)
        if problem is not None and command.name != "doctor":
            raise UsageError(problem)
        command.run(comm)
        return 0
    except MpglsError as error:
        speaks = comm.rank == 0 and launched_rank == 0 if is_agreed(error) or comm.size == 1 else True
        if speaks:
            stderr(f"mpgls {command.name}: {error}")
        if comm.size > 1 and not is_agreed(error):
            _abort(comm, error.exit_code)
        return error.exit_code
    except MemoryError as error:
        stderr(f"mpgls {command.name}: rank {comm.rank} is out of memory ({error}); give --memory to plan within it")
        _abort(comm, 4)
        return 4


def _abort_on_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """An exception nobody expected: the traceback, then the end of every rank. The others would wait for ever."""
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    stderr(f"mpgls: rank {comm.rank} failed unexpectedly\n" + "".join(traceback.format_exception(kind, error, trace)))
    _abort(comm, INTERNAL_ERROR)


def _abort(comm: MPI.Comm, code: int) -> None:
    if comm.size > 1:
        comm.Abort(code)


if __name__ == "__main__":
    main()
