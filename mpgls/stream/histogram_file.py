"""Histograms of all tests of every trait: counts by -log10 p, in one HDF5 file that grows panel by panel.

Layout: a group for each number of degrees of freedom, ``/df_N``, with ``edges`` float64 (bins+1,), -log10 p ascending,
``counts`` uint32 (t, bins) and ``traits`` (t,) names. Bins are equal steps of the test's own scale, fine everywhere.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mpgls.errors import StorageError
from mpgls.model.histograms import Bins

CHUNK = 64
"""Traits of a compressed chunk."""


@dataclass
class Histograms:
    """The histograms of a run, written by one rank; what is held in memory is only how many rows each group has.

    Picklable: a run that resumes goes on after the rows that were complete. The file is ``path.partial`` until
    ``finish``.
    """

    path: Path
    rows: dict[Bins, int] = field(default_factory=dict)

    @property
    def partial(self) -> Path:
        """The file while it grows."""
        return self.path.with_name(self.path.name + ".partial")

    def add(self, names: Sequence[str], counts: np.ndarray, bins: Bins) -> None:
        """Append the counts (len(names), bins.count) of these traits. Raises StorageError."""
        import h5py

        first = self.rows.get(bins, 0)
        try:
            with h5py.File(self.partial, "a" if self.rows else "w", libver="latest") as file:
                group = file.require_group(_group_name(bins))
                if "counts" not in group:
                    _create(group, bins)
                for name, data in (("counts", counts), ("traits", list(names))):
                    group[name].resize(first + len(names), axis=0)
                    group[name][first:] = data
        except OSError as error:
            raise StorageError(f"cannot write {self.partial}: {error.strerror or error}") from None
        self.rows[bins] = first + len(names)

    def finish(self) -> None:
        """Give the complete file its name. Raises StorageError."""
        try:
            if self.rows:
                os.replace(self.partial, self.path)
        except OSError as error:
            raise StorageError(f"cannot write {self.path}: {error.strerror or error}") from None

    def groups(self) -> list[tuple[Bins, np.ndarray]]:
        """The bins and counts (traits, bins.count) of each number of degrees of freedom, from the finished file."""
        import h5py

        if not self.rows:
            return []
        with h5py.File(self.path, "r") as file:
            return [(bins, file[_group_name(bins)]["counts"][...]) for bins in self.rows]


def _group_name(bins: Bins) -> str:
    return f"df_{bins.statistic.df}"


def _create(group: object, bins: Bins) -> None:
    """Datasets that grow with the traits."""
    import h5py

    assert isinstance(group, h5py.Group)
    statistic = bins.statistic
    group.attrs.update({"df": statistic.df, "test": statistic.test})
    group.create_dataset("edges", data=statistic.log10_p(bins.edges()))
    shape, chunks = (0, bins.count), (CHUNK, bins.count)
    group.create_dataset("counts", shape, np.uint32, maxshape=(None, bins.count), chunks=chunks, compression=1)
    group.create_dataset("traits", (0,), h5py.string_dtype(), maxshape=(None,), chunks=(1024,))
