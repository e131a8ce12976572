"""Histograms of all tests of every trait: counts by -log10 p, in one small HDF5 file.

Layout: a group for each number of degrees of freedom, ``/df_N``, with ``edges`` float64 (bins+1,), -log10 p ascending,
``counts`` uint32 (t, bins) and ``traits`` (t,) names. Bins are equal steps of the test's own scale, fine everywhere.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mpgls.errors import StorageError
from mpgls.model.histograms import Bins


class Histograms:
    """Collects the histograms on one rank and writes them at the end."""

    def __init__(self) -> None:
        self._parts: dict[Bins, list[tuple[np.ndarray, np.ndarray]]] = {}

    def add(self, traits: np.ndarray, counts: np.ndarray, bins: Bins) -> None:
        """Counts (len(traits), bins.count) of the traits at these positions."""
        self._parts.setdefault(bins, []).append((traits, counts))

    def write(self, path: Path, names: Sequence[str]) -> None:
        """Write the file; ``names`` are those that positions of traits count. Raises StorageError."""
        import h5py

        partial = path.with_name(path.name + ".partial")
        try:
            with h5py.File(partial, "w", libver="latest") as file:
                for (bins, counts), parts in zip(self.groups(), self._parts.values(), strict=True):
                    statistic = bins.statistic
                    group = file.require_group(f"df_{statistic.df}")
                    group.attrs.update({"df": statistic.df, "test": statistic.test})
                    group.create_dataset("edges", data=statistic.log10_p(bins.edges()))
                    group.create_dataset("counts", data=counts, compression=1)
                    own = [names[trait] for traits, _ in parts for trait in traits]
                    group.create_dataset("traits", data=own, dtype=h5py.string_dtype())
            os.replace(partial, path)
        except OSError as error:
            raise StorageError(f"cannot write {path}: {error.strerror or error}") from None

    def groups(self) -> list[tuple[Bins, np.ndarray]]:
        """The bins and counts (traits, bins.count) of each number of degrees of freedom."""
        return [(bins, np.concatenate([counts for _, counts in parts])) for bins, parts in self._parts.items()]
