"""A prefix belongs to one run at a time: its rank 0 holds a lock on PREFIX.lock as long as it lives.

The lock is that of flock(2). It belongs to the open file, so two runs of one process see each other. The kernel gives
it back when the process dies, however it dies. Linux carries it to the servers of NFS, and of Lustre (-o flock).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mpgls.errors import MpglsError, StorageError, UsageError
from mpgls.mpi import on_root
from mpgls.stream.files import writing
from mpgls.study.regular import irregular

if TYPE_CHECKING:
    from mpi4py import MPI

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What a file system without locks says."""
PATIENCE = 2.0
"""Seconds in which a run that was killed is gone, after its launcher is."""
FIRST = b'{"does": "'
"""What a lock begins with; a full disk may have cut it."""
SHOWN = 300
"""Characters of a command line that a message shows."""


@dataclass
class PrefixLock:
    """The lock of ``prefix`` for the run that ``command_line`` started; ``reads``: it only reads a store there.

    Any number of runs may read at a time, or one may write. The methods are for one rank.
    """

    prefix: str
    command_line: str
    reads: bool = False
    _file: int | None = field(default=None, repr=False)

    @property
    def path(self) -> str:
        """The file that is locked. It says who has the prefix; left behind by a killed run, it keeps nobody out."""
        return f"{self.prefix}.lock"

    def take(self) -> str | None:
        """Take the prefix; returns a warning where the file system has no locks.

        Raises StorageError when another run has it, and names that run; UsageError for a file that is no lock.
        """
        while (file := self._open()) is not None:
            try:
                self._refuse_foreign(file)
                warning = self._lock(file)
            except MpglsError:
                os.close(file)
                raise
            if self._is_at_path(file):
                self._file = file
                self._say_who()
                return warning
            os.close(file)  # the run that had it removed the file between our two steps
        return None

    def give_back(self) -> None:
        """Remove the file and let go of it; where others read on, they keep it."""
        if self._file is None:
            return
        with contextlib.suppress(OSError):
            if self.reads:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self._is_at_path(self._file):
                os.unlink(self.path)
        os.close(self._file)
        self._file = None

    def _open(self) -> int | None:
        """The file, made if it is not there; None where there is none, and a run that only reads cannot make it."""
        try:
            with writing(self.path):
                if kind := irregular(self.path):
                    raise StorageError(f"cannot write {self.path}: it is a {kind}")
                return os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        except StorageError:
            if not self.reads:
                raise
        try:
            return os.open(self.path, os.O_RDONLY)
        except OSError:
            return None

    def _refuse_foreign(self, file: int) -> None:
        """UsageError for a file of something else; an empty one has nothing to lose."""
        found = os.pread(file, len(FIRST), 0)
        if not FIRST.startswith(found):
            instead = "move it away" if self.reads else "give another --out"
            raise UsageError(f"{self.path} was not made by mpgls and is not replaced: {instead}")

    def _lock(self, file: int) -> str | None:
        end = time.monotonic() + PATIENCE
        try:
            while not self._is_free(file):
                if time.monotonic() > end:
                    raise StorageError(f"{self._holder(file)}: wait until it has ended, or give another --out")
                time.sleep(0.05)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise StorageError(f"cannot lock {self.path}: {error.strerror}") from None
            return f"the file system of {self.path} has no locks: no other run may write to {self.prefix} meanwhile"
        return None

    def _is_free(self, file: int) -> bool:
        """Lock the file, unless another run has it."""
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, (fcntl.LOCK_SH if self.reads else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            return True
        return False

    def _is_at_path(self, file: int) -> bool:
        with contextlib.suppress(OSError):
            return os.path.samestat(os.fstat(file), os.stat(self.path))
        return False

    def _say_who(self) -> None:
        who = {
            "does": "reads" if self.reads else "writes",
            "command": self.command_line,
            "host": os.uname().nodename,
            "pid": os.getpid(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        }
        with contextlib.suppress(OSError):  # a run that only reads may not be allowed to
            assert self._file is not None
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, (json.dumps(who) + "\n").encode(), 0)

    def _holder(self, file: int) -> str:
        """Who has the prefix, in words."""
        try:
            who = json.loads(os.pread(file, 1 << 20, 0))
            command = who["command"] if len(who["command"]) <= SHOWN else who["command"][:SHOWN] + " ..."
            return (
                f"another run {who['does']} {self.prefix} (process {who['pid']} on {who['host']}, since "
                f"{who['since']}: {command})"
            )
        except (OSError, ValueError, KeyError, TypeError):  # it has the lock and has not yet said who it is
            return f"another run uses {self.prefix}"


@contextlib.contextmanager
def held(comm: MPI.Comm, locks: Sequence[PrefixLock]) -> Iterator[list[str]]:
    """All ``locks``, while the body runs; gives the warnings. Collective; raises what `take` raises on all ranks.

    They are given back when every rank is through; after an error at once, because not every rank need have it.
    """

    def take() -> list[str]:
        return [warning for lock in locks if (warning := lock.take()) is not None]

    try:
        yield on_root(comm, take)
        comm.Barrier()
    finally:
        for lock in locks:
            lock.give_back()
