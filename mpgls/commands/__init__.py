"""The commands of mpgls, one file each: its options and its algorithm. A new command is one more line here."""

from __future__ import annotations

import importlib
from types import ModuleType

from mpgls.run.options import Options

COMMANDS = {
    "kinship": "Kinship",
    "eigen": "Eigen",
    "single-trait": "SingleTrait",
    "multi-trait": "MultiTrait",
    "low-rank": "LowRank",
    "plan": "Plan",
    "vgwas-extract": "VgwasExtract",
    "vgwas": "Vgwas",
    "ridge": "Ridge",
    "score": "Score",
    "export": "Export",
    "merge": "Merge",
    "simulate": "Simulate",
    "simulate-images": "SimulateImages",
    "doctor": "Doctor",
}
"""The name of each command and the class of its options, in the order of --help; NAME is in commands/NAME.py."""


def module_of(name: str) -> ModuleType:
    """The module of a command: its options, and ``run(options, comm)``."""
    return importlib.import_module(f"mpgls.commands.{name.replace('-', '_')}")


def options_of(name: str) -> type[Options]:
    """The options of a command."""
    made: type[Options] = getattr(module_of(name), COMMANDS[name])
    return made
