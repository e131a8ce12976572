"""Traits and covariates of synthetic samples: polygenic background, a few large effects and Gaussian noise.

y_j = sqrt(h2) g_j + sqrt(1 - h2) e_j, where g_j has variance 1 over the samples: a share ``causal_share`` of it from
the trait's own causal SNPs, the rest from the polygenic factors (traits beyond the number of factors mix them, and so
are genetically correlated). Sums run in a fixed order and without BLAS, so the values depend on the recipe only.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mpgls.study.synthetic_haplotypes import COVARIATES, NOISE, TRAITS, Families, Recipe, stream

SLAB = 256  # samples whose trait values are in memory at a time
POLYGENIC_FACTORS = 8  # independent polygenic backgrounds; more traits than that share them
LARGEST_POOL = 256


def factors_for(traits: int) -> int:
    """Polygenic backgrounds that ``traits`` traits need: their own each, up to a limit."""
    return min(traits, POLYGENIC_FACTORS)


def pool_for(traits: int, causal: int) -> int:
    """Causal SNPs to keep dosages of: ``causal`` of its own for each trait, up to a limit, then shared."""
    return max(causal, min(causal * traits, LARGEST_POOL))


class Traits:
    """Trait values by slabs of samples, from the genetic values that block makers summed up.

    ``polygenic`` (factors, n) int64 and ``dosages`` (pool, n) uint8 are the sums over all blocks. Attributes:
    ``effects`` (pool, traits) float64, effect of one copy of A1 in units of the trait; zero where not causal.
    """

    def __init__(
        self,
        recipe: Recipe,
        polygenic: np.ndarray,
        dosages: np.ndarray,
        traits: int,
        h2: float,
        causal: int,
        causal_share: float,
    ) -> None:
        self.recipe, self.traits = recipe, traits
        self._backgrounds = _standardise(polygenic.astype(np.float64))
        self._dosages = dosages
        counts = dosages.astype(np.int64).sum(axis=1)
        self._means = counts / recipe.samples
        variances = np.array([np.square(row - mean).mean() for row, mean in zip(dosages, self._means, strict=True)])
        self._loadings, self.effects = self._draw(causal, variances)
        self._noise = np.sqrt(1.0 - h2)
        self._scale(h2, causal_share if causal else 0.0)

    def _draw(self, causal: int, variances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Loadings (factors, traits) and unscaled effects (pool, traits): each causal SNP a like share of variance."""
        factors, pool = len(self._backgrounds), len(self._dosages)
        causal = min(causal, pool)
        own = stream(self.recipe.seed, TRAITS).permutation(pool)
        loadings, effects = np.zeros((factors, self.traits)), np.zeros((pool, self.traits))
        per_allele = np.divide(1.0, np.sqrt(variances), out=np.zeros(pool), where=variances > 0)
        for j in range(self.traits):
            rng = stream(self.recipe.seed, TRAITS, 1, j)
            loadings[:, j] = rng.standard_normal(factors) if self.traits > factors else np.arange(factors) == j
            has_own = (j + 1) * causal <= pool
            chosen = own[j * causal : (j + 1) * causal] if has_own else rng.choice(pool, causal, replace=False)
            sizes = rng.uniform(0.5, 1.5, size=causal) * rng.choice([-1.0, 1.0], size=causal)
            effects[chosen, j] = sizes * per_allele[chosen]
        return loadings, effects

    def _scale(self, h2: float, causal_share: float) -> None:
        """Scale loadings and effects so that the genetic values have variance h2 and its shares are as asked."""
        background, causal = np.zeros(self.traits), np.zeros(self.traits)
        for start, stop in self._slabs():
            background += np.square(self._sum(self._backgrounds[:, start:stop], self._loadings)).sum(axis=0)
            causal += np.square(self._sum(self._centred(start, stop), self.effects)).sum(axis=0)
        self._loadings *= np.sqrt(1.0 - causal_share) * _inverse_sd(background / self.recipe.samples)
        self.effects *= np.sqrt(causal_share) * _inverse_sd(causal / self.recipe.samples)
        total = np.zeros(self.traits)
        for start, stop in self._slabs():
            total += np.square(self._genetic(start, stop)).sum(axis=0)
        factor = np.sqrt(h2) * _inverse_sd(total / self.recipe.samples)
        self._loadings *= factor
        self.effects *= factor

    def slabs(self) -> Iterator[tuple[int, np.ndarray]]:
        """(first sample, values (samples of the slab, traits)) from the first sample to the last."""
        for start, stop in self._slabs():
            noise = stream(self.recipe.seed, NOISE, 0, start // SLAB).standard_normal((SLAB, self.traits))
            yield start, self._genetic(start, stop) + self._noise * noise[: stop - start]

    def causal_rows(self) -> Iterator[tuple[int, int, float]]:
        """(trait, position of the SNP, effect of one copy of A1) of every large effect."""
        for j in range(self.traits):
            for k in np.flatnonzero(self.effects[:, j]):
                yield j, int(self.recipe.causal[k]), float(self.effects[k, j])

    def _slabs(self) -> Iterator[tuple[int, int]]:
        n = self.recipe.samples
        return ((start, min(start + SLAB, n)) for start in range(0, n, SLAB))

    def _genetic(self, start: int, stop: int) -> np.ndarray:
        return self._sum(self._backgrounds[:, start:stop], self._loadings) + self._sum(
            self._centred(start, stop), self.effects
        )

    def _centred(self, start: int, stop: int) -> np.ndarray:
        return self._dosages[:, start:stop] - self._means[:, None]

    def _sum(self, rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """rows' weights, (samples, traits), added up row by row: BLAS would round by its number of threads."""
        total = np.zeros((rows.shape[1], self.traits))
        for row, weight in zip(rows, weights, strict=True):
            used = np.flatnonzero(weight)
            total[:, used] += row[:, None] * weight[used]
        return total


def covariates(recipe: Recipe, families: Families, count: int) -> np.ndarray:
    """(n, count) covariates: sex (0 male, 1 female), age in years (children younger), then standard normal ones."""
    rng = stream(recipe.seed, COVARIATES)
    n = recipe.samples
    age = np.where(families.founder >= 0, rng.integers(45, 76, size=n), rng.integers(18, 45, size=n))
    columns = [families.sexes(recipe.seed) - 1.0, age.astype(np.float64)]
    columns += [rng.standard_normal(n) for _ in range(2, count)]
    return np.stack(columns, axis=1)[:, :count]


def _standardise(rows: np.ndarray) -> np.ndarray:
    centred = rows - rows.mean(axis=1, keepdims=True)
    return centred * _inverse_sd(np.square(centred).mean(axis=1))[:, None]


def _inverse_sd(variance: np.ndarray) -> np.ndarray:
    return np.divide(1.0, np.sqrt(variance), out=np.zeros_like(variance), where=variance > 0)
