"""Why SNPs have no estimate, or no row in a table, beside what their fit says."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mpgls.model.gls import Note
from mpgls.study.count_filters import dropped_by
from mpgls.study.filters import SnpFilter
from mpgls.study.snp_stats import SnpStats


@dataclass(frozen=True, eq=False)
class Reasons:
    """The ``filters`` by counts, and the .bim rows of the SNPs that the model is ``conditioned`` on."""

    filters: SnpFilter
    conditioned: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def notes(self, fitted: np.ndarray, stats: SnpStats, rows: np.ndarray) -> np.ndarray:
        """(B,) uint8: the notes ``fitted`` of the SNPs ``rows`` of the .bim, or what counts more, the filters most."""
        notes = fitted.astype(np.uint8)
        notes[(notes == Note.MONOMORPHIC) & ~stats.one_genotype] = Note.ONE_CODE
        notes[stats.n_obs == 0] = Note.ALL_MISSING
        notes[np.isin(rows, self.conditioned)] = Note.CONDITIONED
        dropped = dropped_by(stats, self.filters)
        return np.where(dropped != Note.OK, dropped, notes)
