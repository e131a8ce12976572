"""What identifies an input file: its size and a hash."""

from __future__ import annotations

import hashlib
import os
from typing import Any, BinaryIO

from mpgls.errors import StorageError

_MIB = 1 << 20
_WHOLE_BELOW = 64 * _MIB
_SAMPLES, _SAMPLE_BYTES = 64, 64 << 10


def file_identity(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What identifies an input file: ``path``, ``size``, ``sha256`` and ``sha256_of``, which says what was hashed.

    Below 64 MiB the whole file; otherwise its size (decimal digits), its first MiB, 64 evenly spaced blocks of
    64 KiB and its last MiB, in this order: 6 MiB are read of a file of any size. Raises StorageError.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            whole = size < _WHOLE_BELOW
            digest = _whole_hash(file) if whole else _sampled_hash(file, size)
    except OSError as error:
        raise StorageError(f"cannot read {os.fspath(path)}: {error.strerror or error}") from None
    covered = "whole file" if whole else "size, first MiB, 64 evenly spaced blocks of 64 KiB, last MiB"
    return {"path": os.fspath(path), "size": size, "sha256": digest, "sha256_of": covered}


def _whole_hash(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    while block := file.read(_MIB):
        digest.update(block)
    return digest.hexdigest()


def _sampled_hash(file: BinaryIO, size: int) -> str:
    digest = hashlib.sha256(str(size).encode())
    spaced = [k * (size - _SAMPLE_BYTES) // (_SAMPLES - 1) for k in range(_SAMPLES)]
    pieces = [(0, _MIB), *((offset, _SAMPLE_BYTES) for offset in spaced), (size - _MIB, _MIB)]
    for offset, length in pieces:
        file.seek(offset)
        digest.update(file.read(length))
    return digest.hexdigest()
