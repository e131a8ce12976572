"""What the null model of similarity SNPs predicts, without an n x n matrix.

beta = w G'V~^-1 (y - X_L b) = sqrt(w) L^-T (y~ - X_L~ b)       y~, X_L~ = sqrt(w) L^-1 G'[y, X_L]
u    = G beta

where L L' = I + w G'G (`model.woodbury`). A weight per copy of an allele is beta over the standard deviation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mpgls.engine.blup import BlupFiles, dual, genetic_values
from mpgls.engine.low_rank_inputs import SampleSet
from mpgls.engine.low_rank_nulls import SimilarityPart
from mpgls.engine.low_rank_scan import SetModel
from mpgls.engine.similarity import Similarity
from mpgls.model.gls import NullFit, fit_null
from mpgls.model.null_record import h2_of_V
from mpgls.model.woodbury import kernel_weight
from mpgls.report.weights_table import SnpWeights
from mpgls.run.inputs import Study
from mpgls.study.align import Cohort


@dataclass(frozen=True)
class SimilarityBlups:
    """What a scan predicts by all its similarity SNPs ``G``, whose G G' has the mean diagonal ``s``."""

    files: BlupFiles
    G: Similarity
    s: float

    def keep(self, trait: int, cohort: Cohort, fit: NullFit, a: np.ndarray) -> None:
        """The tables of a trait from its null model and a = V^-1 (y - X_L b). Collective."""
        effects = fit.h2 / self.s * self.G.project(a[:, None], self.files.world.comm)
        self.files.write(trait, cohort, fit, genetic_values(fit, cohort, a), self._weights(effects))

    def keep_set(self, study: Study, samples: SampleSet, model: SetModel, part: SimilarityPart) -> None:
        """The tables of those traits of a sample set that lack them, from K x K matrices. Collective."""
        world = self.files.world
        for trait in self.files.lacking():
            if trait not in samples.numbers:
                continue
            column = samples.numbers.index(trait)
            h2, F = h2_of_V(model.nulls[part.k, column]), model.products.design(column, part)
            L = model.GG.covariance(part.kept, part.scale, world).at(h2)
            fit = fit_null(h2, L.sums(F))
            effects = np.sqrt(kernel_weight(h2, part.scale)) * dual(L, fit, L.columns(F.GF_rep))[:, None]
            genetic = self.G.combine(effects, world.comm)[:, 0]
            self.files.write(trait, study.cohorts[samples.traits[column]], fit, genetic, self._weights(effects))

    def _weights(self, effects: np.ndarray) -> SnpWeights:
        """Per copy of EA, from the effects (K, 1) of standardised SNPs."""
        G, order = self.G, np.argsort(self.G.snps.index)
        whole = SnpWeights(G.snps.index, G.stats.eaf, G.stats.mean, effects / G.sd[:, None])
        return SnpWeights(*(column[order] for column in whole))
