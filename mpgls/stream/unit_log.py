"""Results of units of work, appended to one file a rank: what is whole in it is done, whatever ended the run.

A file begins with a line that names the format, then a line of JSON: ``made_from``, what the results depend on, and
``sizes``, what the units were cut in. Each unit follows as its length and checksum (uint64 and uint32, little-endian),
then its body: the length of a JSON header (uint32), the header, and the bytes of its arrays in C order. The header has
``key``, a list of integers, and ``arrays``, the name, type and shape of each. A unit that was being written when the
run ended fails its checksum, and it and what follows are cut off when the file is opened again. Nothing in a file is
ever run as code.
"""

from __future__ import annotations

import json
import os
import struct
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mpgls.errors import InputError, StorageError
from mpgls.stream.files import writing
from mpgls.stream.mark import Mark

MAGIC = b"mpgls-units-2\n"
_FRAME = struct.Struct("<QI")
_HEADER_BYTES = struct.Struct("<I")

Key = tuple[int, ...]


@dataclass
class UnitLog:
    """The units that one rank appends; ``checkpoint_seconds`` between two syncs."""

    path: Path
    checkpoint_seconds: float
    _file: BinaryIO | None = field(default=None, repr=False)
    _synced: float = 0.0

    def open(self, mark: Mark, sizes: Mapping[str, int]) -> None:
        """Go on after the whole units of the file, or start it. Raises StorageError."""
        with writing(self.path):
            end = _whole(self.path) if self.path.exists() else 0
            self._file = open(self.path, "r+b" if end else "wb")  # noqa: SIM115
            self._file.truncate(end)
            self._file.seek(end)
            if not end:
                self._file.write(MAGIC + _json({"made_from": mark.text, "sizes": dict(sizes)}) + b"\n")
            self._sync()

    def append(self, key: Key, arrays: Mapping[str, np.ndarray]) -> None:
        """One finished unit and its result. Raises StorageError."""
        assert self._file is not None
        body = _packed(key, arrays)
        with writing(self.path):
            self._file.write(_FRAME.pack(len(body), zlib.crc32(body)))
            self._file.write(body)
            self._file.flush()
            if time.perf_counter() - self._synced > self.checkpoint_seconds:
                self._sync()

    def close(self) -> None:
        """To the disk. Raises StorageError."""
        if self._file is not None:
            with writing(self.path):
                self._sync()
                self._file.close()
            self._file = None

    def _sync(self) -> None:
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        self._synced = time.perf_counter()


@dataclass(frozen=True)
class FinishedUnits:
    """Where each finished unit's result lies, and the sizes that the units were cut in."""

    sizes: dict[str, int]
    places: dict[Key, tuple[Path, int, int]]
    notes: tuple[str, ...] = ()
    """What the log says of bytes that are no whole unit."""

    def read(self, key: Key) -> dict[str, np.ndarray]:
        """The result of a unit. Raises StorageError, or InputError when it changed on disk since it was found."""
        if key not in self.places:
            raise StorageError("results of this run are gone: does another run write to the same --out?")
        path, offset, length = self.places[key]
        try:
            with open(path, "rb") as file:
                file.seek(offset - _FRAME.size)
                _, checksum = _FRAME.unpack(file.read(_FRAME.size))
                body = file.read(length)
                if zlib.crc32(body) != checksum:
                    raise InputError(f"{path} is damaged: run the same command with --resume to make its units again")
                return _arrays(body)
        except (OSError, ValueError, struct.error) as error:
            raise StorageError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None


def rank_path(prefix: str, rank: int) -> Path:
    """The log of a rank."""
    return Path(f"{prefix}.units.{rank:05d}")


def unit_logs(prefix: str) -> list[Path]:
    """The logs of all ranks of earlier and present runs."""
    stem = Path(f"{prefix}.units.")
    found = stem.parent.glob("*.units.*") if stem.parent.is_dir() else []
    return sorted(path for path in found if path.name.startswith(stem.name) and path.suffix[1:].isdigit())


def remove_unit_logs(prefix: str) -> None:
    """Forget all units."""
    for path in unit_logs(prefix):
        path.unlink(missing_ok=True)


def finished_units(prefix: str, mark: Mark) -> FinishedUnits | None:
    """The units in all logs, None where there is no log.

    Raises InputError for logs of other inputs or options, StorageError when one cannot be read.
    """
    sizes, places, notes = None, {}, []
    for path in unit_logs(prefix):
        try:
            with open(path, "rb") as file:
                found = _sizes(file, path, mark)
                if found is None:
                    continue
                if sizes is not None and sizes != found:
                    raise InputError(f"{path} and the logs beside it are of runs in different sizes: start anew")
                sizes = found
                end = file.tell()
                for key, offset, length in _frames(file):
                    places[key], end = (path, offset, length), offset + length
                left = os.fstat(file.fileno()).st_size - end
                if left:
                    notes.append(f"{path}: its last {left:,} bytes are unfinished or damaged units, and are made again")
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror or error}") from None
    return None if sizes is None else FinishedUnits(sizes, places, tuple(notes))


def _sizes(file: BinaryIO, path: Path, mark: Mark) -> dict[str, int] | None:
    """The sizes; None for a file that ends within its first two lines."""
    magic, line = file.readline(), file.readline()
    if not line.endswith(b"\n"):
        return None
    if magic != MAGIC:
        raise InputError(f"{path} is not a log of this version of mpgls: run without --resume to start anew")
    try:
        header = json.loads(line)
        made_from, sizes = header["made_from"], dict(header["sizes"])
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path} is damaged: run without --resume to start anew") from None
    mark.check(made_from, path)
    return sizes


def _frames(file: BinaryIO) -> Iterator[tuple[Key, int, int]]:
    """(key, offset, length) of the body of each whole unit from the file's position on."""
    while len(head := file.read(_FRAME.size)) == _FRAME.size:
        length, checksum = _FRAME.unpack(head)
        start, left = file.tell(), os.fstat(file.fileno()).st_size - file.tell()
        body = file.read(length) if length <= left else b""
        if len(body) != length or zlib.crc32(body) != checksum:
            return
        yield tuple(_header(body)[0]["key"]), start, length


def _whole(path: Path) -> int:
    """Bytes up to the end of the last whole unit; 0 when not even the first two lines are whole."""
    with open(path, "rb") as file:
        if file.readline() != MAGIC or not file.readline().endswith(b"\n"):
            return 0
        end = file.tell()
        for _, start, length in _frames(file):
            end = start + length
        return end


# -- the body of a unit ---------------------------------------------------------------------------------------------


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _packed(key: Key, arrays: Mapping[str, np.ndarray]) -> bytes:
    """The body of a unit. Raises ValueError for arrays of Python objects."""
    described, data = [], []
    for name, values in arrays.items():
        if values.dtype.hasobject:
            raise ValueError(f"array {name!r} holds Python objects")
        described.append({"name": name, "type": _description(values.dtype), "shape": values.shape})
        data.append(np.ascontiguousarray(values).tobytes())
    header = _json({"key": [int(one) for one in key], "arrays": described})
    return b"".join([_HEADER_BYTES.pack(len(header)), header, *data])


def _header(body: bytes) -> tuple[dict[str, Any], int]:
    """The header of a body, and where its arrays begin."""
    end = _HEADER_BYTES.size + _HEADER_BYTES.unpack_from(body)[0]
    return json.loads(body[_HEADER_BYTES.size : end]), end


def _arrays(body: bytes) -> dict[str, np.ndarray]:
    """The arrays of a body. Raises ValueError when they do not fill it."""
    header, at = _header(body)
    found = {}
    for one in header["arrays"]:
        dtype, shape = _dtype(one["type"]), tuple(one["shape"])
        count = int(np.prod(shape, dtype=np.int64))
        found[one["name"]] = np.frombuffer(body, dtype, count, at).reshape(shape).copy()
        at += count * dtype.itemsize
    if at != len(body):
        raise ValueError(f"the arrays of a unit take {at} bytes, and it has {len(body)}")
    return found


def _description(dtype: np.dtype) -> Any:
    """A type as JSON: its text, such as "<f8", or pairs of name and text for a record without gaps."""
    return dtype.descr if dtype.names else dtype.str


def _dtype(description: Any) -> np.dtype:
    return np.dtype(description if isinstance(description, str) else [tuple(field) for field in description])
