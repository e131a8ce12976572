"""The low-rank mixed model and its cost model."""

from __future__ import annotations

from typing import Any


def low_rank(commands: Any) -> None:
    """Declare ``mpgls low-rank``."""


def plan(commands: Any) -> None:
    """Declare ``mpgls plan``."""
