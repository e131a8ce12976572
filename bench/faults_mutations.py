"""What can happen to the bytes of a file: random changes, of text line by line, and of what gzip packed beneath it."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable
from pathlib import Path

JUNK = ("", "NA", "nan", "inf", "-1", "1e999", "9" * 30, "é\u2028", "0x10", "a b", "-", "chr", '"', "A" * 5000)
"""What a field becomes."""


def mutate(path: Path, chance: random.Random, binary: bool = False) -> str:
    """Change the file in one way, which is named; ``binary``: as bytes, whatever it holds."""
    before = path.read_bytes()
    packed = path.suffix == ".gz" and not binary and chance.random() < 0.7
    data = gzip.decompress(before) if packed else before
    ways: dict[str, Callable[[bytes, random.Random], bytes]] = dict(OF_BYTES)
    if not binary and _is_text(data):
        ways |= OF_LINES
    while True:
        name = chance.choice(list(ways))
        after = ways[name](data, chance)
        if after != data:
            break
    path.write_bytes(gzip.compress(after, 1, mtime=0) if packed else after)
    return name


def _is_text(data: bytes) -> bool:
    try:
        return "\0" not in data.decode()
    except UnicodeDecodeError:
        return False


# -- bytes ------------------------------------------------------------------------------------------------------------


def _flip(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8))):
        changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _flip_at_start(data: bytes, chance: random.Random) -> bytes:
    """Headers say how the rest is understood."""
    changed = bytearray(data)
    changed[chance.randrange(min(len(data), 512))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _fill(data: bytes, chance: random.Random) -> bytes:
    first = chance.randrange(len(data))
    length = min(len(data) - first, chance.choice((1, 8, 64, 512)))
    what = chance.choice((b"\0", b"\xff", None))
    middle = chance.randbytes(length) if what is None else what * length
    return data[:first] + middle + data[first + length :]


def _truncate(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.choice((0, 1, len(data) - 1, chance.randrange(len(data))))]


def _lengthen(data: bytes, chance: random.Random) -> bytes:
    return data + chance.randbytes(chance.choice((1, 7, 4096)))


OF_BYTES = {
    "flipped bits": _flip, "flipped bits of the header": _flip_at_start, "filled": _fill, "truncated": _truncate,
    "lengthened": _lengthen,
}  # fmt: skip


# -- lines ------------------------------------------------------------------------------------------------------------


def _delete_line(data: bytes, chance: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    del lines[chance.randrange(len(lines))]
    return b"".join(lines)


def _repeat_line(data: bytes, chance: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    at = chance.randrange(len(lines))
    return b"".join([*lines[: at + 1], lines[at], *lines[at + 1 :]])


def _swap_lines(data: bytes, chance: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    a, b = chance.randrange(len(lines)), chance.randrange(len(lines))
    lines[a], lines[b] = lines[b], lines[a]
    return b"".join(lines)


def _separator(data: bytes) -> bytes:
    return b"\t" if b"\t" in data else b" "


def _swap_columns(data: bytes, chance: random.Random) -> bytes:
    rows = [line.split(_separator(data)) for line in data.splitlines()]
    width = min(map(len, rows))
    a, b = chance.randrange(width), chance.randrange(width)
    for row in rows:
        row[a], row[b] = row[b], row[a]
    return b"\n".join(_separator(data).join(row) for row in rows) + b"\n"


def _change_field(data: bytes, chance: random.Random) -> bytes:
    lines = data.splitlines()
    at = chance.randrange(len(lines))
    fields = lines[at].split(_separator(data))
    fields[chance.randrange(len(fields))] = chance.choice(JUNK).encode()
    lines[at] = _separator(data).join(fields)
    return b"\n".join(lines) + b"\n"


def _delete_column(data: bytes, chance: random.Random) -> bytes:
    rows = [line.split(_separator(data)) for line in data.splitlines()]
    at = chance.randrange(min(map(len, rows)))
    return b"\n".join(_separator(data).join(row[:at] + row[at + 1 :]) for row in rows) + b"\n"


OF_LINES = {
    "a line less": _delete_line, "a line twice": _repeat_line, "lines swapped": _swap_lines,
    "columns swapped": _swap_columns, "another field": _change_field, "a column less": _delete_column,
}  # fmt: skip
