"""Errors that a user can act on, and the rule that all ranks raise them together."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from mpi4py import MPI

T = TypeVar("T")


class MpglsError(Exception):
    """One clear sentence for the user; ``exit_code`` is what the process returns."""

    exit_code = 1


class UsageError(MpglsError):
    """The command line asks for something that does not exist or does not fit together."""

    exit_code = 2


class InputError(MpglsError):
    """A file, line, sample or SNP of the input is wrong; the message names it."""

    exit_code = 3


class MemoryPlanError(MpglsError):
    """The plan does not fit into ``--memory``; the message says what would fit."""

    exit_code = 4


class StorageError(MpglsError):
    """A file cannot be read or written."""

    exit_code = 5


class NumericalError(MpglsError):
    """A factorisation or a search failed for these numbers."""

    exit_code = 6


class Stopped(MpglsError):
    """The run was stopped in an orderly way; ``--resume`` continues it."""

    exit_code = 75


def agree(comm: MPI.Comm, error: BaseException | None) -> None:
    """Raise on every rank of ``comm`` if any rank has an ``error``: all raise, or none.

    Collective. Call it after anything that can fail on some ranks only and before the next
    collective. Every rank raises the error of the lowest failing rank, so the user reads one message.
    """
    from mpi4py import MPI

    first = comm.allreduce(comm.size if error is None else comm.rank, op=MPI.MIN)
    if first == comm.size:
        return
    first_error = comm.bcast(portable(error, comm.rank) if comm.rank == first else None, root=first)
    first_error.agreed = True
    raise first_error


def on_root(comm: MPI.Comm, action: Callable[[], T]) -> T:
    """Run ``action`` on rank 0 and give its result to every rank; if it raises, every rank raises that. Collective."""
    result, error = None, None
    if comm.rank == 0:
        try:
            result = action()
        except Exception as caught:
            error = caught
    agree(comm, error)
    return comm.bcast(result, root=0)


def is_agreed(error: BaseException) -> bool:
    """Whether every rank is raising ``error``, so that all may end in an orderly way."""
    return getattr(error, "agreed", False)


def portable(error: BaseException | None, rank: int) -> BaseException:
    """An exception that survives pickling: our own kinds as they are, those of the system as one of ours.

    Anything else becomes a RuntimeError that holds the traceback, which would not travel.
    """
    if isinstance(error, MpglsError):
        return error
    if isinstance(error, OSError):
        where = f" {error.filename}" if error.filename else ""
        return StorageError(f"cannot access{where}: {error.strerror or error}")
    if isinstance(error, MemoryError):
        return MemoryPlanError(f"rank {rank} is out of memory ({error}): give --memory to plan within it")
    return RuntimeError("".join(traceback.format_exception(error)).rstrip())
