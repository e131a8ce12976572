"""The rule that all ranks raise together or none does, and the signal that asks them to stop."""

from __future__ import annotations

import contextlib
import signal
import traceback
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from mpgls.errors import MemoryPlanError, MpglsError, Stopped, StorageError

if TYPE_CHECKING:
    from mpi4py import MPI

T = TypeVar("T")


@contextlib.contextmanager
def together(comm: MPI.Comm, stop: StopSignal | None = None) -> Iterator[None]:
    """What the body raises on any rank, all ranks raise at its end; with ``stop``, also that the run was asked to stop.

    Collective. The body itself may not wait for other ranks of ``comm`` after something that can fail on some only.
    """
    error: BaseException | None = None
    try:
        yield
    except Exception as caught:
        error = caught
    if error is None and stop is not None:
        error = stop.problem()
    agree(comm, error)


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


@contextlib.contextmanager
def node_of(comm: MPI.Comm) -> Iterator[MPI.Comm]:
    """The ranks of ``comm`` on this node, while the body runs. Collective."""
    from mpi4py import MPI

    node = comm.Split_type(MPI.COMM_TYPE_SHARED, comm.rank)
    try:
        yield node
    finally:
        node.Free()


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


class StopSignal:
    """Remembers that this rank was asked to stop, so that a loop can end between two blocks.

    SIGTERM and SIGUSR1 ask, and ``limit`` where time is short: it gives the reason, in words that follow "stopped", or
    None. ``advice`` says how the run goes on. Who looks shows that it goes on: ``looks`` counts.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

    def __init__(
        self,
        advice: str = "run the same command with --resume to go on",
        limit: Callable[[], str | None] = lambda: None,
    ) -> None:
        self.advice, self.looks = advice, 0
        self._limit = limit
        self._reason: str | None = None

    @property
    def requested(self) -> bool:
        """Whether this rank was asked to stop; once it was, it stays so."""
        self.looks += 1
        self._reason = self._reason or self._limit()
        return self._reason is not None

    def ask(self, *_: object) -> None:
        """Ask to stop, as a signal does."""
        self._reason = "by a signal"

    @contextlib.contextmanager
    def listening(self) -> Iterator[StopSignal]:
        """Take the signals while the body runs; afterwards they do what they did before.

        What another StopSignal heard before is heard. Python lets only the main thread of a process take signals:
        elsewhere none is taken.
        """
        before: dict[signal.Signals, Any] = {}
        try:
            with contextlib.suppress(ValueError):
                for number in self.SIGNALS:
                    before[number] = signal.signal(number, self.ask)
            for handler in before.values():
                earlier = getattr(handler, "__self__", None)
                if isinstance(earlier, StopSignal) and earlier.requested:
                    self.ask()
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def hearing(self, reason: Callable[[], str | None]) -> Iterator[None]:
        """In the body ``reason`` may ask to stop as well: it gives words that follow "stopped", or None."""
        before = self._limit
        self._limit = lambda: before() or reason()
        try:
            yield
        finally:
            self._limit = before

    def end_at_once(self) -> None:
        """From now on the signals end this process: what it does cannot go on later. Raises Stopped if one came."""
        for number in self.SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        if self.requested:
            raise Stopped("stopped by a signal")

    def problem(self) -> Stopped | None:
        """What this rank brings to ``agree``: Stopped, with what to do next, if it was asked to stop."""
        return Stopped(f"stopped {self._reason}; {self.advice}") if self.requested else None
