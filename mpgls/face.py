"""The Python face: a function for each command, made of the declarations of its options."""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from mpgls.commands import module_of, options_of
from mpgls.run.options import Declared, declared, make

if TYPE_CHECKING:
    from mpi4py import MPI

    from mpgls.run.results import Results


def function_of(command: str) -> Callable[..., Results]:
    """``mpgls.COMMAND(*, comm=None, verbose=False, **options)``. Its docstring and signature list the options."""
    kind, module = options_of(command), module_of(command)

    def function(*, comm: MPI.Comm | None = None, verbose: bool = False, **given: Any) -> Results:
        from mpi4py import MPI

        options = make(kind, given)
        with contextlib.nullcontext() if verbose else _silent():
            made: Results = module.run(options, MPI.COMM_SELF if comm is None else comm)
        return made

    function.__name__ = function.__qualname__ = command.replace("-", "_")
    function.__doc__ = _docstring(kind.summary, declared(kind))
    function.__signature__ = _signature(declared(kind))  # type: ignore[attr-defined]
    return function


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Nothing of the log on standard output; the log file has it all."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def _docstring(summary: str, options: tuple[Declared, ...]) -> str:
    lines = [
        f"{summary[0].upper()}{summary[1:]}.",
        "",
        "Collective over ``comm``, this process alone by default; ``verbose`` prints the log. Returns Results.",
        "Raises mpgls.errors.MpglsError, the same on all ranks, in the words of the command line.",
        "",
    ]
    for one in options:
        default = "required" if one.is_required else f"default {one.default!r}"
        lines.append(f"{one.name} : {one.option.help} ({default})")
    return "\n".join(lines)


def _signature(options: tuple[Declared, ...]) -> inspect.Signature:
    parameters = [inspect.Parameter("comm", inspect.Parameter.KEYWORD_ONLY, default=None)]
    parameters.append(inspect.Parameter("verbose", inspect.Parameter.KEYWORD_ONLY, default=False))
    for one in options:
        default = inspect.Parameter.empty if one.is_required else one.default
        parameters.append(inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, default=default))
    return inspect.Signature(parameters)
