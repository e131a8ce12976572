"""What a collective line of the algorithm may touch: the ranks, the log, the clock, and the signal to stop."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from mpgls import mpi
from mpgls.run.clock import Clock, Phase
from mpgls.run.log import Log, Progress

if TYPE_CHECKING:
    from mpi4py import MPI

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """The ranks ``comm`` that work together, and what they have in common.

    ``log`` speaks on rank 0; ``clock`` counts the phases of this rank; ``stop`` is what a signal sets. A World that is
    made of a communicator alone is silent and takes no signals: ``World(MPI.COMM_SELF)``.
    """

    comm: MPI.Comm
    log: Log = field(default_factory=Log.silent)
    clock: Clock = field(default_factory=Clock)
    stop: mpi.StopSignal = field(default_factory=mpi.StopSignal)

    @property
    def rank(self) -> int:
        """This rank's number."""
        return self.comm.rank

    @property
    def size(self) -> int:
        """The number of ranks."""
        return self.comm.size

    def together(self, stop: bool = False) -> contextlib.AbstractContextManager[None]:
        """What the body raises on one rank, all ranks raise at its end; with ``stop`` also Stopped after a signal.

        Collective. The body may not wait for other ranks after something that can fail on some of them only.
        """
        return mpi.together(self.comm, self.stop if stop else None)

    def on_root(self, action: Callable[[], T]) -> T:
        """Run ``action`` on rank 0, give its result to every rank; if it raises, every rank raises that. Collective."""

        def alone() -> T:
            with self.clock.alone():
                return action()

        return mpi.on_root(self.comm, alone)

    def raise_if_stopped(self) -> None:
        """Raise Stopped on all ranks if a signal asked any of them to stop. Collective."""
        mpi.agree(self.comm, self.stop.problem())

    def phase(self, name: str, flop: float = 0.0, nbytes: float = 0.0) -> contextlib.AbstractContextManager[Phase]:
        """Time the body as part of the phase ``name``; the body may add to ``flop`` and ``nbytes``. Not collective."""
        return self.clock.phase(name, flop, nbytes)

    def progress(self, label: str, total: int, unit: str) -> Progress:
        """Says in the log, now and then, how far a phase of ``total`` units is."""
        return Progress(self.log, label, total, unit)

    def of(self, comm: MPI.Comm) -> World:
        """The world of some of these ranks, with the same log, clock and signal."""
        return World(comm, self.log, self.clock, self.stop)
