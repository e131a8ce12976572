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

POOLED_BINS = 2000
SHOWN_TRAITS = 2000
"""Traits whose own curves enter the band of a QQ plot; of more, an even sample."""


class HistogramFile:
    """Collects the histograms on one rank and writes them at the end."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self.path, self.names = path, names
        self._parts: dict[Bins, list[tuple[np.ndarray, np.ndarray]]] = {}

    def add(self, traits: np.ndarray, counts: np.ndarray, bins: Bins) -> None:
        """Counts (len(traits), bins.count) of the traits at these positions."""
        self._parts.setdefault(bins, []).append((traits, counts))

    def write(self) -> None:
        """Write the file. Raises StorageError."""
        import h5py

        partial = self.path.with_name(self.path.name + ".partial")
        try:
            with h5py.File(partial, "w", libver="latest") as file:
                for bins, parts in self._parts.items():
                    statistic = bins.statistic
                    group = file.require_group(f"df_{statistic.df}")
                    group.attrs.update({"df": statistic.df, "test": statistic.test})
                    group.create_dataset("edges", data=statistic.log10_p(bins.edges()))
                    group.create_dataset("counts", data=np.concatenate([counts for _, counts in parts]), compression=1)
                    names = [self.names[trait] for traits, _ in parts for trait in traits]
                    group.create_dataset("traits", data=names, dtype=h5py.string_dtype())
            os.replace(partial, self.path)
        except OSError as error:
            raise StorageError(f"cannot write {self.path}: {error.strerror or error}") from None

    def pooled(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All traits on common edges of -log10 p: edges (b+1,), counts (b,) of all, and (k, b) of an even sample."""
        top = 1.0
        for bins, parts in self._parts.items():
            used = np.flatnonzero(sum(counts.sum(axis=0, dtype=np.int64) for _, counts in parts))
            if used.size:
                top = max(top, float(bins.statistic.log10_p(bins.edges()[used[-1]])))
        edges = np.concatenate([[0.0], np.geomspace(1e-4, top * 1.01, POOLED_BINS)])
        total, every = np.zeros(POOLED_BINS, dtype=np.int64), []
        for bins, parts in self._parts.items():
            place = np.searchsorted(edges, bins.statistic.log10_p(bins.edges()[:-1]), side="right") - 1
            place = np.clip(place, 0, POOLED_BINS - 1)
            for _, counts in parts:
                total += np.bincount(place, weights=counts.sum(axis=0, dtype=np.int64), minlength=POOLED_BINS).astype(
                    int
                )
                every += [(place, row) for row in counts]
        step = max(1, len(every) // SHOWN_TRAITS)
        shown = [np.bincount(place, weights=row, minlength=POOLED_BINS).astype(int) for place, row in every[::step]]
        return edges, total, np.array(shown).reshape(-1, POOLED_BINS)
