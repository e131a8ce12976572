"""Checksums of what a run keeps, so that bytes that changed on disk are not taken for results."""

from __future__ import annotations

import zlib

import numpy as np

SUM_DTYPE = np.dtype("<u4")
ABSENT = 0
"""The checksum of what was never written; no data have it."""


def checksum(*parts: np.ndarray) -> int:
    """CRC-32 of the bytes of ``parts``, one after the other; never `ABSENT`."""
    found = 0
    for part in parts:
        found = zlib.crc32(_bytes(part), found)
    return found or 1


def row_checksums(*parts: np.ndarray) -> np.ndarray:
    """The `checksum` of each row over all ``parts`` (rows, ...): SUM_DTYPE (rows,)."""
    found = [0] * len(parts[0])
    for part in parts:
        data, width = _bytes(part), part[:1].nbytes
        found = [zlib.crc32(data[row * width : (row + 1) * width], before) for row, before in enumerate(found)]
    return np.array([one or 1 for one in found], dtype=SUM_DTYPE)


def _bytes(values: np.ndarray) -> memoryview:
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
