"""Results of units of work, appended to one file a rank: what is whole in it is done, whatever ended the run.

A file begins with a line that names the format, then the fingerprint, then the sizes that the units were cut in (JSON).
Each unit follows as its length and checksum, then its pickled result. A unit that was being written when the run ended
fails its checksum, and it and what follows are cut off when the file is opened again.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from mpgls.errors import InputError, StorageError

MAGIC = b"mpgls-units-1\n"
_FRAME = struct.Struct("<QI")
_KEY_BYTES = struct.Struct("<I")

Key = tuple[int, ...]


@dataclass
class UnitLog:
    """The units that one rank appends; ``checkpoint_seconds`` between two syncs."""

    path: Path
    checkpoint_seconds: float
    _file: BinaryIO | None = field(default=None, repr=False)
    _synced: float = 0.0

    def open(self, mark: str, sizes: dict[str, Any]) -> None:
        """Go on after the whole units of the file, or start it. Raises StorageError."""
        try:
            end = _whole(self.path) if self.path.exists() else 0
            self._file = open(self.path, "r+b" if end else "wb")  # noqa: SIM115
            self._file.truncate(end)
            self._file.seek(end)
            if not end:
                self._file.write(MAGIC + mark.encode() + b"\n" + json.dumps(sizes, sort_keys=True).encode() + b"\n")
            self._sync()
        except OSError as error:
            raise self._problem(error) from None

    def append(self, key: Key, result: Any) -> None:
        """One finished unit. Raises StorageError."""
        assert self._file is not None
        name, data = pickle.dumps(key), pickle.dumps(result, protocol=pickle.HIGHEST_PROTOCOL)
        body = _KEY_BYTES.pack(len(name)) + name + data
        try:
            self._file.write(_FRAME.pack(len(body), zlib.crc32(body)))
            self._file.write(body)
            self._file.flush()
            if time.perf_counter() - self._synced > self.checkpoint_seconds:
                self._sync()
        except OSError as error:
            raise self._problem(error) from None

    def close(self) -> None:
        """To the disk. Raises StorageError."""
        if self._file is not None:
            try:
                self._sync()
                self._file.close()
            except OSError as error:
                raise self._problem(error) from None
            self._file = None

    def _sync(self) -> None:
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        self._synced = time.perf_counter()

    def _problem(self, error: OSError) -> StorageError:
        return StorageError(f"cannot write {self.path}: {error.strerror or error}")


@dataclass(frozen=True)
class FinishedUnits:
    """Where each finished unit's result lies, and the sizes that the units were cut in."""

    sizes: dict[str, Any]
    places: dict[Key, tuple[Path, int, int]]

    def read(self, key: Key) -> Any:
        """The result of a unit. Raises StorageError."""
        if key not in self.places:
            raise StorageError("results of this run are gone: does another run write to the same --out?")
        path, offset, length = self.places[key]
        try:
            with open(path, "rb") as file:
                file.seek(offset)
                return pickle.loads(file.read(length))
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror or error}") from None


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


def finished_units(prefix: str, mark: str) -> FinishedUnits | None:
    """The units in all logs, None where there is no log.

    Raises InputError for logs of other inputs or options, StorageError when one cannot be read.
    """
    sizes, places = None, {}
    for path in unit_logs(prefix):
        try:
            with open(path, "rb") as file:
                found = _header(file, path, mark)
                if found is None:
                    continue
                if sizes is not None and sizes != found:
                    raise InputError(f"{path} and the logs beside it are of runs in different sizes: start anew")
                sizes = found
                places.update({key: (path, offset, length) for key, offset, length in _frames(file)})
        except OSError as error:
            raise StorageError(f"cannot read {path}: {error.strerror or error}") from None
    return None if sizes is None else FinishedUnits(sizes, places)


def _header(file: BinaryIO, path: Path, mark: str) -> dict[str, Any] | None:
    """The sizes; None for a file that ends within its header."""
    magic, found, sizes = file.readline(), file.readline(), file.readline()
    if not sizes.endswith(b"\n"):
        return None
    if magic != MAGIC:
        raise InputError(f"{path} is not a log of this version of mpgls")
    if found != mark.encode() + b"\n":
        raise InputError(
            f"{path} was made from other inputs or options, so it cannot be resumed: "
            "run with the same command line, or without --resume to start anew"
        )
    return dict(json.loads(sizes))


def _frames(file: BinaryIO) -> Iterator[tuple[Key, int, int]]:
    """(key, offset of the result, its length) of each whole unit from the file's position on."""
    while len(head := file.read(_FRAME.size)) == _FRAME.size:
        length, checksum = _FRAME.unpack(head)
        start, left = file.tell(), os.fstat(file.fileno()).st_size - file.tell()
        body = file.read(length) if length <= left else b""
        if len(body) != length or zlib.crc32(body) != checksum:
            return
        name = _KEY_BYTES.unpack_from(body)[0]
        skip = _KEY_BYTES.size + name
        yield tuple(pickle.loads(body[_KEY_BYTES.size : skip])), start + skip, length - skip


def _whole(path: Path) -> int:
    """Bytes up to the end of the last whole unit; 0 when not even the header is whole."""
    with open(path, "rb") as file:
        lines = [file.readline() for _ in range(3)]
        if lines[0] != MAGIC or not lines[2].endswith(b"\n"):
            return 0
        end = file.tell()
        for _, offset, length in _frames(file):
            end = offset + length
        return end
