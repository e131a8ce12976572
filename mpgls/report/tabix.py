"""The index of a BGZF table by chromosome and position: a .tbi, as tabix makes it.

Li, "Tabix: fast retrieval of sequence features from generic TAB-delimited files", Bioinformatics 27, 718 (2011). Every
row is one base long, so it lies in a bin of 2^14 bases, and the bins of larger ones stay empty. (Bins are numbered
level by level from the whole of 2^29 bases on; 4,681 of them are larger.)
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from mpgls.stream import bgzf

LAST = 1 << 29
"""The last position that an index can have."""
_SHIFT, _FIRST_BIN = 14, 4681
_GENERIC, _REMARK, _HEADER_LINES = 0, ord("#"), 1


class Bin(NamedTuple):
    """Rows beside one another in one bin: where their bytes begin and end, as virtual offsets."""

    chrom: str
    number: int
    begin: int
    end: int


def bins_of(chrom: Sequence[str], pos: np.ndarray, offsets: np.ndarray) -> list[Bin]:
    """The bins of consecutive rows; ``pos`` (rows,) from 1, ``offsets`` (rows + 1,) where each begins, and the end."""
    if not len(chrom):
        return []
    names, numbers = np.array(chrom, dtype=object), (pos - 1) >> _SHIFT
    starts = np.flatnonzero(np.append(True, (names[1:] != names[:-1]) | (numbers[1:] != numbers[:-1])))
    ends = offsets[np.append(starts[1:], len(chrom))]
    places = zip(names[starts], numbers[starts].tolist(), offsets[starts].tolist(), ends.tolist(), strict=True)
    return [Bin(*place) for place in places]


def index(bins: Iterable[Bin], columns: tuple[int, int]) -> bytes:
    """The .tbi, packed, of a table sorted by chromosome and position, which has one line of header.

    ``bins`` stand in the order of the table; ``columns`` are those of chromosome and position, from 1.
    """
    chunks: dict[str, dict[int, list[list[int]]]] = defaultdict(dict)
    for one in bins:
        of_bin = chunks[one.chrom].setdefault(one.number, [])
        if of_bin and of_bin[-1][1] == one.begin:
            of_bin[-1][1] = one.end
        else:
            of_bin.append([one.begin, one.end])
    names = b"".join(name.encode() + b"\0" for name in chunks)
    # a row ends where it begins: htslib finds nothing by an index without the column of the end
    head = (len(chunks), _GENERIC, *columns, columns[1], _REMARK, _HEADER_LINES, len(names))
    parts = [b"TBI\1", struct.pack("<8i", *head), names]
    for of_chrom in chunks.values():
        parts.append(struct.pack("<i", len(of_chrom)))
        for number, places in of_chrom.items():
            parts.append(struct.pack("<Ii", _FIRST_BIN + number, len(places)))
            parts += [struct.pack("<QQ", *place) for place in places]
        parts += [struct.pack("<i", max(of_chrom) + 1), _linear(of_chrom)]
    parts.append(struct.pack("<Q", 0))  # rows without a place
    return bgzf.pack(b"".join(parts))[0] + bgzf.EOF


def _linear(of_chrom: dict[int, list[list[int]]]) -> bytes:
    """Where the first row at or after each 2^14 bases begins."""
    firsts = np.zeros(max(of_chrom) + 1, dtype="<u8")
    for number, places in of_chrom.items():
        firsts[number] = places[0][0]
    for number in range(firsts.size - 2, -1, -1):
        firsts[number] = firsts[number] or firsts[number + 1]
    return firsts.tobytes()
