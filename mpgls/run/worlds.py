"""The ranks as several worlds, each at work of its own: what one of them raises, all ranks raise."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from mpgls.errors import NumericalError, Stopped
from mpgls.mpi import agree, is_agreed
from mpgls.run.log import HeldLog
from mpgls.run.world import World

if TYPE_CHECKING:
    from mpi4py import MPI

T = TypeVar("T")
PIECE = 1 << 27
"""Numbers that are added up in one call."""


@dataclass(frozen=True)
class Worlds:
    """``count`` worlds of neighbouring ranks, as alike in size as can be; ``own`` is this rank's, ``whole`` all ranks.

    The log of another world than the first one is held until the end of `together`.
    """

    whole: World
    own: World
    count: int

    @property
    def number(self) -> int:
        """The number of this rank's world."""
        return world_of(self.whole.rank, self.whole.size, self.count)

    def first_rank(self, number: int) -> int:
        """The lowest rank, of all, in the world of that number."""
        return -(-number * self.whole.size // self.count)

    def add_up(self, numbers: np.ndarray) -> None:
        """Each of the ``numbers``, contiguous in one order, becomes its sum over the worlds. Collective over all ranks.

        Worlds have the same size, and the same numbers on the ranks of the same place.
        """
        from mpi4py import MPI

        if self.count == 1:
            return
        alike, flat = self.whole.comm.Split(self.own.rank, self.number), numbers.reshape(-1, order="A")
        for start in range(0, flat.size, PIECE):
            alike.Allreduce(MPI.IN_PLACE, flat[start : start + PIECE])
        alike.Free()

    def union(self, found: dict[int, T]) -> dict[int, T]:
        """What all worlds have found. Collective over all ranks."""
        if self.count == 1:
            return found
        each = self.whole.comm.allgather(found if self.own.rank == 0 else {})
        return {key: value for one in each for key, value in one.items()}

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What the body raises in one world, all ranks raise at its end; the other worlds stop before they are done.

        Collective; nothing in the body is, but over the own world.
        """
        if self.count == 1:
            yield
            return
        call = _Call(self.whole.comm)
        error: Exception | None = None
        try:
            with self.whole.stop.hearing(call.reason):
                yield
        except Exception as caught:
            if self.own.size > 1 and not is_agreed(caught) and not isinstance(caught, NumericalError):
                raise  # the rest of its world waits for this rank
            error = caught
        with self.whole.phase("other worlds (waiting)"):
            heard = any(self.own.comm.allgather(call.heard))  # one rank of a world hears first, and all of it stop
            if heard and isinstance(error, Stopped):
                error = None
            call.end(error is not None)
        held = self.own.log.take() if isinstance(self.own.log, HeldLog) and self.own.rank == 0 else []
        for rank, lines in enumerate(self.whole.comm.gather(held, root=0) or ()):
            if lines:
                self.whole.log.info(f"world {world_of(rank, self.whole.size, self.count) + 1} of {self.count} said:")
            self.whole.log.repeat(lines)
        agree(self.whole.comm, error)


@contextlib.contextmanager
def split_world(world: World, count: int) -> Iterator[Worlds]:
    """The ranks as so many worlds. Collective, and so is the end of a body that ends well."""
    if count == 1:
        yield Worlds(world, world, 1)
        return
    number = world_of(world.rank, world.size, count)
    log = world.log if number == 0 else HeldLog(world.rank, world.log.began)
    own = World(world.comm.Split(number, world.rank), log, world.clock, world.stop)
    yield Worlds(world, own, count)
    own.comm.Free()


def world_of(rank: int, size: int, count: int) -> int:
    """In which of ``count`` worlds a rank of ``size`` is."""
    return rank * count // size


class _Call:
    """What a rank that fails calls to all others, which hear it when they look whether to stop."""

    def __init__(self, comm: MPI.Comm) -> None:
        self.comm, self.heard = comm.Dup(), False

    def reason(self) -> str | None:
        """Why this rank should stop, if another one has called."""
        self.heard = self.heard or self.comm.Iprobe()
        return "by other ranks" if self.heard else None

    def end(self, failed: bool) -> None:
        """Call if this rank ``failed``, and wait until all ranks are here. Collective."""
        others = [rank for rank in range(self.comm.size) if rank != self.comm.rank]
        sent = [self.comm.Isend(bytearray(1), rank) for rank in others if failed]
        for rank, called in enumerate(self.comm.allgather(failed)):
            if called and rank != self.comm.rank:
                self.comm.Recv(bytearray(1), rank)
        for one in sent:
            one.Wait()
        self.comm.Free()
