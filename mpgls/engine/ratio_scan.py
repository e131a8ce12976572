"""One trait on every SNP of a part, with the variance ratio of each SNP, in the eigenbasis of Phi.

Phi              = Z diag(lam) Z'
[X_L~ | y~]      = Z'[X_L | y],   W = 1 / (h2_k lam + 1 - h2_k) at nodes h2_1 .. h2_r
Q, e~            = an orthonormal basis of X_L~, the residual of y~ on it
for every block X of SNPs, dealt to teams that each hold Z:
    X~           = Z'X
    S_BL, b_B    = (Q o W)'X~, (e~ o W)'X~;  S_BR = W'(X~ o X~)
    d, r         = the Schur complement of S_BR at the nodes, and b_B without the covariates
    h2           = argmax REML with the SNP;  beta = r / d at that h2
"""

from __future__ import annotations

import functools

import numpy as np

from mpgls.engine.mixed_check import MixedCheck, compare, sample_of
from mpgls.engine.models import Models
from mpgls.engine.parts import ScanPart
from mpgls.engine.snp_scan import WhitenedSnps, left_blocks
from mpgls.engine.spectral import SpectralCovariance
from mpgls.engine.trait_scan import TraitScans, say_null
from mpgls.la.teams import TeamOperator
from mpgls.model import null_record
from mpgls.model.gls import fit_null
from mpgls.model.h2_nodes import H2Nodes, node_products
from mpgls.model.null_nodes import DesignAtNodes
from mpgls.model.snp_ratio import RatioFit, TraitRatios
from mpgls.run.world import World
from mpgls.study.genotype_files import Genotypes
from mpgls.study.snp_columns import SnpColumns
from mpgls.study.snp_stats import SnpStats


class RatioScan(TraitScans[SpectralCovariance]):
    """Scans whose models are all in an eigenbasis, and whose SNPs have each its own h2."""

    def run(self, part: ScanPart, trait: int, models: Models[SpectralCovariance]) -> None:
        """Null model and scan of a trait on the SNPs of a part that its ledger lacks. Collective.

        Raises Stopped, on all ranks, when a signal asked for it.
        """
        ledger, world, label = self.ledger, self.world, part.of(self.ledger.traits[trait])
        V, cohort = models.take(ledger.traits[trait], label)
        F_rep = V.design(np.column_stack([cohort.X_L, cohort.y]))  # Z'[X_L | y]
        record = ledger.null(part.k, trait, functools.partial(V.maximise, F_rep, world))
        h2 = null_record.h2_of_V(record)
        L = V.at(h2)
        fit = fit_null(h2, L.sums(F_rep))
        say_null(label, ledger.keep_null(part.k, trait, record, fit, cohort), models.source, world.log)
        self.predict(trait, cohort, fit, L, L.columns(F_rep))
        with world.phase("nodes of h2"):
            nodes = H2Nodes.of(V.lam, null_record.is_identified(record))
            design = DesignAtNodes.of(nodes, F_rep[:, :-1])
            ratios = TraitRatios.of(design, F_rep[:, -1], cohort.unit, self.test)
        world.log.info(f"{label}: {nodes.h2.size} nodes of h2, error of a sum between them {nodes.between.error:.1e}")
        with world.phase("hand over eigenvectors"):
            Z_team = V.hold(self.team, ledger.store.block, self.test.dtype)
        snps = RatioSnps(Z_team, ratios, cohort.rows, self.bed, world, self.columns(cohort))
        if self.test.precision == "mixed":
            with world.phase("check in double"):
                found = self._check(snps, V)
                self.checks[trait] = found.larger(self.checks.get(trait, found))
        del V

        with Z_team, ledger.slots([trait]) as slots:
            for block in left_blocks(self.bed, slots, part.blocks, self.team, world, label):
                stats = snps.decode(block.packed)
                X_tilde_team = snps.whiten(len(block.packed))  # X~ = Z'X
                products = snps.node_products(stats, X_tilde_team)  # S_BL, b_B, S_BR at every node
                with world.phase("ratios"):
                    fits = snps.fit(stats, products)
                slots.keep(block.number, stats, [fits])
            self.on_held()

    def _check(self, snps: RatioSnps, V: SpectralCovariance) -> MixedCheck:
        """Evenly spaced SNPs in float64 and as the team has them; said in the log. Collective."""
        packed, X_rep = sample_of(self.ledger.store, snps)
        stats = snps.decode(packed)
        mixed = snps.fit(stats, snps.node_products(stats, snps.whiten(len(packed))))
        weights = snps.ratios.model.design.nodes.weights(slice(None))
        products = node_products(snps.ratios.F, weights, V.design(X_rep))
        with self.world.together():
            return compare(mixed, snps.fit(stats, products), self.world.log)


class RatioSnps(WhitenedSnps):
    """From packed genotypes to sums at the nodes of h2, and to each SNP's ratio. Collective over a team."""

    def __init__(
        self,
        Z_team: TeamOperator,
        ratios: TraitRatios,
        rows: np.ndarray,
        bed: Genotypes,
        world: World,
        columns: SnpColumns,
    ) -> None:
        super().__init__(Z_team, ratios.F, rows, bed, world, columns)
        self.ratios, self.F_team = ratios, ratios.F[Z_team.rows]
        self.W_team = ratios.model.design.nodes.weights(Z_team.rows)

    def node_products(self, stats: SnpStats, X_tilde_team: np.ndarray) -> np.ndarray:
        """(p+1) r numbers a SNP, summed over the rows of all ranks of the team."""
        with self.world.phase("products at nodes"):
            mine = node_products(self.F_team, self.W_team, X_tilde_team)
            return self.L_team.sum_over_rows(mine)[:, : stats.n_obs.size]

    def fit(self, stats: SnpStats, products: np.ndarray) -> RatioFit:
        """Effects, ratios and p values of the SNPs of a block."""
        return self.ratios.fit(products, self.rows.size * stats.variance)
