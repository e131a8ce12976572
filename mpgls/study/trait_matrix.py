"""Many traits: of a text table, or a few at a time of HDF5 or Parquet, and grouped by which samples they miss."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from mpgls.errors import InputError
from mpgls.study.column_files import ColumnFile, check_finite, open_columns
from mpgls.study.column_names import select_names
from mpgls.study.missing import codes_note, doubtful_codes, take_codes
from mpgls.study.tables import PathLike, SampleId, read_table

BLOCK_BYTES = 32 << 20
"""Float64 values of the traits that are looked at together while grouping."""

POLICIES = ("by-mask", "complete", "impute")

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
        check_finite(self.path, [self.names[k] for k in positions], self.ids, values, "trait")
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
    """Open a table of traits in any format of `mpgls.study.tables`; ``wanted`` is read by `select_names`.

    ``known`` are the samples of the genotypes, which give FIDs to a table without, and ``missing_codes`` numbers that
    stand for a missing value. Of HDF5 and Parquet the first BLOCK_BYTES are searched for other such numbers.

    Raises InputError for a malformed file, UsageError for a trait that is not there, StorageError for an unreadable
    file.
    """
    name = os.fspath(path)
    codes = tuple(missing_codes)
    file = open_columns(name, known)
    return _of_text(name, wanted, known, codes) if file is None else _of_file(file, wanted, codes)


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
class _FileRows:
    """``columns`` (t,) int64 are the columns of the file that were asked for."""

    file: ColumnFile
    columns: np.ndarray

    def read(self, positions: np.ndarray) -> np.ndarray:
        return self.file.read(self.columns[positions])


def _of_text(
    path: str, wanted: Sequence[str], known: Sequence[SampleId] | None, codes: tuple[float, ...]
) -> TraitMatrix:
    table = read_table(path, wanted, known, codes, what="trait")
    rows = _TextRows(np.ascontiguousarray(table.values.T))
    return TraitMatrix(path, table.names, table.ids, rows, codes, table.notes, table.warnings)


def _of_file(file: ColumnFile, wanted: Sequence[str], codes: tuple[float, ...]) -> TraitMatrix:
    columns = np.array(select_names(file.names, wanted, file.path), dtype=np.int64)
    chosen, rows, notes = tuple(file.names[k] for k in columns), _FileRows(file, columns), file.notes
    searched = next(TraitMatrix(file.path, chosen, file.ids, rows).blocks(), np.empty(0, dtype=np.int64))
    values = rows.read(searched)
    if codes:
        notes += (codes_note(take_codes(values, codes), codes) + _of_first(searched.size, len(chosen)),)
    warnings = doubtful_codes(file.path, chosen[: searched.size], values.T)
    return TraitMatrix(file.path, chosen, file.ids, rows, codes, notes, warnings)


def _of_first(searched: int, count: int) -> str:
    return f" among the first {searched:,} traits" if searched < count else ""
