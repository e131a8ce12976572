"""Blocks of tested SNPs against every trait's low-rank model of one chromosome.

H   = G_c'X                                    the one large product, shared by all traits
H~  = sqrt(w) L_c^-1 H                         for each trait, on teams that each hold its L_c
S   = (F'X - F~'H~) / (1-h2)                   S_BL, b_B;  S_BR alike from x'x and H~'H~
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mpgls.commands.low_rank_parts.similarity import Similarity
from mpgls.la.teams import TeamOperator
from mpgls.model.gls import COLLINEAR_TOLERANCE, NullSums, SnpFit, fit_snps
from mpgls.model.products import partial_products
from mpgls.model.woodbury import inner_products, kernel_weight
from mpgls.run.clock import Clock
from mpgls.study.genotypes import Decoder, SnpStats
from mpgls.study.plink import BedFile
from mpgls.study.similarity import exact_shift


@dataclass(frozen=True)
class HeldTrait:
    """A trait's null model of one chromosome, ready for the scan.

    ``column`` is the trait's position among the columns of F beyond the covariates; ``F_tilde`` are
    the rows of F~ (K, q+1) that this rank's part of the operator gives.
    """

    column: int
    h2: float
    w: float
    sums: NullSums
    operator: TeamOperator
    F_tilde: np.ndarray

    @classmethod
    def of(
        cls, column: int, h2: float, scale: float, sums: NullSums, operator: TeamOperator, F_tilde_rep: np.ndarray
    ) -> HeldTrait:
        """From whole F~ (K, q+1); keeps this rank's rows, in the precision of the operator."""
        rows = np.asfortranarray(F_tilde_rep[operator.rows], dtype=operator.panels[0].dtype)
        return cls(column, h2, kernel_weight(h2, scale), sums, operator, rows)


class TestedSnps:
    """Decoding and the products that no trait's model enters: X, F'X and H = G'X.

    ``rows`` (n,) .fam rows of the tested genotypes; ``F_rep`` (n, q+t) covariates and traits. ``width`` SNPs at most.
    """

    def __init__(
        self, bed: BedFile, rows: np.ndarray, F_rep: np.ndarray, G: Similarity, width: int, timings: Clock
    ) -> None:
        self.G, self.timings, self.n = G, timings, rows.size
        self.mixed = G.dtype == np.float32
        self.decoder = Decoder(bed.n, [rows], G.dtype)
        self.F_rep: np.ndarray = np.asfortranarray(F_rep, dtype=G.dtype)
        self._F_total = self.F_rep.sum(axis=0, dtype=np.float64)
        self._X: np.ndarray = np.empty((self.n, width), dtype=G.dtype, order="F")

    def load(self, packed: np.ndarray) -> tuple[SnpStats, np.ndarray]:
        """Decode B SNPs; returns their counts and F'x of the centred SNPs (q+t, B)."""
        with self.timings.phase("decode", nbytes=packed.size):
            stats = self.decoder.stats(packed)
            shift = exact_shift(stats.mean, stats.n_obs == stats.n, self.n) if self.mixed else stats.mean
            self._off_center = stats.mean - shift
            self.X = self._X[:, : packed.shape[0]]
            self.decoder.decode(packed, [self.X], stats, shift)
        with self.timings.phase("covariate product"):
            direct = partial_products(self.F_rep, self.X)[:-1] - np.multiply.outer(self._F_total, self._off_center)
        return stats, direct

    def cross(self, runs: Sequence[slice], H: np.ndarray) -> None:
        """Rows ``runs`` of H (K, B) = G'X; other rows are left as they are."""
        total = self.n * self._off_center  # X's column sums
        for run in runs:
            for columns, D in self.G.panels(run):
                k = columns.stop - columns.start
                with self.timings.phase("cross product", flop=2.0 * self.n * k * self.X.shape[1]):
                    product = (self.X.T @ D).T
                with self.timings.phase("scale products"):
                    H[columns] = self.G.correct(product, columns, total)


class LowRankSolver:
    """From packed genotypes to effects on every trait, one block of one chromosome at a time.

    ``runs`` are the similarity SNPs of the model: those that are not on the chromosome.
    """

    def __init__(
        self, snps: TestedSnps, runs: Sequence[slice], traits: Sequence[HeldTrait], width: int, q: int, test: str
    ) -> None:
        self.snps, self.runs, self.traits, self.q, self.test = snps, runs, traits, q, test
        self.timings = snps.timings
        # rows of the SNPs that are left out stay zero
        self._H: np.ndarray = np.zeros((snps.G.K, width), dtype=snps.G.dtype, order="F")
        self.tolerance = COLLINEAR_TOLERANCE["mixed" if snps.mixed else "double"]

    def solve(self, packed: np.ndarray) -> tuple[SnpStats, list[SnpFit]]:
        """Counts of the SNPs ``packed`` (B, snp_bytes), and their effects on each trait. Collective over a team."""
        stats, sums = self.sums(packed)
        q, norm = self.q, stats.n * stats.variance
        fits = [
            fit_snps(trait.sums, S[:q], S[q + 1], S[q], norm, self.test, self.tolerance)
            for trait, S in zip(self.traits, sums, strict=True)
        ]
        return stats, fits

    def sums(self, packed: np.ndarray) -> tuple[SnpStats, list[np.ndarray]]:
        """Counts, and for each trait S_BL (q rows), b_B and S_BR of the SNPs: (q+2, B). Collective over a team."""
        stats, direct = self.snps.load(packed)
        H = self._H[:, : packed.shape[0]]
        self.snps.cross(self.runs, H)
        return stats, [self._sums_of(trait, H, stats, direct) for trait in self.traits]

    def _sums_of(self, trait: HeldTrait, H: np.ndarray, stats: SnpStats, direct: np.ndarray) -> np.ndarray:
        timings, operator, B = self.timings, trait.operator, H.shape[1]
        with timings.phase("solve", flop=float(H.shape[0]) ** 2 * B):
            for panel, rows in zip(operator.panels, operator.row_panels, strict=True):
                panel[:, :B] = H if rows.size == H.shape[0] else H[rows]
            H_tilde = operator.apply(B)  # L_c^-1 H
        with timings.phase("statistics"):
            through_G = operator.sum_over_rows(partial_products(trait.F_tilde, H_tilde))[:, :B]
            through_G[:-1] *= np.sqrt(trait.w)
            through_G[-1] *= trait.w
            wanted = [*range(self.q), self.q + trait.column]
            plain = np.vstack([direct[wanted], stats.n * stats.variance])
            return inner_products(trait.h2, plain, through_G)
