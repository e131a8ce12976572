"""Starting a command under MPI, and ending all ranks together whatever happens on one of them."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import time
import traceback
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn

from mpgls.errors import MpglsError, StorageError, UsageError
from mpgls.mpi import StopSignal, is_agreed, portable
from mpgls.run.clock import begin_with_process
from mpgls.run.launcher import check_launcher, launched_rank, launched_size, start_mpi
from mpgls.run.log import stderr

if TYPE_CHECKING:
    from mpi4py import MPI

    from mpgls.cli import Command

INTERNAL_ERROR = 1
PATIENCE = 1.0
"""Seconds in which the other ranks may come to the same error before one that failed ends them."""
_meeting: MPI.Comm | None = None
"""Where ranks with an error meet."""


def main(argv: Sequence[str] | None = None) -> None:
    """The ``mpgls`` program; returns only by ``sys.exit`` or MPI_Abort."""
    if argv is None:
        begin_with_process()
        if sys.getfilesystemencoding() == "ascii":
            _start_again_in_utf8()
    with StopSignal().listening() as stop:  # before NumPy is imported: that can take seconds
        _main(list(sys.argv[1:] if argv is None else argv), stop)


def _main(arguments: list[str], stop: StopSignal) -> NoReturn:
    """Run what the arguments say; ``stop`` hears the signals until the command listens itself."""
    _open_closed_streams()
    atexit.register(_forget_unwritten)
    try:
        command = _parse(arguments)
    except (UsageError, StorageError) as error:  # every rank sees the same command line
        if launched_rank() == 0:
            stderr(f"mpgls: {error}")
        _wait_for_all()  # the launcher ends the job with the first rank that fails, heard or not
        sys.exit(error.exit_code)
    try:
        comm = start_mpi()
    except UsageError as error:  # every rank sees the same environment
        if launched_rank() == 0:
            stderr(f"mpgls: {error}")
        sys.exit(error.exit_code)

    global _meeting
    sys.excepthook = _abort_on_uncaught
    _meeting = comm.Dup()
    sys.exit(_run(command, comm, stop))


def _start_again_in_utf8() -> None:
    """In a locale without letters Python could not name the file of a trait; what is printed keeps its encoding.

    The file system has bytes: that they are read as UTF-8 must be said when Python starts (PEP 540).
    """
    spoken = getattr(sys.stdout, "encoding", "ascii")
    environment = {"PYTHONIOENCODING": f"{spoken}:backslashreplace", **os.environ, "PYTHONUTF8": "1"}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def _open_closed_streams() -> None:
    """Standard streams that were closed at the start lead nowhere, before a file of the run gets their number."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free


def _forget_unwritten() -> None:
    """What standard output did not take has been reported, or nobody reads it: Python would try again at its end."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _parse(arguments: Sequence[str]) -> Command:
    """The command; --help and --version print on one rank only."""
    from mpgls import cli

    if launched_rank() == 0:
        return cli.parse(arguments)
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        return cli.parse(arguments)


def _wait_for_all() -> None:
    """Nobody goes on before every rank of the job is here. A program without a launcher needs no MPI for that."""
    if launched_size() > 1:
        with contextlib.suppress(UsageError):  # the ranks cannot find each other, and end alone
            start_mpi().Barrier()


def _run(command: Command, comm: MPI.Comm, stop: StopSignal) -> int:
    """Run the command; an error that all ranks agreed on ends in order, one that they did not ends the job."""
    try:
        problem = check_launcher(comm.size)
        if problem is not None and command.name != "doctor":
            raise UsageError(problem)
        if not command.resumes:
            stop.end_at_once()
        command.run(comm)
        return 0
    except (MpglsError, OSError, MemoryError) as caught:
        error = portable(caught, comm.rank)
        assert isinstance(error, MpglsError)
        _end_together(f"mpgls {command.name}: {error}", error.exit_code)
        return error.exit_code


def _abort_on_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """An exception nobody expected: the traceback, then the end of every rank. The others would wait for ever."""
    story = str(error) if is_agreed(error) else "".join(traceback.format_exception(kind, error, trace))
    _end_together(f"mpgls: failed unexpectedly\n{story}", INTERNAL_ERROR)


def _end_together(message: str, code: int) -> None:
    """Say why on one rank. Return if every rank is here with an error; if some are not, end them by MPI_Abort.

    The ranks meet on a communicator of their own, so that no message of the computation is taken for an answer. They
    wait a little longer the higher their rank, so that of several that fail alone the first ends the others unheard.
    """
    if _meeting is not None and _meeting.size > 1:
        request, end = _meeting.Ibarrier(), time.monotonic() + PATIENCE + 0.05 * min(_meeting.rank, 40)
        while not request.Test():
            if time.monotonic() > end:
                stderr(message)
                _meeting.Abort(code)
            time.sleep(0.005)
    if launched_rank() == 0 and (_meeting is None or _meeting.rank == 0):
        stderr(message)


if __name__ == "__main__":
    main()
