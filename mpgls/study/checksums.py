"""Checksums of what mpgls writes and reads again, so that bytes that changed on disk are not taken for data.

A short row has the CRC-32 of its bytes. A long one is folded first, which runs at the speed of memory: its words w_rc,
uint64 modulo 2^64, are laid out in rows r of FOLD columns c, and its checksum is the CRC-32 of

    t_r = sum_c a_c w_rc,    u_c = sum_r w_rc,    and the words and bytes that fill no row;    a_c odd and distinct

One changed word changes a t_r, and so do two words that swap their rows; words that swap places in a row change u_c.
"""

from __future__ import annotations

import zlib

import numpy as np

SUM_DTYPE = np.dtype("<u4")
ABSENT = 0
"""The checksum of what was never written; no data have it."""
FOLD = 128
LONG = 4096
"""Bytes from which on a row is folded."""
_WORD = np.dtype("<u8")
_WEIGHTS = (2 * np.arange(FOLD, dtype=_WORD) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)


def checksum(*parts: np.ndarray) -> int:
    """The checksum of all ``parts`` as one row; never `ABSENT`."""
    return int(row_checksums(*(np.reshape(part, (1, -1)) for part in parts))[0])


def row_checksums(*parts: np.ndarray) -> np.ndarray:
    """The checksum of each row over all ``parts`` (rows, ...), never `ABSENT`: SUM_DTYPE (rows,)."""
    found = [0] * len(parts[0])
    for part in parts:
        values = np.ascontiguousarray(part)
        rows = _folded(values.reshape(-1).view(np.uint8).reshape(len(part), part[:1].nbytes))
        data, width = rows.reshape(-1).data, rows.shape[1]
        found = [zlib.crc32(data[row * width : (row + 1) * width], before) for row, before in enumerate(found)]
    return np.array([one or 1 for one in found], dtype=SUM_DTYPE)


def segment_checksums(rows: np.ndarray, width: int) -> np.ndarray:
    """The checksum of each ``width`` numbers of each row, the last of which may be fewer: (segments, rows)."""
    whole = rows.shape[1] // width * width
    sums = row_checksums(rows[:, :whole].reshape(-1, width)).reshape(len(rows), whole // width)
    if whole < rows.shape[1]:
        sums = np.column_stack([sums, row_checksums(rows[:, whole:])])
    return sums.T


def _folded(rows: np.ndarray) -> np.ndarray:
    """What the CRC-32 of each row of bytes (rows, width) is made of."""
    count, width = rows.shape
    if width < LONG:
        return rows
    end = width // (_WORD.itemsize * FOLD) * (_WORD.itemsize * FOLD)
    words = rows[:, :end].view(_WORD).reshape(count, -1, FOLD)
    t, u = np.einsum("krc,c->kr", words, _WEIGHTS), np.einsum("krc->kc", words)
    return np.concatenate([t.view(np.uint8), u.view(np.uint8), rows[:, end:]], axis=1)
