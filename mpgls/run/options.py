"""Options, declared once: parser, checks, fingerprint, list of inputs and Python face are made of the declarations.

A command's options are a frozen dataclass whose fields are made by ``option``, ``required`` and ``flag``:

    class Kinship(GenotypeOptions, BlockOptions, RunOptions):
        method: str = option("centered", "SNPs centred, or ...", choices=("centered", "standardized"))

The name of a field is that of its flag, with underscores. Its annotation says what a value is: ``bool`` a flag without
a value, ``int``, ``float`` or ``str`` one value, ``tuple[str, ...]`` several.
"""

from __future__ import annotations

import dataclasses
import operator
import os
import shlex
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from mpgls.errors import UsageError

GROUPS = (
    "genotypes and filters",
    "similarity SNPs (one of the first three)",
    "traits and covariates",
    "parcels of images as targets, instead of --pheno",
    "voxels and confounds",
    "images",
    "study",
    "kinship",
    "model",
    "inference",
    "folds and permutations",
    "machine",
    "run",
    "output",
)
"""Titles of groups of options, in the order of --help."""


@dataclass(frozen=True)
class Check:
    """What a value must be, in words that follow "must be", and whether it is."""

    text: str
    holds: Callable[[Any], bool]


def at_least(least: float, unit: str = "") -> Check:
    """A number from ``least`` on."""
    return Check(f"at least {least:g}{unit}", lambda value: value >= least)


def between(low: float, high: float) -> Check:
    """A number from ``low`` to ``high``, both included."""
    return Check(f"from {low:,} to {high:,}", lambda value: low <= value <= high)


@dataclass(frozen=True)
class Option:
    """What is declared of one option.

    ``reads`` gives the files that a value names; ``changes_results`` is False for what a resumed run may change;
    ``parse`` makes a value of a text, where the annotation does not say how; ``bare`` is what a flag alone stands for.
    """

    help: str
    group: str
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    check: Check | None = None
    changes_results: bool = True
    reads: Callable[[str], Iterable[str]] | None = None
    parse: Callable[[str], Any] | None = None
    positional: bool = False
    bare: str | None = None


def the_file(path: str) -> list[str]:
    """``reads`` of an option whose value is the name of a file."""
    return [path]


def option(default: Any, help: str, *, group: str = "run", **declared: Any) -> Any:
    """An option with a default value; ``declared`` as in `Option`."""
    return field(default=default, metadata={"option": Option(help, group, **declared)}, kw_only=True)


def required(help: str, *, group: str = "run", **declared: Any) -> Any:
    """An option that must be given."""
    return field(metadata={"option": Option(help, group, **declared)}, kw_only=True)


def required_here(group: type[Options], name: str) -> Any:
    """An option of a group, for a command that cannot do without it."""
    (found,) = (one for one in dataclasses.fields(group) if one.name == name)
    return field(metadata=found.metadata, kw_only=True)


def flag(help: str, *, group: str = "run", **declared: Any) -> Any:
    """An option that is given or not."""
    return option(False, help, group=group, **declared)


@dataclass(frozen=True)
class Declared:
    """One option of a command: its declaration, and what the dataclass says of it."""

    name: str
    option: Option
    kind: type
    many: bool
    default: Any

    @property
    def flag(self) -> str:
        """As it stands on the command line."""
        return self.name if self.option.positional else f"--{self.name.replace('_', '-')}"

    @property
    def is_required(self) -> bool:
        """Whether there is no default."""
        return self.default is dataclasses.MISSING

    def value_of(self, given: Any) -> Any:
        """``given`` by a program or by the parser, as the annotation has it; None: the default. Raises UsageError."""
        if given is None:
            return None if self.is_required else self.default
        if self.option.parse is not None and isinstance(given, str):
            given = self.option.parse(given)
        if self.many:
            values = [given] if isinstance(given, str | os.PathLike) else given
            return tuple(self._one(value) for value in values)
        return None if given is None else self._one(given)

    def _one(self, given: Any) -> Any:
        try:
            if self.kind is bool:
                if given not in (True, False):
                    raise TypeError
                return bool(given)
            if self.kind is str:
                return str(os.fsdecode(given))  # a plain text, also of one that NumPy holds
            if isinstance(given, bool):
                raise TypeError
            return operator.index(given) if self.kind is int else float(given)
        except (TypeError, ValueError):
            what = {int: "a whole number", float: "a number", str: "a text", bool: "True or False"}[self.kind]
            raise UsageError(f"{self.flag} must be {what}, not {given!r}") from None

    def check(self, value: Any) -> None:
        """UsageError for a value that is none of the choices, or not what it must be."""
        for one in value if self.many else () if value is None else (value,):
            if self.option.choices and one not in self.option.choices:
                raise UsageError(f"{self.flag} must be one of {', '.join(self.option.choices)}, not {one}")
            if self.option.check is not None and not self.option.check.holds(one):
                raise UsageError(f"{self.flag} must be {self.option.check.text}, not {one}")


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of one command. Making it checks every value, then what ``check`` says of them together.

    ``command_line`` is what the user typed; empty where a program made the options.
    """

    command: ClassVar[str]
    """The name of the command."""
    summary: ClassVar[str]
    """What it does, in one line without a full stop."""
    example: ClassVar[str]
    """A command line."""

    command_line: tuple[str, ...] = field(default=(), repr=False, compare=False)

    def __post_init__(self) -> None:
        for one in declared(type(self)):
            value = one.value_of(getattr(self, one.name))
            one.check(value)
            object.__setattr__(self, one.name, value)
        self.check()

    def check(self) -> None:
        """Raise UsageError for values that do not go together."""

    def typed(self) -> tuple[str, ...]:
        """The command line, made of the values where the user typed none."""
        return self.command_line or ("mpgls", self.command, *self._words())

    def _words(self) -> Iterator[str]:
        for one in declared(type(self)):
            value = getattr(self, one.name)
            if value == one.default or value is None:
                continue
            words = [] if value is True else map(str, value) if one.many else [str(value)]
            yield from ([] if one.option.positional else [one.flag])
            yield from words

    def go_on(self) -> str:
        """The command that goes on where this run ended, as the end of a sentence; the launcher is not known."""
        words = [*self.typed(), *([] if "--resume" in self.typed() else ["--resume"])]
        return f"go on with: {shlex.join(words)}"

    def input_files(self) -> dict[str, list[str]]:
        """The files that the options name, by flag."""
        found: dict[str, list[str]] = {}
        for one in declared(type(self)):
            value = getattr(self, one.name)
            if one.option.reads is not None and value is not None:
                values = value if one.many else (value,)
                found[one.flag] = [path for each in values for path in one.option.reads(each)]
        return {name: paths for name, paths in found.items() if paths}

    def determine_results(self) -> dict[str, Any]:
        """The values, by flag, that a resumed run must share; files are compared by what is in them instead."""
        files = self.input_files()
        return {
            one.flag: getattr(self, one.name)
            for one in declared(type(self))
            if one.option.changes_results and one.flag not in files and getattr(self, one.name) != one.default
        }


T = TypeVar("T", bound=Options)


def declared(kind: type[Options]) -> tuple[Declared, ...]:
    """The options of a command, by groups in the order of --help."""
    if kind not in _known:
        _known[kind] = tuple(sorted(_read(kind), key=lambda one: GROUPS.index(one.option.group)))
    return _known[kind]


_known: dict[type[Options], tuple[Declared, ...]] = {}


def _read(kind: type[Options]) -> Iterator[Declared]:
    hints = typing.get_type_hints(kind)
    for one in dataclasses.fields(kind):
        if "option" in one.metadata:
            value, many = _value_type(hints[one.name])
            yield Declared(one.name, one.metadata["option"], value, many, one.default)


def _value_type(hint: Any) -> tuple[type, bool]:
    """The type of one value, and whether there may be several."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    many = typing.get_origin(hint) is tuple
    return (typing.get_args(hint)[0], True) if many else (hint, False)


def make(kind: type[T], given: Mapping[str, Any], command_line: tuple[str, ...] = ()) -> T:
    """The options of a command from values by name. Raises UsageError, for an unknown or a missing name too."""
    known = {one.name: one for one in declared(kind)}
    unknown = [name for name in given if name not in known]
    if unknown:
        raise UsageError(f"{kind.command} has no option {unknown[0]!r}; it has {', '.join(known)}")
    missing = [one.flag for one in known.values() if one.is_required and given.get(one.name) is None]
    if missing:
        raise UsageError(f"{kind.command} needs {', '.join(missing)}")
    return kind(**given, command_line=command_line)
