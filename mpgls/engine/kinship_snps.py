"""The SNPs that a kinship was made of, found again in the genotypes of a study."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mpgls.engine.genotype_blocks import GenotypeBlocks
from mpgls.engine.snp_weights import BLOCK, snp_weights
from mpgls.report.weights_table import SnpWeights
from mpgls.run.inputs import Study
from mpgls.run.world import World
from mpgls.study.align import Cohort
from mpgls.study.filters import SnpFilter
from mpgls.study.kinship_h5 import read_keys, read_method
from mpgls.study.snp_keys import are_among, keys_of
from mpgls.study.tables import show_sample

TOLERANCE = 1e-6
"""Largest difference between genetic values by the kinship and by its SNPs, relative to the largest, that is none."""
ROUNDING = 1e-12
"""The same relative to the largest residual, which the genetic values are a part of."""


@dataclass(frozen=True, eq=False)
class KinshipSnps:
    """``genotypes`` of the SNPs and the people that the kinship ``path`` was made of, by its ``method``.

    ``centered``: the kinship is centred over the samples that are analysed.
    """

    genotypes: GenotypeBlocks
    method: str
    centered: bool
    path: str

    @classmethod
    def find(cls, study: Study, centered: bool, world: World) -> KinshipSnps | None:
        """Those of the study's kinship; None, and a warning that says why, where they cannot be had. Collective."""

        def look() -> KinshipSnps | str:
            return _find(study, centered)

        found = world.on_root(look)
        if isinstance(found, KinshipSnps):
            return found
        world.log.warn(f"--blup: no weights of SNPs are written, because {found}")
        return None

    def weights(self, cohort: Cohort, a: np.ndarray, genetic: np.ndarray, world: World) -> SnpWeights | None:
        """Weights, on rank 0, that give the ``genetic`` values (n,) of a cohort; a (n,) = V^-1 (y - X_L b). Collective.

        They are x_j'a times a constant: that of the kinship's scale. None, and a warning, where no constant gives these
        values: then the kinship was made of other genotypes.
        """
        everyone, at = self.genotypes.rows.size, cohort.kinship_index
        a_rep, fitted = np.zeros((everyone, 1)), np.zeros((everyone, 1))
        a_rep[at, 0] = a
        with world.phase("weights"):
            found = snp_weights(self.genotypes, a_rep, self.method, world, fitted)
            fitted_rep = np.empty_like(fitted)
            world.comm.Allreduce(fitted, fitted_rep)
        f, u = fitted_rep[at, 0], genetic
        if self.centered:
            f, u = f - f.mean(), u - u.mean()
        scale = float(f @ u) / float(f @ f) if f.any() else 0.0
        allowed = TOLERANCE * np.abs(u).max() + ROUNDING * np.abs(cohort.y).max()
        if np.abs(u - scale * f).max() > allowed:
            world.log.warn(
                f"--blup: no weights of SNPs are written, because {self.path} was made of other genotypes than those "
                "given: they do not give its genetic values"
            )
            return None
        return found._replace(values=scale * found.values)


def _find(study: Study, centered: bool) -> KinshipSnps | str:
    """The SNPs, or why there are none, as the end of a sentence."""
    kinship, fileset = study.kinship, study.fileset
    if kinship is None:
        return "an eigendecomposition does not say which SNPs its kinship was made of: give --grm"
    if not kinship.has_keys:
        return f"{kinship.path} does not say which SNPs it was made of: make it with mpgls kinship"
    method = read_method(kinship.path)
    if method == "gcta":
        return f"{kinship.path} has SNPs of its own for each pair of people: make it with another --method than gcta"
    row_of = {sample: row for row, sample in enumerate(fileset.samples.ids())}
    absent = [sample for sample in kinship.ids if sample not in row_of]
    if absent:
        return f"{kinship.path} was made of people who are not in {fileset.prefix}, {show_sample(absent[0])} for one"
    wanted = read_keys(kinship.path)
    every = np.arange(fileset.variants.count)
    rows = np.concatenate([
        first + np.flatnonzero(are_among(keys, wanted)) for first, keys in keys_of(fileset.variants, every)
    ])  # fmt: skip
    if rows.size != wanted.size:
        return (
            f"{kinship.path} was made of {wanted.size:,} SNPs, and {fileset.prefix} has {rows.size:,} of that "
            "chromosome, position and ID"
        )
    people = np.array([row_of[sample] for sample in kinship.ids])
    return KinshipSnps(GenotypeBlocks(fileset.bed, people, rows, SnpFilter(), BLOCK), method, centered, kinship.path)
