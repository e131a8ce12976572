"""Kinships that were made of parts of the SNPs, as one: K = sum_f m_f K_f / sum_f m_f, m_f the SNPs of part f.

The sums S_c of chromosomes are kept; where several parts have SNPs of a chromosome, theirs are added.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mpgls.errors import InputError
from mpgls.run.world import World
from mpgls.stream.files import writing
from mpgls.study.checked_rows import CheckedRows
from mpgls.study.chromosome_names import plain_chromosome
from mpgls.study.kinship_h5 import KinshipH5, create_kinship_h5, finish_kinship_h5, keys_in_order, read_kinship_h5
from mpgls.study.tables import show_sample

_SLAB_BYTES = 32 << 20


@dataclass(frozen=True)
class KinshipParts:
    """The ``files``, of the same samples and without a SNP in common. Picklable: rank 0 opens them and broadcasts."""

    files: tuple[KinshipH5, ...]
    method: str

    @classmethod
    def open(cls, paths: Sequence[str]) -> KinshipParts:
        """Open and compare them. On one rank. Raises StorageError, and InputError for those that cannot be added."""
        files = tuple(read_kinship_h5(path) for path in paths)
        for file in files:
            _check_alike(files[0], file)
        _check_apart(files)
        return cls(files, files[0].method)

    @property
    def n(self) -> int:
        """Samples."""
        return len(self.files[0].ids)

    @property
    def snps(self) -> int:
        """SNPs of all parts, m."""
        return sum(file.snps or 0 for file in self.files)

    @property
    def chromosomes(self) -> dict[str, tuple[str, list[CheckedRows], int]]:
        """Of each chromosome with a sum its label, the parts' sums of it and their SNPs, in the order given."""
        found: dict[str, tuple[str, list[CheckedRows], int]] = {}
        for one in (one for file in self.files for one in file.sums):
            key = plain_chromosome(one.chromosome)
            label, rows, snps = found.get(key, (one.chromosome, [], 0))
            found[key] = (label, [*rows, one.rows], snps + one.snps)
        return found

    @property
    def nbytes(self) -> int:
        """Of the joined file, about."""
        return 8 * self.n**2 * (1 + len(self.chromosomes)) + 8 * self.snps

    def join(self, path: Path, world: World) -> None:
        """Write the joined kinship. Collective: its rows are dealt to ranks; a failure leaves nothing of it.

        Raises StorageError, InputError for damaged rows, Stopped.
        """
        partial = path.with_name(path.name + ".partial")
        try:
            self._join(path, partial, world)
        except BaseException:
            if world.rank == 0:
                partial.unlink(missing_ok=True)
            raise

    def _join(self, path: Path, partial: Path, world: World) -> None:
        chromosomes, total = list(self.chromosomes.values()), float(self.snps)
        labels = [label for label, _, _ in chromosomes]
        made = world.on_root(lambda: create_kinship_h5(partial, self.files[0].ids, {"method": self.method}, labels))
        self._add([(file.rows, (file.snps or 0) / total) for file in self.files], made.rows, path, world)
        for (_, parts, _), place in zip(chromosomes, made.sums, strict=True):
            self._add([(rows, 1.0) for rows in parts], place.rows, path, world)

        def finish() -> None:
            keys = np.concatenate([keys_in_order(file.path) for file in self.files])
            finish_kinship_h5(partial, [snps for _, _, snps in chromosomes], keys, {"snps": self.snps})
            with writing(path):
                os.replace(partial, path)

        world.on_root(finish)

    def _add(self, parts: Sequence[tuple[CheckedRows, float]], target: CheckedRows, path: Path, world: World) -> None:
        """Rows of ``target`` = the weighted sum of those of ``parts``, slab by slab, each by one rank. Collective."""
        height = max(1, _SLAB_BYTES // (8 * self.n))
        for first in range(0, self.n, height * world.size):
            start = first + world.rank * height
            with world.together():
                if start < self.n:
                    stop = min(self.n, start + height)
                    rows = sum(weight * one.read(start, stop, self._name) for one, weight in parts)
                    with writing(path):
                        target.write(start, np.asarray(rows))
            world.raise_if_stopped()

    def _name(self, row: int, *_: int) -> str:
        return f"the row of sample {show_sample(self.files[0].ids[row])}"


def _check_alike(first: KinshipH5, file: KinshipH5) -> None:
    """InputError unless a part can be added to the first one."""
    both = f"{first.path} and {file.path}"
    if file.method == "gcta":
        raise InputError(
            f"{file.path} is by --method gcta, which divides each pair of people by its own number of SNPs, and the "
            "file does not have these numbers: make the kinship of all genotype files at once, with @"
        )
    if file.snps is None or not file.has_keys:
        raise InputError(f"{file.path} does not say which SNPs it was made of: make it again")
    if file.method != first.method:
        raise InputError(f"{both} are by different methods: {first.method} and {file.method}")
    if file.ids != first.ids:
        apart = set(file.ids).symmetric_difference(first.ids)
        what = "their order differs" if not apart else f"sample {show_sample(min(apart))} is in one of them only"
        raise InputError(f"{both} are not of the same samples: {what}")
    if bool(file.sums) != bool(first.sums):
        having, lacking = (first, file) if first.sums else (file, first)
        raise InputError(f"{having.path} has the sums of --loco, and {lacking.path} has none: make both alike")


def _check_apart(files: Sequence[KinshipH5]) -> None:
    """InputError if two parts have SNPs in common."""
    before: list[np.ndarray] = []
    for file in files:
        keys = keys_in_order(file.path)
        for other, theirs in zip(files, before, strict=False):
            if count := int(np.isin(keys, theirs).sum()):
                raise InputError(
                    f"{other.path} and {file.path} have {count:,} SNPs in common: a SNP may be in one of them only"
                )
        before.append(keys)
