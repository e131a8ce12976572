"""``mpgls doctor``: is this installation ready for a run, and how fast are its processors and its filesystem?"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpgls.engine.machine_rates import measure_cards
from mpgls.engine.probes import measure
from mpgls.errors import MpglsError
from mpgls.mpi import node_of
from mpgls.run.device_options import DeviceOptions
from mpgls.run.filesystem import MIB
from mpgls.run.findings import Findings, count
from mpgls.run.hardware import limited_threads, startup_seconds
from mpgls.run.installation import look_at_blas, look_at_libraries, look_at_mpi, look_at_nodes, look_at_slepc
from mpgls.run.log import stdout
from mpgls.run.options import at_least, flag, option
from mpgls.run.outputs import refuse_foreign
from mpgls.run.results import Results
from mpgls.run.world import World
from mpgls.stream.files import write_text

if TYPE_CHECKING:
    from mpi4py import MPI


@dataclass(frozen=True, kw_only=True)
class Doctor(DeviceOptions):
    """Options of ``mpgls doctor``."""

    command = "doctor"
    summary = "what this installation consists of, how fast it is, and what is wrong with it"
    example = "mpirun -n 4 mpgls doctor --device gpu --directory /scratch --json rates.json"

    directory: str = option(".", "filesystem whose rates are measured", metavar="DIR")
    threads: int | None = option(
        None, "BLAS threads a rank; default: cores / ranks of the node", metavar="T", check=at_least(1)
    )
    json: str | None = option(None, "write the same facts as JSON", metavar="FILE")
    full: bool = flag("measure longer, and list every rank")


def run(options: Doctor, comm: MPI.Comm) -> Results:
    """Print the report on rank 0; the manifest of the Results has its facts. Collective.

    Raises StorageError when the JSON file cannot be written, and MpglsError, on every rank, when the verdict is not
    'ready'.

    The JSON has ``ranks``, ``threads`` (of a rank), ``gemm_gflops_double`` and ``gemm_gflops_single`` (the slowest
    rank, all ranks at work; ``_largest`` the fastest), the rates of `mpgls.engine.probes.processor_rates`,
    ``startup_seconds`` (from the start of a process to its first line of work), ``read_mb_per_s`` and
    ``write_mb_per_s`` (10^6 bytes/s, all nodes together, one reader a node), ``sync_seconds`` (a page to disk, the
    slowest node), with --device gpu the rates of `mpgls.engine.card_rates.FACTS`, and what the lines say.
    """
    world, found = World(comm), Findings({"startup_seconds": startup_seconds(comm)})
    if options.json is not None:
        path = options.json
        world.on_root(lambda: refuse_foreign(path, options.command, "--json"))
    look_at_mpi(found, world)
    look_at_libraries(found, world)
    look_at_slepc(found, world)
    with node_of(comm) as node, limited_threads(node, options.threads) as threads:
        look_at_nodes(found, world, node, threads)
        look_at_blas(found, world)
        measure(found, world, node, options.directory, (2048 if options.full else 256) * MIB, options.full)
    measure_cards(found, world, options.device_wish)

    def tell() -> Results:
        stdout(found.text())
        facts, files = {"command": "doctor", **found.all_facts()}, []
        if options.json is not None:
            write_text(options.json, [json.dumps(facts, indent=1), "\n"])
            files = [options.json]
        return Results("", {"files": files, **facts})

    told = world.on_root(tell)
    problems = told.manifest["problems"]
    if problems:
        raise MpglsError(f"mpgls doctor found {count(len(problems), 'problem')}; the report names what to do")
    return told
