"""The result store: one HDF5 file with preallocated records, a done-map for each trait, and what the run was.

Layout: root attributes ``format``, ``version``, ``fingerprint`` (hash of inputs and options) and what the caller adds,
such as ``bfile`` and ``test``; ``/index`` int64 (m,), the rows of the .bim; ``/edges`` int64 (blocks+1,), where among
them each block begins; for each trait a group ``/traits/NAME`` with ``records`` (m,) of RECORD_DTYPE, contiguous, and
``done`` uint8 (blocks,). What a null model found are attributes of the trait's group; with one null model a chromosome,
of ``/traits/NAME/loco/K``, K = 0, 1, ... The records' file offset is fixed at creation, so ranks write them without
HDF5 (a serial h5py is enough) and a reader sees an ordinary dataset. All ranks of a node read ``/index`` through one
mapping.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mpgls.errors import StorageError
from mpgls.stream.hdf5 import allocate, check_store, mapped_index, opened, read_exactly

FORMAT, VERSION = "mpgls-results", 1
RECORD_DTYPE = np.dtype([("beta", "<f8"), ("se", "<f8"), ("eaf", "<f8"), ("n", "<i4"), ("note", "<i4")])
"""One SNP: effect, standard error, frequency of A1, samples with a genotype, and a code of model.gls.Note."""


@dataclass(frozen=True)
class TraitPlace:
    """Where a trait's results lie in the file: byte offsets, and which blocks are done.

    ``attributes`` are what was kept of it; ``loco`` what was kept of each chromosome's null model, by its number.
    """

    name: str
    records_offset: int
    done_offset: int
    done: np.ndarray
    attributes: dict[str, Any]
    loco: dict[int, dict[str, Any]] = field(default_factory=dict)

    def kept(self, part: int | None) -> dict[str, Any]:
        """What was kept of the null model of chromosome number ``part``, or of the one for all SNPs."""
        return self.attributes if part is None else self.loco.get(part, {})


@dataclass(frozen=True)
class ResultStore:
    """A store that exists on disk. Picklable: rank 0 creates or opens it and broadcasts.

    ``block`` SNPs are the most that a block holds; block k is ``edges[k]`` to ``edges[k+1]`` of the selected SNPs.
    """

    path: Path
    count: int
    block: int
    edges: np.ndarray
    index_offset: int
    traits: tuple[TraitPlace, ...]
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def index(self) -> np.ndarray:
        """int64 (m,): the .bim row of each record, mapped from the file."""
        return mapped_index(self.path, self.index_offset, self.count)

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return self.edges.size - 1

    def block_range(self, k: int) -> range:
        """Positions (among the selected SNPs) of block k."""
        return range(int(self.edges[k]), int(self.edges[k + 1]))

    def read(self, trait: int, start: int, stop: int) -> np.ndarray:
        """Records start..stop of a trait, straight from their place in the file."""
        records = np.empty(stop - start, dtype=RECORD_DTYPE)
        with open(self.path, "rb") as file:
            read_exactly(file, self.traits[trait].records_offset + start * RECORD_DTYPE.itemsize, records)
        return records


def fingerprint(parts: Mapping[str, Any]) -> str:
    """SHA-256 of a description of inputs and options; equal fingerprints may resume each other's store."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def create_store(
    path: str | Path,
    index: np.ndarray,
    block: int,
    traits: Sequence[str],
    mark: str,
    attributes: Mapping[str, Any] | None = None,
    edges: np.ndarray | None = None,
) -> ResultStore:
    """Make a new store for the SNPs ``index`` in blocks of ``block``; every dataset is allocated at once.

    ``edges`` (blocks+1,) cut the SNPs otherwise, into blocks of at most that many. ``attributes`` are kept at the root;
    `mpgls export` looks for ``bfile``, ``bim_rows``, ``bim_sha256`` and ``test`` there.

    Raises StorageError when the file cannot be made.
    """
    import h5py

    path = Path(path)
    edges = block_edges(index.size, block) if edges is None else edges
    try:
        with h5py.File(path, "w", libver="latest") as file:
            file.attrs.update({"format": FORMAT, "version": VERSION, "fingerprint": mark, "block": block})
            file.attrs["traits"] = list(traits)
            file.attrs.update(attributes or {})
            file.create_dataset("index", data=np.asarray(index, dtype=np.int64))
            file.create_dataset("edges", data=edges)
            for name in traits:
                group = file.create_group(f"traits/{name}")
                allocate(group, "records", (index.size,), RECORD_DTYPE)
                allocate(group, "done", (edges.size - 1,), np.uint8)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from None
    return open_store(path)


def open_store(path: str | Path, mark: str | None = None) -> ResultStore:
    """Open a store; with ``mark``, refuse one that was made from other inputs or options.

    Raises StorageError when it cannot be read, InputError when it is no result store or has another fingerprint.
    """
    path = Path(path)
    with opened(path) as file:
        check_store(file, path, FORMAT, mark)
        names = list(file.attrs["traits"])
        traits = tuple(_place(name, file["traits"][name]) for name in names)
        index, attributes = file["index"], {key: value for key, value in file.attrs.items() if key != "traits"}
        count, block = index.shape[0], int(attributes["block"])
        edges = file["edges"][...] if "edges" in file else block_edges(count, block)
        return ResultStore(path, count, block, edges, index.id.get_offset(), traits, attributes)


def block_edges(count: int, block: int) -> np.ndarray:
    """int64 (blocks+1,): where blocks of ``block`` of ``count`` SNPs begin, and the last one ends."""
    return np.append(np.arange(0, count, block), count).astype(np.int64)


def _place(name: str, group: Any) -> TraitPlace:
    records, done = group["records"], group["done"]
    loco = {int(number): dict(part.attrs) for number, part in group.get("loco", {}).items()}
    return TraitPlace(name, records.id.get_offset(), done.id.get_offset(), done[...], dict(group.attrs), loco)


def save_attributes(path: str | Path, trait: str, attributes: Mapping[str, Any], part: int | None = None) -> None:
    """Keep what a trait's null model found (h2, say) with its results. Call on one rank, while none writes.

    ``part`` is the number of the chromosome whose null model it is, where each has its own.
    """
    import h5py

    with h5py.File(path, "r+") as file:
        group = file["traits"][trait]
        (group if part is None else group.require_group(f"loco/{part}")).attrs.update(attributes)
