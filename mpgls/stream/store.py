"""The result store: one HDF5 file with preallocated records, a done-map for each trait, and what the run was.

Layout: root attributes ``format``, ``version``, ``made_from`` (`stream.mark`) and what the caller adds, such as
``bfile`` and ``test``; ``/index`` int64 (m,), the rows of the .bim; ``/edges`` int64 (blocks+1,), where among them each
block begins; ``/nulls`` (parts, traits) of `model.null_record.NULL_DTYPE`, one part or one for each chromosome; for
each trait a group ``/traits/NAME`` with ``records`` (m,) of RECORD_DTYPE, contiguous, ``done`` uint8 (blocks,), and
``effects`` float64 (parts, 2, q), the effects of the covariates and their standard errors, whose names are its
attribute ``covariates``. The records' file offset is fixed at creation, so ranks write them without HDF5 (a serial h5py
is enough) and a reader sees an ordinary dataset. All ranks of a node read ``/index`` through one mapping.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mpgls.model.null_record import NULL_DTYPE, unknown
from mpgls.stream.files import replaced, writing
from mpgls.stream.hdf5 import STORE, allocate, check_store, mapped_index, read_exactly
from mpgls.stream.mark import Mark
from mpgls.study.hdf5 import open_hdf5

FORMAT, VERSION = "mpgls-results", 2
RECORD_DTYPE = np.dtype([("beta", "<f8"), ("se", "<f8"), ("eaf", "<f8"), ("n", "<i4"), ("note", "<i4")])
"""One SNP: effect, standard error, frequency of A1, samples with a genotype, and a code of model.gls.Note."""


@dataclass(frozen=True)
class TraitPlace:
    """Where a trait's results lie in the file: byte offsets, and which blocks are done."""

    name: str
    records_offset: int
    done_offset: int
    done: np.ndarray


@dataclass(frozen=True)
class NullModels:
    """What is known of the null models: ``records`` (parts, traits) of NULL_DTYPE.

    ``effects`` (parts, 2, q) are each trait's covariate effects and their standard errors, ``covariates`` their names.
    """

    records: np.ndarray
    effects: list[np.ndarray]
    covariates: list[tuple[str, ...]]


@dataclass(frozen=True)
class ResultStore:
    """A store that exists on disk. Picklable: rank 0 creates or opens it and broadcasts.

    ``block`` SNPs are the most that a block holds; block k is ``edges[k]`` to ``edges[k+1]`` of the selected SNPs.
    ``nulls`` are those of the opening.
    """

    path: Path
    count: int
    block: int
    edges: np.ndarray
    index_offset: int
    traits: tuple[TraitPlace, ...]
    nulls: NullModels
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


@dataclass(frozen=True)
class StoreShape:
    """What a new store holds: the SNPs ``index`` (m,) in blocks of at most ``block``, cut at ``edges`` (blocks+1,).

    ``covariates`` are the names of each trait's; ``parts`` null models of each.
    """

    index: np.ndarray
    block: int
    edges: np.ndarray
    covariates: Mapping[str, Sequence[str]]
    parts: int = 1


def create_store(path: str | Path, shape: StoreShape, mark: Mark, attributes: Mapping[str, Any]) -> ResultStore:
    """Make a new store; every dataset is allocated at once.

    ``attributes`` are kept at the root; `mpgls export` looks for ``bfile``, ``bim_rows``, ``bim_sha256`` and ``test``
    there. Raises StorageError when the file cannot be made.
    """

    path, traits = Path(path), list(shape.covariates)
    with replaced(path) as partial, open_hdf5(partial, "w", libver="latest") as file:
        file.attrs.update({"format": FORMAT, "version": VERSION, "made_from": mark.text, "block": shape.block})
        file.attrs["traits"] = traits
        file.attrs.update(attributes)
        file.create_dataset("index", data=np.asarray(shape.index, dtype=np.int64))
        file.create_dataset("edges", data=shape.edges)
        file.create_dataset("nulls", data=unknown(shape.parts, len(traits)))
        for name, covariates in shape.covariates.items():
            group = file.create_group(f"traits/{name}")
            group.attrs["covariates"] = list(covariates)
            group.create_dataset("effects", data=np.full((shape.parts, 2, len(covariates)), np.nan))
            allocate(group, "records", (shape.index.size,), RECORD_DTYPE)
            allocate(group, "done", (shape.edges.size - 1,), np.uint8)
    return open_store(path)


def open_store(path: str | Path, mark: Mark | None = None) -> ResultStore:
    """Open a store; with ``mark``, refuse one that was made from other inputs or options.

    Raises StorageError when it cannot be read, InputError when it is no result store or was made from others.
    """
    path = Path(path)
    with open_hdf5(path, what=STORE) as file:
        check_store(file, path, FORMAT, VERSION, mark)
        names = list(file.attrs["traits"])
        groups = [file["traits"][name] for name in names]
        index, attributes = file["index"], {key: value for key, value in file.attrs.items() if key != "traits"}
        nulls = NullModels(
            file["nulls"][...].astype(NULL_DTYPE),
            [group["effects"][...] for group in groups],
            [tuple(group.attrs["covariates"]) for group in groups],
        )
        return ResultStore(
            path=path,
            count=index.shape[0],
            block=int(attributes["block"]),
            edges=file["edges"][...],
            index_offset=index.id.get_offset(),
            traits=tuple(_place(name, group) for name, group in zip(names, groups, strict=True)),
            nulls=nulls,
            attributes=attributes,
        )


def block_edges(count: int, block: int) -> np.ndarray:
    """int64 (blocks+1,): where blocks of ``block`` of ``count`` SNPs begin, and the last one ends."""
    return np.append(np.arange(0, count, block), count).astype(np.int64)


def _place(name: str, group: Any) -> TraitPlace:
    records, done = group["records"], group["done"]
    return TraitPlace(name, records.id.get_offset(), done.id.get_offset(), done[...])


def save_null(path: Path, part: int, trait: int, record: np.ndarray, effects: np.ndarray | None = None) -> None:
    """Keep the null model of one part and trait: its record, and with ``effects`` (2, q) the covariates' effects.

    Call on one rank, while none writes. Raises StorageError.
    """

    with writing(path), open_hdf5(path, "r+") as file:
        file["nulls"][part, trait] = record
        if effects is not None:
            file["traits"][file.attrs["traits"][trait]]["effects"][part] = effects
