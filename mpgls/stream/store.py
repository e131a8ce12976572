"""The result store: one HDF5 file with preallocated records, checksums of what is done, and what the run was.

Layout: root attributes ``format``, ``version``, ``made_from`` (`stream.mark`), ``block``, ``layout_sum`` and what the
caller adds, such as ``bfile`` and ``test``; ``/index`` int64 (m,), the rows of the .bim; ``/edges`` int64 (blocks+1,),
where among them each block begins; ``/nulls`` (parts, traits) of `model.null_record.NULL_DTYPE`, one part or one for
each chromosome, with ``/null_sums`` uint32; for each trait a group ``/traits/NAME`` with ``records`` (m,) of
`record_dtype`, ``sums`` uint32 (blocks,), and ``effects`` float64 (parts, 2, q), the effects of the covariates and
their standard errors, whose names are its attribute ``covariates``.

``sums`` are the checksums (`study.checksums`) of each block's records, 0 for one that is not done; ``null_sums`` those
of a null model's record and effects; ``layout_sum`` that of index and edges. Every dataset lies at a fixed place from
the start, so ranks write without HDF5 (a serial h5py is enough) and a reader sees ordinary datasets. All ranks of a
node read ``/index`` through one mapping.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mpgls.errors import InputError, StorageError
from mpgls.model.null_record import NULL_DTYPE, unknown
from mpgls.stream.files import replaced, write_at, writing
from mpgls.stream.hdf5 import STORE, allocate, check_store, mapped_index, read_exactly, reserve
from mpgls.stream.mark import Mark
from mpgls.stream.own_file import OwnFile, add_token
from mpgls.study.checksums import ABSENT, SUM_DTYPE, checksum
from mpgls.study.hdf5 import open_hdf5

FORMAT, VERSION = "mpgls-results", 3
RECORD_DTYPE = np.dtype([("beta", "<f8"), ("se", "<f8"), ("eaf", "<f8"), ("n", "<i4"), ("note", "<i4")])
"""One SNP: effect, standard error, frequency of A1, samples with a genotype, and a code of model.gls.Note."""

IN_UNITS = ("beta", "se")
"""How the names of fields begin that are in units of the trait."""


OF_GENOTYPES = ("info",)
"""Further fields of a record that say what the genotypes are: a SNP without an estimate has them too."""


def further_of(dosages: bool, fields: Sequence[str] = ()) -> tuple[str, ...]:
    """The further fields of a scan: INFO where genotypes are ``dosages``, and the ``fields`` of its test."""
    return (*(OF_GENOTYPES if dosages else ()), *fields)


def record_dtype(further: Sequence[str] = ()) -> np.dtype:
    """RECORD_DTYPE with ``further`` fields of float64, such as those of `model.snp_ratio`."""
    return np.dtype([*RECORD_DTYPE.descr, *((name, "<f8") for name in further)])


def further_fields(dtype: np.dtype) -> tuple[str, ...]:
    """The fields that a record has beyond RECORD_DTYPE."""
    return tuple(name for name in dtype.names or () if name not in (RECORD_DTYPE.names or ()))


@dataclass(frozen=True)
class TraitPlace:
    """Where a trait's results lie in the file: byte offsets, and the checksums ``sums`` (blocks,) of what is done."""

    name: str
    records_offset: int
    sums_offset: int
    effects_offset: int
    sums: np.ndarray

    @property
    def done(self) -> np.ndarray:
        """bool (blocks,): which blocks are done."""
        return self.sums != ABSENT

    def sum_offset(self, block: int) -> int:
        """Where the checksum of a block lies."""
        return self.sums_offset + block * SUM_DTYPE.itemsize


@dataclass(frozen=True)
class NullModels:
    """What is known of the null models: ``records`` (parts, traits) of NULL_DTYPE, at ``offset`` in the file.

    ``effects`` (parts, 2, q) are each trait's covariate effects and their standard errors, ``covariates`` their names.
    ``damaged`` (parts, traits) are those whose bytes changed on disk: they are unknown again.
    """

    records: np.ndarray
    effects: list[np.ndarray]
    covariates: list[tuple[str, ...]]
    offset: int
    sums_offset: int
    damaged: np.ndarray


@dataclass(frozen=True)
class ResultStore:
    """A store that exists on disk. Picklable: rank 0 creates or opens it and broadcasts.

    ``own`` is its file. ``block`` SNPs are the most that a block holds; block k is ``edges[k]`` to ``edges[k+1]`` of
    the selected SNPs.
    ``nulls`` are those of the opening. A SNP's record is of ``dtype``.
    """

    own: OwnFile
    count: int
    block: int
    edges: np.ndarray
    index_offset: int
    traits: tuple[TraitPlace, ...]
    nulls: NullModels
    dtype: np.dtype = RECORD_DTYPE
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.own.path

    @property
    def index(self) -> np.ndarray:
        """int64 (m,): the .bim row of each record, mapped from the file."""
        with self.own.open() as file:
            return mapped_index(file, self.index_offset, self.count)

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return self.edges.size - 1

    def block_range(self, k: int) -> range:
        """Positions (among the selected SNPs) of block k."""
        return range(int(self.edges[k]), int(self.edges[k + 1]))

    def read(self, trait: int, start: int, stop: int) -> np.ndarray:
        """Records start..stop of a trait, straight from their place in the file.

        Raises StorageError where a block that holds some of them is not done, or its bytes changed on disk.
        """
        first = int(np.searchsorted(self.edges, start, side="right")) - 1
        last = max(first, int(np.searchsorted(self.edges, stop)))
        begin = int(self.edges[first])
        records = np.empty(int(self.edges[last]) - begin, dtype=self.dtype)
        sums, place = np.empty(last - first, dtype=SUM_DTYPE), self.traits[trait]
        with self.own.open() as file:
            read_exactly(file, place.records_offset + begin * self.dtype.itemsize, records)
            read_exactly(file, place.sum_offset(first), sums)
        for k in range(first, last):
            of_block = self.block_range(k)
            if checksum(records[of_block.start - begin : of_block.stop - begin]) != sums[k - first]:
                raise StorageError(
                    f"{self.path} is damaged: block {k} of trait {place.name!r} is not what was written; run the same "
                    "command with --resume, which makes it again"
                )
        return records[start - begin : stop - begin]

    def is_whole(self, trait: int, block: int) -> bool:
        """Whether a block that is done still has its bytes."""
        try:
            self.read(trait, *(self.edges[block : block + 2].tolist()))
        except StorageError:
            return False
        return True


@dataclass(frozen=True)
class StoreShape:
    """What a new store holds: the SNPs ``index`` (m,) in blocks of at most ``block``, cut at ``edges`` (blocks+1,).

    ``covariates`` are the names of each trait's; ``parts`` null models of each; a SNP's record is of ``dtype``.
    """

    index: np.ndarray
    block: int
    edges: np.ndarray
    covariates: Mapping[str, Sequence[str]]
    parts: int = 1
    dtype: np.dtype = RECORD_DTYPE


def create_store(path: str | Path, shape: StoreShape, mark: Mark, attributes: Mapping[str, Any]) -> ResultStore:
    """Make a new store; every dataset is allocated at once.

    ``attributes`` are kept at the root; `mpgls export` looks for ``bfile``, ``bim_rows``, ``bim_sha256`` and ``test``
    there. Raises StorageError when the file cannot be made.
    """
    path, traits = Path(path), list(shape.covariates)
    index, parts = np.asarray(shape.index, dtype=np.int64), shape.parts
    with replaced(path) as partial:
        with open_hdf5(partial, "w", libver="latest") as file:
            file.attrs.update({"format": FORMAT, "version": VERSION, "made_from": mark.text, "block": shape.block})
            add_token(file)
            file.attrs.update({"traits": traits, "layout_sum": checksum(index, shape.edges), **attributes})
            file.create_dataset("index", data=index)
            file.create_dataset("edges", data=shape.edges)
            allocate(file, "nulls", (parts, len(traits)), NULL_DTYPE)
            allocate(file, "null_sums", (parts, len(traits)), SUM_DTYPE)
            for name, covariates in shape.covariates.items():
                group = file.create_group(f"traits/{name}")
                group.attrs["covariates"] = list(covariates)
                allocate(group, "effects", (parts, 2, len(covariates)), np.float64)
                allocate(group, "records", (index.size,), shape.dtype)
                allocate(group, "sums", (shape.edges.size - 1,), SUM_DTYPE)
        reserve(partial, "the results take")
    return open_store(path)


def open_store(path: str | Path, mark: Mark | None = None) -> ResultStore:
    """Open a store; with ``mark``, refuse one that was made from other inputs or options.

    Raises StorageError when it cannot be read, InputError when it is no result store, was made from others or damaged.
    """
    path = Path(path)
    with open_hdf5(path, what=STORE) as file:
        check_store(file, path, FORMAT, VERSION, mark)
        names = list(file.attrs["traits"])
        groups = [file["traits"][name] for name in names]
        attributes = {key: value for key, value in file.attrs.items() if key != "traits"}
        if checksum(file["index"][...], file["edges"][...]) != attributes["layout_sum"]:
            raise InputError(f"{path} is damaged: its list of SNPs is not what was written")
        return ResultStore(
            own=OwnFile.of(path, file),
            count=file["index"].shape[0],
            block=int(attributes["block"]),
            edges=file["edges"][...],
            index_offset=file["index"].id.get_offset(),
            traits=tuple(_place(name, group) for name, group in zip(names, groups, strict=True)),
            nulls=_null_models(file, groups),
            dtype=groups[0]["records"].dtype,
            attributes=attributes,
        )


def block_edges(count: int, block: int) -> np.ndarray:
    """int64 (blocks+1,): where blocks of ``block`` of ``count`` SNPs begin, and the last one ends."""
    return np.append(np.arange(0, count, block), count).astype(np.int64)


def _place(name: str, group: Any) -> TraitPlace:
    records, sums, effects = (group[one].id.get_offset() for one in ("records", "sums", "effects"))
    return TraitPlace(name, records, sums, effects, group["sums"][...])


def _null_models(file: Any, groups: Sequence[Any]) -> NullModels:
    """What is known of the null models; nothing of those that were never written, or are damaged."""
    records, sums = file["nulls"][...].astype(NULL_DTYPE), file["null_sums"][...]
    effects = [group["effects"][...] for group in groups]
    absent = np.ones(sums.shape, dtype=bool)
    for part, trait in np.argwhere(sums != ABSENT).tolist():
        absent[part, trait] = checksum(records[part, trait], effects[trait][part]) != sums[part, trait]
    records[absent] = unknown(int(absent.sum()))
    for trait, of_trait in enumerate(effects):
        of_trait[absent[:, trait]] = np.nan
    return NullModels(
        records,
        effects,
        [tuple(group.attrs["covariates"]) for group in groups],
        file["nulls"].id.get_offset(),
        file["null_sums"].id.get_offset(),
        absent & (sums != ABSENT),
    )


def save_null(store: ResultStore, part: int, trait: int, record: np.ndarray, effects: np.ndarray) -> None:
    """Keep the null model of one part and trait: its record, and the covariates' ``effects`` (2, q), NaN if unknown.

    Call on one rank. Raises StorageError.
    """
    nulls, position = store.nulls, part * len(store.traits) + trait
    effects = np.asarray(effects, dtype=np.float64)
    with writing(store.path), store.own.open("r+b") as file:
        write_at(file.fileno(), record.tobytes(), nulls.offset + position * NULL_DTYPE.itemsize)
        write_at(file.fileno(), effects.tobytes(), store.traits[trait].effects_offset + part * effects.nbytes)
        os.fsync(file.fileno())
        total = np.array(checksum(record, effects), dtype=SUM_DTYPE)
        write_at(file.fileno(), total.tobytes(), nulls.sums_offset + position * SUM_DTYPE.itemsize)
        os.fsync(file.fileno())
