"""Where the rates of a cost come from: measured here and now, or in a file of ``mpgls doctor``."""

from __future__ import annotations

from mpgls.engine.card_probes import measure_card
from mpgls.engine.cost_text import Source
from mpgls.engine.device_plan import card_or_reason, choose_card
from mpgls.engine.probes import measure
from mpgls.engine.rates import Rates, read_rates
from mpgls.errors import StorageError, UsageError
from mpgls.mpi import agree, node_of
from mpgls.run.device_options import NO_CARDS, DeviceWish
from mpgls.run.findings import Findings, count
from mpgls.run.hardware import limited_threads, startup_seconds
from mpgls.run.world import World

FILE_BYTES = 64 << 20
"""Of a file that each node writes and reads where rates are measured now."""


def rates_of(
    world: World, path: str | None, directory: str, wish: DeviceWish, threads: int | None = None
) -> tuple[Rates, Source]:
    """Those in the file ``path``, or measured now, also of each rank's GPU where that is wished for. Collective.

    Raises InputError where the file is none, StorageError, and what keeps a GPU from being used.
    """
    return measure_now(world, directory, threads, wish) if path is None else rates_from(world, path)


def measure_now(
    world: World, directory: str, threads: int | None = None, wish: DeviceWish = NO_CARDS
) -> tuple[Rates, Source]:
    """The rates of this machine on the ranks that there are, in about a second. Collective.

    Raises StorageError, on all ranks, where no file can be written in the ``directory``, and what keeps a GPU from
    being used.
    """
    try:
        card = choose_card(wish, world)
    except UsageError as error:
        raise UsageError(f"{error}, or give --rates of a machine that has GPUs") from None
    found = Findings({"startup_seconds": startup_seconds(world.comm)})
    with node_of(world.comm) as node, limited_threads(node, threads) as used:
        nodes = world.comm.allreduce(1 if node.rank == 0 else 0)
        measure(found, world, node, directory, FILE_BYTES)
    if card is not None:
        measure_card(found, world, card)
    agree(world.comm, StorageError(found.problems[0]) if found.problems else None)
    ranks = world.comm.size
    source = Source(f"measured here, now, on {count(ranks, 'rank')}", ranks, used, nodes)
    return world.on_root(lambda: Rates.of(found.facts, "this machine")), source


def measure_cards(found: Findings, world: World, wish: DeviceWish) -> None:
    """The rates of each rank's GPU where GPUs are wished for and found, or a note that says why not. Collective."""
    card, why_not = card_or_reason(wish, world)
    if why_not:
        found.notes.append(f"--device auto: no GPU is used, because {why_not}")
    if card is not None:
        measure_card(found, world, card)


def rates_from(world: World, path: str) -> tuple[Rates, Source]:
    """Those in the file ``path``. Collective. Raises InputError where it is not one, StorageError."""

    def read() -> tuple[Rates, Source]:
        facts = read_rates(path)
        nodes = max(1, len(facts.get("nodes") or ()))
        ranks, threads = int(facts.get("ranks", 1)), int(facts.get("threads", 1))
        source = Source(f"{path}, measured on {count(ranks, 'rank')}", ranks, threads, nodes)
        return Rates.of(facts, path), source

    return world.on_root(read)
