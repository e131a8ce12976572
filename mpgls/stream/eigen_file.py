"""The eigendecomposition of a kinship in one HDF5 file.

Layout: ``/eigenvalues`` float64 (k,), ascending; ``/eigenvectors`` float64 (k, n), contiguous, row i the i-th vector;
``/fid`` and ``/iid`` (n,) the samples in the order of the vectors; attributes ``format``, ``version``, ``solver``,
``mean_diagonal`` (the kinship was divided by it) and ``kinship`` (where it came from, with its hash).

``/vector_sums`` uint32 (1, k) has the checksum (`study.checksums`) of each vector, the attribute ``sum`` that of
everything else. Version 1 had no checksums.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mpgls.errors import InputError
from mpgls.stream.files import replaced
from mpgls.stream.hdf5 import allocate
from mpgls.study.checked_rows import CheckedRows
from mpgls.study.checksums import SUM_DTYPE
from mpgls.study.hdf5 import check_seal, open_hdf5, seal, texts

FORMAT, VERSION = "mpgls-eigen", 2
UNCHECKED = 1
"""The version that had no checksums."""
EIGEN = "eigendecomposition of mpgls"
"""What messages call it."""
_WITH_ROWS = ("eigenvectors", "vector_sums")


@dataclass(frozen=True)
class EigenFile:
    """An eigendecomposition on disk. Picklable. ``lam`` (k,) ascending, ``ids`` (n,) (FID, IID)."""

    path: Path
    lam: np.ndarray
    ids: list[tuple[str, str]]
    rows: CheckedRows
    attributes: dict[str, Any]

    @property
    def n(self) -> int:
        """Samples."""
        return len(self.ids)

    def columns(self, start: int, stop: int) -> np.ndarray:
        """Eigenvectors start..stop as the rows of a (stop-start, n) array. Raises StorageError, InputError."""
        return self.rows.read(start, stop, lambda i, *_: f"eigenvector {i + 1:,} of {self.lam.size:,}")


def create_eigen_file(
    path: str | Path, lam: np.ndarray, ids: Sequence[tuple[str, str]], attributes: Mapping[str, Any]
) -> CheckedRows:
    """Create the file without the vectors; returns the rows that they belong in. Raises StorageError."""
    with open_hdf5(path, "w", EIGEN, libver="latest") as file:
        file.attrs.update({"format": FORMAT, "version": VERSION})
        file.attrs.update({key: json.dumps(v) if isinstance(v, dict) else v for key, v in attributes.items()})
        file.create_dataset("eigenvalues", data=np.asarray(lam, dtype=np.float64))
        for name, column in (("fid", 0), ("iid", 1)):
            file.create_dataset(name, data=texts([one[column] for one in ids]))
        allocate(file, "eigenvectors", (len(lam), len(ids)), "<f8")
        allocate(file, "vector_sums", (1, len(lam)), SUM_DTYPE)
        seal(file, *_WITH_ROWS)
        return _rows(path, file)


def _rows(path: str | Path, file: Any) -> CheckedRows:
    """Where the vectors of the open ``file`` are."""
    vectors, n = file["eigenvectors"], file["fid"].shape[0]
    sums = None if file.attrs["version"] == UNCHECKED else int(file["vector_sums"].id.get_offset())
    return CheckedRows(os.fspath(path), int(vectors.id.get_offset()), vectors.shape[0], n, n, sums)


def write_eigen_file(
    path: str | Path,
    lam: np.ndarray,
    vectors: np.ndarray,
    ids: Sequence[tuple[str, str]],
    attributes: Mapping[str, Any],
) -> None:
    """A whole file of k pairs: ``lam`` (k,) ascending, ``vectors`` (k, n) as rows. Call on one rank.

    It appears under its name when it is complete. Raises StorageError.
    """
    with replaced(path) as partial:
        create_eigen_file(partial, lam, ids, attributes).write(0, vectors)


def open_eigen_file(path: str | Path, complete: bool = True) -> EigenFile:
    """Open an eigendecomposition. Raises StorageError (not there), InputError (not such a file).

    ``complete``: InputError, too, when it holds the leading pairs only.
    """
    path = Path(path)
    with open_hdf5(path, what=EIGEN) as file:
        if file.attrs.get("format") != FORMAT:
            raise InputError(f"{path} is not an eigendecomposition of mpgls (mpgls eigen makes one)")
        if file.attrs["version"] != UNCHECKED:
            check_seal(file, path, *_WITH_ROWS)
        fid, iid = (file[name].asstr()[...] for name in ("fid", "iid"))
        ids = list(zip(fid.tolist(), iid.tolist(), strict=True))
        vectors = file["eigenvectors"]
        if vectors.shape != (file["eigenvalues"].shape[0], len(ids)):
            raise InputError(f"{path}: its eigenvectors have the shape {vectors.shape}, its samples are {len(ids)}")
        if complete and vectors.shape[0] < len(ids):
            raise InputError(
                f"{path} holds only {vectors.shape[0]:,} of {len(ids):,} eigenpairs: run mpgls eigen without "
                "--eigenpairs"
            )
        lam = file["eigenvalues"][...]
        return EigenFile(path, lam, ids, _rows(path, file), dict(file.attrs))
