"""The Manhattan plot as a set of occupied pixels: position bin and -log10 p bin of every SNP, without repeats."""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mpgls.study.plink import Variants

# The name under which SNPs without a position (0 or negative) or with chromosome 0 are kept.
UNPLACED = "unplaced"
UNPLACED_COLUMNS = 256

PIXEL_LIMIT = 1 << 19
LEVELS_PER_UNIT = 64
_LEVEL_BITS = 16
_MAX_LEVEL = (1 << _LEVEL_BITS) - 1

_LAST = {"x": 0, "y": 1, "xy": 2, "par1": 3, "par2": 4, "mt": 5, "m": 5}


def with_finite(heights: np.ndarray) -> np.ndarray:
    """-log10 p for a picture: infinite ones a little above all others."""
    finite = np.isfinite(heights)
    return np.where(finite, heights, 1.1 * float(np.max(heights, initial=1.0, where=finite)))


def chromosome_key(name: str) -> tuple:
    """Sort key of the natural order 1, 2, ..., 22, X, Y, XY, MT, then other names; ``chr`` in front is ignored."""
    bare = re.sub(r"^chr", "", name, flags=re.IGNORECASE).lower()
    if bare == UNPLACED:
        return (3, 0, "", name)
    if bare.isdecimal():
        return (0, int(bare), "", name)
    if bare in _LAST:
        return (1, _LAST[bare], "", name)
    # numbers inside other names count as numbers: scaffold_2 before scaffold_10
    return (2, 0, re.sub(r"\d+", lambda digits: digits.group().zfill(12), bare), name)


class PixelMap:
    """Occupied (position bin, level) pairs of each chromosome; a level is 1/64 of -log10 p.

    Position bins are 2^shift base pairs. ``shift`` starts at 0 and grows by one whenever there are more than
    PIXEL_LIMIT pixels, so it depends on the SNPs only and not on the order in which they came. SNPs without a
    position are spread over 256 columns by a checksum of their IDs.
    """

    def __init__(self) -> None:
        self.shift = 0
        self.counts: dict[str, int] = {}
        self.extent: dict[str, tuple[int, int]] = {}
        self._keys: dict[str, np.ndarray] = {}

    def add(self, variants: Variants, used: np.ndarray, values: np.ndarray) -> list[tuple[str, np.ndarray]]:
        """Mark the SNPs ``used`` (k,) of ``variants`` with -log10 p ``values`` (k,).

        Returns each chromosome with the positions in ``used`` of its SNPs.
        """
        names, codes = _encode(variants.chrom, used)
        position = np.asarray(variants.pos, dtype=np.int64)[used]
        codes = np.where((position <= 0) | np.array([name == "0" for name in names])[codes], len(names), codes)
        order = np.argsort(codes, kind="stable")
        ends = np.cumsum(np.bincount(codes, minlength=len(names) + 1))
        level = np.minimum(values * LEVELS_PER_UNIT, _MAX_LEVEL).astype(np.int64)
        placed = []
        for code, name in enumerate([*names, UNPLACED]):
            rows = order[ends[code - 1] if code else 0 : ends[code]]
            if rows.size == 0:
                continue
            if name == UNPLACED:
                column = _checksums(variants.id, used[rows])
            else:
                column = position[rows]
                self._widen(name, int(column.min()), int(column.max()))
                column = column >> self.shift
            self.counts[name] = self.counts.get(name, 0) + rows.size
            self._join(name, np.unique((column << _LEVEL_BITS) | level[rows]))
            placed.append((name, rows))
        self._bound()
        return placed

    def merge(self, other: PixelMap) -> None:
        """Add the pixels of ``other``."""
        self._coarsen(max(self.shift, other.shift))
        for name, keys in other._keys.items():
            self.counts[name] = self.counts.get(name, 0) + other.counts[name]
            if name in other.extent:
                self._widen(name, *other.extent[name])
            self._join(name, _shifted(keys, 0 if name == UNPLACED else self.shift - other.shift))
        self._bound()

    def chromosomes(self) -> list[str]:
        """Chromosome names in natural order, UNPLACED last if there are such SNPs."""
        return sorted(self._keys, key=chromosome_key)

    @staticmethod
    def column_of(snp_id: str) -> int:
        """The column of a SNP without a position."""
        return zlib.crc32(snp_id.encode()) % UNPLACED_COLUMNS

    def points(self, chrom: str) -> tuple[np.ndarray, np.ndarray]:
        """Base-pair positions (or columns 0 to 255 of UNPLACED) and -log10 p of the pixels, at bin centres."""
        keys = self._keys[chrom]
        column, level = keys >> _LEVEL_BITS, keys & _MAX_LEVEL
        if chrom != UNPLACED:
            low, high = self.extent[chrom]
            column = np.clip((column << self.shift) + ((1 << self.shift) >> 1), low, high)
        return column, (level + 0.5) / LEVELS_PER_UNIT

    def size(self) -> int:
        """Number of pixels."""
        return sum(keys.size for keys in self._keys.values())

    def __getstate__(self) -> dict:
        # Sorted keys: their differences are small numbers and compress well.
        packed = {name: zlib.compress(np.diff(keys, prepend=0).tobytes(), 1) for name, keys in self._keys.items()}
        return {**self.__dict__, "_keys": packed}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        unpacked = {name: np.frombuffer(zlib.decompress(data), np.int64) for name, data in state["_keys"].items()}
        self._keys = {name: np.cumsum(steps) for name, steps in unpacked.items()}

    def _widen(self, name: str, low: int, high: int) -> None:
        held = self.extent.get(name, (low, high))
        self.extent[name] = (min(low, held[0]), max(high, held[1]))

    def _join(self, name: str, keys: np.ndarray) -> None:
        self._keys[name] = np.union1d(self._keys[name], keys) if name in self._keys else keys

    def _bound(self) -> None:
        while self.size() > PIXEL_LIMIT and self.shift < 40:
            self._coarsen(self.shift + 1)

    def _coarsen(self, shift: int) -> None:
        for name, keys in self._keys.items():
            if name != UNPLACED:
                self._keys[name] = _shifted(keys, shift - self.shift)
        self.shift = shift


def _shifted(keys: np.ndarray, by: int) -> np.ndarray:
    """The keys after making position bins 2^by times as wide."""
    if by == 0:
        return keys
    return np.unique((keys >> (_LEVEL_BITS + by) << _LEVEL_BITS) | (keys & _MAX_LEVEL))


def _encode(names: list[str], used: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Distinct names in order of appearance and the code (k,) of each used row."""
    codes: dict[str, int] = {}
    picked = names if used.size == len(names) else [names[k] for k in used.tolist()]
    coded = np.fromiter((codes.setdefault(name, len(codes)) for name in picked), np.int64, used.size)
    return list(codes), coded


def _checksums(ids: list[str], rows: np.ndarray) -> np.ndarray:
    return np.fromiter((PixelMap.column_of(ids[k]) for k in rows.tolist()), np.int64, rows.size)
