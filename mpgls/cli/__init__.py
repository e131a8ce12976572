"""The command line: argv to one frozen config for each command. No numerics, no MPI."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from mpgls.cli import images, kinship, low_rank, ridge, scans, tools
from mpgls.errors import UsageError
from mpgls.version import __version__

if TYPE_CHECKING:
    from mpi4py import MPI


COMMANDS = (
    kinship.kinship,
    kinship.eigen,
    scans.single_trait,
    scans.multi_trait,
    low_rank.low_rank,
    low_rank.plan,
    images.vgwas_extract,
    images.vgwas,
    ridge.ridge,
    tools.export,
    tools.simulate,
    images.simulate_images,
    tools.doctor,
)
"""Every command, in the order of --help."""


@dataclass(frozen=True)
class Command:
    """A parsed command: its name, its module, and its config."""

    name: str
    module: str
    config: Any

    def run(self, comm: MPI.Comm) -> None:
        """Run it on all ranks of ``comm``."""
        importlib.import_module(self.module).run(self.config, comm)


class _Parser(argparse.ArgumentParser):
    """Raises UsageError instead of exiting, so that one rank speaks for all."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def parse(argv: Sequence[str]) -> Command:
    """The command that ``argv`` asks for. Raises UsageError; exits by itself for --help and --version only."""
    parser = _Parser(
        prog="mpgls",
        description="Exact mixed-model genome-wide association studies on one core or a whole cluster.",
        epilog="Every command also runs on many ranks: mpirun -n 64 mpgls COMMAND ...   "
        "Each has its own --help with an example.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"mpgls {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    for declare in COMMANDS:
        declare(commands)
    given = parser.parse_args(argv)
    if given.command is None:
        raise UsageError(f"no command was given: {', '.join(commands.choices)} (see mpgls --help)")
    return Command(given.command, given.module, given.make(given, tuple(argv)))
