"""Many traits: read a few at a time from a text table or from HDF5, and grouped by which samples they miss.

The HDF5 form holds `/traits` (t, n), any real type, NaN where missing; `/names` (t,) strings; and `/samples`, strings
(n, 2) with FID and IID, or (n,) with 'FID IID'. Of it never more is read than the traits that are asked for.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from mpgls.errors import InputError, StorageError
from mpgls.study.hdf5 import open_hdf5
from mpgls.study.missing import codes_note, doubtful_codes, take_codes
from mpgls.study.tables import PathLike, SampleId, column_names, index_ids, read_table, show_sample
from mpgls.study.trait_names import select_names

BLOCK_BYTES = 32 << 20
"""Float64 values of the traits that are looked at together while grouping."""

POLICIES = ("by-mask", "complete", "impute")
TRAITS = "HDF5 file of traits"
"""What messages call it."""
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"

# Singular values of the observed part of an orthonormal basis below this mean that a covariate does not vary there.
_RANK_TOLERANCE = 1e-10


class _Rows(Protocol):
    def read(self, positions: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class TraitMatrix:
    """The chosen traits over the samples of their file. Picklable: rank 0 opens it and broadcasts.

    ``names`` (t,) are the traits in the order asked for, ``ids`` (n,) the samples in the order of the file. The numbers
    ``missing_codes`` are missing. ``notes`` and ``warnings`` are those of `mpgls.study.tables.Table`.
    """

    path: str
    names: tuple[str, ...]
    ids: list[SampleId] = field(repr=False)
    rows: _Rows = field(repr=False)
    missing_codes: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """One line for the log: how the file was understood."""
        return "; ".join([f"{self.path}: {len(self.ids):,} samples, {len(self.names):,} traits read", *self.notes])

    def read(self, positions: Sequence[int] | np.ndarray) -> np.ndarray:
        """The traits at ``positions`` (k,) of ``names``: (k, n) float64, C order, NaN where missing.

        Raises StorageError when the file cannot be read and InputError for an infinite value.
        """
        positions = np.asarray(positions, dtype=np.int64)
        values = self.rows.read(positions)
        take_codes(values, self.missing_codes)
        infinite = np.isinf(values)
        if infinite.any():
            k, i = np.argwhere(infinite)[0]
            raise InputError(
                f"{self.path}: trait {self.names[positions[k]]!r} of sample {show_sample(self.ids[i])} is "
                f"{values[k, i]}, not a finite number"
            )
        return values

    def blocks(self) -> Iterator[np.ndarray]:
        """Positions of all traits in order, as many together as BLOCK_BYTES hold."""
        size = max(1, BLOCK_BYTES // (8 * max(1, len(self.ids))))
        for start in range(0, len(self.names), size):
            yield np.arange(start, min(len(self.names), start + size))


@dataclass(frozen=True, eq=False)
class MaskGroup:
    """Traits that are analysed over the same samples.

    ``traits`` (g,) int64 are positions in the matrix, ascending; ``samples`` (k,) int64 positions in the list of kept
    samples, ascending, and empty for traits that are missing everywhere; ``ends`` (g, 2) are the smallest and the
    largest value of each trait over these samples; ``missing`` (g,) counts the samples without a value, which is 0
    unless they are to be imputed.
    """

    traits: np.ndarray
    samples: np.ndarray
    ends: np.ndarray
    missing: np.ndarray

    @property
    def constant(self) -> np.ndarray:
        """(g,) bool: traits with a single value."""
        return self.ends[:, 0] == self.ends[:, 1]


def open_traits(
    path: PathLike,
    wanted: Sequence[str] = (),
    known: Sequence[SampleId] | None = None,
    missing_codes: Sequence[float] = (),
) -> TraitMatrix:
    """Open a trait table (text, as `read_table` takes it) or an HDF5 file; ``wanted`` is read by `select_names`.

    ``known`` are the samples of the genotypes, which give FIDs to a table without, and ``missing_codes`` numbers that
    stand for a missing value. Of an HDF5 file the first BLOCK_BYTES are searched for other such numbers.

    Raises InputError for a malformed file, UsageError for a trait that is not there, StorageError for an unreadable
    file.
    """
    name = os.fspath(path)
    codes = tuple(missing_codes)
    return _open_hdf5(name, wanted, codes) if _starts_as_hdf5(name) else _open_text(name, wanted, known, codes)


def group_traits(matrix: TraitMatrix, kept: np.ndarray, policy: str = "by-mask") -> list[MaskGroup]:
    """The groups of traits that share their samples, by one of POLICIES; ``kept`` are positions in ``matrix.ids``.

    ``by-mask``: `group_by_mask`. ``complete``: the samples with every trait. ``impute``: all kept samples; the gaps
    are to be filled by `impute`. In the last two there is one group, and one more, without samples, of the traits
    that no kept sample has. Raises InputError when no sample has every trait, ValueError for another policy.
    """
    groups = group_by_mask(matrix, kept)
    if policy == "by-mask":
        return groups
    if policy not in POLICIES:
        raise ValueError(f"policy must be one of {', '.join(POLICIES)}, not {policy!r}")
    seen = [group for group in groups if group.samples.size]
    absent = [group for group in groups if not group.samples.size]
    if not seen:
        return absent
    merged = _everyone(seen, len(kept)) if policy == "impute" else _complete(matrix, np.asarray(kept), seen)
    return sorted([merged, *absent], key=lambda group: int(group.traits[0]))


def group_by_mask(matrix: TraitMatrix, kept: np.ndarray) -> list[MaskGroup]:
    """Traits grouped by the pattern of missing values over the samples ``kept``, ordered by their first trait.

    Traits without any value form a group without samples. Reads every trait once, a block at a time; what is held
    is one bit for each group and sample.
    """
    kept = np.asarray(kept, dtype=np.int64)
    traits: dict[bytes, list[int]] = {}
    masks: dict[bytes, np.ndarray] = {}
    ends = np.empty((len(matrix.names), 2))
    for block in matrix.blocks():
        values = matrix.read(block)[:, kept]
        ends[block] = _ends(values)
        for trait, mask in zip(block.tolist(), np.packbits(~np.isnan(values), axis=1), strict=True):
            key = hashlib.blake2b(mask.tobytes(), digest_size=16).digest()
            traits.setdefault(key, []).append(trait)
            masks.setdefault(key, mask.copy())
    groups = []
    for key, members in traits.items():
        positions = np.array(members, dtype=np.int64)
        samples = np.flatnonzero(np.unpackbits(masks[key], count=kept.size))
        groups.append(MaskGroup(positions, samples, ends[positions], np.zeros(positions.size, dtype=np.int64)))
    return groups


def impute(Y: np.ndarray, X_L: np.ndarray) -> np.ndarray:
    """Y (k, n) with each NaN replaced by the fitted value of the trait's own regression on the covariates.

    ``X_L`` (n, q) has the intercept and full column rank. With o_j = 1 where trait j is observed and Q an orthonormal
    basis of X_L, the coefficients solve Q' diag(o_j) Q c_j = Q' diag(o_j) y_j (the shortest solution where a covariate
    does not vary over the observed samples). Traits without a value stay NaN.
    """
    observed = ~np.isnan(Y)
    Q = np.linalg.qr(np.asarray(X_L, dtype=np.float64))[0]
    n, q = Q.shape
    incomplete = np.flatnonzero(observed.any(axis=1) & ~observed.all(axis=1))
    filled = np.array(Y, dtype=np.float64)
    if incomplete.size == 0:
        return filled
    weights, y = observed[incomplete].astype(np.float64), np.where(observed[incomplete], Y[incomplete], 0.0)
    # an origin and unit for each trait, so that a large mean costs no digits
    origin = y.sum(axis=1) / weights.sum(axis=1)
    gram = (weights @ (Q[:, :, None] * Q[:, None, :]).reshape(n, q * q)).reshape(-1, q, q)
    right = (y - origin[:, None] * weights) @ Q
    coefficients = np.einsum("kij,kj->ki", np.linalg.pinv(gram, rcond=_RANK_TOLERANCE, hermitian=True), right)
    fitted = origin[:, None] + coefficients @ Q.T
    filled[incomplete] = np.where(observed[incomplete], filled[incomplete], fitted)
    return filled


# -- policies ---------------------------------------------------------------------------------------------------------


def _ends(values: np.ndarray) -> np.ndarray:
    """(k, 2): the smallest and the largest value of each row (k, n) beside NaN."""
    low = np.min(values, axis=1, initial=np.inf, where=~np.isnan(values))
    high = np.max(values, axis=1, initial=-np.inf, where=~np.isnan(values))
    return np.column_stack([low, high])


def _everyone(groups: list[MaskGroup], count: int) -> MaskGroup:
    """One group over all ``count`` samples, with the number of values to impute."""
    traits = np.concatenate([group.traits for group in groups])
    order = np.argsort(traits)
    missing = np.concatenate([np.full(group.traits.size, count - group.samples.size) for group in groups])
    ends = np.concatenate([group.ends for group in groups])
    return MaskGroup(traits[order], np.arange(count), ends[order], missing[order])


def _complete(matrix: TraitMatrix, kept: np.ndarray, groups: list[MaskGroup]) -> MaskGroup:
    """One group over the samples that every trait has."""
    have = np.zeros(kept.size, dtype=np.int64)
    for group in groups:
        have[group.samples] += 1
    samples = np.flatnonzero(have == len(groups))
    if samples.size == 0:
        raise InputError(
            f"no sample of {matrix.path} has all {sum(group.traits.size for group in groups)} traits: "
            "leave --missing at by-mask, or choose traits with --pheno-name"
        )
    traits = np.sort(np.concatenate([group.traits for group in groups]))
    ends = np.concatenate([
        _ends(matrix.read(part)[:, kept[samples]])
        for part in np.array_split(traits, max(1, traits.size * len(matrix.ids) * 8 // BLOCK_BYTES))
    ])  # fmt: skip
    return MaskGroup(traits, samples, ends, np.zeros(traits.size, dtype=np.int64))


# -- files ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _TextRows:
    values: np.ndarray  # (t, n)

    def read(self, positions: np.ndarray) -> np.ndarray:
        return self.values[positions]


@dataclass(frozen=True, eq=False)
class _Hdf5Rows:
    """``columns`` (t,) int64 are the rows of /traits that were asked for."""

    path: str
    columns: np.ndarray
    n: int

    def read(self, positions: np.ndarray) -> np.ndarray:

        rows = self.columns[positions]
        values = np.empty((rows.size, self.n))
        edges = [0, *(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), rows.size]
        with open_hdf5(self.path, what=TRAITS) as file:
            for a, b in itertools.pairwise(edges):
                if a < b:
                    file["traits"].read_direct(values, np.s_[int(rows[a]) : int(rows[b - 1]) + 1], np.s_[a:b])
        return values


def _open_text(
    path: str, wanted: Sequence[str], known: Sequence[SampleId] | None, codes: tuple[float, ...]
) -> TraitMatrix:
    if wanted:
        names = column_names(path)
        wanted = [names[k] for k in select_names(names, wanted, path)]
    table = read_table(path, wanted, known, codes)
    rows = _TextRows(np.ascontiguousarray(table.values.T))
    return TraitMatrix(path, table.names, table.ids, rows, codes, table.notes, table.warnings)


def _open_hdf5(path: str, wanted: Sequence[str], codes: tuple[float, ...]) -> TraitMatrix:
    import h5py

    with open_hdf5(path, what=TRAITS) as file:
        for name in ("traits", "names", "samples"):
            if not isinstance(file.get(name), h5py.Dataset):
                raise InputError(f"{path} holds no traits: there is no dataset /{name}")
        shape, kind = file["traits"].shape, file["traits"].dtype.kind
        names, ids = _strings(path, file["names"]).tolist(), _samples(path, file["samples"])
    if kind not in "fiu" or shape != (len(names), len(ids)):
        size = " x ".join(map(str, shape))
        raise InputError(
            f"{path}: /traits is {size}{'' if kind in 'fiu' else ' and not numeric'}, but there are "
            f"{len(names)} names and {len(ids)} samples"
        )
    _check_names(path, names)
    index_ids(ids, path)
    columns = np.array(select_names(names, wanted, path), dtype=np.int64)
    chosen, rows = tuple(names[k] for k in columns), _Hdf5Rows(path, columns, len(ids))
    notes: tuple[str, ...] = ("HDF5",)
    searched = next(TraitMatrix(path, chosen, ids, rows).blocks(), np.empty(0, dtype=np.int64))
    values = rows.read(searched)
    if codes:
        notes += (codes_note(take_codes(values, codes), codes) + _of_first(searched.size, len(chosen)),)
    warnings = doubtful_codes(path, chosen[: searched.size], values.T)
    return TraitMatrix(path, chosen, ids, rows, codes, notes, warnings)


def _of_first(searched: int, count: int) -> str:
    return f" among the first {searched:,} traits" if searched < count else ""


def _strings(path: str, dataset: Any) -> np.ndarray:
    """The texts of a dataset, as an array of objects of its shape."""
    try:
        return np.asarray(dataset.asstr()[...], dtype=object)
    except TypeError:
        raise InputError(f"{path}: {dataset.name} does not hold strings") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: {dataset.name} holds a text that is not in UTF-8") from None


def _samples(path: str, dataset: Any) -> list[SampleId]:
    texts = _strings(path, dataset)
    if texts.ndim == 2 and texts.shape[1] == 2:
        return [(fid, iid) for fid, iid in texts.tolist()]
    if texts.ndim != 1:
        raise InputError(f"{path}: /samples must be n x 2 (FID, IID) or n texts 'FID IID'")
    ids = []
    for k, text in enumerate(texts.tolist()):
        fields = text.split()
        if len(fields) != 2:
            raise InputError(f"{path}: entry {k + 1} of /samples is {text!r}, not 'FID IID'")
        ids.append((fields[0], fields[1]))
    return ids


def _check_names(path: str, names: Sequence[str]) -> None:
    position: dict[str, int] = {}
    for k, name in enumerate(names):
        if not name or any(letter.isspace() for letter in name):
            raise InputError(f"{path}: trait {k + 1} of /names has an empty name or one with white space: {name!r}")
        if position.setdefault(name, k) != k:
            raise InputError(f"{path}: /names lists trait {name!r} twice (entries {position[name] + 1} and {k + 1})")
    if not names:
        raise InputError(f"{path} holds no traits")


def _starts_as_hdf5(path: str) -> bool:
    try:
        with open(path, "rb") as stream:
            return stream.read(len(_HDF5_SIGNATURE)) == _HDF5_SIGNATURE
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror or error}") from None
