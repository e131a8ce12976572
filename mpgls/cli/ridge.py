"""Prediction by ridge regression."""

from __future__ import annotations

from typing import Any


def ridge(commands: Any) -> None:
    """Declare ``mpgls ridge``."""
