"""What was found out about a machine: for people and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Findings:
    """Lines by group for people, ``facts`` for programs, notes, and problems that keep a run from starting.

    They are whole on rank 0; other ranks have what they found themselves.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    groups: list[tuple[str, list[str]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def say(self, title: str, lines: Sequence[str]) -> None:
        """One more group of lines."""
        self.groups.append((title, list(lines)))

    def text(self) -> str:
        """The groups, the notes and the verdict as plain lines."""
        lines = []
        for title, body in self.groups:
            lines += [title, *(f"  {line}" for line in body)]
        lines += [f"note: {note}" for note in self.notes]
        if not self.problems:
            return "\n".join([*lines, "verdict: ready"])
        return "\n".join([*lines, "verdict: not ready", *(f"  problem: {problem}" for problem in self.problems)])

    def all_facts(self) -> dict[str, Any]:
        """``facts`` with the notes, the problems and the verdict."""
        return self.facts | {"notes": self.notes, "problems": self.problems, "ready": not self.problems}


def count(number: int, what: str) -> str:
    """``1 rank``, ``1,000 ranks``."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")
