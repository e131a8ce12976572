"""Errors that a user can act on, and the rule that all ranks raise them together."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpi4py import MPI


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
    raise comm.bcast(_portable(error) if comm.rank == first else None, root=first)


def _portable(error: BaseException | None) -> BaseException:
    """An exception that survives pickling: our own kinds as they are, errors of the system as StorageError."""
    if isinstance(error, MpglsError):
        return error
    if isinstance(error, OSError):
        where = f" {error.filename}" if error.filename else ""
        return StorageError(f"cannot access{where}: {error.strerror or error}")
    return RuntimeError(f"{type(error).__name__}: {error}")
