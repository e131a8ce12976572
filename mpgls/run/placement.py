"""Whether the ranks of a node are bound to processors that let them work side by side."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mpgls.run.findings import count

PROCESSORS = Path("/sys/devices/system/cpu")


class Place(NamedTuple):
    """Where a processor, a hardware thread, is: two of one core have the same place."""

    socket: int
    core: int


def places(processors: Path = PROCESSORS) -> dict[int, Place]:
    """The place of each processor of this node, by its number; empty where the kernel does not tell."""
    found = {}
    for folder in processors.glob("cpu[0-9]*/topology"):
        with contextlib.suppress(OSError, ValueError):
            number = int(folder.parent.name.removeprefix("cpu"))
            names = ("physical_package_id", "core_id")
            found[number] = Place(*(int((folder / name).read_text(encoding="ascii")) for name in names))
    return found


def binding_notes(bound: Mapping[int, frozenset[int]], threads: int, node: Mapping[int, Place]) -> list[str]:
    """What is wrong with where ranks are ``bound``: the processors of each, by rank, on one node with these places.

    ``threads`` of a rank. Says which ranks share too few cores on a node that has enough for all, and that all ranks
    are on one socket of several.
    """
    notes = []
    cores_of = {rank: frozenset(node[k] for k in own if k in node) for rank, own in bound.items()}
    if len(bound) * threads <= len(set(node.values())):
        for cores in sorted(set(cores_of.values()), key=sorted):
            ranks = [rank for rank, own in cores_of.items() if own <= cores]
            if len(ranks) > 1 and len(ranks) * threads > len(cores):
                named = sorted(set().union(*(bound[rank] for rank in ranks)))
                notes.append(
                    f"ranks {_listed(ranks)} are bound to the same {count(len(cores), 'core')} (processors "
                    f"{_listed(named)}), which {len(ranks) * threads} threads share: start with mpirun --bind-to core, "
                    "or under Slurm with srun --cpu-bind=cores"
                )
    sockets = {place.socket for place in node.values()}
    used = {place.socket for cores in cores_of.values() for place in cores}
    if len(bound) > 1 and len(used) == 1 < len(sockets):
        notes.append(
            f"all {len(bound)} ranks are bound to socket {used.pop()} of {len(sockets)}, so the memory of the others "
            "is out of reach: start with mpirun --map-by socket, or ask the batch system for cores of each socket"
        )
    return notes


def own_processors() -> frozenset[int]:
    """The processors that this rank may use."""
    return frozenset(os.sched_getaffinity(0))


def _listed(numbers: Sequence[int], most: int = 8) -> str:
    return ", ".join(map(str, numbers[:most])) + (", ..." if len(numbers) > most else "")
