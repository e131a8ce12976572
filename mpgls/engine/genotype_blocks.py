"""The SNPs of a study over some of its people, in blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mpgls.engine.snp_stream import SnpStream, on_every_rank
from mpgls.model.gls import Note
from mpgls.run.world import World
from mpgls.study.count_filters import Dropped, dropped_by
from mpgls.study.filters import SnpFilter
from mpgls.study.genotype_files import Genotypes
from mpgls.study.snp_stats import SnpStats


@dataclass(frozen=True, eq=False)
class GenotypeBlocks:
    """The .bim rows ``index`` (m,), ascending, over the people ``rows`` (n,) of the .fam, in blocks of ``width`` SNPs.

    ``filters`` are those that the counts over these people decide. The same on every rank.
    """

    bed: Genotypes
    rows: np.ndarray
    index: np.ndarray
    filters: SnpFilter
    width: int

    def cut(self, positions: np.ndarray | None = None) -> list[np.ndarray]:
        """Blocks of the ``positions`` among the m SNPs, or of all of them."""
        wanted = np.arange(self.index.size) if positions is None else positions
        return [wanted[start : start + self.width] for start in range(0, wanted.size, self.width)]

    def usable(self, stats: SnpStats, dropped: Dropped | None = None) -> np.ndarray:
        """(B,) bool: which SNPs of a block pass the filters and vary; ``dropped`` counts those that do not pass."""
        notes = dropped_by(stats, self.filters)
        if dropped is not None:
            dropped.add(notes)
        return (notes == Note.OK) & ~stats.monomorphic

    def dealt(self, blocks: Sequence[np.ndarray], world: World) -> SnpStream:
        """``blocks`` of positions as a stream of this rank; they may differ from rank to rank. Collective."""
        return SnpStream(self.bed, [self.index[block] for block in blocks], world)

    def on_every_rank(self, blocks: Sequence[np.ndarray], world: World) -> Iterator[np.ndarray]:
        """The packed genotypes of ``blocks`` of positions, the same on every rank, see `snp_stream.on_every_rank`."""
        return on_every_rank(self.bed, [self.index[block] for block in blocks], world)
