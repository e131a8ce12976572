"""The dense store of a multi-trait scan: every effect and standard error of m SNPs x t traits, in one HDF5 file.

``/beta`` and ``/se`` are float32 (blocks, t, B): block k of B SNPs, all traits, so that the tile of one block and a
range of traits is one range of bytes; a block of fewer SNPs is padded with NaN, and a SNP that was not tested has NaN.
``/sums`` uint32 (blocks, t) are the checksums (`study.checksums`) of a block's effects on a trait, 0 where it is not
done. ``/eaf`` float64, ``/n`` int32, ``/note`` uint8 and of dosages ``/info`` float64 (groups, m) depend on the
samples, hence on the trait's group, with ``/snp_sums`` (groups, blocks); ``/index`` int64 (m,) holds rows of the .bim,
``/edges`` int64 (blocks+1,) where among them each block begins; ``/names`` and ``/group`` (t,) describe the traits,
``/nulls`` (parts, t) of `model.null_record.NULL_DTYPE` their null models, one part or one for each chromosome, with
``/null_sums`` (parts, t).
Root attributes: ``format``, ``version``, ``made_from`` (`stream.mark`), ``block``, ``layout_sum``, the checksum of
index, edges and group, ``test``, and what the caller adds, such as ``bfile``. A store of pairs with variance ratios of
their own also has ``/h2``, as ``/beta``, NaN for a pair that has that of the null model.

Every dataset lies at a fixed place from the start, so ranks write tiles without HDF5.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mpgls.errors import InputError, StorageError
from mpgls.model.null_record import NULL_DTYPE, unknown
from mpgls.stream.files import replaced, write_at, writing
from mpgls.stream.hdf5 import STORE, allocate, check_store, mapped_index, read_exactly, reserve
from mpgls.stream.mark import Mark
from mpgls.stream.own_file import OwnFile, add_token
from mpgls.stream.store import further_of, record_dtype
from mpgls.study.checksums import ABSENT, SUM_DTYPE, checksum, row_checksums
from mpgls.study.hdf5 import open_hdf5, texts

FORMAT, VERSION = "mpgls-dense", 3
TILE_DTYPE = np.dtype("<f4")
TILES, RATIO_TILES = ("beta", "se"), ("h2",)
"""What is kept of every pair of SNP and trait; and beside it where pairs have variance ratios of their own."""

_SNP_DTYPES: dict[str, np.dtype] = {"eaf": np.dtype("<f8"), "n": np.dtype("<i4"), "note": np.dtype("u1")}
_INFO = {"info": np.dtype("<f8")}


@dataclass(frozen=True, eq=False)
class DenseStore:
    """A dense store that exists on disk. Picklable: rank 0 creates or opens it and broadcasts.

    ``own`` is its file. ``names`` (t,) and ``group`` (t,) are in the store's order of traits, in which the traits of a
    group are neighbours. As of the opening: ``sums`` (blocks, t), the checksums of what is done, and ``nulls``
    (parts, t), the null models.
    """

    own: OwnFile
    count: int
    block: int
    edges: np.ndarray = field(repr=False)
    names: tuple[str, ...] = field(repr=False)
    group: np.ndarray = field(repr=False)
    sums: np.ndarray = field(repr=False)
    nulls: np.ndarray = field(repr=False)
    offsets: dict[str, int]
    attributes: dict[str, Any]

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.own.path

    @property
    def index(self) -> np.ndarray:
        """int64 (m,): the .bim row of each SNP, mapped from the file."""
        with self.own.open() as file:
            return mapped_index(file, self.offsets["index"], self.count)

    @property
    def blocks(self) -> int:
        """Number of blocks of at most ``block`` SNPs."""
        return self.edges.size - 1

    @property
    def test(self) -> str:
        """The test of the run: 't' or 'wald'."""
        return str(self.attributes["test"])

    @property
    def tiles(self) -> tuple[str, ...]:
        """What is kept of a pair, a tile each."""
        return tuple(name for name in (*TILES, *RATIO_TILES) if name in self.offsets)

    def block_range(self, k: int) -> range:
        """Positions (among the selected SNPs) of block k."""
        return range(int(self.edges[k]), int(self.edges[k + 1]))

    def tile_offset(self, name: str, k: int, first: int) -> int:
        """Byte at which block k of ``name``, one of ``tiles``, begins for trait ``first``.

        A tile of traits first..stop is (stop - first, B) float32 from there on, padding included.
        """
        return self.offsets[name] + (k * len(self.names) + first) * self.block * TILE_DTYPE.itemsize

    def sum_offset(self, k: int, first: int) -> int:
        """Byte at which the checksums of block k begin for trait ``first``."""
        return self.offsets["sums"] + (k * len(self.names) + first) * SUM_DTYPE.itemsize

    def trait(self, name: str) -> int:
        """The trait's position in the store; InputError if it is not there."""
        if name not in self.names:
            shown = ", ".join(self.names[:10]) + (f", ... ({len(self.names)})" if len(self.names) > 10 else "")
            raise InputError(f"{self.path} has no trait {name!r}; its traits are {shown}")
        return self.names.index(name)

    def df(self, trait: int) -> int:
        """Degrees of freedom of a SNP's test on a trait; 0 where its null model is not there yet."""
        df = int(self.nulls["df"][0, trait])
        return df + 1 if df and self.test == "wald" else df

    def is_tested(self, trait: int) -> bool:
        """Whether a trait has a null model, of one part at least."""
        return bool(np.isfinite(self.nulls["s2"][:, trait]).any())

    def done_of(self, trait: int) -> np.ndarray:
        """bool (blocks,): which blocks of a trait are done."""
        return self.sums[:, trait] != ABSENT

    @property
    def dtype(self) -> np.dtype:
        """Of what is read of a pair."""
        return record_dtype(further_of("info" in self.offsets, self.tiles[len(TILES) :]))

    @property
    def _snp_dtypes(self) -> dict[str, np.dtype]:
        return _SNP_DTYPES | (_INFO if "info" in self.offsets else {})

    def write_snps(self, group: int, k: int, *columns: np.ndarray) -> None:
        """Write what block k's SNPs are over the samples of ``group``, before its tiles are done.

        The ``columns`` (B,) are eaf, n, note, and of dosages info. Raises StorageError when the file cannot be written.
        """
        kept = [np.ascontiguousarray(*one) for one in zip(columns, self._snp_dtypes.values(), strict=True)]
        total = np.array(checksum(*kept), dtype=SUM_DTYPE)
        with writing(self.path), self.own.open("r+b") as file:
            for name, values in zip(self._snp_dtypes, kept, strict=True):
                write_at(file.fileno(), values.tobytes(), self._snp(name, group, k))
            write_at(file.fileno(), total.tobytes(), self._snp_sum(group, k))

    def read(self, trait: int, start: int, stop: int) -> np.ndarray:
        """SNPs start..stop of a trait as `dtype`, the stored form of a single trait.

        What tiles hold becomes the float64 of their shortest decimal form, so that a table shows no digits that are not
        there. Raises StorageError when the file ends early, or a block of it changed on disk.
        """
        records = np.zeros(stop - start, dtype=self.dtype)
        if start >= stop:
            return records
        first = int(np.searchsorted(self.edges, start, side="right")) - 1
        with self.own.open() as file:
            for k in range(first, int(np.searchsorted(self.edges, stop))):
                of_block = self._read_block(file, trait, k)
                a, b = (min(max(end, start), stop) for end in self.edges[k : k + 2].tolist())
                records[a - start : b - start] = of_block[a - int(self.edges[k]) : b - int(self.edges[k])]
        return records

    def check(self, trait: int, blocks: Iterable[int]) -> None:
        """Compare these blocks of a trait with their checksums. Raises StorageError for one that changed on disk."""
        with self.own.open() as file:
            for k in blocks:
                self._read_block(file, trait, k)

    def _read_block(self, file: BinaryIO, trait: int, k: int) -> np.ndarray:
        """Block k of a trait as `dtype`."""
        width, group = len(self.block_range(k)), int(self.group[trait])
        tiles = np.empty((len(self.tiles), self.block), dtype=TILE_DTYPE)
        columns = {name: np.empty(width, dtype) for name, dtype in self._snp_dtypes.items()}
        sums = np.empty(2, dtype=SUM_DTYPE)
        for name, tile in zip(self.tiles, tiles, strict=True):
            read_exactly(file, self.tile_offset(name, k, trait), tile)
        for name, column in columns.items():
            read_exactly(file, self._snp(name, group, k), column)
        for at, offset in enumerate((self.sum_offset(k, trait), self._snp_sum(group, k))):
            read_exactly(file, offset, sums[at : at + 1])
        if [checksum(*tiles), checksum(*columns.values())] != sums.tolist():
            raise StorageError(
                f"{self.path} is damaged: block {k} of trait {self.names[trait]!r} is not what was written; make the "
                "file again"
            )
        records = np.zeros(width, dtype=self.dtype)
        for name, tile in zip(self.tiles, tiles, strict=True):
            records[name] = tile[:width].astype("U32").astype(np.float64)
        for name, column in columns.items():
            records[name] = column
        return records

    def _snp_sum(self, group: int, k: int) -> int:
        return self.offsets["snp_sums"] + (group * self.blocks + k) * SUM_DTYPE.itemsize

    def _snp(self, name: str, group: int, k: int) -> int:
        return self.offsets[name] + (group * self.count + int(self.edges[k])) * self._snp_dtypes[name].itemsize


@dataclass(frozen=True, eq=False)
class DenseShape:
    """What a store holds: the SNPs ``index`` (m,) of the .bim, cut by ``edges`` (blocks+1,) into at most ``block``.

    The traits ``names`` (t,), whose sample groups ``group`` (t,) are 0, 1, ... without gaps and in ascending order; and
    their null models in so many ``parts``. Of ``dosages`` it has INFO, too.
    """

    index: np.ndarray
    edges: np.ndarray
    block: int
    names: Sequence[str]
    group: np.ndarray
    parts: int = 1
    further: tuple[str, ...] = ()
    dosages: bool = False

    @property
    def tiles(self) -> tuple[str, ...]:
        """What is kept of a pair."""
        return (*TILES, *self.further)

    @property
    def snp_dtypes(self) -> dict[str, np.dtype]:
        """What it holds of a SNP and group."""
        return _SNP_DTYPES | (_INFO if self.dosages else {})

    @property
    def nbytes(self) -> int:
        """Of the file, all but what does not grow."""
        blocks, t, groups = self.edges.size - 1, len(self.names), int(self.group[-1]) + 1
        of_snps = sum(dtype.itemsize for dtype in self.snp_dtypes.values())
        of_traits = self.parts * (NULL_DTYPE.itemsize + SUM_DTYPE.itemsize)
        return t * (
            blocks * (len(self.tiles) * self.block * TILE_DTYPE.itemsize + SUM_DTYPE.itemsize) + of_traits
        ) + len(self.index) * (8 + groups * of_snps)


def create_dense(path: str | Path, shape: DenseShape, mark: Mark, attributes: Mapping[str, Any]) -> DenseStore:
    """Make a new store, of what has the ``mark``. Call on one rank.

    ``attributes`` are kept at the root: ``test``, and what `mpgls export` looks for, ``bfile``, ``bim_rows`` and
    ``bim_sha256``.
    Raises StorageError when the file cannot be made.
    """
    path, group, block = Path(path), np.asarray(shape.group, dtype=np.int64), shape.block
    index = np.asarray(shape.index, dtype=np.int64)
    t, m, blocks, groups = len(shape.names), len(index), shape.edges.size - 1, int(group[-1]) + 1
    allocated: dict[str, tuple[tuple[int, ...], np.dtype]] = {
        **dict.fromkeys(shape.tiles, ((blocks, t, block), TILE_DTYPE)),
        "sums": ((blocks, t), SUM_DTYPE),
        **{name: ((groups, m), dtype) for name, dtype in shape.snp_dtypes.items()},
        "snp_sums": ((groups, blocks), SUM_DTYPE),
        "nulls": ((shape.parts, t), NULL_DTYPE),
        "null_sums": ((shape.parts, t), SUM_DTYPE),
    }
    about = {"format": FORMAT, "version": VERSION, "made_from": mark.text, "block": block}
    about["layout_sum"] = checksum(index, shape.edges, group)
    with replaced(path) as partial:
        with open_hdf5(partial, "w", libver="latest") as file:
            file.attrs.update(about | dict(attributes))
            add_token(file)
            file.create_dataset("names", data=texts(shape.names))
            for name, data in (("index", index), ("edges", shape.edges), ("group", group)):
                file.create_dataset(name, data=data)
            for name, (size, dtype) in allocated.items():
                allocate(file, name, size, dtype)
        reserve(partial, "all effects take")
    return open_dense(path)


def open_dense(path: str | Path, mark: Mark | None = None) -> DenseStore:
    """Open a store; with ``mark``, refuse one that was made from other inputs or options.

    Raises StorageError when it cannot be read, InputError when it is no dense store, has another mark or is damaged.
    """
    path = Path(path)
    with open_hdf5(path, what=STORE) as file:
        check_store(file, path, FORMAT, VERSION, mark)
        attributes = dict(file.attrs.items())
        edges, group, nulls, null_sums = (file[name][...] for name in ("edges", "group", "nulls", "null_sums"))
        if checksum(file["index"][...], edges, group) != attributes["layout_sum"]:
            raise InputError(f"{path} is damaged: its list of SNPs and traits is not what was written")
        if (null_sums[null_sums != ABSENT] != row_checksums(nulls[null_sums != ABSENT])).any():
            raise InputError(f"{path} is damaged: its null models are not what was written")
        nulls[null_sums == ABSENT] = unknown(np.count_nonzero(null_sums == ABSENT))
        tiles = (name for name in (*TILES, *RATIO_TILES) if name in file)
        of_snps = [name for name in (*_SNP_DTYPES, *_INFO) if name in file]
        placed = ("index", *tiles, "sums", *of_snps, "snp_sums", "nulls", "null_sums")
        return DenseStore(
            own=OwnFile.of(path, file),
            count=file["index"].shape[0],
            block=int(attributes["block"]),
            edges=edges,
            names=tuple(file["names"].asstr()[...].tolist()),
            group=group,
            sums=file["sums"][...],
            nulls=nulls.astype(NULL_DTYPE),
            offsets={name: file[name].id.get_offset() for name in placed},
            attributes=attributes,
        )


def save_nulls(store: DenseStore, part: int, first: int, nulls: np.ndarray) -> None:
    """Keep the null models (k,), of NULL_DTYPE, of the traits from ``first`` on, for a part. Call on one rank.

    Raises StorageError.
    """
    position = part * len(store.names) + first
    with writing(store.path), store.own.open("r+b") as file:
        write_at(file.fileno(), nulls.tobytes(), store.offsets["nulls"] + position * NULL_DTYPE.itemsize)
        os.fsync(file.fileno())
        sums = row_checksums(nulls).tobytes()
        write_at(file.fileno(), sums, store.offsets["null_sums"] + position * SUM_DTYPE.itemsize)
