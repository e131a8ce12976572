"""A parser for each command, made of the declarations of its options."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from mpgls.errors import UsageError
from mpgls.run.log import stdout
from mpgls.run.options import Declared, Options, declared


class Parser(argparse.ArgumentParser):
    """Raises UsageError instead of exiting, so that one rank speaks for all."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")

    def _print_message(self, message: str, file: Any = None) -> None:
        """--help and --version, on a terminal of any encoding. Raises StorageError."""
        stdout(message, end="")


def add_command(commands: Any, kind: type[Options]) -> None:
    """The parser of ``mpgls COMMAND``; what is not given is not in its namespace."""
    parser = commands.add_parser(
        kind.command,
        help=kind.summary,
        description=kind.summary[0].upper() + kind.summary[1:] + ".",
        epilog=f"example:\n  {kind.example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    groups: dict[str, Any] = {}
    for one in declared(kind):
        title = one.option.group
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        _add(groups[title], one)


def _add(group: Any, one: Declared) -> None:
    """One option."""
    names: dict[str, Any] = {"help": one.option.help}
    if one.kind is bool:
        group.add_argument(one.flag, dest=one.name, action="store_true", **names)
        return
    if one.many:
        names["nargs"] = "+"
    if one.option.bare is not None:
        names |= {"nargs": "?", "const": one.option.bare}
    if one.option.metavar:
        names["metavar"] = one.option.metavar
    if one.option.choices:
        names["choices"] = one.option.choices
    if one.option.parse is None:
        names["type"] = one.kind
    if one.option.positional:
        group.add_argument(one.name, **names)
    else:
        group.add_argument(one.flag, dest=one.name, required=one.is_required, **names)
