"""Files that appear under their name whole or not at all, and bytes that go to their place."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpgls.errors import StorageError
from mpgls.mpi import on_root, together

if TYPE_CHECKING:
    from mpi4py import MPI


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """An OSError of the body becomes a StorageError that names ``path``."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"cannot write {os.fspath(path)}: {error.strerror or error}") from None


@contextlib.contextmanager
def replaced(path: str | os.PathLike[str]) -> Iterator[Path]:
    """The name under which the body writes a file; at its end the file is synced and gets the name ``path``.

    If the body raises, nothing is left of it. Call on one rank. Raises StorageError.
    """
    target = Path(path)
    partial = target.with_name(f"{target.name}.partial")
    with writing(path):
        try:
            yield partial
            sync(partial)
            os.replace(partial, target)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def replaced_by_all(comm: MPI.Comm, path: str | os.PathLike[str]) -> Iterator[Path]:
    """`replaced` for a file that all ranks write, each at its own places of the empty file that they find. Collective.

    What the body raises, it must raise on all ranks. Raises StorageError, on all ranks.
    """
    target = Path(path)
    partial = target.with_name(f"{target.name}.partial")

    def create() -> None:
        with writing(path), open(partial, "wb"):
            pass

    def publish() -> None:
        with writing(path):
            os.replace(partial, target)

    try:
        on_root(comm, create)
        yield partial
        with together(comm), writing(path):
            sync(partial)
        on_root(comm, publish)
    except BaseException:
        if comm.rank == 0:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
        raise


def write_text(path: str | os.PathLike[str], lines: Iterable[str]) -> None:
    """Replace the file by these lines (with their ends), UTF-8. Call on one rank. Raises StorageError."""
    with replaced(path) as partial, open(partial, "w", encoding="utf-8") as file:
        file.writelines(lines)


def mpi_name(path: str | os.PathLike[str]) -> Any:
    """The name as MPI.File.Open takes it: mpi4py itself refuses a name that is not UTF-8."""
    return os.fsencode(path)


def sync(path: str | os.PathLike[str]) -> None:
    """Wait until the file is on disk."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_at(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """All of ``data`` at byte ``offset`` of an open file; the kernel may take it in pieces. Raises OSError."""
    view = memoryview(data).cast("B")
    while view:
        done = os.pwrite(descriptor, view, offset)
        view, offset = view[done:], offset + done
