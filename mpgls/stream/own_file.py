"""A file that a run has made or resumed, and opens again by name: a token tells it from one that another run made.

The token is 16 random bytes at a fixed place of the file, the dataset ``/token``; in a file that only HDF5 opens it is
an attribute. What is made from the same inputs and options at another time has another token. So no run reads or writes
what another has put in its file's place, even where the file system has no locks.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from mpgls.errors import StorageError
from mpgls.stream.hdf5 import allocate
from mpgls.study.hdf5 import open_hdf5

NAME, BYTES = "token", 16


def add_token(file: Any) -> None:
    """Give the HDF5 ``file``, which is being made, a new token at a fixed place."""
    allocate(file, NAME, (BYTES,), np.uint8)
    file[NAME][...] = np.frombuffer(secrets.token_bytes(BYTES), np.uint8)


def add_token_attribute(file: Any, token: bytes = b"") -> bytes:
    """The same for a file that only HDF5 opens; ``token`` is that of the file that it will replace. Returns it."""
    token = token or secrets.token_bytes(BYTES)
    file.attrs[NAME] = token.hex()
    return token


def token_of(file: Any) -> bytes:
    """The token of the open HDF5 ``file``; empty for one that was made without."""
    if NAME in file.attrs:
        return bytes.fromhex(str(file.attrs[NAME]))
    return file[NAME][...].tobytes() if NAME in file else b""


@dataclass(frozen=True)
class OwnFile:
    """The file at ``path`` with the ``token`` at byte ``offset``. Picklable. Everything raises StorageError."""

    path: Path
    token: bytes
    offset: int

    @classmethod
    def of(cls, path: Path, file: Any) -> OwnFile:
        """The open HDF5 ``file``, which lies at ``path``."""
        return cls(path, token_of(file), file[NAME].id.get_offset() if NAME in file else 0)

    @contextlib.contextmanager
    def open(self, mode: Literal["rb", "r+b"] = "rb") -> Iterator[BinaryIO]:
        """The bytes of the file."""
        try:
            file = open(self.path, mode)  # noqa: SIM115
        except OSError as error:
            raise StorageError(f"cannot open {self.path}: {error.strerror}") from None
        with file:
            self._compare(os.pread(file.fileno(), len(self.token), self.offset))
            yield file

    @contextlib.contextmanager
    def open_hdf5(self, mode: str) -> Iterator[Any]:
        """The file as HDF5 has it."""
        with open_hdf5(self.path, mode) as file:
            self._compare(token_of(file))
            yield file

    def check(self) -> None:
        """That the file is still the same, for those who have just opened it by name themselves."""
        with self.open():
            pass

    def _compare(self, found: bytes) -> None:
        if found != self.token:
            raise StorageError(
                f"{self.path} is no longer the file of this run: another run has made it anew; give each run its own "
                "--out"
            )
