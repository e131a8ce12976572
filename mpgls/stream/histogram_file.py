"""Histograms of all tests of every trait: counts by -log10 p, in one HDF5 file that grows panel by panel.

Layout: a group for each number of degrees of freedom, ``/df_N``, with ``edges`` float64 (bins+1,), -log10 p ascending,
``counts`` uint32 (t, bins), ``traits`` (t,) names, and ``sums`` uint32 (t,), the checksum (`study.checksums`) of a
trait's counts and name. Bins are equal steps of the test's own scale, fine everywhere.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mpgls.errors import InputError
from mpgls.model.histograms import Bins, Statistic
from mpgls.stream.files import sync, writing
from mpgls.stream.own_file import OwnFile, add_token_attribute
from mpgls.study.checksums import SUM_DTYPE, checksum
from mpgls.study.hdf5 import open_hdf5

HISTOGRAMS = "file of histograms"
"""What messages call it."""
CHUNK = 64
"""Traits of a compressed chunk."""
ROWS_AT_ONCE = 64 * CHUNK
"""Traits that are read together."""


@dataclass
class Histograms:
    """The histograms of a run, written by one rank; what is held in memory is only how many rows each group has.

    A run that resumes goes on after the rows that were complete (`facts`). The file is ``path.partial`` until
    ``finish``.
    """

    path: Path
    rows: dict[Bins, int] = field(default_factory=dict)
    token: bytes = b""

    @classmethod
    def of_facts(cls, path: Path, facts: Mapping[str, Any]) -> Histograms:
        """The histograms that `facts` described."""
        rows = {Bins(Statistic(test, df)): rows for test, df, rows in facts["rows"]}
        return cls(path, rows, bytes.fromhex(facts["token"]))

    def facts(self) -> dict[str, Any]:
        """The file's token; test, degrees of freedom and complete rows of each group."""
        rows = [(bins.statistic.test, bins.statistic.df, rows) for bins, rows in self.rows.items()]
        return {"token": self.token.hex(), "rows": rows}

    @property
    def partial(self) -> Path:
        """The file while it grows."""
        return self.path.with_name(self.path.name + ".partial")

    def add(self, names: Sequence[str], counts: np.ndarray, bins: Bins) -> None:
        """Append the counts (len(names), bins.count) of these traits. Raises StorageError."""
        first = self.rows.get(bins, 0)
        counts = counts.astype(np.uint32)
        with self._grows() as file:
            group = file.require_group(_group_name(bins))
            if "counts" not in group:
                _create(group, bins)
            for name, data in (("counts", counts), ("traits", list(names)), ("sums", _sums(names, counts))):
                group[name].resize(first + len(names), axis=0)
                group[name][first:] = data
        self.rows[bins] = first + len(names)

    @contextlib.contextmanager
    def _grows(self) -> Iterator[Any]:
        """The partial file, made when the first histograms come."""
        if self.rows:
            with self._own(self.partial).open_hdf5("r+") as file:
                yield file
            return
        with writing(self.partial):
            self.partial.unlink(missing_ok=True)  # another run may still write to the one of that name
            with open_hdf5(self.partial, "w", libver="latest") as file:
                self.token = add_token_attribute(file, self.token)
                yield file

    def _own(self, path: Path) -> OwnFile:
        return OwnFile(path, self.token, 0)

    def finish(self, parts: int = 1) -> None:
        """Give the complete file its name. Raises StorageError.

        Where the same traits were added ``parts`` times, in the same order, for SNPs that others did not count, their
        histograms are added up. A run that was stopped after this finds the file finished.
        """
        if not self.rows:
            return
        with writing(self.path):
            if self.partial.exists() and parts > 1:
                self._add_up(parts)
            elif self.partial.exists():
                self._publish(self)
        if parts > 1:
            self.rows = {bins: rows // parts for bins, rows in self.rows.items()}

    def _add_up(self, parts: int) -> None:
        """The sums over parts under the final name; the file of all parts is there until then."""
        whole = Histograms(self.path.with_name(self.path.name + ".sum"), token=self.token)
        with self._own(self.partial).open_hdf5("r") as file:
            for bins, rows in self.rows.items():
                group, t = file[_group_name(bins)], rows // parts
                for first in range(0, t, CHUNK):
                    last = min(t, first + CHUNK)
                    of_parts = [self._read(group, p * t + first, p * t + last) for p in range(parts)]
                    whole.add(of_parts[0][0], np.sum([counts for _, counts in of_parts], axis=0), bins)
        self._publish(whole)
        self.partial.unlink()

    def _publish(self, whole: Histograms) -> None:
        sync(whole.partial)
        with whole._own(whole.partial).open_hdf5("r"):
            pass
        os.replace(whole.partial, self.path)

    def rows_of_traits(self) -> Iterator[tuple[Bins, list[str], np.ndarray]]:
        """Bins, names (k,) and counts (k, bins.count) of a few traits at a time, from the finished file."""
        if not self.rows:
            return
        with self._own(self.path).open_hdf5("r") as file:
            for bins, rows in self.rows.items():
                group = file[_group_name(bins)]
                for first in range(0, rows, ROWS_AT_ONCE):
                    yield bins, *self._read(group, first, min(rows, first + ROWS_AT_ONCE))

    def groups(self) -> list[tuple[Bins, np.ndarray]]:
        """The bins and counts (traits, bins.count) of each number of degrees of freedom, from the finished file."""
        if not self.rows:
            return []
        with self._own(self.path).open_hdf5("r") as file:
            return [(bins, self._read(file[_group_name(bins)], 0, rows)[1]) for bins, rows in self.rows.items()]

    def _read(self, group: Any, first: int, stop: int) -> tuple[list[str], np.ndarray]:
        """Names (k,) and counts (k, bins) of some traits of a group; InputError where they changed on disk."""
        names, counts = group["traits"].asstr()[first:stop].tolist(), group["counts"][first:stop]
        damaged = np.flatnonzero(_sums(names, counts) != group["sums"][first:stop])
        if damaged.size:
            raise InputError(
                f"{group.file.filename} is damaged: the histogram of trait {names[damaged[0]]!r} is not what was "
                "written; run without --resume to start anew"
            )
        return names, counts


def _sums(names: Sequence[str], counts: np.ndarray) -> np.ndarray:
    """The checksum of each trait's counts and name: (k,)."""
    texts = (np.frombuffer(name.encode(), np.uint8) for name in names)
    return np.array([checksum(row, text) for row, text in zip(counts, texts, strict=True)], dtype=SUM_DTYPE)


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
    group.create_dataset("sums", (0,), SUM_DTYPE, maxshape=(None,), chunks=(1024,))
    group.create_dataset("traits", (0,), h5py.string_dtype(), maxshape=(None,), chunks=(1024,))
