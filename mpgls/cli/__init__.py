"""The command line: argv to the frozen options of one command. No numerics, no MPI."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mpgls.cli.options_file import expand
from mpgls.cli.parser import Parser, add_command
from mpgls.commands import COMMANDS, module_of, options_of
from mpgls.errors import UsageError
from mpgls.run.option_groups import OutputOptions
from mpgls.run.options import Options, declared, make
from mpgls.version import __version__

if TYPE_CHECKING:
    from mpi4py import MPI


@dataclass(frozen=True)
class Command:
    """A parsed command."""

    options: Options

    @property
    def name(self) -> str:
        """What stands after ``mpgls``."""
        return self.options.command

    @property
    def resumes(self) -> bool:
        """Whether it can go on where it was stopped."""
        return isinstance(self.options, OutputOptions)

    def run(self, comm: MPI.Comm) -> None:
        """Run it on all ranks of ``comm``."""
        module_of(self.name).run(self.options, comm)


def _takes_value(word: str, command: str) -> bool:
    """Whether a word is an option of a command whose value is the next word."""
    kinds = [options_of(command)] if command in COMMANDS else []
    return any(one.flag == word and one.kind is not bool for kind in kinds for one in declared(kind))


def parse(argv: Sequence[str]) -> Command:
    """The command that ``argv`` asks for; @FILE stands for the words of a file, see `expand`.

    Raises UsageError, and StorageError for such a file; exits by itself for --help and --version only.
    """
    argv = expand(argv, lambda word: _takes_value(word, next(iter(argv), "")))
    parser = Parser(
        prog="mpgls",
        description="Exact mixed-model genome-wide association studies on one core or a whole cluster.",
        epilog="Every command also runs on many ranks: mpirun -n 64 mpgls COMMAND ...   "
        "Each has its own --help with an example.   @FILE stands for the options in a file.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"mpgls {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    # the module of one command is quickly imported, those of all are not
    for name in argv[:1] if argv and argv[0] in COMMANDS else COMMANDS:
        add_command(commands, options_of(name))
    given = vars(parser.parse_args(argv))
    name = given.pop("command")
    if name is None:
        raise UsageError(f"no command was given: {', '.join(COMMANDS)} (see mpgls --help)")
    return Command(make(options_of(name), given, ("mpgls", *argv)))
