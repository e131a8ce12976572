"""From the packed genotypes of a team's ranks to the columns of the operator that the team holds."""

from __future__ import annotations

import numpy as np

from mpgls.la.teams import TeamOperator
from mpgls.model.coding import ADDITIVE, Coding
from mpgls.run.world import World
from mpgls.study.genotype_files import Genotypes
from mpgls.study.genotypes import Decoder
from mpgls.study.snp_stats import SnpStats


class PanelDecoder:
    """Decodes into the panels of ``operator``, by ``coding``; ``rows`` (n,) are the samples' positions in the .fam."""

    def __init__(
        self, operator: TeamOperator, rows: np.ndarray, bed: Genotypes, world: World, coding: Coding = ADDITIVE
    ) -> None:
        self.operator, self.world = operator, world
        panels = [rows[panel] for panel in operator.row_panels]
        self._decoder = Decoder(bed.n, panels, operator.dtype, bed.males, coding)

    def decode(self, packed: np.ndarray) -> SnpStats:
        """Centred columns of this rank's SNPs (B, snp_bytes), and of others' where the operator asks for it.

        Returns the counts of this rank's SNPs. Collective over the team.
        """
        with self.world.phase("decode", nbytes=packed.size):
            own, *_ = [self._decoder.decode(*made) for made in self.operator.exchange(packed)]
        return own
