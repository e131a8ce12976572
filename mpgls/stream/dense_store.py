"""The dense store of a multi-trait scan: every effect and standard error of m SNPs x t traits, in one HDF5 file.

``/beta`` and ``/se`` are float32 (blocks, t, B): block k of B SNPs, all traits, so that the tile of one block and a
range of traits is one range of bytes; a block of fewer SNPs is padded with NaN, and a SNP that was not tested has NaN.
``/eaf`` float64, ``/n`` int32 and ``/note`` uint8 (groups, m) depend on the samples, hence on the trait's group;
``/index`` int64 (m,) holds rows of the .bim, ``/edges`` int64 (blocks+1,) where among them each block begins;
``/names`` and ``/group`` (t,) describe the traits, ``/nulls`` (parts, t) of `model.null_record.NULL_DTYPE` their null
models, one part or one for each chromosome; ``/panels`` (panels, 2) are the trait ranges that are computed together
(never of two groups), and ``/done`` uint8 (panels, blocks) says which tiles are complete. Root attributes: ``format``,
``version``, ``made_from`` (`stream.mark`), ``block``, ``test``, and what the caller adds, such as ``bfile``.

Every dataset lies at a fixed place from the start, so ranks write tiles without HDF5.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mpgls.errors import InputError
from mpgls.model.null_record import unknown
from mpgls.stream.files import replaced, write_at, writing
from mpgls.stream.hdf5 import STORE, allocate, check_room, check_store, mapped_index, read_exactly
from mpgls.stream.mark import Mark
from mpgls.stream.store import RECORD_DTYPE
from mpgls.study.hdf5 import open_hdf5, texts

FORMAT, VERSION = "mpgls-dense", 2
TILE_DTYPE = np.dtype("<f4")

_SNP_DTYPES: dict[str, np.dtype] = {"eaf": np.dtype("<f8"), "n": np.dtype("<i4"), "note": np.dtype("u1")}


@dataclass(frozen=True, eq=False)
class DenseStore:
    """A dense store that exists on disk. Picklable: rank 0 creates or opens it and broadcasts.

    ``names`` (t,) and ``group`` (t,) are in the store's order of traits, in which the traits of a group are
    neighbours; ``panels`` (P, 2) are first and stop of each trait range; ``done`` (P, blocks) is as of the opening;
    ``nulls`` (parts, t) are the null models as of the opening.
    """

    path: Path
    count: int
    block: int
    edges: np.ndarray = field(repr=False)
    names: tuple[str, ...] = field(repr=False)
    group: np.ndarray = field(repr=False)
    panels: np.ndarray = field(repr=False)
    done: np.ndarray = field(repr=False)
    nulls: np.ndarray = field(repr=False)
    offsets: dict[str, int]
    attributes: dict[str, Any]

    @property
    def index(self) -> np.ndarray:
        """int64 (m,): the .bim row of each SNP, mapped from the file."""
        return mapped_index(self.path, self.offsets["index"], self.count)

    @property
    def blocks(self) -> int:
        """Number of blocks of at most ``block`` SNPs."""
        return self.edges.size - 1

    @property
    def test(self) -> str:
        """The test of the run: 't' or 'wald'."""
        return str(self.attributes["test"])

    def block_range(self, k: int) -> range:
        """Positions (among the selected SNPs) of block k."""
        return range(int(self.edges[k]), int(self.edges[k + 1]))

    def tile_offset(self, name: str, k: int, first: int) -> int:
        """Byte at which block k of ``name`` ('beta' or 'se') begins for trait ``first``.

        A tile of traits first..stop is (stop - first, B) float32 from there on, padding included.
        """
        return self.offsets[name] + (k * len(self.names) + first) * self.block * TILE_DTYPE.itemsize

    def mark(self, panel: int, k: int) -> int:
        """Which byte of the done-map, from ``offsets['done']`` on, says that the tile (panel, block k) is complete."""
        return panel * self.blocks + k

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
        """(blocks,) uint8: which blocks of a trait are complete."""
        return self.done[int(np.searchsorted(self.panels[:, 1], trait, side="right"))]

    def write_snps(self, group: int, k: int, eaf: np.ndarray, n: np.ndarray, note: np.ndarray) -> None:
        """Write what block k's SNPs are over the samples of ``group``, before its tiles are marked done.

        Raises StorageError when the file cannot be written.
        """
        with writing(self.path), open(self.path, "r+b") as file:
            for name, values in (("eaf", eaf), ("n", n), ("note", note)):
                data = np.ascontiguousarray(values, _SNP_DTYPES[name]).tobytes()
                write_at(file.fileno(), data, self._snp(name, group, k))

    def read(self, trait: int, start: int, stop: int) -> np.ndarray:
        """SNPs start..stop of a trait as RECORD_DTYPE, the stored form of a single trait.

        BETA and SE become the float64 of their shortest decimal form, so that a table shows no digits that are not
        there. Raises StorageError when the file ends early.
        """
        records = np.zeros(stop - start, dtype=RECORD_DTYPE)
        if start >= stop:
            return records
        group = int(self.group[trait])
        with open(self.path, "rb") as file:
            for name in ("beta", "se"):
                values = np.empty(stop - start, dtype=TILE_DTYPE)
                first = int(np.searchsorted(self.edges, start, side="right")) - 1
                for k in range(first, int(np.searchsorted(self.edges, stop))):
                    a, b = max(start, int(self.edges[k])), min(stop, int(self.edges[k + 1]))
                    skip = (a - int(self.edges[k])) * TILE_DTYPE.itemsize
                    read_exactly(file, self.tile_offset(name, k, trait) + skip, values[a - start : b - start])
                records[name] = values.astype("U32").astype(np.float64)
            for name, dtype in _SNP_DTYPES.items():
                column = np.empty(stop - start, dtype=dtype)
                place = self.offsets[name] + (group * self.count + start) * dtype.itemsize
                read_exactly(file, place, column)
                records[name] = column
        return records

    def _snp(self, name: str, group: int, k: int) -> int:
        return self.offsets[name] + (group * self.count + int(self.edges[k])) * _SNP_DTYPES[name].itemsize


@dataclass(frozen=True, eq=False)
class DenseShape:
    """What a store holds: the SNPs ``index`` (m,) of the .bim, cut by ``edges`` (blocks+1,) into at most ``block``.

    The traits ``names`` (t,), whose sample groups ``group`` (t,) are 0, 1, ... without gaps and in ascending order, at
    most ``panel`` of which are computed together; and their null models in so many ``parts``.
    """

    index: np.ndarray
    edges: np.ndarray
    block: int
    names: Sequence[str]
    group: np.ndarray
    panel: int
    parts: int = 1


def create_dense(path: str | Path, shape: DenseShape, mark: Mark, attributes: Mapping[str, Any]) -> DenseStore:
    """Make a new store, of what has the ``mark``. Call on one rank.

    ``attributes`` are kept at the root: ``test``, and what `mpgls export` looks for, ``bfile``, ``bim_rows`` and
    ``bim_sha256``.
    Raises StorageError when the file cannot be made or the disk is too small for it.
    """

    path, group, block = Path(path), np.asarray(shape.group, dtype=np.int64), shape.block
    t, m, blocks = len(shape.names), len(shape.index), shape.edges.size - 1
    panels = panels_of(group, shape.panel)
    shapes: dict[str, tuple[tuple[int, ...], np.dtype]] = {
        "beta": ((blocks, t, block), TILE_DTYPE),
        "se": ((blocks, t, block), TILE_DTYPE),
        **{name: ((int(group[-1]) + 1, m), dtype) for name, dtype in _SNP_DTYPES.items()},
        "done": ((len(panels), blocks), np.dtype(np.uint8)),
    }
    nbytes = sum(int(np.prod(size, dtype=np.int64)) * dtype.itemsize for size, dtype in shapes.values())
    check_room(path, nbytes, "all effects take")
    about = {"format": FORMAT, "version": VERSION, "made_from": mark.text, "block": block}
    with replaced(path) as partial, open_hdf5(partial, "w", libver="latest") as file:
        file.attrs.update(about | dict(attributes))
        file.create_dataset("names", data=texts(shape.names))
        index = np.asarray(shape.index, dtype=np.int64)
        for name, data in (("index", index), ("edges", shape.edges), ("group", group), ("panels", panels)):
            file.create_dataset(name, data=data)
        file.create_dataset("nulls", data=unknown(shape.parts, t))
        for name, (size, dtype) in shapes.items():
            allocate(file, name, size, dtype)
    return open_dense(path)


def open_dense(path: str | Path, mark: Mark | None = None) -> DenseStore:
    """Open a store; with ``mark``, refuse one that was made from other inputs or options.

    Raises StorageError when it cannot be read, InputError when it is no dense store or has another mark.
    """
    path = Path(path)
    with open_hdf5(path, what=STORE) as file:
        check_store(file, path, FORMAT, VERSION, mark)
        attributes = dict(file.attrs.items())
        count, block = file["index"].shape[0], int(attributes["block"])
        placed = ("index", "beta", "se", "done", *_SNP_DTYPES)
        return DenseStore(
            path=path,
            count=count,
            block=block,
            edges=file["edges"][...],
            names=tuple(file["names"].asstr()[...].tolist()),
            group=file["group"][...],
            panels=file["panels"][...],
            done=file["done"][...],
            nulls=file["nulls"][...],
            offsets={name: file[name].id.get_offset() for name in placed},
            attributes=attributes,
        )


def save_nulls(path: str | Path, part: int, first: int, nulls: np.ndarray) -> None:
    """Keep the null models (k,), of NULL_DTYPE, of the traits from ``first`` on, for a part. Call on one rank.

    No other may be writing. Raises StorageError.
    """

    with writing(path), open_hdf5(path, "r+") as file:
        file["nulls"][part, first : first + len(nulls)] = nulls


def panels_of(group: np.ndarray, panel: int) -> np.ndarray:
    """Ranges of at most ``panel`` traits, nearly equal within a group and never of two groups: int64 (panels, 2).

    Raises ValueError when ``group`` (t,) is not 0, 1, ... in ascending order.
    """
    group = np.asarray(group)
    steps = np.diff(group)
    if group.size == 0 or group[0] != 0 or not np.isin(steps, (0, 1)).all():
        raise ValueError("groups must be numbered 0, 1, ... in ascending order")
    edges = [0, *(np.flatnonzero(steps) + 1).tolist(), group.size]
    ranges = []
    for first, stop in itertools.pairwise(edges):
        cuts = np.linspace(first, stop, -(-(stop - first) // panel) + 1).astype(np.int64)
        ranges += list(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True))
    return np.array(ranges, dtype=np.int64)
