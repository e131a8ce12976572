"""What of a run is done, so that --resume goes on from there: three media, and none of them holds Python objects.

* slots: checksums in the store that the results are written to (`stream.store`, `stream.dense_store`);
* a log: records that each rank appends (`stream.unit_log`);
* a state: one small file that is replaced whole (`State`, here).

Each of them carries the run's `Mark`; a mark that says otherwise is refused, naming what differs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mpgls.errors import InputError, StorageError
from mpgls.stream.mark import Mark
from mpgls.stream.state_file import load_state, save_state


class Saved(NamedTuple):
    """A state: ``facts`` in the types that JSON has, and ``arrays`` by name."""

    facts: dict[str, Any]
    arrays: dict[str, np.ndarray]


@dataclass(frozen=True)
class State:
    """What is known so far, in one file that is replaced whole; its methods are for one rank."""

    path: Path
    mark: Mark

    def load(self) -> Saved | None:
        """What an earlier run with the same mark saved, None where there is no file.

        Raises InputError when the file was made from others, naming the difference, or is no such file.
        """
        found = load_state(self.path)
        if found is None:
            return None
        text, facts, arrays = found
        self.mark.check(text, self.path)
        return Saved(json.loads(facts), arrays)

    def load_same(self, say: Callable[[str], None]) -> Saved | None:
        """The same, but None where the file was made from others, or is damaged or no such file, as it will ``say``."""
        try:
            found = load_state(self.path)
        except (InputError, StorageError):
            say(f"{self.path} is damaged, or of another version of mpgls, and is made again")
            return None
        if found is None or found[0] != self.mark.text:
            return None
        return Saved(json.loads(found[1]), found[2])

    def save(self, facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Replace the file, synced. Raises StorageError."""
        save_state(self.path, self.mark.text, json.dumps(facts), arrays)
