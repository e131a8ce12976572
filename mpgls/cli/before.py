"""Commands whose options are not declared by their dataclass yet."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpi4py import MPI


@dataclass(frozen=True)
class Command:
    """A parsed command: its name, its module, and its config."""

    name: str
    module: str
    config: Any

    def run(self, comm: MPI.Comm) -> None:
        """Run it on all ranks of ``comm``."""
        importlib.import_module(self.module).run(self.config, comm)


def declare(name: str, commands: Any) -> None:
    """The parser of a command."""
    from mpgls.cli import scans

    own = {
        "multi-trait": scans.multi_trait,
    }
    own[name](commands)
