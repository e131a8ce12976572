"""BGZF: gzip in blocks, so that a reader can begin in the midst of a file, and ranks can pack what each of them has.

A virtual offset is the byte of the file at which a block begins, times 2^16, plus the byte within its text
(Li, "Tabix", Bioinformatics 27, 2011; SAM specification, section 4.1).
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

BLOCK = 0xFF00
"""Bytes of text in a block; even where they cannot be packed, a block has fewer than 2^16."""
EOF = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
"""The empty block that ends a file."""
_HEAD = bytes.fromhex("1f8b08040000000000ff060042430200")
_LEVEL = 6


def pack(text: bytes) -> tuple[bytes, np.ndarray]:
    """``text`` in blocks, and where each of them begins (blocks,), then where the last one ends."""
    packed = [_block(text[start : start + BLOCK]) for start in range(0, len(text), BLOCK)]
    return b"".join(packed), np.cumsum([0, *map(len, packed)])


def virtual_offsets(starts: np.ndarray, at: np.ndarray) -> np.ndarray:
    """uint64: of the bytes ``at`` of a text that was packed into blocks which begin at ``starts`` of the file."""
    return starts.astype(np.uint64)[at // BLOCK] << np.uint64(16) | (at % BLOCK).astype(np.uint64)


def _block(text: bytes) -> bytes:
    body = _deflated(text, _LEVEL)
    if len(body) > len(text):  # stored as it is
        body = _deflated(text, 0)
    size = len(_HEAD) + 2 + len(body) + 8
    return b"".join([_HEAD, struct.pack("<H", size - 1), body, struct.pack("<II", zlib.crc32(text), len(text))])


def _deflated(text: bytes, level: int) -> bytes:
    packer = zlib.compressobj(level, zlib.DEFLATED, -15)
    return packer.compress(text) + packer.flush()
