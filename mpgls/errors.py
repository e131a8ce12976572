"""Errors that a user can act on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


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


@contextlib.contextmanager
def about(model: str) -> Iterator[None]:
    """A NumericalError of the body says which ``model`` it is about: a trait, and its chromosome."""
    try:
        yield
    except NumericalError as error:
        error.args = (f"{model}: {error}",)
        raise
