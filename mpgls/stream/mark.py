"""What a file was made from, kept in the file itself: a run may go on with what was made from the same."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mpgls.errors import InputError

_LONGEST = 400
"""Characters of a value that are kept as they are; of a longer one, its hash."""


@dataclass(frozen=True)
class Mark:
    """Facts by kind, such as ``{"command": ..., "options": {...}, "inputs": {...}}``, in the types that JSON has."""

    facts: Mapping[str, Any]

    @functools.cached_property
    def text(self) -> str:
        """The facts as JSON, made once, as they may list all samples: equal texts were made from the same."""
        return json.dumps({kind: _short(value) for kind, value in self.facts.items()}, sort_keys=True, default=str)

    def narrowed(self, **facts: Any) -> Mark:
        """The mark of a part of the work, which has these facts, too."""
        return Mark({**self.facts, **facts})

    def check(self, found: str, path: str | os.PathLike[str]) -> None:
        """InputError unless ``found``, the text in the file ``path``, says the same; it names the first difference."""
        if found != self.text:
            raise InputError(
                f"{os.fspath(path)} was made from other inputs or options, so it cannot be resumed "
                f"({self.difference(found)}): run with the same command line, or without --resume to start anew"
            )

    def difference(self, found: str) -> str:
        """The first thing that ``found`` says otherwise, in words."""
        try:
            theirs = json.loads(found)
        except ValueError:
            theirs = None
        if not isinstance(theirs, dict):
            return "by an earlier version of mpgls"
        ours = json.loads(self.text)
        return next(_differences(theirs, ours), "in another order")


def _short(value: Any) -> Any:
    """``value``, or for a long one its hash, at the second level too."""
    if isinstance(value, Mapping):
        return {key: _short(item) for key, item in value.items()}
    text = json.dumps(value, sort_keys=True, default=str)
    return value if len(text) <= _LONGEST else "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def _differences(theirs: dict[str, Any], ours: dict[str, Any]) -> Iterator[str]:
    for kind in dict.fromkeys(["command", "options", "inputs", *sorted(ours.keys() | theirs.keys())]):
        was, now = theirs.get(kind), ours.get(kind)
        if was == now:
            continue
        if not (isinstance(was, dict) and isinstance(now, dict)):
            yield f"not the same {kind}"
            continue
        for name in sorted(was.keys() | now.keys()):
            if was.get(name) != now.get(name):
                yield _changed(name, was.get(name), now.get(name), kind == "inputs")


def _changed(name: str, was: Any, now: Any, files: bool) -> str:
    if files and was and now:
        return f"the file of {name} is another"
    return f"{name} was {_shown(was, files)}, now it is {_shown(now, files)}"


def _shown(value: Any, files: bool) -> str:
    """A value as the user wrote it; of ``files`` only their hashes are known."""
    if value is None or value is False or value == []:
        return "not given"
    if value is True or files:
        return "given"
    if isinstance(value, list):
        return " ".join(map(str, value))
    return str(value)
