"""Where voxels lie that come as columns of a trait table: a text table with the header ``TRAIT I J K``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpgls.errors import InputError
from mpgls.study.text import PathLike, TextTable

HEADER = ["TRAIT", "I", "J", "K"]
LARGEST = 1 << 19
"""No grid has more voxels along an axis; larger numbers are millimetres or a mistake, and would overflow a key."""


def read_coordinates(path: PathLike, names: Sequence[str]) -> np.ndarray:
    """Indices i j k in the grid of the voxels ``names`` (v,): int32 (v, 3). Other rows of the table do not matter.

    Raises InputError, naming the line, for a malformed table; for a voxel that is not there, or there twice, and for
    two voxels in one place; StorageError for an unreadable file.
    """
    table = TextTable(path, key="TRAIT")
    source = table.path
    if table.header != HEADER:
        raise table.refuse_header("'TRAIT I J K'")
    place: dict[str, tuple[int, int, int]] = {}
    for number, (name, *indices) in table.rows():
        try:
            i, j, k = map(int, indices)
        except ValueError:
            raise InputError(f"{source}, line {number}: expected a name and three whole numbers i j k") from None
        if max(abs(i), abs(j), abs(k)) > LARGEST:
            raise InputError(f"{source}, line {number}: {i} {j} {k} are not the indices of a voxel in an image")
        if name in place:
            raise InputError(f"{source}, line {number}: voxel {name!r} occurs twice")
        place[name] = (i, j, k)
    missing = next((name for name in names if name not in place), None)
    if missing is not None:
        raise InputError(f"{source} has no coordinates of voxel {missing!r}")
    owner: dict[tuple[int, int, int], str] = {}
    for name in names:
        if owner.setdefault(place[name], name) != name:
            raise InputError(f"{source}: voxels {owner[place[name]]!r} and {name!r} are both at {place[name]}")
    return np.array([place[name] for name in names], dtype=np.int32).reshape(-1, 3)
