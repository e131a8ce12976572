"""Threads of this process in place of the ranks of an MPI job: for tests that need no launcher."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from functools import reduce
from typing import Any

LIMIT = 30.0
"""Seconds that a rank waits for the others in a collective."""


class ThreadRank:
    """The collectives that errors.agree and the tables use; objects travel pickled, as they do between processes."""

    def __init__(self, rank: int, slots: list[bytes], barrier: threading.Barrier) -> None:
        self.rank, self.size = rank, len(slots)
        self.slots, self.barrier = slots, barrier

    def allgather(self, value: Any) -> list[Any]:
        self.slots[self.rank] = pickle.dumps(value)
        self.barrier.wait(LIMIT)
        values = [pickle.loads(slot) for slot in self.slots]
        self.barrier.wait(LIMIT)
        return values

    def allreduce(self, value: Any, op: Callable[[Any, Any], Any]) -> Any:
        return reduce(op, self.allgather(value))

    def bcast(self, value: Any, root: int = 0) -> Any:
        return self.allgather(value)[root]


def one_rank() -> ThreadRank:
    """A communicator of this thread alone."""
    return ThreadRank(0, [b""], threading.Barrier(1))


def on_ranks(size: int, action: Callable[[ThreadRank], Any]) -> list[Any]:
    """What ``action(comm)`` returned, or raised, on each of ``size`` ranks."""
    slots, barrier = [b""] * size, threading.Barrier(size)
    outcomes: list[Any] = [None] * size

    def work(rank: int) -> None:
        try:
            outcomes[rank] = action(ThreadRank(rank, slots, barrier))
        except Exception as error:
            outcomes[rank] = error

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * LIMIT)
    return outcomes
