"""The tables of mpgls ridge, tab-separated, and its HDF5 file of targets or predictions.

``PREFIX.targets.tsv``: ``TARGET N R2 R P P_FWE R2_1 .. R2_F ALPHA_1 .. ALPHA_F FLAGS``. R2 and R are means over the F
outer folds of the R2 and of Pearson's r between what covariates leave of the target and its prediction; P counts
permutations whose R2 of this target is as large, P_FWE those whose largest R2 of all targets is. ``PREFIX.null.tsv``:
``PERMUTATION MAX_R2``. ``PREFIX.folds.tsv``: ``FID IID OUTER INNER_1 .. INNER_F``, all from 1, 0 for a sample in the
outer fold itself; it is what --folds-file takes. Numbers are the shortest that read back the same.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mpgls.report.hits import _completed
from mpgls.study.hdf5 import open_hdf5, texts

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class TargetRows:
    """The columns of the table of all targets; NaN is NA. ``r2_folds`` and ``alphas`` are (outer, t)."""

    names: Sequence[str]
    n: int
    r2: np.ndarray
    r: np.ndarray
    p: np.ndarray
    p_fwe: np.ndarray
    r2_folds: np.ndarray
    alphas: np.ndarray
    flags: Sequence[str]


def write_targets(path: PathLike, rows: TargetRows) -> None:
    """Write the table; it appears under its name when it is complete. Call on one rank. Raises StorageError."""
    folds = range(1, len(rows.r2_folds) + 1)
    header = ["TARGET", "N", "R2", "R", "P", "P_FWE", *(f"R2_{o}" for o in folds), *(f"ALPHA_{o}" for o in folds)]
    with _completed(Path(path)) as partial, open(partial, "w", encoding="utf-8", newline="\n") as file:
        file.write("\t".join([*header, "FLAGS"]) + "\n")
        for j, name in enumerate(rows.names):
            numbers = [rows.r2[j], rows.r[j], rows.p[j], rows.p_fwe[j], *rows.r2_folds[:, j], *rows.alphas[:, j]]
            fields = [name, str(rows.n), *map(number, numbers), rows.flags[j] or "NA"]
            file.write("\t".join(fields) + "\n")


def write_null(path: PathLike, maxima: np.ndarray) -> None:
    """The largest mean R2 over the targets in each permutation, which count from 1. Raises StorageError."""
    with _completed(Path(path)) as partial, open(partial, "w", encoding="utf-8", newline="\n") as file:
        file.write("PERMUTATION\tMAX_R2\n")
        file.writelines(f"{k}\t{float(value)!r}\n" for k, value in enumerate(maxima, 1))


def write_folds(path: PathLike, ids: Sequence[tuple[str, str]], outer: np.ndarray, inner: np.ndarray) -> None:
    """The folds of each sample: ``outer`` (n,) from 0 and ``inner`` (n, outer folds), -1 in the test set."""
    with _completed(Path(path)) as partial, open(partial, "w", encoding="utf-8", newline="\n") as file:
        names = [f"INNER_{o + 1}" for o in range(inner.shape[1])]
        file.write("\t".join(["FID", "IID", "OUTER", *names]) + "\n")
        for (fid, iid), o, i in zip(ids, outer, inner, strict=True):
            file.write("\t".join([fid, iid, str(o + 1), *map(str, i + 1)]) + "\n")


def write_trait_file(path: PathLike, values: np.ndarray, names: Sequence[str], ids: Sequence[tuple[str, str]]) -> None:
    """``values`` (n, t) as the HDF5 trait file that --pheno takes. Raises StorageError."""
    with _completed(Path(path)) as partial, open_hdf5(partial, "w") as file:
        file.create_dataset("traits", data=np.ascontiguousarray(values.T, dtype="<f8"))
        file.create_dataset("names", data=texts(names))
        file.create_dataset("samples", data=texts(ids))


def number(value: float) -> str:
    """The shortest digits that read back as the same float64; NA for NaN."""
    value = float(value)
    return repr(value) if np.isfinite(value) else "NA"
