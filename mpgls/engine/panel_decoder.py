"""From the packed genotypes of a team's ranks to the columns of the operator that the team holds."""

from __future__ import annotations

import numpy as np

from mpgls.la.teams import TeamOperator
from mpgls.run.world import World
from mpgls.study.genotype_files import Genotypes
from mpgls.study.genotypes import Decoder
from mpgls.study.snp_columns import ONE_COLUMN, SnpColumns
from mpgls.study.snp_stats import SnpStats


class PanelDecoder:
    """Decodes into the panels of ``operator``; ``rows`` (n,) are the samples' positions in the .fam.

    ``columns`` are those of each SNP.
    """

    def __init__(
        self, operator: TeamOperator, rows: np.ndarray, bed: Genotypes, world: World, columns: SnpColumns = ONE_COLUMN
    ) -> None:
        self.operator, self.world, self.columns, self.n_file = operator, world, columns, bed.n
        panels = [rows[panel] for panel in operator.row_panels]
        self._decoder = Decoder(bed.n, panels, operator.dtype, bed.males, columns.coding)

    def decode(self, packed: np.ndarray) -> SnpStats:
        """Centred columns of this rank's SNPs (B, snp_bytes), and of others' where the operator asks for it.

        Returns the counts of this rank's SNPs. Collective over the team.
        """
        with self.world.phase("decode", nbytes=packed.size):
            stats = [self._decode(*made) for made in self.operator.exchange(self.columns.sources(packed, self.n_file))]
            return stats[0] if self.columns.count == 1 else self._decoder.stats(packed)

    def _decode(self, sources: np.ndarray, panels: list[np.ndarray]) -> SnpStats:
        stats = self._decoder.decode(sources, panels)
        for panel, samples in zip(panels, self.operator.row_panels, strict=True):
            self.columns.multiply(panel, samples)
        return stats
