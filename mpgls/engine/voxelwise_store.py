"""What a voxelwise GWAS keeps: logs of units while it runs, then PREFIX.maxima.h5 and PREFIX.voxels.h5.

A run may add permutations to a finished one. Then its maxima follow those of the earlier run, and the pairs, which are
of the data as they are, stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mpgls.engine.voxel_units import JoinedUnits, Unit
from mpgls.engine.voxelwise import Search
from mpgls.errors import UsageError
from mpgls.stream.mark import Mark
from mpgls.stream.unit_log import FinishedUnits, UnitLog, finished_units, rank_path, remove_unit_logs
from mpgls.stream.vgwas_files import EntriesFile, load_maxima, open_entries, save_entries, save_maxima
from mpgls.study.images import VoxelMatrix

KEPT = (".maxima.h5", ".voxels.h5")
"""Files that a run with more permutations adds to."""


@dataclass(frozen=True)
class Earlier:
    """What is done before a run: ``maxima`` of the permutations before its first, and its own finished ``units``."""

    maxima: dict[str, np.ndarray]
    units: FinishedUnits | None

    @property
    def sizes(self) -> dict[str, int]:
        """The sizes that a stopped run has cut its units in."""
        return self.units.sizes if self.units is not None else {}

    def left(self, units: Sequence[Unit]) -> list[Unit]:
        """Those of ``units`` that are not done."""
        done = self.units.places if self.units is not None else {}
        return [unit for unit in units if tuple(unit) not in done]


@dataclass(frozen=True)
class VoxelwiseStore:
    """The files of a run of the permutations ``indices``; ``mark`` is what all permutations of one output share.

    ``origin`` is what they say of the genotypes, for `mpgls export`.
    Its methods are for one rank.
    """

    prefix: str
    mark: Mark
    indices: range
    origin: Mapping[str, Any] = field(default_factory=dict)

    @property
    def adds(self) -> bool:
        """Whether the run adds permutations to a finished one."""
        return self.indices.start > 0

    @property
    def unit_mark(self) -> Mark:
        """What the units of this run were made from."""
        return self.mark.narrowed(permutations=[self.indices.start, self.indices.stop])

    def path(self, suffix: str) -> Path:
        """One of the files."""
        return Path(self.prefix + suffix)

    def look_back(self, resume: bool) -> Earlier:
        """What is done. Raises UsageError when permutations do not follow those of the earlier run, InputError."""
        earlier = self._earlier_maxima(resume) if self.adds else {}
        if not resume:
            remove_unit_logs(self.prefix)
        return Earlier(earlier, finished_units(self.prefix, self.unit_mark) if resume else None)

    def _earlier_maxima(self, resume: bool) -> dict[str, np.ndarray]:
        path, first = self.path(".maxima.h5"), self.indices.start
        if not path.exists():
            raise UsageError(f"--first-permutation adds to a finished run, but there is no {path}")
        earlier = load_maxima(path, self.mark)
        self.open_entries()
        known = min(map(len, earlier.values()))
        if resume and known == self.indices.stop:  # stopped while it wrote its report
            known = first
            earlier = {name: values[:known] for name, values in earlier.items()}
        if known != first:
            raise UsageError(f"{path} has {known - 1:,} permutations: give --first-permutation {known}")
        return earlier

    def unit_log(self, rank: int, checkpoint: float) -> UnitLog:
        """The log of finished units of a rank, not yet open."""
        return UnitLog(rank_path(self.prefix, rank), checkpoint)

    def open_entries(self) -> EntriesFile:
        """PREFIX.voxels.h5."""
        return open_entries(self.path(".voxels.h5"), self.mark)

    def keep(self, joined: JoinedUnits, earlier: Earlier, search: Search) -> dict[str, np.ndarray]:
        """Read all units, which fills ``joined``, and write the two files.

        Returns the maxima of all permutations so far, (P + 1,) of each statistic. A run that adds to an earlier one
        leaves its PREFIX.voxels.h5. Raises StorageError.
        """
        done = finished_units(self.prefix, self.unit_mark)
        assert done is not None
        index, score, voxels = search.index_rep, search.inference.score, search.voxels

        def pairs() -> Iterator[dict[str, np.ndarray]]:
            for unit, entries in joined.blocks(lambda unit: done.read(tuple(unit))):
                yield {
                    "snp": index[unit.start + entries["snp"]], "voxel": entries["voxel"], "t": entries["t"],
                    "beta": entries["beta"], "log10p": score.log10_p(entries["t"]),
                }  # fmt: skip

        if self.adds:
            assert not list(pairs())
            maxima = {name: np.concatenate([earlier.maxima[name], values]) for name, values in joined.maxima.items()}
        else:
            attributes: dict[str, Any] = {"threshold": score.p_threshold, "df": score.df, **self.origin}
            if isinstance(voxels.matrix, VoxelMatrix):
                attributes |= {"shape": np.array(voxels.matrix.shape), "affine": voxels.matrix.affine}
            path = self.path(".voxels.h5")
            save_entries(path, index, joined.records, pairs(), self.mark, attributes, voxels.coordinates)
            maxima = joined.maxima
        save_maxima(self.path(".maxima.h5"), maxima, self.mark)
        return maxima
