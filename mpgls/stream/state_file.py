"""What a run has finished so far, or a stage hands to the next: a few arrays in one HDF5 file, replaced at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mpgls.errors import InputError
from mpgls.stream.files import replaced
from mpgls.study.checksums import checksum
from mpgls.study.hdf5 import open_hdf5

FORMAT, VERSION = "mpgls-state", 2


def save_state(path: Path, made_from: str, facts: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Replace the file by ``arrays`` and the text ``facts``, synced. Call on one rank. Raises StorageError."""
    with replaced(path) as partial, open_hdf5(partial, "w", libver="latest") as file:
        file.attrs.update({"format": FORMAT, "version": VERSION, "made_from": made_from, "facts": facts})
        file.attrs["sum"] = _sum(facts, arrays)
        for name, values in arrays.items():
            file[name] = values


def load_state(path: Path) -> tuple[str, str, dict[str, np.ndarray]] | None:
    """What the file was made from, its facts and its arrays; None where there is no file.

    Raises StorageError when it cannot be read, InputError when it is no such file or its bytes changed on disk.
    """
    if not path.exists():
        return None
    with open_hdf5(path, what="progress file of mpgls") as file:
        if file.attrs.get("format") != FORMAT or file.attrs.get("version") != VERSION:
            raise InputError(f"{path} is not a progress file of this version of mpgls")
        arrays = {name: file[name][...] for name in file}
        made_from, facts, total = str(file.attrs["made_from"]), str(file.attrs["facts"]), int(file.attrs["sum"])
    if _sum(facts, arrays) != total:
        raise InputError(f"{path} is damaged: it is not what was written; run without --resume to start anew")
    return made_from, facts, arrays


def _sum(facts: str, arrays: Mapping[str, np.ndarray]) -> int:
    """The checksum of the facts and of the arrays in the order of their names."""
    parts = (np.asarray(arrays[name]) for name in sorted(arrays))
    return checksum(np.frombuffer(facts.encode(), np.uint8), *parts)
