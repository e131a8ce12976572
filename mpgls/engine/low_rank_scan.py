"""Blocks of tested SNPs against every trait's low-rank model of one chromosome.

H   = G_c'X                                    the one large product, shared by all traits
H~  = sqrt(w) L_c^-1 H                         for each trait, on teams that each hold its L_c
S   = (F'X - F~'H~) / (1-h2)                   S_BL, b_B;  S_BR alike from x'x and H~'H~
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mpgls.engine.low_rank import LowRankFactor, SimilarityGram
from mpgls.engine.low_rank_nulls import Products, SimilarityPart
from mpgls.engine.mixed_check import SAMPLED, MixedCheck, compare
from mpgls.engine.similarity import Similarity
from mpgls.engine.snp_scan import MIXED, SeveralSums, SnpSums, decoded, sums_of
from mpgls.engine.snp_stream import read_few
from mpgls.la.teams import Team
from mpgls.model.gls import NullSums, SnpTest
from mpgls.model.null_record import h2_of_V
from mpgls.model.products import partial_products
from mpgls.model.woodbury import inner_products, kernel_weight
from mpgls.run.world import World
from mpgls.study.genotype_files import Genotypes
from mpgls.study.genotypes import Decoder
from mpgls.study.similarity import exact_shift
from mpgls.study.snp_columns import ONE_COLUMN, SnpColumns
from mpgls.study.snp_stats import SnpStats


@dataclass(frozen=True)
class HeldTrait:
    """A trait's model of one chromosome, ready for the scan.

    ``column`` is the trait's position among the columns of F beyond the covariates; ``L_team`` applies L_c^-1;
    ``F_tilde_team`` are the rows of F~ (K, q+1) that this rank's part of it gives.
    """

    column: int
    h2: float
    w: float
    sums: NullSums
    L_team: Any
    F_tilde_team: np.ndarray


@dataclass(frozen=True)
class TestedBlock:
    """B decoded SNPs of k columns: counts, ``X`` (n, B k) less a shift, and the sums ``total`` (B k,) of its columns.

    ``FX`` (q+T, B k) = F'x of the centred, ``XX`` (k, B k) the products of each with the columns of its SNP.
    """

    stats: SnpStats
    X: np.ndarray
    total: np.ndarray
    FX: np.ndarray
    XX: np.ndarray


class TestedSnps:
    """Decoding and the products that no trait's model enters: X, F'X and H = G'X.

    ``rows`` (n,) .fam rows of the tested genotypes; ``F_rep`` (n, q+T) covariates and traits. ``width`` SNPs at most,
    each of the ``columns``.
    """

    streamed = MIXED
    """How, in words, and what would be more accurate."""
    on_card = False

    def __init__(
        self,
        bed: Genotypes,
        rows: np.ndarray,
        F_rep: np.ndarray,
        G: Similarity,
        width: int,
        world: World,
        columns: SnpColumns = ONE_COLUMN,
    ) -> None:
        self.G, self.world, self.n, self.rows, self.bed, self.width = G, world, rows.size, rows, bed, width
        self.columns = columns
        self.mixed = G.dtype == np.float32
        self.decoder = Decoder(bed.n, [rows], G.dtype, bed.males, columns.coding)
        self.F_rep: np.ndarray = np.asfortranarray(F_rep, dtype=G.dtype)
        self._F_total = self.F_rep.sum(axis=0, dtype=np.float64)
        self._X, self._H = self._memory(width * columns.count)

    def _memory(self, columns: int) -> tuple[np.ndarray, np.ndarray]:
        """Where X (n, columns) and H (K, columns) of a block lie."""
        X: np.ndarray = np.empty((self.n, columns), dtype=self.G.dtype, order="F")
        H: np.ndarray = np.zeros((self.G.K, columns), dtype=self.G.dtype, order="F")
        return X, H

    def decode(self, packed: np.ndarray) -> TestedBlock:
        """Decode B SNPs; the block is valid until the next."""
        return self._decode_one(packed) if self.columns.count == 1 else self._decode_several(packed)

    def _decode_several(self, packed: np.ndarray) -> TestedBlock:
        """Products with covariates are no short fractions, so nothing is gained by a shift."""
        k = self.columns.count
        X = self._X[:, : k * len(packed)]
        with self.world.phase("decode", nbytes=packed.size):
            stats = self.decoder.stats(packed)
            self.decoder.decode(self.columns.sources(packed, self.bed.n), [X])
            self.columns.multiply(X, np.arange(self.n))
        with self.world.phase("covariate product"):
            products = self.columns.products(self.F_rep, X)
        return TestedBlock(stats, X, X.sum(axis=0, dtype=np.float64), products[:-k], products[-k:])

    def _decode_one(self, packed: np.ndarray) -> TestedBlock:
        with self.world.phase("decode", nbytes=packed.size):
            stats = self.decoder.stats(packed)
            shift = exact_shift(stats.mean, stats.n_obs == stats.n, self.n) if self.mixed else stats.mean
            off_center, X = stats.mean - shift, self._X[:, : packed.shape[0]]
            self.decoder.decode(packed, [X], stats, shift)
        with self.world.phase("covariate product"):
            FX = partial_products(self.F_rep, X)[:-1] - np.multiply.outer(self._F_total, off_center)
        return TestedBlock(stats, X, self.n * off_center, FX, (stats.n * stats.variance)[None])

    def begin(self, part: SimilarityPart) -> None:
        """The rows of H that the part leaves out are zero from now on."""
        self._H[~part.kept] = 0.0

    def cross(self, part: SimilarityPart, block: TestedBlock) -> np.ndarray:
        """H (K, B k) = G_c'X for the similarity SNPs of the part; the other rows are zero."""
        H = self._H[:, : block.X.shape[1]]
        for run in part.runs:
            for columns, D in self.G.panels(run):
                k = columns.stop - columns.start
                with self.world.phase("cross product", flop=2.0 * self.n * k * block.X.shape[1]):
                    product = (block.X.T @ D).T
                with self.world.phase("scale products"):
                    H[columns] = self.G.correct(product, columns, block.total)
        return H

    def sums(self, trait: HeldTrait, block: TestedBlock, H: np.ndarray) -> SnpSums | SeveralSums:
        """(F'X - w (L_c^-1 G_c'F)'L_c^-1 H) / (1-h2) of the SNPs for one trait. Collective over a team."""
        q, k = trait.F_tilde_team.shape[1] - 1, self.columns.count
        through_G = self.through_factor(trait, H)
        with self.world.phase("statistics"):
            through_G[:-k] *= np.sqrt(trait.w)
            through_G[-k:] *= trait.w
            plain = np.vstack([block.FX[[*range(q), q + trait.column]], block.XX])
            S = inner_products(trait.h2, plain, through_G)
            return sums_of(self.columns, S, block.stats.n * block.stats.variance)

    def through_factor(self, trait: HeldTrait, H: np.ndarray) -> np.ndarray:
        """F~'L_c^-1 H and, below, the squares of L_c^-1 H, of this rank's columns. Collective over a team."""
        L_team, B = trait.L_team, H.shape[1]
        with self.world.phase("solve", flop=float(H.shape[0]) ** 2 * B):
            for columns, panels in L_team.exchange(H.T):
                for panel, rows in zip(panels, L_team.row_panels, strict=True):
                    panel[...] = columns.T if rows.size == H.shape[0] else columns.T[rows]
            H_tilde_team = L_team.apply(B)  # L_c^-1 H
        with self.world.phase("statistics"):
            return L_team.sum_over_rows(self.columns.products(trait.F_tilde_team, H_tilde_team))[:, :B]

    def hold(self, L: LowRankFactor, F_tilde_rep: np.ndarray, team: Team) -> Any:
        """L_c^-1 on every team, as `through_factor` takes it: here a `TeamOperator`. Collective."""
        return L.hold(team, self.width * self.columns.count, self.G.dtype.type)


@dataclass(frozen=True)
class SetModel:
    """The models of the traits over one sample set: G'G, what REML needs beside it, and the null records (parts, T)."""

    GG: SimilarityGram
    products: Products
    nulls: np.ndarray
    tested: TestedSnps

    def hold(self, part: SimilarityPart, column: int, team: Team) -> HeldTrait:
        """L_c L_c' = I + w G_c'G_c and F~ = sqrt(w) L_c^-1 G_c'F of one trait, on every team. Collective."""
        world, F, h2 = self.tested.world, self.products.design(column, part), h2_of_V(self.nulls[part.k, column])
        L = self.GG.covariance(part.kept, part.scale, world).at(h2)
        sums, F_tilde_rep = L.sums(F), L.columns(F.GF_rep)
        with world.phase("hand over factor", flop=L.flop_of_hold(team)):
            L_team = self.tested.hold(L, F_tilde_rep, team)
        F_tilde_team = np.asfortranarray(F_tilde_rep[L_team.rows], dtype=L_team.dtype)
        return HeldTrait(column, h2, kernel_weight(h2, part.scale), sums, L_team, F_tilde_team)

    def check_against_double(
        self, part: SimilarityPart, held: HeldTrait, snps: np.ndarray, test: SnpTest
    ) -> MixedCheck:
        """Test evenly spaced ones of the .bim rows ``snps`` with float64 products and factor. Collective."""
        tested, world, G, h2 = self.tested, self.tested.world, self.tested.G, held.h2
        chosen = snps[np.linspace(0, snps.size - 1, min(SAMPLED, snps.size, tested.width)).astype(np.int64)]
        packed = read_few(tested.bed, chosen, world)
        block = tested.decode(packed)
        mixed = tested.sums(held, block, tested.cross(part, block))

        X_rep = decoded(tested.columns, packed, tested.rows, tested.bed)
        G_double = G.in_double(world.comm)
        H_rep = G_double.project(X_rep, world.comm) * part.kept[:, None]
        G_double.close()
        L = self.GG.covariance(part.kept, part.scale, world).at(h2)
        F_tilde_rep = L.columns(self.products.design(held.column, part).GF_rep)
        H_tilde_rep = L.columns(H_rep)
        self.GG.factors.leave()
        # S_BL, b_B = (F'X - F~'H~) / (1-h2);  S_BR = (x'x - h~'h~) / (1-h2)
        F_rep = self.products.F_rep[:, self.products.columns(held.column)]
        plain, through_G = tested.columns.products(F_rep, X_rep), tested.columns.products(F_tilde_rep, H_tilde_rep)
        norm = block.stats.n * block.stats.variance
        double = sums_of(tested.columns, inner_products(h2, plain, through_G), norm)
        with world.together():
            return compare(mixed.fit(held.sums, test), double.fit(held.sums, test), world.log, tested.streamed)
