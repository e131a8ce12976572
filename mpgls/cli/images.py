"""Commands on brain images."""

from __future__ import annotations

from typing import Any


def vgwas(commands: Any) -> None:
    """Declare ``mpgls vgwas``."""


def vgwas_extract(commands: Any) -> None:
    """Declare ``mpgls vgwas-extract``."""


def simulate_images(commands: Any) -> None:
    """Declare ``mpgls simulate-images``."""
